"""Filters on real, tiny clips: what comes out must be the same clip, only better looking."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests import spoiled
from tests.media import write_clip
from vqmon_enhancement.clip import Unfit, examine
from vqmon_enhancement.remedies import REMEDIES, Recipe, Step
from vqmon_enhancement.rendering import Cancelled, pieces, render, suffix_for

GENTLE = Recipe((Step("deblock", 1),))


def small(path: Path, seconds: float = 1.0, **options: Any) -> Path:
    return write_clip(path, seconds, width=160, height=96, **options)


def enhanced(source: Path, target: Path, recipe: Recipe = GENTLE) -> Path:
    return render(examine(source), recipe, target).path


def shown(path: Path) -> tuple[list[float], Any]:
    """(times of the pictures, the last picture)."""
    with av.open(str(path)) as file:
        pictures = list(file.decode(video=0))
    return [float(it.time) for it in pictures], pictures[-1]


def packets(path: Path) -> list[tuple[float, bytes]]:
    """The sound: when and what."""
    with av.open(str(path)) as file:
        return [
            (round(float(it.dts * it.time_base), 3), bytes(it))
            for it in file.demux(audio=0)
            if it.dts is not None
        ]


@pytest.mark.parametrize("remedy", REMEDIES)
def test_every_remedy_gives_pictures_that_show_the_same(remedy: str, tmp_path: Path) -> None:
    """A filter missing from a build, or an argument it does not know, must show here."""
    clip = examine(small(tmp_path / "a.mp4", 0.4, sound=False))

    for strength in (1, 5):
        made = render(clip, Recipe((Step(remedy, strength),)), tmp_path / "b.mp4")

        assert made.pictures == 10
        # A bright clip that is stretched burns out, which likeness is there to tell.
        lit = REMEDIES[remedy].stage == 4 and strength == 5
        assert made.likeness > (0.6 if lit else 0.9), strength


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_sound_and_time_stay_as_they_are(suffix: str, tmp_path: Path) -> None:
    """Sound is copied to the byte, and no picture moves against it."""
    source = small(tmp_path / f"a.{suffix}", container="mpegts" if suffix == "ts" else None)

    target = enhanced(source, tmp_path / "b.mp4")

    before, after = shown(source)[0], shown(target)[0]
    heard, still_heard = packets(source), packets(target)
    assert np.diff(after) == pytest.approx(np.diff(before), abs=1e-3)
    if suffix != "ts":  # a transport stream wraps each packet anew
        assert [it for _, it in heard] == [it for _, it in still_heard]
    lead = heard[0][0] - before[0]
    assert still_heard[0][0] - after[0] == pytest.approx(lead, abs=0.002)
    assert still_heard[-1][0] - after[-1] == pytest.approx(heard[-1][0] - before[-1], abs=0.03)


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    """A camera that drops pictures must not run fast afterwards."""
    times = [0.0, 0.04, 0.08, 0.4, 0.44, 1.0, 1.04]
    spoiled.with_times(tmp_path / "a.mp4", times)

    target = enhanced(tmp_path / "a.mp4", tmp_path / "b.mp4")

    assert shown(target)[0] == pytest.approx(times, abs=2e-3)


@pytest.mark.parametrize(("space", "range_"), [(1, 1), (1, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("remedy", ["deblock", "lift"])
def test_colour_is_kept_and_tagged(space: int, range_: int, remedy: str, tmp_path: Path) -> None:
    """A remedy through R'G'B' must come back by the same matrix and range."""
    tagged(tmp_path / "a.mp4", space, range_)

    target = enhanced(tmp_path / "a.mp4", tmp_path / "b.mp4", Recipe((Step(remedy, 1),)))

    before, after = shown(tmp_path / "a.mp4")[1], shown(target)[1]
    assert int(after.colorspace) == space
    assert int(after.color_range) == range_
    for plane in (1, 2) if remedy == "lift" else (0, 1, 2):
        a, b = (np.frombuffer(it.planes[plane], np.uint8).mean() for it in (before, after))
        assert b == pytest.approx(a, abs=12 if remedy == "lift" else 1.5)


def tagged(path: Path, space: int, range_: int) -> None:
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "10"}
        stream.codec_context.colorspace, stream.codec_context.color_range = space, range_
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        rng = np.random.default_rng(2)
        luma = rng.integers(60, 120, (96, 160), np.uint8)
        chroma = [np.full((48, 80), value, np.uint8) for value in (110, 150)]
        flat = np.concatenate([luma.ravel(), *(it.ravel() for it in chroma)])
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(flat.reshape(144, 160), format="yuv420p")
            frame.colorspace, frame.color_range, frame.pts = space, range_, index
            frame.time_base = Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def test_the_shape_of_pixels_is_kept(tmp_path: Path) -> None:
    tagged(tmp_path / "a.mp4", 1, 1)

    target = enhanced(tmp_path / "a.mp4", tmp_path / "b.mp4")

    with av.open(str(target)) as file:
        assert file.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_an_upright_film_stays_upright(tmp_path: Path) -> None:
    spoiled.turned(tmp_path / "a.mp4")
    before = shown(tmp_path / "a.mp4")[1].rotation

    target = enhanced(tmp_path / "a.mp4", tmp_path / "b.mp4")

    assert before
    assert shown(target)[1].rotation == before


def test_combed_pictures_are_seen_as_fields_and_joined(tmp_path: Path) -> None:
    """Many files carry fields without saying so."""
    rng = np.random.default_rng(4)
    texture = np.kron(rng.integers(30, 220, (12, 40), np.uint8), np.ones((8, 8), np.uint8))

    def picture(index: int) -> Any:
        early, late = (np.roll(texture, 8 * index + shift, axis=1) for shift in (0, 4))
        woven = early[:96, :160].copy()
        woven[1::2] = late[1:96:2, :160]
        return np.repeat(woven[:, :, None], 3, axis=2)

    source = small(tmp_path / "a.mp4", picture=picture, sound=False, options={"crf": "8"})
    clip = examine(source)

    made = render(clip, Recipe((Step("bwdif", 1),)), tmp_path / "b.mp4")

    assert clip.fields in {"tff", "bff"}
    assert made.pictures == 25
    assert not examine(made.path).fields


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"pixel_format": "yuv444p"}, "pixel format yuv444p"),
        ({"pixel_format": "yuv420p10le", "codec": "libx265"}, "10 bits a sample"),
        ({"width": 161, "height": 97, "codec": "ffv1"}, "even sides"),
    ],
)
def test_what_would_be_spoiled_is_refused_with_the_reason(
    options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    sized = {"width": 160, "height": 96} | options
    write_clip(tmp_path / "a.mkv", 0.4, sound=False, **sized)

    with pytest.raises(Unfit, match=why):
        examine(tmp_path / "a.mkv")


@pytest.mark.parametrize("spoil", [spoiled.letter, spoiled.noise, spoiled.zeros])
def test_what_is_no_video_is_refused(spoil: Any, tmp_path: Path) -> None:
    spoil(tmp_path / "a.mp4")

    with pytest.raises(Unfit, match=r"a\.mp4"):
        examine(tmp_path / "a.mp4")


def test_a_file_that_breaks_off_is_enhanced_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = small(tmp_path / "whole.ts", 2.0, container="mpegts").read_bytes()
    spoiled.cut(tmp_path / "a.ts", whole, 0.6)

    made = render(examine(tmp_path / "a.ts"), GENTLE, tmp_path / "b.mp4")

    assert 15 < made.pictures < 50


def test_one_who_gives_up_leaves_nothing_behind(tmp_path: Path) -> None:
    clip = examine(small(tmp_path / "a.mp4"))

    with pytest.raises(Cancelled):
        render(clip, GENTLE, tmp_path / "b.mp4", cancelled=lambda: True)

    assert [it.name for it in tmp_path.iterdir()] == ["a.mp4"]


def test_pieces_lie_apart_and_show_their_part_of_the_clip(tmp_path: Path) -> None:
    clip = examine(small(tmp_path / "a.mp4", 4.0, sound=False))

    cut = list(pieces(clip, tmp_path, count=3, seconds=0.4))

    assert [start for start, _ in cut] == pytest.approx([0.467, 1.8, 3.133], abs=0.01)
    assert all(len(shown(path)[0]) == 10 for _, path in cut)


def test_sound_that_does_not_fit_into_mp4_goes_into_matroska(tmp_path: Path) -> None:
    spoiled.sound(tmp_path / "a.mkv", "pcm_s16le")
    small(tmp_path / "b.mp4", 0.2)

    assert suffix_for(tmp_path / "b.mp4") == ".mp4"
    assert suffix_for(tmp_path / "a.mkv") == ".mkv"
