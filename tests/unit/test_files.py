"""Files become one result each, whatever is wrong with them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media import write_clip
from vqmon import files
from vqmon.domain import NO_SCORE_REASONS, Finding, Segment
from vqmon.errors import SourceUnavailable
from vqmon.files import merged_facts, merged_findings, score_file, summed_up
from vqmon.testing import FakeScorer

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def segment(
    start: float,
    quality: float | None = 50.0,
    *findings: Finding,
    seconds: float = 10.0,
    **more: object,
) -> Segment:
    reason = None if quality is not None else "no_frames"
    return Segment(
        "x",
        WHEN,
        start,
        seconds,
        quality=quality,
        quality_worst=quality,
        uncertainty=None if quality is None else 4.0,
        findings=findings,
        model="m@1",
        no_score_reason=reason,
        **more,  # type: ignore[arg-type]
    )


def finding(name: str, start: float, seconds: float, **more: object) -> Finding:
    known = {"severity": 3, "confidence": 0.5, "value": 1.0, "limit": 0.5} | more
    return Finding(name, start=start, seconds=seconds, **known)  # type: ignore[arg-type]


# The whole from its segments


def test_quality_is_the_mean_weighted_by_duration() -> None:
    """Two seconds at the end must not count like ten."""
    whole = summed_up("x", [segment(0, 80.0), segment(10, 20.0, seconds=2.0)])

    assert whole.quality == 70
    assert whole.uncertainty == 4
    assert whole.model == "m@1"


def test_stretches_without_score_do_not_count_as_zero() -> None:
    """A black minute is told by its finding."""
    whole = summed_up("x", [segment(0, 80.0), segment(10, None)])

    assert whole.quality == 80
    assert whole.no_score_reason is None


def test_a_picture_that_lasts_no_time_has_a_quality() -> None:
    """A still picture is a video of one frame and perhaps of no duration."""
    assert summed_up("x", [segment(0, 63.0, seconds=0.0)]).quality == 63


def test_without_any_score_the_most_frequent_reason_stands() -> None:
    """`quality` is null exactly when `no_score_reason` is not."""
    whole = summed_up("x", [segment(0, None), segment(10, None)])

    assert whole.quality is None
    assert whole.no_score_reason == "no_frames"


def test_a_file_that_breaks_off_keeps_what_was_scored() -> None:
    """Half a film is half a result, not none."""
    failure = SourceUnavailable("x", "eof", "it is cut off")

    whole = summed_up("x", [segment(0, 80.0)], failure=failure)

    assert (whole.quality, whole.no_score_reason, whole.message) == (80, None, "it is cut off")


def test_a_fault_over_several_segments_is_one_with_its_seconds_added() -> None:
    """A freeze of 14 s cut by a segment border is no two freezes."""
    first = finding("freeze", 8, 2, value=2.0, severity=2, confidence=0.9)
    second = finding("freeze", 10, 10, value=12.0, severity=4)
    third = finding("freeze", 20, 2, value=14.0, severity=4)

    [whole] = merged_findings(
        [segment(0, 50.0, first), segment(10, 50.0, second), segment(20, 50.0, third)]
    )

    assert (whole.start, whole.seconds) == (8, 14)
    assert (whole.severity, whole.confidence) == (4, 0.9)
    assert whole.value == 14


def test_costs_over_several_segments_are_weighted_by_time() -> None:
    """8 s that cost 10 points and 2 s that cost 20 cost 12 on the whole; silence changes nothing."""
    some = [
        finding("blur", 0, 8, cost=10.0),
        finding("blur", 8, 2, cost=20.0),
        finding("blur", 10, 5),
    ]

    [whole] = merged_findings([segment(0, 50.0, *some[:2]), segment(10, 50.0, some[2])])
    [none] = merged_findings([segment(10, 50.0, some[2])])

    assert whole.cost == pytest.approx(12)
    assert none.cost is None


def test_faults_apart_stay_apart() -> None:
    """Two blackouts are two."""
    found = merged_findings(
        [segment(0, 50.0, finding("black", 2, 1)), segment(10, 50.0, finding("black", 14, 1))]
    )

    assert [it.start for it in found] == [2, 14]


def test_seconds_that_overlap_count_once() -> None:
    """Twice the same second is one second."""
    [whole] = merged_findings([segment(0, 50.0, finding("blur", 0, 8), finding("blur", 5, 5))])

    assert whole.seconds == 10


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (("left",), ("top", "left"), ("top", "left")),
        (None, ("top",), None),
        (("top",), None, None),
    ],
)
def test_regions_are_put_together(
    one: tuple[str, ...] | None,
    other: tuple[str, ...] | None,
    together: tuple[str, ...] | None,
) -> None:
    """None is the whole picture."""
    found = merged_findings(
        [segment(0, 50.0, finding("blur", 0, 10, region=one), finding("blur", 10, 5, region=other))]
    )

    assert [it.region for it in found] == [together]


def test_facts_are_added_averaged_or_kept_as_they_deserve() -> None:
    """A bitrate is no sum, a count is no mean, and decibels are powers."""
    one = segment(
        0,
        facts={
            "packets": 250,
            "bitrate_kbps": 1000.0,
            "codec": "h264",
            "lost": ["eof"],
            "audio_rms_dbfs": -20.0,
            "audio_peak_dbfs": -3.0,
            "width": 640,
        },
    )
    other = segment(
        10,
        facts={
            "packets": 50,
            "bitrate_kbps": 2000.0,
            "codec": "hevc",
            "lost": ["dns"],
            "audio_rms_dbfs": -120.0,
            "audio_peak_dbfs": -9.0,
            "width": 640,
        },
    )

    facts = merged_facts([one, other])

    assert facts == {
        "packets": 300,
        "bitrate_kbps": 1500,
        "lost": ["eof", "dns"],
        "audio_rms_dbfs": -23.0,
        "audio_peak_dbfs": -3.0,
        "width": 640,
    }


# The two shapes


def test_the_json_object_has_the_promised_keys() -> None:
    """Scripts are written against them."""
    whole = summed_up("x", [segment(0, 80.0, finding("blur", 1, 2, region=("left",)))])

    told = json.loads(json.dumps(files.as_json(whole), allow_nan=False))

    assert list(told) == [
        "source",
        "quality",
        "uncertainty",
        "model",
        "findings",
        "explanation",
        "no_score_reason",
        "segments",
    ]
    [found] = told["findings"]
    assert found == {
        "name": "blur",
        "severity": 3,
        "confidence": 0.5,
        "value": 1.0,
        "limit": 0.5,
        "region": ["left"],
        "start": 1,
        "seconds": 2,
        "cost": None,
    }
    [part] = told["segments"]
    assert (part["start"], part["seconds"], part["quality"]) == (0, 10, 80)
    assert part["findings"] == told["findings"]


def test_a_csv_row_names_the_worst_finding() -> None:
    """The longest among equally severe ones."""
    found = finding("blur", 0, 1), finding("noise", 0, 9), finding("black", 0, 10, severity=2)

    row = files.as_csv_row(summed_up('a,"b".mp4', [segment(0, 80.0, *found)]))

    assert row == '"a,""b"".mp4",80.00,4.00,noise,3,'


def test_a_csv_row_without_score_has_its_reason() -> None:
    """Empty cells, not the word None."""
    failure = SourceUnavailable("x", "not_found", "no such file")

    assert files.as_csv_row(summed_up("x", [], failure=failure)) == "x,,,,,not_found"


# Real files, made in the test run


def test_a_clip_is_scored_in_segments(tmp_path: Path) -> None:
    """The main path, through FFmpeg."""
    path = write_clip(tmp_path / "clip: 50%.mp4", 12)
    seen: list[Segment] = []

    result = score_file(str(path), FakeScorer(), watched=seen.append)

    assert result.quality is not None
    assert result.source == str(path)
    assert [round(it.seconds) for it in result.segments] == [10, 2]
    assert list(result.segments) == seen
    assert result.segments[0].frames_scored in {10, 11}
    assert result.explanation


@pytest.mark.parametrize(
    ("name", "form"), [("a.jpg", "JPEG"), ("a.png", "PNG"), ("a.webp", "WEBP")]
)
def test_a_picture_is_scored_like_a_video_of_one_frame(
    tmp_path: Path, name: str, form: str
) -> None:
    """Photographs and screenshots are what models are tested on."""
    pixels = np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name, form)

    result = score_file(str(tmp_path / name), FakeScorer())

    assert result.quality is not None
    assert len(result.segments) == 1
    assert result.segments[0].frames_scored == 1


def _text(path: Path) -> None:
    path.write_text("This is a letter, not a film.\n" * 100)


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def _broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


def _sound_alone(path: Path) -> None:
    write_clip(path, 2, video=False)


def _within_its_index(path: Path) -> None:
    write_clip(path, 2)
    path.write_bytes(path.read_bytes()[:1000])


def _before_its_first_picture(path: Path) -> None:
    write_clip(path, 2)
    path.write_bytes(path.read_bytes()[:10_000])


BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda _: None, "not_found", "no such file"),
    "a folder": (Path.mkdir, "invalid_data", "is a folder"),
    "empty": (Path.touch, "invalid_data", "is empty (0 bytes)"),
    "a letter": (_text, "invalid_data", ""),
    "zeros": (_zeros, "invalid_data", ""),
    "a broken link": (_broken_link, "not_found", "does not exist"),
    "a pipe": (os.mkfifo, "invalid_data", "is not a regular file"),
    "sound alone": (_sound_alone, "invalid_data", "has no video"),
    "cut within its index": (_within_its_index, "invalid_data", ""),
    "cut before its first picture": (_before_its_first_picture, "no_frames", ""),
}


@pytest.mark.parametrize(("make", "reason", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_scored_says_why(
    tmp_path: Path, make: Callable[[Path], object], reason: str, message: str
) -> None:
    """A reason of the closed set for scripts, a text for people; never an exception or a hang."""
    path = tmp_path / "film.mp4"
    make(path)

    result = score_file(str(path), FakeScorer())

    assert result.quality is None
    assert result.no_score_reason == reason
    assert reason in NO_SCORE_REASONS
    assert message in result.message
    assert result.explanation.startswith("There is no score") or result.segments


def test_a_url_among_files_is_told_where_it_belongs() -> None:
    """Easily done, with `probe` and `score` side by side."""
    result = score_file("rtsp://u:p@h/x", FakeScorer())

    assert result.no_score_reason == "not_found"
    assert "`vqmon probe URL`" in result.message


def test_a_session_description_is_not_waited_for(tmp_path: Path) -> None:
    """It names a live stream, which would never end."""
    (tmp_path / "x.sdp").write_text("v=0\n")

    assert "vqmon probe" in score_file(str(tmp_path / "x.sdp"), FakeScorer()).message


def test_a_file_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As somebody else's recording."""
    path = write_clip(tmp_path / "a.mp4", 1)
    monkeypatch.setattr(os, "access", lambda *_: False)

    result = score_file(str(path), FakeScorer())

    assert result.no_score_reason == "auth"
    assert "permissions" in result.message


def test_a_clip_cut_short_is_scored_as_far_as_it_goes(tmp_path: Path) -> None:
    """A recording that a full disk ended."""
    path = write_clip(tmp_path / "a.ts", 8)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    result = score_file(str(path), FakeScorer())

    assert result.quality is not None
    assert 2 < sum(it.seconds for it in result.segments) < 6
