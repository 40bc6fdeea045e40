"""Rows of one stream tile its time, whatever befalls the stream or its process."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from vqmon.daemon.coverage import Coverage, no_score
from vqmon.daemon.messages import Standing
from vqmon.domain import DOWN_REASONS, Segment, Stream
from vqmon.summing import up

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLOCK = 5000.0


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Life:
    """A stream's life second by second, and the rows that come of it."""

    def __init__(self, stream: Stream | None = None, represents: float | None = None) -> None:
        self.coverage = Coverage(stream or Stream("news", "udp://x"), represents)
        self.rows: list[Segment] = []
        self.now = 0
        self.standing: Standing | None = None

    def stands(self, state: str, reason: str | None = None, *, ago: float = 0.0) -> None:
        since = CLOCK + self.now - ago
        self.standing = Standing("news", 1, state, reason, since=since)  # type: ignore[arg-type]

    def live(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.keep(self.coverage.look(self.standing, at(self.now), CLOCK + self.now))

    def measure(self, start: float, seconds: float = 10.0) -> Segment:
        segment = Segment("news", at(start), start, seconds, quality=70.0)
        rows = list(self.coverage.measured(segment))
        self.keep(rows)
        return rows[-1]

    def keep(self, rows: Iterable[Segment]) -> None:
        self.rows += rows

    def told(self) -> list[tuple[float, float, str | None]]:
        """(begin, length, reason) of each row."""
        return [
            ((it.started_at - NOON).total_seconds(), it.seconds, it.no_score_reason)
            for it in self.rows
        ]

    def assert_tiled(self) -> None:
        for one, other in pairwise(self.rows):
            gap = other.started_at - one.started_at - timedelta(seconds=one.seconds)
            assert abs(gap.total_seconds()) < 1e-3


def test_a_dead_stream_gets_rows_of_the_usual_length_at_the_usual_cadence() -> None:
    """Availability is a sum over rows, and a dashboard shows the outage while it lasts."""
    life = Life()
    life.stands("down", "refused")

    life.live(45)

    assert life.told() == [(0, 10, "refused"), (10, 10, "refused"), (20, 10, "refused"),
                           (30, 10, "refused")]  # fmt: skip
    life.assert_tiled()


def test_an_outage_gets_worse_the_longer_it_lasts_and_is_explained() -> None:
    """A second of silence is a hiccup; half a minute is a catastrophe."""
    life = Life(Stream("news", "udp://x", segment_seconds=2.0))
    life.stands("down", "timeout_read")

    life.live(45)

    findings = [it.findings[0] for it in life.rows]
    assert {it.name for it in findings} == {"no_signal"}
    assert [it.severity for it in findings[:2]] == [2, 3]
    assert findings[5].severity == 4
    assert findings[-1].severity == 5
    assert findings[-1].value == 42.0
    assert all(it.limit == 1.0 and it.unit == "s" for it in findings)
    assert sum(it.seconds for it in findings) == pytest.approx(42)
    assert "no signal" in life.rows[-1].explanation.lower()


def test_connecting_for_the_first_time_is_not_yet_down() -> None:
    """A restart of the daemon must not look like an outage of everything."""
    life = Life()
    life.stands("connecting")
    life.live(20)
    life.stands("up")
    life.measure(20)

    assert life.told() == [(20, 10, None)]


def test_the_silence_before_a_timeout_belongs_to_the_outage() -> None:
    """A loss is noticed ten seconds late; those seconds were without signal, too."""
    life = Life()
    life.stands("up")
    life.measure(0)
    life.live(20)
    life.stands("down", "timeout_read")
    life.measure(10, 2.5)
    life.live(12)
    life.stands("up", ago=1.0)
    life.live(10)
    life.measure(31.5)

    assert life.told() == [
        (0, 10, None),
        (10, 2.5, None),
        (12.5, 10, "timeout_read"),
        (22.5, 9, "timeout_read"),
        (31.5, 10, None),
    ]
    life.assert_tiled()


def test_rows_wait_for_the_segment_in_progress() -> None:
    """It is being scored when the loss is noticed; a row must not take its place."""
    life = Life()
    life.stands("up")
    life.measure(0)
    life.live(27)
    life.stands("down", "timeout_read")
    life.live(5)
    assert len(life.rows) == 1

    life.measure(10, 7.0)
    life.live(8)

    assert life.told()[1:] == [(10, 7, None), (17, 10, "timeout_read"), (27, 10, "timeout_read")]


def test_a_stream_that_flickers_has_one_row_for_each_stretch() -> None:
    """Up, down for four seconds, up again."""
    life = Life()
    life.stands("up")
    life.measure(0)
    life.live(10)
    life.stands("down", "eof")
    life.live(4)
    life.stands("up")
    life.live(11)
    life.measure(14)

    assert life.told() == [(0, 10, None), (10, 4, "eof"), (14, 10, None)]


def test_a_return_that_brings_no_segment_still_ends_the_outage() -> None:
    """Connected, but nothing to measure: the gap is not made longer than it was."""
    life = Life()
    life.stands("up")
    life.measure(0)
    life.live(10)
    life.stands("down", "eof")
    life.live(4)
    life.stands("up")
    life.live(40)

    assert life.told() == [(0, 10, None), (10, 4, "eof")]


def test_a_stream_that_returns_too_briefly_for_a_segment_stays_down() -> None:
    """A connection that is accepted and dropped is no signal."""
    life = Life()
    life.stands("down", "refused")
    life.live(5)
    life.stands("up")
    life.live(2)
    life.stands("down", "eof")
    life.live(16)

    assert life.told() == [(0, 10, "eof"), (10, 10, "eof")]


def test_a_gap_that_we_made_is_marked_as_ours() -> None:
    """A replaced process is no fault of the stream, and counts as nobody looked."""
    life = Life()
    life.stands("up")
    life.measure(0)
    life.live(13)
    life.coverage.interrupted(at(life.now))
    life.standing = None
    life.live(2)
    life.stands("connecting")
    life.live(1)
    life.stands("up")
    life.live(1)
    life.measure(16)

    assert life.told() == [(0, 10, None), (10, 6, "process_restarted"), (16, 10, None)]
    assert life.rows[1].findings == ()
    assert not up(life.rows[1])
    life.assert_tiled()


def test_a_first_segment_may_come_before_the_news_that_the_stream_is_up() -> None:
    """Beats come once a second; a segment may be as short."""
    life = Life(Stream("news", "udp://x", segment_seconds=1.0))
    life.stands("up")
    life.measure(0, 1)
    life.live(1)
    life.coverage.interrupted(at(life.now))
    life.standing = None
    life.live(2)

    life.measure(2.5, 1)
    life.stands("up", ago=0.6)
    life.live(1)
    life.measure(3.5, 1)

    assert life.told() == [
        (0, 1, None),
        (1, 1, "process_restarted"),
        (2, 0.5, "process_restarted"),
        (2.5, 1, None),
        (3.5, 1, None),
    ]


def test_a_stream_that_is_down_after_our_restart_is_told_apart_from_it() -> None:
    """First our gap, then the stream's own."""
    life = Life()
    life.stands("up")
    life.measure(0)
    life.live(12)
    life.coverage.interrupted(at(life.now))
    life.standing = None
    life.live(3)
    life.stands("down", "refused")
    life.live(20)

    assert life.told()[:3] == [
        (0, 10, None),
        (10, 5, "process_restarted"),
        (15, 10, "refused"),
    ]
    life.assert_tiled()


def test_a_process_that_does_not_come_back_still_has_rows() -> None:
    """Nothing is silent for longer than a segment."""
    life = Life()
    life.stands("up")
    life.measure(0)
    life.live(12)
    life.coverage.interrupted(at(life.now))
    life.standing = None

    life.live(30)

    assert life.told()[1:] == [(10, 10, "process_restarted"), (20, 10, "process_restarted"),
                               (30, 10, "process_restarted")]  # fmt: skip


def test_a_process_that_dies_before_its_first_segment_is_not_passed_over_in_silence() -> None:
    """Killed for its memory at every start, it would otherwise never be heard of."""
    life = Life()
    life.live(5)
    life.coverage.interrupted(at(life.now))
    life.stands("connecting")

    life.live(15)

    assert life.told() == [(5, 10, "process_restarted")]


def test_an_outage_goes_on_when_its_process_is_replaced() -> None:
    """Restarting us does not mend the stream."""
    life = Life()
    life.stands("down", "auth")
    life.live(15)
    life.coverage.interrupted(at(life.now))
    life.stands("connecting")
    life.live(15)

    assert {reason for _, _, reason in life.told()} == {"auth"}
    assert len(life.rows) == 2


def test_a_change_of_reason_goes_on_with_the_same_outage() -> None:
    """First nothing came, then the server was gone: one outage, and its length adds up."""
    life = Life()
    life.stands("down", "timeout_read")
    life.live(13)
    since = life.standing
    assert since
    life.standing = Standing("news", 1, "down", "refused", since=since.since)
    life.live(13)

    assert life.told() == [(0, 10, "timeout_read"), (10, 10, "refused")]
    assert life.rows[1].findings[0].value == 20.0


def test_the_end_of_the_watch_closes_an_outage() -> None:
    """What is known at SIGTERM is stored."""
    life = Life()
    life.stands("down", "dns")
    life.live(13)

    life.keep(life.coverage.close(at(14.5)))

    assert life.told() == [(0, 10, "dns"), (10, 4.5, "dns")]
    assert list(life.coverage.close(at(20))) == []


def test_a_segment_never_overlaps_the_rows_before_it() -> None:
    """Else two rows would count the same seconds; media clocks and wall clocks differ a bit."""
    life = Life()
    life.measure(0)
    moved = life.measure(8.5)
    life.measure(20.2)

    assert moved.started_at == at(10)
    assert life.told() == [(0, 10, None), (10, 10, None), (20.2, 10, None)]


def test_a_clock_set_back_by_an_hour_does_not_push_rows_into_the_future() -> None:
    """Rows follow the new clock at once."""
    life = Life()
    life.measure(7200)

    assert life.measure(3600).started_at == at(3600)


def test_a_machine_that_slept_for_hours_does_not_blame_the_stream_for_them() -> None:
    """Nobody looked, and a thousand rows would say otherwise."""
    life = Life()
    life.stands("up")
    life.measure(0)
    life.now = 8 * 3600
    life.stands("down", "timeout_read")
    life.live(20)

    assert life.told()[1:] == [(8 * 3600, 10, "timeout_read")]


def test_positions_go_on_with_the_wall_clock() -> None:
    """Alert rules count watched time from positions; they never go back."""
    life = Life()
    life.stands("up")
    life.measure(0)
    life.live(10)
    life.stands("down", "eof")
    life.live(25)

    starts = [it.start for it in life.rows]
    assert starts == [0, 10, 20]
    assert [it.findings[0].start for it in life.rows[1:]] == [10, 20]


def test_rows_of_a_visit_say_what_they_stand_for() -> None:
    """Thirty seconds out of five minutes: each row represents its share of the period."""
    life = Life(represents=300 / 30)
    life.stands("up")
    measured = life.measure(0)
    life.live(10)
    life.stands("down", "eof")
    life.live(13)

    assert measured.facts == {"visit": True, "represents_seconds": 100.0}
    assert life.rows[1].facts["represents_seconds"] == 100.0


@pytest.mark.parametrize("reason", DOWN_REASONS)
def test_every_reason_for_silence_is_explained(reason: str) -> None:
    """An operator reads the sentence, not the code."""
    row = no_score(Stream("news", "udp://x"), NOON, 10.0, reason, away=10.0)

    assert row.no_score_reason == reason
    assert row.explanation
    assert [it.name for it in row.findings] == ["no_signal"]
