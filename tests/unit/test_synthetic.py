"""The synthetic source: the only material that every test may use, so its word must be good."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from vqmon.domain import DEGRADATIONS, FAULTS, Depth, Event, Frame, Media, Traffic
from vqmon.errors import SourceRejected
from vqmon.measures import findings, measure
from vqmon.sources.impairments import IMPAIRMENTS
from vqmon.sources.recipe import parse
from vqmon.sources.scene import make_scene
from vqmon.sources.synthetic import SyntheticSource
from vqmon.testing import EPOCH

SMALL = "size=320x180&fps=10"


def media(parameters: str, depth: Depth = Depth.ALL) -> list[Media]:
    with SyntheticSource(f"synthetic:?{parameters}").open(lambda: depth) as items:
        return list(items)


def frames(items: list[Media]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def traffic(items: list[Media]) -> list[Traffic]:
    return [item for item in items if isinstance(item, Traffic)]


def events(items: list[Media]) -> list[Event]:
    return [item for item in items if isinstance(item, Event)]


def blurred(plane: Any) -> Any:
    taps = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    taps /= taps.sum()
    rows = sum(t * plane[:, i : plane.shape[1] - 6 + i] for i, t in enumerate(taps))
    return sum(t * rows[i : plane.shape[0] - 6 + i] for i, t in enumerate(taps))


def mscn(luma: Any) -> Any:
    """Mean subtracted, contrast normalised (Mittal et al., "No-reference image quality
    assessment in the spatial domain", 2012)."""
    plane = luma.astype(float)
    mean = blurred(plane)
    deviation = np.sqrt(np.maximum(blurred(plane * plane) - mean * mean, 0))
    return (plane[3:-3, 3:-3] - mean) / (deviation + 1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_scene_has_the_statistics_of_a_photograph(seed: int) -> None:
    """Everything measured on it is worthless if the clean picture already looks unnatural.

    Undamaged photographs: MSCN values nearly Gaussian with neighbours that agree slightly, and
    a power spectrum that falls with a slope of 1.5 to 3 (Field 1987: about 2).
    """
    luma = make_scene(640, 360, seed).render(7.0)[0]

    normalised = mscn(luma)
    kurtosis = (normalised**4).mean() / (normalised**2).mean() ** 2
    neighbours = (normalised[:, 1:] * normalised[:, :-1]).mean()
    window = np.hanning(360)[:, None] * np.hanning(360)[None, :]
    power = np.abs(np.fft.rfft2((luma[:, 140:500] - luma.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(360)[:, None], np.fft.rfftfreq(360)[None, :])
    rings = [power[(radius >= r) & (radius < 1.2 * r)].mean() for r in (0.02, 0.2)]

    assert 2.3 < kurtosis < 4.5
    assert 0.02 < neighbours < 0.2
    assert 1.5 < np.log10(rings[0] / rings[1]) < 3.0


def test_the_scene_is_well_exposed_and_coloured() -> None:
    """A dark or flat picture would raise exposure findings of its own."""
    y, u, v = make_scene(640, 360, 1).render(0.0)

    assert 90 < y.mean() < 150
    assert y.std() > 25
    assert ((y < 20) | (y > 232)).mean() < 0.02
    assert u.std() > 5
    assert v.std() > 5


def test_every_picture_differs_from_the_last_a_little() -> None:
    """A still scene would be found frozen, a jumping one would starve any encoder."""
    scene = make_scene(320, 180, 1)

    pictures = [scene.render(number / 25)[0].astype(int) for number in range(40)]

    changes = [np.abs(b - a).mean() for a, b in pairwise(pictures)]
    assert min(changes) > 0.5
    assert max(changes) < 25


def test_the_scene_goes_on_for_ever_without_a_seam() -> None:
    """Layers join their own edges; a jump where they wrap would look like a cut."""
    scene = make_scene(320, 180, 1)
    wrap = scene.meadow.period / scene.meadow.speed

    before, after = (scene.render(wrap + step)[0].astype(int) for step in (-0.02, 0.02))

    assert np.abs(after - before).mean() < 25


def test_the_same_seed_gives_the_same_pictures() -> None:
    """Failures must be reproducible from the URL alone."""
    first = frames(media(f"{SMALL}&seconds=1&seed=5&faults=noise@0-1"))
    second = frames(media(f"{SMALL}&seconds=1&seed=5&faults=noise@0-1"))
    other = frames(media(f"{SMALL}&seconds=1&seed=6&faults=noise@0-1"))

    assert all(np.array_equal(a.planes[0], b.planes[0]) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0].planes[0], other[0].planes[0])


@pytest.mark.parametrize("name", sorted(IMPAIRMENTS.keys() - {"black", "slate"}))
def test_a_higher_level_does_more_damage(name: str) -> None:
    """Levels are the ground truth of severity."""
    clean = make_scene(320, 180, 1).render(0.0)

    damage = []
    for level in range(1, 6):
        damaged = IMPAIRMENTS[name](clean, level, np.random.default_rng(1))
        damage.append(np.abs(damaged[0].astype(int) - clean[0]).mean())

    assert damage[0] > 0.2
    assert all(a < b for a, b in pairwise(damage))


def test_impairments_leave_their_input_alone_and_keep_its_shape() -> None:
    """The scene is cached and shared: writing into it would damage every later picture."""
    clean = make_scene(322, 182, 1).render(0.0)
    copies = tuple(plane.copy() for plane in clean)

    for impair in IMPAIRMENTS.values():
        damaged = impair(clean, 4, np.random.default_rng(1))

        assert [p.shape for p in damaged] == [p.shape for p in clean]
        assert all(p.dtype == np.uint8 for p in damaged)
        assert all(np.array_equal(a, b) for a, b in zip(clean, copies, strict=True))


def test_blur_removes_detail_and_noise_adds_it() -> None:
    """The sign of the change is what detectors go by."""
    clean = make_scene(640, 360, 1).render(0.0)
    rng = np.random.default_rng(1)

    detail = [
        np.abs(np.diff(planes[0].astype(int), axis=1)).mean()
        for planes in (
            IMPAIRMENTS["blur"](clean, 3, rng),
            clean,
            IMPAIRMENTS["noise"](clean, 3, rng),
        )
    ]

    assert detail[0] < 0.5 * detail[1]
    assert detail[2] > 1.3 * detail[1]


def test_compression_shows_at_the_borders_of_blocks() -> None:
    """It is block damage, not just loss of detail."""
    y = IMPAIRMENTS["compression"](
        make_scene(640, 360, 1).render(0.0), 4, np.random.default_rng(1)
    )[0]

    step = np.abs(np.diff(y.astype(int), axis=1)).mean(axis=0)

    assert step[7::8].mean() > 2 * np.delete(step, np.s_[7::8]).mean()


def test_a_fault_is_there_exactly_when_it_was_staged() -> None:
    """The schedule in the URL is the ground truth that detectors are compared with."""
    pictures = frames(media(f"{SMALL}&seconds=3&faults=black@1-2"))

    dark = [frame.position for frame in pictures if frame.planes[0].max() == 16]

    assert dark == pytest.approx([1 + n / 10 for n in range(10)])


def test_freeze_repeats_one_picture_and_packets_shrink() -> None:
    """With keyframes only, tiny packets are all that shows of a freeze."""
    items = media(f"{SMALL}&seconds=4&gop=1&faults=freeze@1-3")

    held = [f.planes[0] for f in frames(items) if 1 <= f.position < 3]
    sizes = [
        p.size for t in traffic(items) for p in t.packets if 1.1 < p.position < 2.9 and not p.key
    ]
    clean = [p.size for t in traffic(items) for p in t.packets if p.position < 1 and not p.key]

    assert all(np.array_equal(held[0], picture) for picture in held)
    assert max(sizes) < 0.2 * min(clean)


def test_stutter_repeats_some_pictures_but_goes_on() -> None:
    """Unlike a freeze, it moves again and again."""
    pictures = [f.planes[0] for f in frames(media(f"{SMALL}&seconds=4&faults=stutter@0-4:3"))]

    moved = [not np.array_equal(a, b) for a, b in pairwise(pictures)]

    assert 8 <= sum(moved) <= 20


def test_a_lost_signal_is_told_and_positions_go_on_behind_the_gap() -> None:
    """The timeline of the URL holds across a reconnect."""
    items = media(f"{SMALL}&seconds=6&faults=no_signal@2-4")

    assert [(e.kind, e.position) for e in events(items)] == [
        ("opened", 0.0),
        ("lost", 2.0),
        ("reconnected", 4.0),
    ]
    assert events(items)[1].reason == "timeout_read"
    assert events(items)[2].seconds == pytest.approx(2.0)
    assert not [f for f in frames(items) if 2 <= f.position < 4]
    assert sum(t.seconds for t in traffic(items)) == pytest.approx(4.0)


def test_an_underfed_stream_brings_less_media_than_time() -> None:
    """That is what the word means, live or not."""
    slow = traffic(media(f"{SMALL}&seconds=4&faults=underfed@1-3:2"))[1:3]

    assert [round(t.seconds / t.wall_seconds, 2) for t in slow] == [0.55, 0.55]


def test_collapse_loss_jump_and_format_change_show_in_what_belongs_to_them() -> None:
    """Each stream fault is visible where a real one is."""
    items = media(
        f"{SMALL}&seconds=8&gop=1&faults=bitrate_collapse@1-2:4,packet_loss@3-4:5,"
        "timestamp_jump@5-5.5,format_changed@6-7"
    )
    rows = traffic(items)

    assert rows[1].bytes - 16_000 < 0.2 * (rows[0].bytes - 16_000)
    assert rows[3].corrupt_packets > 0
    assert rows[3].decode_errors == rows[3].corrupt_packets
    assert any(f.corrupt for f in frames(items) if 3 <= f.position < 4)
    assert {f.width for f in frames(items) if 6 <= f.position < 7} == {160}
    kinds = [(e.kind, e.position) for e in events(items)[1:]]
    assert kinds == [("timestamp_jump", 5.0), ("format_changed", 6.0), ("format_changed", 7.0)]


def test_sound_faults_show_in_the_levels() -> None:
    """Sound is reported as levels only; each of its faults must be in them."""
    items = media(
        f"{SMALL}&seconds=4&faults=audio_silence@1-2,audio_clipping@2-3,audio_loudness@3-4:5"
    )
    clean, silent, clipped, loud = (t.audio for t in traffic(items))

    assert clean is not None
    assert silent is not None
    assert clipped is not None
    assert loud is not None
    assert -30 < clean.loudness_lufs < -17
    assert silent.rms_dbfs == -120
    assert clipped.clipped > 0.01
    assert loud.loudness_lufs > clean.loudness_lufs + 8
    assert all(t.audio is None for t in traffic(media(f"{SMALL}&seconds=1&audio=0")))


def test_every_finding_in_the_vocabulary_can_be_staged() -> None:
    """A fault nobody can stage is a fault nobody tests."""
    clean = media(f"{SMALL}&seconds=1")

    for name in DEGRADATIONS + FAULTS:
        staged = media(f"{SMALL}&seconds=1&faults={name}@0.2-0.8:5")

        assert fingerprint(staged) != fingerprint(clean), name


def fingerprint(items: list[Media]) -> object:
    return (
        [(f.position, int(f.planes[0].sum()), f.corrupt) for f in frames(items)],
        [(t.position, round(t.wall_seconds, 3), t.bytes, t.audio) for t in traffic(items)],
        [e.kind for e in events(items)],
    )


def test_traffic_accounts_for_every_packet_and_second() -> None:
    """Sums over traffic are the bitrate, the frame rate and the availability."""
    items = media("size=320x180&fps=25&seconds=7.4&kbps=800&gop=2")
    rows = traffic(items)

    assert sum(len(t.packets) for t in rows) == len(frames(items)) == 185
    assert sum(t.seconds for t in rows) == pytest.approx(7.4)
    assert [t.position for t in rows] == pytest.approx([1, 2, 3, 4, 5, 6, 7, 7.4])
    video = sum(p.size for t in rows for p in t.packets if p.position < 6)
    assert video * 8 / 6 / 1000 == pytest.approx(800, rel=0.1)
    assert [p.position for t in rows for p in t.packets if p.key] == pytest.approx([0, 2, 4, 6])


@pytest.mark.parametrize(("depth", "expected"), [(Depth.KEYFRAMES, 2), (Depth.REFERENCE, 10)])
def test_shallow_decoding_leaves_pictures_out_and_counts_them(depth: Depth, expected: int) -> None:
    """Packets are all seen; pictures left out on purpose are in `skipped`."""
    items = media(f"{SMALL}&seconds=2&gop=1", depth)

    assert len(frames(items)) == expected
    assert sum(len(t.packets) for t in traffic(items)) == 20
    assert frames(items)[1].skipped == (9 if depth is Depth.KEYFRAMES else 1)


def test_a_live_source_keeps_to_the_clock_and_stops_when_told() -> None:
    """Live pacing is what `make demo` and supervisor tests rely on."""
    source = SyntheticSource(f"synthetic:?{SMALL}&live=1")
    make_scene(320, 180, 1)
    threading.Timer(1.5, source.stop).start()
    began = time.monotonic()

    with source.open() as items:
        seen = frames(list(items))

    assert source.live
    assert 1.4 < time.monotonic() - began < 3.0
    assert 10 <= len(seen) <= 17
    assert source.status.state == "stopped"


def test_a_live_source_drops_late_pictures_and_counts_them() -> None:
    """A slow reader must never make a live source lag."""
    source = SyntheticSource(f"synthetic:?{SMALL}&live=1&seconds=4")
    make_scene(320, 180, 1)
    began = time.monotonic()

    skipped = late = 0
    with source.open() as items:
        for item in items:
            if isinstance(item, Frame):
                skipped += item.skipped
                if item.position == pytest.approx(1.0):
                    time.sleep(1.5)
            elif isinstance(item, Traffic):
                late += item.late_frames

    assert time.monotonic() - began < 5.0
    assert skipped == late
    assert late >= 5


def test_stopping_ends_a_source_whose_signal_is_away() -> None:
    """Nothing is yielded then, so `stop` must end the wait itself."""
    source = SyntheticSource(f"synthetic:?{SMALL}&live=1&faults=no_signal@0.5-3600")
    threading.Timer(1.0, source.stop).start()
    began = time.monotonic()

    with source.open() as items:
        list(items)

    assert time.monotonic() - began < 3.0


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("size=640", "WIDTHxHEIGHT"),
        ("size=641x360", "even"),
        ("size=64000x36000", "within 64 to 4096"),
        ("fps=abc", "not a number"),
        ("fps=0", "within 1 to 120"),
        ("fps=nan", "within 1 to 120"),
        ("live=yes", "neither 0 nor 1"),
        ("fpz=25", "did you mean 'fps'"),
        ("faults=blakc@1-2", "did you mean 'black'"),
        ("faults=black", "NAME@START-END"),
        ("faults=black@5-2", "then end"),
        ("faults=black@1-2:9", "level 1 to 5"),
        ("faults=black@1-inf", "then end"),
    ],
)
def test_a_wrong_parameter_is_refused_with_what_is_allowed(parameters: str, told: str) -> None:
    """Whoever mistypes a URL reads the remedy in the message."""
    with pytest.raises(SourceRejected) as refused:
        SyntheticSource(f"synthetic:?{parameters}")

    assert told in str(refused.value)
    assert "faults:" in str(refused.value)
    assert refused.value.reason == "invalid_data"


def test_a_bare_url_is_enough() -> None:
    """`synthetic:` alone must do something sensible."""
    recipe = parse("synthetic:")

    assert (recipe.width, recipe.height, recipe.fps, recipe.seconds) == (640, 360, 25.0, 60.0)


def test_rendering_leaves_time_for_measuring() -> None:
    """640x360 at 25 pictures a second must cost well under a quarter of a core."""
    scene = make_scene(640, 360, 1)
    scene.render(0.0)
    began = time.process_time()

    for number in range(100):
        scene.render(number / 25)

    assert (time.process_time() - began) / 100 < 0.005


@pytest.mark.parametrize(
    ("width", "height", "seed"), [(640, 360, 1), (640, 360, 2), (1280, 720, 1)]
)
def test_nothing_is_found_wrong_with_the_clean_scene(width: int, height: int, seed: int) -> None:
    """Whatever is found in a staged stream must have been staged."""
    scene = make_scene(width, height, seed)

    for at in (0.0, 21.0):
        frame = Frame(scene.render(at), at, EPOCH)

        assert findings(frame, measure(frame)) == []


@pytest.mark.parametrize(
    "name", ["blur", "noise", "compression", "banding", "underexposed", "overexposed"]
)
def test_what_is_staged_strongly_is_found_under_its_name(name: str) -> None:
    """Damage that no detector can see would teach nothing."""
    damaged = IMPAIRMENTS[name](make_scene(640, 360, 1).render(7.0), 4, np.random.default_rng(1))
    frame = Frame(damaged, 7.0, EPOCH)

    found = {finding.name: finding.severity for finding in findings(frame, measure(frame))}

    assert found.get(name, 0) >= 2
    assert max(found, key=lambda it: found[it]) == name
