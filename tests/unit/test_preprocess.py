"""One path from any kind of picture to a model's input."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vqmon.domain import Colour, Frame, Stream
from vqmon.errors import PictureUnsupported
from vqmon.measures import MEASURES, Measures, glance
from vqmon.preprocess import prepare
from vqmon.sources import open_source

SIZE = (288, 384)


@pytest.fixture(scope="module")
def picture():
    """(h, w, 3) R'G'B': coloured discs in the light of a slope, with a camera's noise."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    rgb = np.repeat((60 + 100 * x / SIZE[1])[..., None], 3, axis=2)
    for _ in range(400):
        radius = 4 / max(rng.random(), 0.06)
        inside = (y - rng.uniform(0, SIZE[0])) ** 2 + (x - rng.uniform(0, SIZE[1])) ** 2
        rgb[inside < radius**2] = rng.uniform(40, 210) * 0.7 + rng.uniform(40, 210, 3) * 0.3
    rgb += rng.normal(0, 2, (*SIZE, 1))
    return np.asarray(np.clip(np.rint(rgb), 0, 255), np.uint8)


def first_frame(path):
    """As `vqmon score` decodes it."""
    with open_source(Stream(path.name, str(path))).open() as media:
        return next(item for item in media if isinstance(item, Frame))


def stored(picture, path, kind):
    """The picture in a file of some kind."""
    if kind in {"png", "webp"}:
        Image.fromarray(picture).save(path, kind, lossless=True)
    elif kind == "jpeg":
        Image.fromarray(picture).save(path, "JPEG", quality=98, subsampling="4:2:0")
    else:
        path.write_bytes(_lossless(picture, *kind))
    return first_frame(path)


def _lossless(picture, matrix, full_range, pixel_format):
    """H.264 at quantiser 0, its range and matrix signalled."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = pixel_format
        space = {"bt709": 1, "bt601": 5}[matrix]
        context = stream.codec_context
        context.colorspace, context.color_range = space, 2 if full_range else 1
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format=pixel_format,
            dst_colorspace=space,
            src_color_range=2,
            dst_color_range=2 if full_range else 1,
        )
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


WHAT_MODELS_WEIGH = {
    "luma_mean": 2.0, "luma_std": 1.5, "luma_p5": 3.0, "luma_p95": 3.0, "fine_contrast_mid": 0.08,
    "half_contrast_mid": 0.06, "view_contrast": 0.05, "fine_shape": 0.3, "half_shape": 0.1,
    "fine_variance": 0.03, "half_variance": 0.02, "slope1_mid": 0.05, "sharp1": 0.03,
    "noise": 0.4, "colourfulness": 1.5, "chroma_mean": 1.0,
}  # fmt: skip
"""Measures and how far they may differ: about a sixth of their spread over photographs."""


@pytest.mark.parametrize(
    "kind",
    [
        "png",
        "webp",
        "jpeg",
        ("bt709", False, "yuv420p"),
        ("bt601", False, "yuv420p"),
        ("bt709", True, "yuvj420p"),
        ("bt601", True, "yuvj420p"),
        ("bt709", False, "yuv422p"),
        ("bt709", False, "yuv444p"),
    ],
    ids=str,
)
def test_one_picture_measures_alike_in_every_kind_of_file(picture, tmp_path, kind):
    """PIL and PyAV differ by up to 43 levels on one JPEG; through one path nothing differs."""
    reference = prepare(stored(picture, tmp_path / "reference.png", "png")).measures

    measured = prepare(stored(picture, tmp_path / "picture", kind)).measures

    apart = {
        name: (measured[name], reference[name])
        for name, most in WHAT_MODELS_WEIGH.items()
        if abs(measured[name] - reference[name]) > most
    }
    assert not apart


def test_a_glance_agrees_too(picture, tmp_path):
    """Black and freeze limits are in full-range luma, whatever the file."""
    reference = glance(stored(picture, tmp_path / "reference.png", "png"))
    limited = glance(stored(picture, tmp_path / "clip.mp4", ("bt601", False, "yuv420p")))

    assert limited.mean == pytest.approx(reference.mean, abs=1)
    assert limited.maximum == pytest.approx(reference.maximum, abs=3)


def grey(height=90, width=160, **fields):
    luma = np.full((height, width), 120, np.uint8)
    chroma = np.full((height // 2, width // 2), 128, np.uint8)
    return Frame((luma, chroma, chroma), 7.5, datetime.now(UTC), **fields)


def test_what_a_model_asks_for_is_there_by_name():
    """A model folder names its inputs; the scorer feeds them from this mapping."""
    prepared = prepare(grey())

    assert prepared.position == 7.5
    assert isinstance(prepared.measures, Measures)
    assert prepared.inputs["measures"] is prepared.measures.values
    assert prepared.inputs["measures"].shape == (len(MEASURES),)
    assert sum(array.nbytes for array in prepared.inputs.values()) < 1_000_000


def test_prepared_input_outlives_the_next_picture():
    """Batches hold several pictures; scratch memory must not run through them."""
    first = prepare(grey())
    kept = first.inputs["measures"].copy()
    cells = first.measures.cells["luma"].copy()

    prepare(replace(grey(), planes=tuple(255 - plane for plane in grey().planes)))

    np.testing.assert_array_equal(first.inputs["measures"], kept)
    np.testing.assert_array_equal(first.measures.cells["luma"], cells)


def test_preparing_twice_gives_the_same_numbers_to_the_bit():
    """The same input must get the same score, every time."""
    rng = np.random.default_rng(2)
    luma = rng.integers(0, 256, (90, 160), dtype=np.uint8)
    frame = replace(grey(), planes=(luma, *grey().planes[1:]))

    np.testing.assert_array_equal(
        prepare(frame).inputs["measures"], prepare(frame).inputs["measures"]
    )


def test_training_may_draw_other_patches():
    """Augmentation belongs to the path of serving, not to a second one."""
    rng = np.random.default_rng(2)
    luma = rng.integers(0, 256, (360, 640), dtype=np.uint8)
    frame = replace(grey(360, 640), planes=(luma, *grey(360, 640).planes[1:]))

    drawn = prepare(frame, np.random.default_rng(1)).inputs["measures"]

    assert not np.array_equal(drawn, prepare(frame).inputs["measures"])
    assert np.isfinite(drawn).all()


def test_unsupported_pictures_say_what_to_do():
    """The pipeline stores the segment as unscored with this text."""
    with pytest.raises(PictureUnsupported, match="SDR"):
        prepare(grey(colour=Colour(transfer="pq")))
    with pytest.raises(PictureUnsupported, match="at least 32"):
        prepare(grey(16, 16))
