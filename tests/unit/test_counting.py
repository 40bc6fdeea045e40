"""What passes of a stream is counted where it passes, and the pipeline does not notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from vqmon.daemon.counting import Counting
from vqmon.domain import Depth, Event, Media, Stream, Traffic
from vqmon.pipeline import monitor
from vqmon.ports import everything
from vqmon.sources import open_source
from vqmon.testing import FakeScorer

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Given:
    """A source that yields what it was given."""

    live = True

    def __init__(self, *media: Media) -> None:
        self.media = media
        self.stopped = False
        self.closed = False

    @contextmanager
    def open(self, depth: Callable[[], Depth] = everything) -> Iterator[Iterator[Media]]:
        yield iter(self.media)
        self.closed = True

    def stop(self) -> None:
        self.stopped = True


def event(kind: Any, reason: str | None = None) -> Event:
    return Event(kind, 0.0, NOON, reason=reason)


def counted(*media: Media, counting: Counting | None = None) -> Counting:
    counting = counting or Counting()
    source = Given(*media)
    with counting.over(source).open() as passing:
        assert list(passing) == list(media), "all of it passes"
    assert source.closed
    return counting


def test_what_traffic_tells_adds_up() -> None:
    second = Traffic(1.0, 1.0, 1.0, NOON, bytes=500, corrupt_packets=2, late_frames=1)

    counts = counted(second, second, event("timestamp_jump")).counts

    assert (counts.bytes, counts.corrupt_packets, counts.late_frames) == (1000, 4, 2)
    assert counts.timestamp_jumps == 1
    assert counts.last_frame_at is None


def test_a_reconnection_has_the_reason_for_which_the_connection_was_lost() -> None:
    """The first one: a camera that was unplugged times out, and then refuses."""
    counting = counted(
        event("opened"),
        event("lost", "timeout_read"),
        event("lost", "refused"),
        event("reconnected"),
        event("lost", "eof"),
    )

    assert counting.counts.reconnects == {"timeout_read": 1}


def test_a_stream_that_was_never_up_does_not_reconnect() -> None:
    counting = counted(event("lost", "refused"), event("opened"))

    assert counting.counts.reconnects == {}


def test_a_watch_that_breaks_off_reconnects_with_its_next_source() -> None:
    """A file over HTTP is not tried again by its source, but by the watch."""
    counting = counted(event("opened"))
    counting.lost("not_found")

    counted(event("opened"), counting=counting)

    assert counting.counts.reconnects == {"not_found": 1}


def test_a_counted_source_is_live_and_stops_as_it_would_alone() -> None:
    source = Given()
    over = Counting().over(source)

    over.stop()

    assert over.live
    assert source.stopped


def test_the_pipeline_sees_the_same_stream() -> None:
    """Counting changes nothing of what is measured."""
    stream = Stream("x", "synthetic:?seconds=4&size=64x64&fps=5&faults=packet_loss@1-3:5")
    counting = Counting()

    [alone] = monitor(stream, open_source(stream), FakeScorer())
    [over] = monitor(stream, counting.over(open_source(stream)), FakeScorer())

    assert over.quality == alone.quality
    assert [it.name for it in over.findings] == [it.name for it in alone.findings]
    counts = counting.counts
    assert counts.corrupt_packets == over.facts["corrupt_packets"] > 0
    assert counts.bytes > 0
    assert counts.last_frame_at is not None
    age = datetime.now(UTC) - datetime.fromtimestamp(counts.last_frame_at, UTC)
    assert age < timedelta(minutes=1)
