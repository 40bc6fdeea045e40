"""Measures on pictures whose truth is known, because the test makes them."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from time import thread_time

import numpy as np
import pytest

from vqmon.domain import CELLS, DEGRADATIONS, Colour, Frame
from vqmon.errors import PictureUnsupported
from vqmon.measures import MEASURES, findings, glance, measure
from vqmon.measures.calibrated import INDEXES
from vqmon.measures.index import Index, Term
from vqmon.patches import look

JPEG = Colour(full_range=True, matrix="bt601")
KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


@cache
def photograph(height=360, width=480, seed=0):
    """(h, w, 3) R'G'B' 0..255: dead leaves, the simplest picture with natural statistics, rough
    in places, and with the noise that every camera has.
    """
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 120.0, np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(900):
        radius = 4 / max(rng.random(), 0.04)
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        angle, shade = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4)
        top, left = int(max(0, cy - radius)), int(max(0, cx - radius))
        part = np.s_[top : int(cy + radius) + 1, left : int(cx + radius) + 1]
        dy, dx = y[part] - cy, x[part] - cx
        inside = dy**2 + dx**2 < radius**2
        slope = shade * (dy * np.sin(angle) + dx * np.cos(angle)) * 20 / radius
        colour = rng.uniform(25, 225, 3) * 0.4 + rng.uniform(25, 225) * 0.6
        picture[part][inside] = (colour + slope[..., None])[inside]
    texture = blurred(rng.normal(0, 1, (height, width)), 0.7)
    rough = blurred(rng.random((height, width)), 25)
    rough = np.clip((rough - np.median(rough)) / rough.std(), 0, None)
    sensor = rng.normal(0, 0.8, (height, width, 1))
    return np.clip(picture + (8 * rough * texture)[..., None] + sensor, 0, 255)


def blurred(picture, sigma):
    """Gaussian blur of the first two axes."""
    if sigma == 0:
        return picture
    reach = int(4 * sigma + 1)
    window = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(picture.ndim)]
        padded = np.pad(picture, padding, mode="reflect")
        length = picture.shape[axis]
        picture = sum(
            weight * np.take(padded, range(k, k + length), axis=axis)
            for k, weight in enumerate(window / window.sum())
        )
    return picture


def frame(rgb, colour=Colour(), chroma=(2, 2), **fields):
    """R'G'B' -> planes as a decoder would give them; chroma: subsampling down, across."""
    down, across = chroma
    kr, kb = KR_KB[colour.matrix]
    red, green, blue = np.moveaxis(np.asarray(rgb, np.float64), 2, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    scale, offset, spread = (1, 0, 1) if colour.full_range else (219 / 255, 16, 224 / 255)
    planes = [luma * scale + offset]
    for part, weight in ((blue, kb), (red, kr)):
        difference = (part - luma) / (2 * (1 - weight)) * spread + 128
        height, width = difference.shape
        padded = np.pad(difference, ((0, -height % down), (0, -width % across)), mode="edge")
        pieces = padded.reshape(padded.shape[0] // down, down, -1, across)
        planes.append(pieces.mean((1, 3)))
    stored = tuple(np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in planes)
    return Frame(stored, 0.0, datetime.now(UTC), colour=colour, **fields)


def grey(level=128, height=72, width=128, **fields):
    """A flat picture."""
    luma = np.full((height, width), level, np.uint8)
    chroma = np.full((height // 2, width // 2), 128, np.uint8)
    return Frame((luma, chroma, chroma), 0.0, datetime.now(UTC), **fields)


def names(picture):
    return {finding.name for finding in findings(picture, measure(picture))}


def severity(picture, name):
    found = {f.name: f.severity for f in findings(picture, measure(picture))}
    return found.get(name, 0)


def test_measures_are_named_and_every_name_is_unique():
    """Models find their inputs by name; two of one name would feed one of them wrongly."""
    measured = measure(frame(photograph()))

    assert measured.values.shape == (len(MEASURES),) == (len(set(MEASURES)),)
    assert measured.values.dtype == np.float32
    assert measured["luma_mean"] == measured.values[MEASURES.index("luma_mean")]


@pytest.mark.parametrize("level", [0, 16, 128, 235, 255])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (72, 128), (1080, 1920)])
def test_flat_pictures_measure_finite_whatever_their_size(level, size):
    """Black frames and test cards are ordinary; a NaN would poison a segment's score."""
    measured = measure(grey(level, *size))

    assert np.isfinite(measured.values).all()
    assert all(np.isfinite(cells).all() for cells in measured.cells.values())
    assert measured["noise"] == 0


def test_random_pictures_measure_finite():
    """Scrambled transport streams decode to garbage; garbage still gets numbers."""
    rng = np.random.default_rng(1)
    planes = tuple(rng.integers(0, 256, s, dtype=np.uint8) for s in ((90, 160), (45, 80), (45, 80)))

    measured = measure(Frame(planes, 0.0, datetime.now(UTC)))

    assert np.isfinite(measured.values).all()


def test_cells_are_three_by_three_and_say_where():
    """A finding's region is only as good as the map it comes from."""
    picture = photograph().copy()
    picture[:120, :160] = 0
    picture[240:, 320:] += np.random.default_rng(0).normal(0, 25, (120, 160, 1))

    cells = measure(frame(np.clip(picture, 0, 255))).cells

    assert set(cells) == {"blur", "noise", "blockiness", "luma", "black"}
    assert all(map_.shape == (3, 3) and map_.dtype == np.float32 for map_ in cells.values())
    assert cells["black"][0, 0] > 0.95
    assert cells["black"].sum() - cells["black"][0, 0] < 0.5
    assert np.unravel_index(cells["noise"].argmax(), (3, 3)) == (2, 2)
    assert cells["noise"][2, 2] == pytest.approx(25, rel=0.3)


def test_a_sharp_picture_has_no_finding():
    """Crying wolf on clean pictures is the first thing operators switch off."""
    assert names(frame(photograph())) == set()


def test_shallow_focus_is_not_blur():
    """A portrait is sharp where it matters; most of its area is out of focus on purpose."""
    picture = blurred(photograph(), 4).copy()
    picture[90:300, 120:330] = photograph()[90:300, 120:330]

    assert names(frame(picture)) == set()


def test_blur_is_found_and_its_severity_rises_with_sigma():
    """A stream that gets softer must never look better."""
    pictures = [frame(blurred(photograph(), sigma)) for sigma in (0, 1, 2, 3, 5)]

    severities = [severity(picture, "blur") for picture in pictures]

    assert severities == sorted(severities)
    assert severities[0] == 0
    assert severities[2] >= 2
    assert severities[-1] >= 4


def test_the_measured_blur_is_about_the_true_one():
    """The explanation names pixels; they must be the viewer's pixels."""
    picture = frame(blurred(photograph(), 2.5))

    [blur] = [f for f in findings(picture, measure(picture)) if f.name == "blur"]

    assert blur.unit == "px"
    assert blur.value == pytest.approx(2.5, rel=0.3)
    assert blur.value > blur.limit


@pytest.mark.parametrize("sigma", [6, 10, 16, 24])
@pytest.mark.parametrize("colour", [JPEG, Colour()])
def test_noise_is_measured_within_a_fifth(sigma, colour):
    """Noise limits are in luma levels; an estimate that is off moves every limit."""
    rng = np.random.default_rng(sigma)
    picture = photograph()[..., :1] * 0.6 + 50 + rng.normal(0, sigma, (360, 480, 1))

    measured = measure(frame(np.repeat(picture, 3, axis=2), colour))

    assert measured["noise"] == pytest.approx(sigma, rel=0.2)


def test_noise_is_found_and_its_severity_rises():
    """From barely visible grain to snow."""
    noise = np.random.default_rng(3).normal(0, 1, (360, 480, 1))
    pictures = [frame(np.clip(photograph() + s * noise, 0, 255)) for s in (0, 2, 9, 18, 40)]

    severities = [severity(picture, "noise") for picture in pictures]

    assert severities == sorted(severities)
    assert severities[:2] == [0, 0]
    assert severities[2] >= 1
    assert severities[-1] >= 4


def quantised(rgb, strength):
    """What block coding does: an 8x8 cosine transform, quantised in steps of `strength`."""
    frequency, place = np.mgrid[:8, :8]
    basis = np.cos(np.pi * (place + 0.5) * frequency / 8) / 2
    basis[0] /= np.sqrt(2)
    blocks = rgb.reshape(45, 8, 60, 8, 3).transpose(0, 2, 4, 1, 3)
    steps = strength * (1 + frequency + place)
    coefficients = np.rint(basis @ (blocks - 128) @ basis.T / steps) * steps
    decoded = basis.T @ coefficients @ basis + 128
    return np.clip(decoded.transpose(0, 3, 1, 4, 2).reshape(360, 480, 3), 0, 255)


def test_coding_damage_is_found_and_rises_with_the_quantiser():
    """The commonest fault of streaming, and the one that more bitrate mends."""
    pictures = [frame(quantised(photograph(), s)) for s in (1, 4, 12, 30)]

    severities = [severity(picture, "compression") for picture in pictures]

    assert severities == sorted(severities)
    assert severities[0] == 0
    assert severities[-1] >= 3


def test_the_coding_grid_is_found_at_any_phase():
    """Cropped and padded streams carry their grid anywhere."""
    coded = quantised(photograph(), 14)

    for shift in range(8):
        moved = frame(coded[shift:, 3:])
        measured = measure(moved)

        assert measured["block_across"] > 0.3
        assert measured["block_down"] > 0.3


def test_a_high_quantiser_speaks_against_a_doubtful_picture():
    """Where the decoder tells the quantiser it is evidence; alone it is none."""
    doubtful = frame(quantised(photograph(), 4))
    measured = measure(doubtful)

    def damage(qp):
        shown = findings(replace(doubtful, qp=qp), measured)
        return max((f.value for f in shown if f.name == "compression"), default=0.0)

    assert damage(48) > damage(None) >= damage(20)
    assert names(replace(frame(photograph()), qp=50.0)) <= {"compression"}


def test_banding_is_found_in_gradients_of_few_levels():
    """Skies in too few levels; the same sky in eight bits is clean."""
    sky = np.linspace(60, 200, 360)[:, None, None] + np.linspace(0, 30, 480)[None, :, None]
    sky = np.repeat(sky, 3, axis=2)

    severities = [severity(frame(np.floor(sky / s) * s), "banding") for s in (0.01, 6, 10)]

    assert severities[0] == 0
    assert severities[1] >= 1
    assert severities[2] >= 1


def test_exposure_is_found_both_ways_and_rises():
    """Two stops less or more than the camera should have taken."""
    linear = (photograph() / 255) ** 2.2

    under = [severity(_exposed(linear, -s), "underexposed") for s in (0, 2, 3, 4)]
    over = [severity(_exposed(linear, s), "overexposed") for s in (0, 2, 3, 4)]

    assert under == sorted(under)
    assert over == sorted(over)
    assert under[0] == over[0] == 0
    assert under[1] >= 1
    assert over[1] >= 1
    assert under[-1] >= 3


def _exposed(linear, stops):
    return frame(255 * np.clip(linear * 2.0**stops, 0, 1) ** (1 / 2.2))


def test_black_letters_on_white_are_not_overexposed():
    """Slates and charts are white by design."""
    page = np.full((360, 480, 3), 255.0)
    for row in range(12, 340, 16):
        for column in range(10, 460, 9):
            page[row : row + 9, column : column + 2] = 20

    assert "overexposed" not in names(frame(page))


def test_enlarged_pictures_are_called_upscaled_and_by_how_much():
    """Threefold detail loss has another remedy than defocus: a better source."""
    small = photograph(240, 320, seed=2)
    reach = np.arange(720 // 3 * 3) / 3
    rows = np.clip(reach, 0, 239)
    low = rows.astype(int)
    high, part = np.minimum(low + 1, 239), (rows - low)[:, None, None]
    tall = small[low] * (1 - part) + small[high] * part
    columns = np.clip(np.arange(960) / 3, 0, 319)
    low = columns.astype(int)
    high, part = np.minimum(low + 1, 319), (columns - low)[None, :, None]
    large = frame(tall[:, low] * (1 - part) + tall[:, high] * part)

    found = findings(large, measure(large))

    assert [f.name for f in found] == ["upscaled"]
    assert found[0].value == pytest.approx(3, rel=0.3)


def test_findings_say_value_limit_and_place():
    """Every finding can be explained and argued with."""
    picture = photograph().copy()
    picture[240:, 320:] += np.random.default_rng(0).normal(0, 30, (120, 160, 1))
    shown = frame(np.clip(picture, 0, 255), seconds=0.04)
    everywhere = frame(np.clip(photograph() + _snow(), 0, 255), seconds=0.04)

    for finding in findings(shown, measure(shown)) + findings(everywhere, measure(everywhere)):
        assert finding.name in DEGRADATIONS
        assert finding.value is not None
        assert finding.limit is not None
        assert finding.unit
        assert 0 <= finding.confidence <= 1
        assert finding.seconds == 0.04
        assert finding.region is None or set(finding.region) <= set(CELLS)


def _snow():
    return np.random.default_rng(5).normal(0, 30, (360, 480, 1))


def test_a_finding_names_the_cells_that_show_it():
    """The window at the left is burnt out: the room is not accused."""
    linear = (photograph() / 255) ** 2.2
    linear[:, :170] *= 12
    picture = _exposed(linear, 0)

    [found] = [f for f in findings(picture, measure(picture)) if f.name == "overexposed"]

    assert found.region == ("top-left", "left", "bottom-left")


# One picture, many ways to store it.

STEADY = [
    "luma_mean", "luma_std", "luma_p5", "luma_p95", "luma_entropy", "fine_contrast_mid",
    "half_contrast_mid", "view_contrast", "fine_shape", "half_shape", "fine_variance",
    "half_variance", "fine_side_shape", "half_diagonal_right", "slope1_mid", "sharp1",
    "sharp2", "colourfulness", "chroma_mean", "cb_mean", "cr_mean",
]  # fmt: skip
SPREAD = {
    "luma": 15.0, "fine_contrast": 0.6, "half_contrast": 0.6, "view_contrast": 0.4,
    "fine_shape": 0.5, "half_shape": 0.6, "fine_variance": 0.1, "half_variance": 0.15,
    "fine_side": 0.15, "half_diagonal": 0.2, "slope": 0.2, "sharp": 0.2, "colourfulness": 12.0,
    "chroma": 6.0, "cb": 8.0, "cr": 8.0, "luma_entropy": 0.8,
}  # fmt: skip
"""Standard deviations of these measures over photographs with opinions, rounded."""


def distance(a, b):
    """Largest difference in standard deviations."""

    def spread(name):
        return SPREAD[max((key for key in SPREAD if name.startswith(key)), key=len)]

    return max(abs(a[name] - b[name]) / spread(name) for name in STEADY)


@pytest.mark.parametrize(
    "colour",
    [Colour(full, matrix) for full in (True, False) for matrix in ("bt601", "bt709", "bt2020")],
)
def test_range_and_matrix_hardly_move_the_measures(colour):
    """A JPEG still, its PNG and its lossless video are one picture and deserve one score."""
    reference = measure(frame(photograph(), JPEG))

    assert distance(measure(frame(photograph(), colour)), reference) < 0.12


@pytest.mark.parametrize("chroma", [(1, 1), (1, 2), (2, 1), (1, 4), (4, 4)])
@pytest.mark.parametrize("colour", [JPEG, Colour()])
def test_chroma_subsampling_hardly_moves_the_measures(chroma, colour):
    """4:2:2 contribution feeds and 4:2:0 distribution of one programme must agree."""
    reference = measure(frame(photograph(), colour))

    assert distance(measure(frame(photograph(), colour, chroma)), reference) < 0.12


def test_odd_sizes_hardly_move_the_measures():
    """Cameras and players produce 479x359; one row less is no other picture."""
    reference = measure(frame(photograph(), JPEG))

    assert distance(measure(frame(photograph()[:359, :479], JPEG)), reference) < 0.3


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_picture_stored_turned_is_measured_upright(rotation):
    """Phones store portrait video lying on its side."""
    upright = frame(photograph())
    turned = tuple(np.ascontiguousarray(np.rot90(p, rotation // 90)) for p in upright.planes)
    stored = replace(upright, planes=turned, rotation=rotation)

    a, b = measure(upright), measure(stored)

    assert distance(a, b) < 0.05
    np.testing.assert_allclose(a.cells["luma"], b.cells["luma"], atol=1)


def test_interlaced_pictures_are_not_taken_for_sharp_or_noisy():
    """Combing between fields is neither detail nor noise."""
    moved = np.roll(photograph(), 6, axis=1)
    woven = photograph().copy()
    woven[1::2] = moved[1::2]
    still = measure(frame(photograph(), interlaced=True))

    combed = measure(frame(woven, interlaced=True))

    assert combed["sharp1"] == pytest.approx(still["sharp1"], abs=0.02)
    assert combed["noise"] == pytest.approx(still["noise"], abs=0.3)


def test_black_bars_do_not_change_what_the_picture_is():
    """A film in letterbox is as sharp and as natural as without."""
    film = photograph(264, 480)
    boxed = np.zeros((360, 480, 3), np.float32)
    boxed[48:312] = film

    a, b = measure(frame(film)), measure(frame(boxed))

    assert b["fine_shape"] == pytest.approx(a["fine_shape"], abs=0.25)
    assert b["sharp1"] == pytest.approx(a["sharp1"], abs=0.1)
    assert b["noise"] == pytest.approx(a["noise"], abs=0.5)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_high_dynamic_range_is_refused_with_a_remedy(transfer):
    """Its luma is no luma of ours: any score would be wrong."""
    with pytest.raises(PictureUnsupported, match="SDR rendition"):
        measure(grey(colour=Colour(transfer=transfer)))


@pytest.mark.parametrize("size", [(30, 64), (64, 16400)])
def test_pictures_too_small_or_too_large_are_refused_with_their_size(size):
    """Numbers from a 30-pixel thumbnail would mean nothing."""
    with pytest.raises(PictureUnsupported, match=f"{size[1]}x{size[0]}"):
        measure(grey(128, *size))


def test_the_same_picture_measures_the_same_whatever_came_before():
    """Scratch memory is reused between pictures of all sizes; nothing may leak through it."""
    picture = frame(photograph())
    first = measure(picture).values.copy()

    for size in ((1080, 1920), (33, 47), (64, 64), (720, 1280)):
        measure(grey(90, *size))
    again = measure(picture).values

    np.testing.assert_array_equal(first, again)


def test_random_offsets_move_patches_and_little_else():
    """Training sees other patches of the same picture; serving always the same."""
    picture = frame(photograph(720, 1280, seed=4))
    fixed = look(picture).corners.copy()

    drawn = look(picture, np.random.default_rng(1)).corners.copy()
    again = look(picture).corners.copy()

    np.testing.assert_array_equal(fixed, again)
    assert (drawn % 2 == 0).all()
    assert len(set(drawn[:, 1] % 8)) == 4
    assert np.abs(drawn - fixed).max() < 128
    assert distance(measure(picture), measure(picture, np.random.default_rng(1))) < 1


def test_wide_pictures_are_also_seen_at_half_resolution():
    """The detail of 4K lies at half its resolution; patches of native pixels alone miss it."""
    wide, narrow = look(grey(100, 1080, 1920)), look(grey(100, 720, 1280))

    assert len(wide.native) == 24
    assert len(wide.half) == 24 + 4 * 12
    assert len(narrow.native) == len(narrow.half) == 36
    assert all(np.count_nonzero(wide.cells == cell) >= 2 for cell in range(9))


# At a glance.


def test_exact_repeats_have_one_checksum_and_noise_has_another():
    """A frozen encoder repeats to the bit; a still scene in front of a sensor never does."""
    picture = frame(photograph())
    noisy = np.clip(photograph() + np.random.default_rng(1).normal(0, 1, (360, 480, 1)), 0, 255)

    first, second, other = (
        glance(picture),
        glance(replace(picture, position=4)),
        glance(frame(noisy)),
    )

    assert first.checksum == second.checksum
    assert first.checksum != other.checksum
    np.testing.assert_array_equal(first.luma, second.luma)
    assert np.abs(first.luma.astype(int) - other.luma).mean() > 0.3


def test_a_glance_speaks_full_range():
    """Black is 0 and white 255 in every stream, or limits would need two values."""
    dark, light, full = glance(grey(16)), glance(grey(235)), glance(grey(16, colour=JPEG))

    assert (dark.mean, light.mean, full.mean) == (0, 255, 16)
    assert (dark.minimum, light.maximum) == (0, 255)
    assert dark.black
    assert not light.black
    assert dark.std == 0


def test_a_logo_on_black_is_not_black():
    """A slate with a small bright logo shows something."""
    picture = grey(16, 720, 1280)
    picture.planes[0][40:140, 1000:1200] = 200

    assert not glance(picture).black


def test_a_glance_is_small_and_upright():
    """It is kept for many frames, and compared position by position."""
    assert glance(grey(50, 1080, 1920)).luma.shape == (36, 64)
    assert glance(grey(50, 2, 2)).luma.shape == (36, 64)
    assert glance(replace(grey(50), rotation=90)).luma.shape == (64, 36)


# The arithmetic of indexes.


def test_levels_rise_with_the_index_and_meet_at_the_steps():
    """Severity must never fall while damage rises."""
    index = Index(0.0, (Term("x", -10, 20, 1.0, 0.0),), (1.0, 2.0, 4.0))

    levels = [index.level({"x": x}) for x in (-9, 0, 0.5, 1, 1.5, 2, 3, 4, 9)]

    assert levels == [0, 0, 0.5, 1, 1.5, 2, 2.5, 3, 4]
    assert index.probability({"x": 1.0}) == pytest.approx(0.5)
    assert index.of({"x": 99}) == 20


def test_calibrated_indexes_read_known_measures():
    """A renamed measure must not silently leave an index."""
    for index in INDEXES.values():
        assert {term.name for term in index.terms} <= set(MEASURES)
        assert index.terms
        assert list(index.steps) == sorted(index.steps)


# Speed.


@pytest.mark.parametrize(("size", "limit"), [((1080, 1920), 0.060), ((2160, 3840), 0.075)])
def test_measuring_stays_far_from_whole_picture_cost(size, limit):
    """The figure of the README comes from benchmarks; this only catches a wrong turn."""
    picture = frame(np.tile(photograph(), (size[0] // 360, size[1] // 480, 1)))
    measure(picture)

    assert _fastest(lambda: measure(picture)) < limit
    assert _fastest(lambda: glance(picture)) < 0.003


def _fastest(call, times=7):
    """Seconds of processor time: other work on the machine must not fail this."""
    taken = []
    for _ in range(times):
        start = thread_time()
        call()
        taken.append(thread_time() - start)
    return min(taken)
