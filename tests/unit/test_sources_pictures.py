"""Pictures of any pixel format become 8-bit planes with the right colour."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.media import write_clip
from vqmon.domain import Colour, Frame, Stream
from vqmon.sources import open_source
from vqmon.sources.pictures import PictureReader, rounded, too_large, view


def picture(name: str, width: int = 33, height: int = 17) -> av.VideoFrame:
    rng = np.random.default_rng(7)
    rgb = rng.integers(16, 235, (height, width, 3), np.uint8)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=name)


def first_frame(path: Path) -> Frame:
    with open_source(Stream("x", str(path))).open() as media:
        return next(item for item in media if isinstance(item, Frame))


@pytest.mark.parametrize(
    ("name", "chroma"),
    [
        ("yuv420p", (9, 17)),
        ("yuvj420p", (9, 17)),
        ("yuva420p", (9, 17)),
        ("yuv422p", (17, 17)),
        ("yuv444p", (17, 33)),
        ("yuv411p", (17, 9)),
    ],
)
def test_planar_pictures_are_viewed_in_place_at_odd_sizes(
    name: str, chroma: tuple[int, int]
) -> None:
    """No copy, no line padding, chroma rounded up: 33 x 17 has every edge case."""
    decoded = picture(name)

    planes, _, bits = PictureReader().read(decoded)

    assert [p.shape for p in planes] == [(17, 33), chroma, chroma]
    assert bits == 8
    for plane, theirs in zip(planes, decoded.planes, strict=False):
        assert plane.__array_interface__["data"][0] == theirs.buffer_ptr
        assert not plane.flags.writeable


@pytest.mark.parametrize("name", ["yuv420p10le", "yuv422p10le", "yuv444p12le", "gray10le"])
def test_deep_pictures_are_rounded_to_eight_bits(name: str) -> None:
    """Truncation would darken every picture by half a step; dithering would add noise."""
    decoded = picture(name)
    samples = np.asarray(view(decoded.planes[0], np.uint16), np.float64)
    bits = 12 if "12" in name else 10

    planes, _, native = PictureReader().read(decoded)

    assert native == bits
    expected = np.floor(samples / 2 ** (bits - 8) + 0.5).clip(0, 255)
    assert np.array_equal(planes[0], expected)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_rounding_is_right_at_both_ends(bits: int) -> None:
    """White must not wrap around to black."""
    top = 2**bits - 1
    samples = np.array([[0, 1 << (bits - 8), top, top - 1]], np.uint16)

    assert rounded(samples, bits).tolist() == [[0, 1, 255, 255]]


@pytest.mark.parametrize("name", ["nv12", "yuyv422", "uyvy422", "p010le", "nv16"])
def test_interleaved_pictures_keep_their_luma(name: str) -> None:
    """Hardware decoders and capture cards give these; luma must come through unchanged."""
    decoded = picture(name, 32, 16)
    same = decoded.reformat(format="yuv420p10le" if name == "p010le" else "yuv422p")

    planes, colour, _ = PictureReader().read(decoded)

    expected, _, _ = PictureReader().read(same)
    assert np.abs(planes[0].astype(int) - expected[0]).max() <= 1
    assert not colour.full_range


@pytest.mark.parametrize("name", ["rgb24", "bgra", "gbrp", "pal8", "rgb48le", "gbrp10le"])
def test_rgb_becomes_full_range_yuv(name: str) -> None:
    """White stays 255 and red stays red: the converter must not squeeze to 16..235."""
    rgb = np.zeros((16, 32, 3), np.uint8)
    rgb[:, :16] = 255
    rgb[:, 16:] = (255, 0, 0)
    source = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    decoded = _palette(source) if name == "pal8" else source.reformat(format=name)

    (luma, _, red), colour, _ = PictureReader().read(decoded)

    assert colour == Colour(full_range=True, matrix="bt601")
    assert luma[8, 4] >= 254
    assert abs(int(luma[8, 28]) - 76) <= 2  # 0.299 * 255
    assert red[4, 14] >= 250


def _palette(source: av.VideoFrame) -> av.VideoFrame:
    graph = av.filter.Graph()
    buffer = graph.add_buffer(
        width=source.width,
        height=source.height,
        format=source.format,
        time_base=Fraction(1, 25),
    )
    split, make = graph.add("split"), graph.add("palettegen")
    use, sink = graph.add("paletteuse", "dither=none"), graph.add("buffersink")
    buffer.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(make, 1, 0)
    make.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    source.pts = 0
    graph.push(source)
    graph.push(None)
    made = graph.pull()
    assert isinstance(made, av.VideoFrame)
    return made


def test_grey_pictures_have_neutral_chroma() -> None:
    """A black-and-white camera is not a green picture."""
    (luma, u, v), _, _ = PictureReader().read(picture("gray"))

    assert luma.shape == (17, 33)
    assert u.shape == v.shape == (9, 17)
    assert set(np.unique(u)) | set(np.unique(v)) == {128}


def test_a_view_outlives_its_picture() -> None:
    """Frames are kept for evidence after the decoder has gone on."""
    decoded = picture("yuv420p")
    copy = view(decoded.planes[0]).copy()

    luma = PictureReader().read(decoded)[0][0]
    del decoded

    assert np.array_equal(luma, copy)


@pytest.mark.parametrize(
    ("space", "transfer", "height", "expected"),
    [
        (1, 1, 480, Colour(matrix="bt709")),
        (2, 2, 1080, Colour(matrix="bt709")),
        (2, 2, 576, Colour(matrix="bt601")),
        (6, 6, 1080, Colour(matrix="bt601")),
        (9, 16, 1080, Colour(matrix="bt2020", transfer="pq")),
        (9, 18, 1080, Colour(matrix="bt2020", transfer="hlg")),
    ],
)
def test_colour_follows_the_tags_and_else_the_custom_of_the_field(
    space: int, transfer: int, height: int, expected: Colour
) -> None:
    """Unspecified HD is BT.709 and SD is BT.601, as players take it."""
    decoded = av.VideoFrame(64, height, "yuv420p")
    decoded.colorspace, decoded.color_trc = space, transfer

    assert PictureReader().read(decoded)[1] == expected


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA"])
def test_png_files_are_read_with_their_brightness(tmp_path: Path, mode: str) -> None:
    """Palettes, alpha and bilevel pictures are common among screenshots."""
    grey = np.zeros((64, 96), np.uint8)
    grey[:, 48:] = 255
    path = tmp_path / "a.png"
    Image.fromarray(grey).convert(mode).save(path)

    frame = first_frame(path)

    assert (frame.height, frame.width) == (64, 96)
    assert frame.colour.full_range
    assert int(frame.planes[0][32, 10]) <= 1
    assert int(frame.planes[0][32, 90]) >= 254


@pytest.mark.parametrize(("suffix", "lossless"), [("jpg", False), ("webp", False), ("webp", True)])
def test_jpeg_and_webp_files_are_one_frame_videos(
    tmp_path: Path, suffix: str, lossless: bool
) -> None:
    """Scored like any other frame; JPEG is full range and BT.601 by definition."""
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if lossless else {"quality": 95}
    ramp = np.tile(np.linspace(0, 255, 128, dtype=np.uint8), (64, 1))
    Image.fromarray(np.stack([ramp] * 3, -1)).save(path, **options)

    with open_source(Stream("x", str(path))).open() as media:
        frames = [item for item in media if isinstance(item, Frame)]

    [frame] = frames
    assert frame.key
    assert frame.position == 0
    assert frame.colour.matrix == "bt601"
    full = suffix == "jpg" or lossless
    assert frame.colour.full_range == full
    white = 255 if full else 235
    assert abs(int(frame.planes[0][32, 127]) - white) <= 3


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_rotation_is_told_clockwise_and_planes_stay_as_stored(
    tmp_path: Path, clockwise: int
) -> None:
    """Phones store landscape and say how to turn it."""
    plain, turned = write_clip(tmp_path / "a.mp4", 0.4, sound=False), tmp_path / "b.mp4"
    with av.open(str(plain)) as source, av.open(str(turned), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(-clockwise)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)

    frame = first_frame(turned)

    assert frame.rotation == clockwise
    assert (frame.width, frame.height) == (320, 180)


def test_too_large_is_by_side_and_by_area() -> None:
    """8K passes; a bomb of 30000 x 30000 does not, nor a strip 20000 long."""
    assert not too_large(7680, 4320)
    assert not too_large(12000, 12000)
    assert too_large(30000, 30000)
    assert too_large(20000, 10)


def test_a_photograph_with_exif_data_is_read(tmp_path: Path) -> None:
    """Nearly every photograph of a camera has some; PyAV has no name for that side data."""
    path = tmp_path / "camera.jpg"
    exif = Image.Exif()
    exif[0x0110] = "camera"
    Image.new("RGB", (64, 48), "grey").save(path, exif=exif)

    with open_source(Stream("camera", str(path))).open() as media:
        frames = [item for item in media if isinstance(item, Frame)]

    assert [(frame.width, frame.height) for frame in frames] == [(64, 48)]


def test_photographs_with_a_colour_profile_are_read(tmp_path: Path) -> None:
    """Cameras and phones write one into every picture; asking PyAV for side data of several such
    pictures killed the process, so this is tried in one of its own.
    """
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        Image.fromarray(picture).save(tmp_path / name, icc_profile=profile)

    done = subprocess.run(
        [sys.executable, "-m", "vqmon", "score", *names, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == len(names)
