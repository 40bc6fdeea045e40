"""What every segment store promises: SQLite, PostgreSQL and the public fake alike."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqmon.domain import Finding, Rollup, Segment
from vqmon.errors import StoreError
from vqmon.ports import SegmentStore
from vqmon.store import SqlStore, open_store
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LONG_AFTER = NOON + timedelta(days=3650)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[SegmentStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    kind = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    with open_store(request.getfixturevalue(kind)) as opened:
        yield opened


def segment(second: float = 0.0, **fields: Any) -> Segment:
    """Ten scored seconds of news, so long after noon."""
    given_fields: dict[str, Any] = {
        "stream": "news",
        "seconds": 10.0,
        "start": second,
        "quality": 70.0,
    } | fields
    return Segment(started_at=NOON + timedelta(seconds=second), **given_fields)


def full() -> Segment:
    """Every field set, with what people put into them."""
    return Segment(
        stream="Öffentlich-rechtlich / 第一 📺",
        started_at=NOON + timedelta(microseconds=123_456),
        start=3600.25,
        seconds=9.96,
        frames_scored=2,
        quality=61.5,
        quality_worst=12.25,
        uncertainty=3.125,
        findings=(
            Finding(
                "compression",
                4,
                0.75,
                31.5,
                20.0,
                "dB",
                ("top-left", "centre"),
                3600.25,
                9.96,
                cost=17.25,
            ),
            Finding("freeze", 2, 1.0, None, None, "", None, 3602.0, 1.5),
        ),
        explanation="1. Blöcke: „sichtbar“ ⟶ 第一\n2. 'quoted'; \"quoted\" \\ %s :name",
        facts={"bitrate_kbps": 4800, "codec": "h264", "gop": [50, 48], "nested": {"é": None}},
        outputs=(
            {"quality": (0.1, 61.5), "blur": ()},
            {"quality": (float(np.float32(0.3)), 62.0), "blur": (1e-12,)},
        ),
        model="signals@1.0",
        thumbnail="news/2026-03-01/120000-thumb.jpg",
        evidence=("news/2026-03-01/120000-worst.jpg", "news/2026-03-01/120000-1.jpg"),
    )


def totals(rollups: list[Rollup]) -> dict[str, Any]:
    faults: dict[str, float] = {}
    for rollup in rollups:
        for name, seconds in rollup.fault_seconds.items():
            faults[name] = faults.get(name, 0.0) + seconds
    return {
        "watched": sum(r.watched_seconds for r in rollups),
        "up": sum(r.up_seconds for r in rollups),
        "scored": sum(r.scored_seconds for r in rollups),
        "quality": sum(r.quality_sum for r in rollups),
        "worst": min((r.quality_worst for r in rollups if r.quality_worst is not None), default=-1),
        "bins": [sum(bins) for bins in zip(*(r.histogram for r in rollups), strict=True)],
        "segments": sum(r.segments for r in rollups),
        "faults": faults,
    }


def test_a_segment_comes_back_as_it_went_in(store: SegmentStore) -> None:
    """Reports, plugins and comparisons work on stored segments; nothing may be rounded or lost."""
    given_segment = full()

    store.add([given_segment])

    assert store.segments() == [given_segment]
    assert store.segment(given_segment.id) == given_segment
    assert store.last(given_segment.stream) == given_segment


def test_a_segment_without_a_score_keeps_its_reason(store: SegmentStore) -> None:
    """Availability is a sum over rows, so silence is stored like anything else."""
    down = segment(quality=None, no_score_reason="timeout_read")

    store.add([down])

    assert store.segments() == [down]


def test_times_come_back_in_utc_from_any_zone(store: SegmentStore) -> None:
    """A daemon moved to another time zone must not shift its history."""
    plus_nine = timezone(timedelta(hours=9))
    there = segment(stream="tokyo")
    there = replace(there, started_at=NOON.astimezone(plus_nine))

    store.add([there])

    [back] = store.segments(since=NOON.astimezone(plus_nine))
    assert back.started_at == NOON
    assert back.started_at.utcoffset() == timedelta(0)
    assert store.rollups(60)[0].starts_at.utcoffset() == timedelta(0)


def test_a_time_without_a_zone_is_refused_everywhere(store: SegmentStore) -> None:
    """Guessing a zone would file segments hours away from where they happened."""
    naive = datetime(2026, 3, 1, 12, 0)  # noqa: DTZ001 the mistake under test
    calls: list[Callable[[], object]] = [
        lambda: store.add([replace(segment(), started_at=naive)]),
        lambda: store.segments(since=naive),
        lambda: store.segments(until=naive),
        lambda: store.rollups(60, since=naive),
        lambda: store.rollups(60, until=naive),
        lambda: store.prune(naive),
        lambda: store.forget_pictures(naive),
        lambda: store.prune_rollups(naive),
    ]

    for call in calls:
        with pytest.raises(ValueError, match="time zone"):
            call()
    assert store.segments() == []


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"seconds": nan}, "lasts"),
        ({"seconds": -1.0}, "lasts"),
        ({"seconds": inf}, "lasts"),
        ({"seconds": 1e9}, "lasts"),
        ({"quality": nan}, "quality"),
        ({"quality": 100.5}, "quality"),
        ({"quality_worst": -0.5}, "quality_worst"),
        ({"stream": ""}, "name of its stream"),
        ({"id": ""}, "needs an id"),
        ({"stream": "a\0b"}, "cannot be stored as text"),
        ({"stream": "a\udcffb"}, "cannot be stored as text"),
    ],
)
def test_what_cannot_be_added_up_is_refused_with_the_whole_batch(
    store: SegmentStore, fields: dict[str, Any], why: str
) -> None:
    """One broken value must not poison sums that are kept for a year, nor hang their making."""
    with pytest.raises(ValueError, match=why):
        store.add([segment(), segment(10, **fields)])

    assert store.segments() == []
    assert store.rollups(60) == []


def test_numbers_that_are_none_in_facts_and_findings_do_not_cost_the_segment(
    store: SegmentStore,
) -> None:
    """A PSNR of infinity, a NaN, a numpy number or a NUL from a broken stream's metadata are
    nothing that SQL takes; the segment around them is still worth keeping.
    """
    odd = segment(
        explanation="title \0 and \udcff",
        facts={"psnr": inf, "mean": np.float32(2.5), "sizes": np.arange(3), "name": "a\0b\ud800"},
        findings=(Finding("noise", 2, 0.5, nan, inf, "dB"),),
        uncertainty=nan,
    )

    store.add([odd])

    [back] = store.segments()
    assert back.id == odd.id
    assert back.facts["mean"] == 2.5
    assert list(back.facts["sizes"]) == [0, 1, 2]
    assert back.findings[0].name == "noise"


def test_since_is_inclusive_and_until_exclusive_so_adjacent_reads_never_overlap(
    store: SegmentStore,
) -> None:
    """A report made of daily reads must count each segment once."""
    store.add([segment(0), segment(10), segment(20)])

    first = store.segments(until=NOON + timedelta(seconds=10))
    second = store.segments(since=NOON + timedelta(seconds=10))

    assert [s.start for s in first] == [0]
    assert [s.start for s in second] == [10, 20]


def test_rollups_are_read_with_the_same_borders(store: SegmentStore) -> None:
    """Hours of a report are cut like its segments."""
    store.add([segment(0), segment(60), segment(120, stream="sport")])

    minute = timedelta(minutes=1)
    one = store.rollups(60, since=NOON + minute, until=NOON + 2 * minute)

    assert [r.starts_at for r in one] == [NOON + minute]
    assert [r.stream for r in store.rollups(60, "sport")] == ["sport"]


def test_segments_are_oldest_first_whatever_the_order_of_adding(store: SegmentStore) -> None:
    """Alert rules replay history in this order; ties fall the same way everywhere."""
    b, a, c = segment(20, id="b"), segment(0, id="a"), segment(20, id="c")
    other = segment(20, id="z", stream="Zeta")

    store.add([c, b])
    store.add([other, a])

    assert [s.id for s in store.segments()] == ["a", "z", "b", "c"]
    assert [s.id for s in store.segments(limit=2)] == ["a", "z"]
    assert store.segments(limit=0) == []
    assert [s.id for s in store.segments("news")] == ["a", "b", "c"]


def test_worst_first_leaves_out_what_has_no_score(store: SegmentStore) -> None:
    """The report's worst segments are about pictures; outages have their own table."""
    store.add(
        [
            segment(0, id="good", quality=90.0),
            segment(10, id="down", quality=None, no_score_reason="dns"),
            segment(20, id="bad", quality=0.0),
            segment(30, id="also", quality=0.0),
        ]
    )

    assert [s.id for s in store.segments(worst_first=True)] == ["bad", "also", "good"]
    assert [s.id for s in store.segments(worst_first=True, limit=1)] == ["bad"]


def test_a_negative_limit_is_a_mistake(store: SegmentStore) -> None:
    """SQLite would take it for no limit, PostgreSQL for an error."""
    with pytest.raises(ValueError, match="limit"):
        store.segments(limit=-1)
    with pytest.raises(ValueError, match="limit"):
        store.prune(NOON, limit=-1)


def test_segments_are_found_by_finding(store: SegmentStore) -> None:
    """`When did it freeze this week?` must not read every row of the week."""
    freeze = Finding("freeze", 3, 1.0, 2.0, 1.0, "s", None, 12.0, 2.0)
    black = Finding("black", 3, 1.0, 2.0, 1.0, "s", None, 20.0, 2.0)
    store.add([segment(0), segment(10, findings=(freeze,)), segment(20, findings=(black, freeze))])

    assert [s.start for s in store.segments(finding="freeze")] == [10, 20]
    assert [s.start for s in store.segments("news", NOON, finding="black")] == [20]
    assert [s.start for s in store.segments(finding="freeze", limit=1)] == [10]
    assert store.segments("sport", finding="freeze") == []
    assert store.segments(finding="stutter") == []


def test_an_id_may_be_shortened_as_long_as_one_segment_is_meant(store: SegmentStore) -> None:
    """People copy the first characters from a terminal table."""
    store.add([segment(0, id="abc1"), segment(10, id="abd2"), segment(20, id="abd")])

    found = store.segment("abc")

    assert found is not None
    assert found.id == "abc1"
    assert store.segment("ABC") is None
    assert store.segment("x") is None
    assert store.segment("") is None
    assert store.segment("%") is None
    exact = store.segment("abd")
    assert exact is not None
    assert exact.id == "abd"
    with pytest.raises(StoreError, match="give more of it"):
        store.segment("ab")


def test_storing_twice_stores_once(store: SegmentStore) -> None:
    """After a lost connection nobody knows whether the batch arrived; it is simply sent again."""
    one, other = segment(0), segment(10, findings=(Finding("blur", 2, 1, 1, 1, "", None, 10, 5),))

    store.add([one, other, one])
    store.add([other, segment(20)])
    store.add([one])

    assert len(store.segments()) == 3
    assert totals(store.rollups(60))["segments"] == 3
    assert totals(store.rollups(3600))["watched"] == 30
    assert store.rollups(3600)[0].fault_seconds == {"blur": 5}


def test_a_known_id_is_left_as_it_was_first_stored(store: SegmentStore) -> None:
    """Within one batch as over many: the first one counts."""
    first = segment(0, explanation="first")

    store.add([first, replace(first, explanation="second")])
    store.add([replace(first, explanation="third")])

    assert [s.explanation for s in store.segments()] == ["first"]


def test_nothing_to_add_is_no_error(store: SegmentStore) -> None:
    """The writer flushes on a clock, with or without segments."""
    store.add([])
    store.add(iter(()))

    assert store.segments() == []
    assert store.streams() == []
    assert store.last("news") is None


def test_a_segment_across_a_minute_is_shared_between_both(store: SegmentStore) -> None:
    """Ten seconds that begin at :57 belong to two minutes, its freeze of :59 to :62 to both."""
    freeze = Finding("freeze", 4, 1.0, 3.0, 1.0, "s", None, 59.0, 3.0)

    store.add([segment(57, quality=55.0, quality_worst=20.0, findings=(freeze,))])

    first, second = store.rollups(60)
    assert (first.starts_at, first.watched_seconds, first.segments) == (NOON, 3, 1)
    assert (second.starts_at, second.watched_seconds, second.segments) == (
        NOON + timedelta(minutes=1),
        7,
        0,
    )
    assert first.quality == second.quality == 55
    assert first.quality_worst == second.quality_worst == 20
    assert first.histogram[5] == 3
    assert second.histogram[5] == 7
    assert first.fault_seconds == {"freeze": 1}
    assert second.fault_seconds == {"freeze": 2}
    [hour] = store.rollups(3600)
    assert (hour.watched_seconds, hour.segments, hour.fault_seconds) == (10, 1, {"freeze": 3})


def test_findings_that_overlap_count_their_seconds_once(store: SegmentStore) -> None:
    """Blur in two corners at once is not twice as long; a fault cannot outlast its segment."""
    findings = (
        Finding("blur", 2, 1, 1, 1, "", ("top",), 0.0, 6.0),
        Finding("blur", 3, 1, 1, 1, "", ("left",), 4.0, 4.0),
        Finding("noise", 3, 1, 1, 1, "", None, 0.0, 500.0),
    )

    store.add([segment(0, findings=findings)])

    assert store.rollups(60)[0].fault_seconds == {"blur": 8, "noise": 10}


def test_the_worst_of_a_minute_is_the_lowest_ever_seen_in_it(store: SegmentStore) -> None:
    """Whichever comes first, and with outages between."""
    store.add([segment(0, quality=None, no_score_reason="eof")])
    assert store.rollups(60)[0].quality_worst is None
    assert store.rollups(60)[0].quality is None

    for start, worst in [(10, 50.0), (20, 30.0), (30, 80.0)]:
        store.add([segment(start, quality_worst=worst)])
    store.add([segment(40, quality=None, no_score_reason="eof")])

    assert store.rollups(60)[0].quality_worst == 30


@pytest.mark.parametrize(
    ("reason", "is_up"),
    [
        ("refused", False),
        ("timeout_read", False),
        ("eof", False),
        ("process_restarted", False),
        ("visit_missed", False),
        ("no_video", True),
        ("overload", True),
        ("scorer_failed", True),
        (None, True),
    ],
)
def test_up_means_that_media_arrived(store: SegmentStore, reason: str | None, is_up: bool) -> None:
    """Availability must not suffer from a model that is away, nor shine through an outage."""
    store.add([segment(0, quality=None if reason else 50.0, no_score_reason=reason)])

    [minute] = store.rollups(60)
    assert minute.up_seconds == (10 if is_up else 0)
    assert minute.watched_seconds == 10


def test_a_visit_counts_its_own_seconds(store: SegmentStore) -> None:
    """What a visit stands for is a fact for rules; sums only hold what was watched."""
    store.add([segment(0, seconds=30.0, facts={"represents_seconds": 300})])

    assert totals(store.rollups(3600))["watched"] == 30


def test_rollups_are_ordered_by_time_then_stream(store: SegmentStore) -> None:
    """And streams sort byte by byte, as Python does, whatever the server's locale."""
    for name in ("b", "Zeta", "ä"):
        store.add([segment(60, stream=name), segment(0, stream=name)])

    assert [(r.starts_at.minute, r.stream) for r in store.rollups(60)] == [
        (0, "Zeta"),
        (0, "b"),
        (0, "ä"),
        (1, "Zeta"),
        (1, "b"),
        (1, "ä"),
    ]
    assert store.streams() == ["Zeta", "b", "ä"]


def test_only_minutes_and_hours_are_kept(store: SegmentStore) -> None:
    """An empty answer would look like a stream that was never watched."""
    with pytest.raises(ValueError, match="60 or 3600"):
        store.rollups(86_400)


def test_pruning_takes_the_oldest_and_names_their_pictures(store: SegmentStore) -> None:
    """Files go with their rows; a few rows at a time, so that writers never wait long."""
    store.add(
        [
            segment(10 * n, thumbnail=f"t{n}.jpg", evidence=(f"e{n}a.jpg", f"e{n}b.jpg"))
            for n in range(5)
        ]
        + [segment(5, stream="sport")]
    )

    paths = store.prune(NOON + timedelta(seconds=40), limit=3)

    assert sorted(paths) == ["e0a.jpg", "e0b.jpg", "e1a.jpg", "e1b.jpg", "t0.jpg", "t1.jpg"]
    assert [s.start for s in store.segments()] == [20, 30, 40]
    assert len(store.prune(NOON + timedelta(seconds=40))) == 6
    assert store.prune(NOON + timedelta(seconds=40)) == []
    assert [s.start for s in store.segments()] == [40]


def test_a_picture_stays_while_another_segment_names_it(store: SegmentStore) -> None:
    """A file may show two segments; it goes with the last of them."""
    store.add([segment(0, thumbnail="same.jpg"), segment(10, thumbnail="same.jpg")])

    assert store.prune(NOON + timedelta(seconds=5)) == []
    assert store.known_pictures(["same.jpg"]) == {"same.jpg"}
    assert store.prune(LONG_AFTER) == ["same.jpg"]
    assert store.known_pictures(["same.jpg"]) == set()


def test_pictures_can_go_while_their_segments_stay(store: SegmentStore) -> None:
    """Pictures take a hundred times the space of rows; a small disk keeps the measurements."""
    store.add(
        [segment(10 * n, thumbnail=f"t{n}.jpg", evidence=(f"e{n}.jpg",)) for n in range(3)]
        + [segment(5)]
    )

    gone = store.forget_pictures(LONG_AFTER, limit=2)

    assert sorted(gone) == ["e0.jpg", "e1.jpg", "t0.jpg", "t1.jpg"]
    assert [(s.thumbnail, s.evidence) for s in store.segments()] == [
        (None, ()),
        (None, ()),
        (None, ()),
        ("t2.jpg", ("e2.jpg",)),
    ]
    assert store.forget_pictures(NOON) == []
    assert sorted(store.forget_pictures(LONG_AFTER)) == ["e2.jpg", "t2.jpg"]
    assert store.forget_pictures(LONG_AFTER) == []


def test_pictures_that_no_segment_names_are_told_apart(store: SegmentStore) -> None:
    """A crash between file and row leaves an orphan; the sweep finds it, however many files."""
    store.add([segment(0, thumbnail="known/ä.jpg")])
    many = [f"orphan-{n}.jpg" for n in range(1500)]

    assert store.known_pictures([*many, "known/ä.jpg"]) == {"known/ä.jpg"}
    assert store.known_pictures([]) == set()


def test_rollups_outlive_their_segments(store: SegmentStore) -> None:
    """Raw rows stay a week, sums more than a year."""
    blur = Finding("blur", 2, 1, 1, 1, "", None, 0, 5)
    store.add([segment(0, findings=(blur,)), segment(7200)])

    store.prune(LONG_AFTER)

    assert store.segments() == []
    assert totals(store.rollups(60))["watched"] == 20
    assert store.streams() == ["news"]


def test_old_rollups_are_deleted_and_counted(store: SegmentStore) -> None:
    """Also more of them than fit into one small step."""
    blur = Finding("blur", 2, 1, 1, 1, "", None, 0, 5)
    store.add([segment(60 * n, start=0, findings=(blur,)) for n in range(700)])

    gone = store.prune_rollups(NOON + timedelta(hours=11))

    assert gone == 660 + 11
    assert store.rollups(60)[0].starts_at == NOON + timedelta(hours=11)
    assert store.prune_rollups(NOON + timedelta(hours=11)) == 0


segments_of_an_hour = st.lists(
    st.builds(
        lambda second, length, quality, reason, fault: segment(
            second,
            seconds=length,
            stream="a" if second % 2 < 1 else "b",
            quality=quality,
            quality_worst=None if quality is None else quality / 2,
            no_score_reason=reason if quality is None else None,
            findings=(
                Finding("freeze", 3, 1.0, 1.0, 1.0, "s", None, second + fault, fault),
                Finding("black", 3, 1.0, 1.0, 1.0, "s", None, second, length),
            ),
        ),
        st.floats(0, 7000),
        st.floats(0, 400) | st.just(0.0),
        st.none() | st.floats(0, 100),
        st.sampled_from(["eof", "no_video"]),
        st.floats(0, 50),
    ),
    max_size=12,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(segments_of_an_hour, st.integers(1, 12))
def test_rollups_sum_to_the_segments(store: SegmentStore, some: list[Segment], batch: int) -> None:
    """Whatever is added in whatever batches: a report over sums equals one over segments."""
    store.prune(LONG_AFTER)
    store.prune_rollups(LONG_AFTER)

    for at in range(0, len(some), batch):
        store.add(some[at : at + batch])
        store.add(some[at : at + 1])

    scored = [s for s in some if s.quality is not None]
    for period in (60, 3600):
        found = totals(store.rollups(period)) if some else totals([])
        assert found["segments"] == len(some)
        assert found["watched"] == pytest.approx(sum(s.seconds for s in some))
        assert found["scored"] == pytest.approx(sum(s.seconds for s in scored))
        assert found["quality"] == pytest.approx(sum((s.quality or 0) * s.seconds for s in some))
        assert found["up"] == pytest.approx(
            sum(s.seconds for s in some if s.no_score_reason != "eof")
        )
        assert found["worst"] == min(
            (s.quality_worst for s in scored if s.quality_worst is not None), default=-1
        )
        assert sum(found["bins"]) == pytest.approx(found["scored"])
        assert found["faults"].get("black", 0) == pytest.approx(sum(s.seconds for s in some))
        assert found["faults"].get("freeze", 0) == pytest.approx(
            sum(min(s.findings[0].seconds, s.seconds) for s in some)
        )


def test_readers_go_on_while_a_writer_writes(store: SegmentStore) -> None:
    """A report must never delay the daemon, nor the daemon break a report."""
    failures: list[BaseException] = []
    done = threading.Event()

    def write() -> None:
        try:
            for n in range(40):
                store.add([segment(100 * n + 10 * k) for k in range(10)])
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    counts = []
    while not done.is_set():
        counts.append(len(store.segments()))
        store.rollups(60)
    writer.join()

    assert failures == []
    assert all(count % 10 == 0 for count in counts), "a batch is seen whole or not at all"
    assert counts == sorted(counts)
    assert totals(store.rollups(3600))["segments"] == 400


def test_writers_take_turns(store: SegmentStore) -> None:
    """Two daemons of different instances may share a database, even a stream's name."""
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for n in range(20):
                store.add([segment(10 * n, stream=name) for name in ("a", "b", f"own {number}")])
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert failures == []
    assert totals(store.rollups(60))["segments"] == 4 * 20 * 3
    assert totals(store.rollups(60, "a"))["watched"] == 4 * 20 * 10


def test_adding_keeps_up_with_a_hundred_streams(store: SegmentStore) -> None:
    """1000 segments in batches of 50 within five seconds: what 100 streams give in 100 s."""
    some = [replace(full(), id=f"{n:05}", stream=f"s{n % 100}") for n in range(1000)]
    began = time.monotonic()

    for at in range(0, 1000, 50):
        store.add(some[at : at + 50])

    assert time.monotonic() - began < 5
    assert len(store.segments()) == 1000


def test_ten_thousand_rows_are_read_quickly(store: SegmentStore) -> None:
    """The queries behind a report and the status page must not read all there is."""
    store.add(
        segment(10 * (n // 10), stream=f"s{n % 10}", quality=n % 100.0) for n in range(10_000)
    )
    began = time.monotonic()

    assert len(store.segments("s3")) == 1000
    assert len(store.segments(worst_first=True, limit=20)) == 20
    assert len(store.streams()) == 10
    assert all(store.last(f"s{n}") for n in range(10))
    assert len(store.rollups(3600)) == 30

    assert time.monotonic() - began < 3


def test_the_size_grows_with_rows_and_falls_when_they_go(url: str) -> None:
    """Retention by size compares this figure with its limit, over and over, until it is met."""
    with open_store(url) as store:
        empty = store.size_bytes()

        store.add([replace(full(), id=f"{n}") for n in range(300)])
        filled = store.size_bytes()
        while store.segments(limit=1):
            store.prune(LONG_AFTER, limit=100)

        assert filled > empty + 300 * 1000
        assert store.size_bytes() < empty + (filled - empty) / 5


def test_the_size_noted_with_rows_is_about_what_they_take(sqlite_url: str) -> None:
    """PostgreSQL cannot say what deleted rows left; the noted sizes stand in and must be near."""
    with open_store(sqlite_url) as store:
        empty = store.size_bytes()
        store.add([replace(full(), id=f"{n:032x}") for n in range(2000)])
        measured = store.size_bytes() - empty

    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as raw:
        [noted] = raw.execute("SELECT sum(bytes) FROM segments").fetchone()
    assert 0.6 < noted / measured < 1.7


def test_the_file_shrinks_as_rows_go(sqlite_url: str) -> None:
    """Without incremental auto-vacuum a database that was once large stays so for ever."""
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    with open_store(sqlite_url) as store:
        store.add([replace(full(), id=f"{n}") for n in range(2000)])
    large = file.stat().st_size

    with open_store(sqlite_url) as store:
        while store.segments(limit=1):
            store.prune(LONG_AFTER)
        store.prune_rollups(LONG_AFTER)

    assert file.stat().st_size < large / 5


def test_a_store_in_memory_is_shared_by_threads_and_has_no_size() -> None:
    """`sqlite://` is for trying things out; each thread seeing its own would be a trap."""
    with open_store("sqlite://") as store:
        store.add([segment()])
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(len(store.segments())))
        thread.start()
        thread.join()

        assert seen == [1]
        assert store.size_bytes() == 0
        assert store.folder is None


def test_a_finding_that_only_a_newer_vqmon_knows_is_left_out(sqlite_url: str) -> None:
    """Two versions run side by side during an upgrade; the old one must still read."""
    with open_store(sqlite_url) as store:
        store.add([full()])
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as raw:
            raw.execute("UPDATE segments SET findings = replace(findings, 'freeze', 'moire')")
            raw.execute("UPDATE segments SET findings = replace(findings, '\"unit\"', '\"u2\"')")
            raw.commit()

        [back] = store.segments()

    assert [f.name for f in back.findings] == ["compression"]


def test_a_finding_from_before_costs_were_stated_is_read(sqlite_url: str) -> None:
    """Rows outlive the program that wrote them."""
    with open_store(sqlite_url) as store:
        store.add([full()])
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as raw:
            raw.execute("UPDATE segments SET findings = json_remove(findings, '$[0].cost')")
            raw.commit()

        [back] = store.segments()

    assert [f.cost for f in back.findings] == [None, None]


def test_damaged_outputs_are_named_as_such(sqlite_url: str) -> None:
    """A flipped bit on disk is no reason for a traceback."""
    with open_store(sqlite_url) as store:
        store.add([full()])
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as raw:
            raw.execute("UPDATE segments SET outputs = x'00ff'")
            raw.commit()

        with pytest.raises(StoreError, match="damaged"):
            store.segments()


def test_both_are_segment_stores() -> None:
    """mypy checks that the classes fit the port; this keeps the assignment in the suite."""
    stores: list[SegmentStore] = [MemoryStore(), open_store("sqlite://")]

    assert all(store.segments() == [] for store in stores)
    for store in stores:
        if isinstance(store, SqlStore):
            store.close()
