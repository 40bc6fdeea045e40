"""A short look ends when it should, and says what to know about itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from vqmon import probe as probing
from vqmon import sources
from vqmon.domain import Depth, Event, Format, Media, Packet, Stream, Traffic
from vqmon.errors import SourceUnavailable
from vqmon.ports import Source, everything
from vqmon.probe import as_json, probe
from vqmon.testing import EPOCH, FakeScorer, FakeSource, textured_frame


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Source], list[Stream]]:
    """Make `probe` open this source; returns the streams that it asked for."""
    asked: list[Stream] = []

    def use(source: Source) -> list[Stream]:
        def open_source(stream: Stream, **_: Any) -> Source:
            asked.append(stream)
            return source

        monkeypatch.setattr(sources, "open_source", open_source)
        return asked

    return use


Play = Callable[[Source], list[Stream]]


class Stalled:
    """A live source that is connected and sends nothing, until it is stopped."""

    live = True

    def __init__(self) -> None:
        self._stop = threading.Event()

    @contextmanager
    def open(self, depth: Callable[[], Depth] = everything) -> Iterator[Iterator[Media]]:
        yield self._silence()

    def stop(self) -> None:
        self._stop.set()

    def _silence(self) -> Iterator[Media]:
        while not self._stop.wait(0.02):
            yield Traffic(0.0, 0.0, 0.02, EPOCH, 0)


def media(
    seconds: int, *, gop: int = 1, sound: str | None = "aac", **traffic: Any
) -> Sequence[Media]:
    """A picture and a packet a second; a keyframe every `gop` seconds."""
    form = Format("h264", 128, 96, "yuv420p", 1.0, audio_codec=sound)
    items: list[Media] = [Event("opened", 0.0, EPOCH, format=form)]
    for at in range(seconds):
        now = EPOCH + timedelta(seconds=at + 1)
        packet = Packet(float(at), 1.0, 5000, key=at % gop == 0)
        items.append(textured_frame(float(at), seed=at))
        items.append(replace(Traffic(at + 1.0, 1.0, 1.0, now, 5000, (packet,)), **traffic))
    return items


def test_a_look_ends_after_its_seconds_of_media(play: Play) -> None:
    """However long the source would go on; the last second is counted whole."""
    play(FakeSource(media(100), live=True))
    seen: list[float] = []

    found = probe("rtsp://h/x", FakeScorer(), duration=12, watched=seen.append)

    assert sum(it.seconds for it in found.result.segments) == 12
    assert found.result.facts["packets"] == 12
    assert seen == [float(second) for second in range(1, 13)]


def test_a_source_that_sends_nothing_is_left_in_time(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Media time stands still; the wall clock ends the look."""
    monkeypatch.setattr(probing, "OPEN_SECONDS", 0.2)
    monkeypatch.setattr(probing, "READ_SECONDS", 0.0)
    play(Stalled())
    began = time.monotonic()

    found = probe("rtsp://h/x", FakeScorer(), duration=0.2)

    assert time.monotonic() - began < 5
    assert found.result.quality is None
    assert found.result.no_score_reason == "no_frames"


def test_somebody_is_waiting_so_limits_are_short_where_the_scheme_has_them(play: Play) -> None:
    """And what the caller gives wins."""
    asked = play(FakeSource(media(1)))

    probe("rtsp://h/x", FakeScorer(), options={"read_timeout": "3"})
    probe("a.mp4", FakeScorer())

    assert asked[0].options == {"open_timeout": "8.0", "read_timeout": "3"}
    assert asked[1].options == {}


def test_what_was_seen_before_a_source_failed_is_kept(play: Play) -> None:
    """With a warning that the look was shorter."""
    play(FakeSource(media(5), live=True, error=SourceUnavailable("x", "eof", "it hung up")))

    found = probe("rtsp://h/x", FakeScorer())

    assert found.result.quality is not None
    assert found.warnings == ("it ended early: it hung up",)


@pytest.mark.parametrize(
    ("items", "warning"),
    [
        (media(60, gop=20), "keyframes are 20 s apart"),
        (media(10, late_frames=3), "this machine was too slow for 30 pictures"),
        (media(5, sound=None), "there is no sound track"),
    ],
)
def test_warnings_tell_what_to_know_besides(
    play: Play, items: Sequence[Media], warning: str
) -> None:
    """Things that are no fault of the picture."""
    play(FakeSource(items, live=True))

    found = probe("rtsp://h/x", FakeScorer(), duration=60)

    assert any(warning in it for it in found.warnings), found.warnings
    assert as_json(found)["warnings"] == list(found.warnings)


def test_credentials_are_in_no_result(play: Play) -> None:
    """Results are pasted into tickets."""
    play(FakeSource(media(2)))

    found = probe("rtsp://admin:hunter2@h/x", FakeScorer())

    assert found.result.source == "rtsp://***@h/x"
    assert "hunter2" not in str(as_json(found))
