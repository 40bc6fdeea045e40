"""Roll-ups as arithmetic; the stores' contract tests see to their keeping."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from math import nan

import pytest

from vqmon.domain import NO_SCORE_REASONS, Finding, Segment
from vqmon.summing import LONGEST_SECONDS, fault_spans, merged, summed, up

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SEGMENT = Segment("news", NOON, start=0.0, seconds=10.0, quality=50.0)


def finding(start: float, seconds: float, name: str = "freeze") -> Finding:
    return Finding(name, 3, 1.0, 2.0, 1.0, "s", None, start, seconds)


def test_a_long_stretch_fills_every_minute_and_hour_it_meets() -> None:
    """A segment of an outage may span hours; each minute of them was down."""
    down = replace(
        SEGMENT,
        started_at=NOON + timedelta(minutes=59, seconds=30),
        seconds=3660.0,
        quality=None,
        no_score_reason="eof",
    )

    hours = summed([down], [3600])
    minutes = summed([down], [60])

    assert [(h.starts_at.hour, h.watched_seconds) for h in hours] == [
        (12, 30),
        (13, 3600),
        (14, 30),
    ]
    assert [m.watched_seconds for m in minutes] == [30, *[60] * 60, 30]
    assert sum(m.segments for m in minutes) == 1
    assert all(m.up_seconds == 0 for m in minutes)


def test_a_picture_without_length_is_counted_in_its_minute() -> None:
    """Still pictures have no seconds, yet they are segments with a worst."""
    [minute, hour] = summed([replace(SEGMENT, seconds=0.0, quality_worst=12.0)])

    assert (minute.segments, minute.watched_seconds, minute.quality_worst) == (1, 0, 12)
    assert (hour.segments, hour.quality) == (1, None)


def test_a_segment_that_ends_on_the_minute_stays_in_it() -> None:
    """Tiles of ten seconds from a whole minute on must not spill over."""
    minutes = summed([replace(SEGMENT, started_at=NOON + timedelta(seconds=50))], [60])

    assert [m.starts_at for m in minutes] == [NOON]


@pytest.mark.parametrize(("quality", "place"), [(0, 0), (9.99, 0), (10, 1), (99.9, 9), (100, 9)])
def test_the_histogram_has_ten_bins_and_the_best_belongs_to_the_last(
    quality: float, place: int
) -> None:
    """A perfect score must not fall off the edge."""
    [minute, _] = summed([replace(SEGMENT, quality=float(quality))])

    assert minute.histogram[place] == sum(minute.histogram) == 10


def test_rollups_of_any_stretch_add_up() -> None:
    """A report over a day merges its hours; names and times are those of the first."""
    good = replace(SEGMENT, id="1", quality=80.0, quality_worst=70.0, findings=(finding(2, 3),))
    bad = replace(SEGMENT, id="2", started_at=NOON + timedelta(hours=5), quality=20.0)

    day = reduce(merged, summed([good, bad], [3600]))

    assert (day.stream, day.starts_at) == ("news", NOON)
    assert day.quality == 50
    assert day.quality_worst == 20
    assert day.fault_seconds == {"freeze": 3}
    assert day.histogram[2] == day.histogram[8] == 10


def test_every_reason_for_no_score_is_either_up_or_down() -> None:
    """A reason added later is up unless someone decides otherwise; these are decided."""
    down = {
        reason
        for reason in NO_SCORE_REASONS
        if not up(replace(SEGMENT, quality=None, no_score_reason=reason))
    }

    assert {"eof", "timeout_read", "visit_missed", "process_restarted"} <= down
    assert down.isdisjoint({"no_video", "black", "overload", "unsupported_picture", "stopped"})
    assert up(SEGMENT)


def test_a_finding_outside_its_segment_is_moved_inside() -> None:
    """Its seconds were measured; a wrong position must not lose them."""
    late = replace(SEGMENT, start=100.0)

    assert fault_spans(replace(late, findings=(finding(0, 4),))) == {"freeze": [(0, 4)]}
    assert fault_spans(replace(late, findings=(finding(500, 4),))) == {"freeze": [(6, 10)]}
    assert fault_spans(replace(late, findings=(finding(108, 4),))) == {"freeze": [(6, 10)]}
    assert fault_spans(replace(late, findings=(finding(nan, nan),))) == {"freeze": [(0, 0)]}


def test_spans_of_one_name_are_joined_only_where_they_touch() -> None:
    """Two freezes with a second of motion between are two."""
    findings = (finding(6, 2), finding(0, 2), finding(2, 1), finding(1, 1, "black"))

    spans = fault_spans(replace(SEGMENT, findings=findings))

    assert spans == {"freeze": [(0, 3), (6, 8)], "black": [(1, 2)]}


def test_the_longest_segment_allowed_is_shared_out_in_no_time() -> None:
    """What is accepted must not stop the writer; what would is refused."""
    began = time.monotonic()

    assert len(summed([replace(SEGMENT, seconds=LONGEST_SECONDS)], [60])) == 31 * 24 * 60

    assert time.monotonic() - began < 5
    with pytest.raises(ValueError, match="lasts"):
        summed([replace(SEGMENT, seconds=LONGEST_SECONDS + 1)])
