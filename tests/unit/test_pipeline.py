"""The line itself: media in, segments out."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from vqmon.domain import Colour, Event, Frame, Media, Packet, Segment, Stream, Traffic
from vqmon.errors import SourceUnavailable
from vqmon.pipeline import monitor
from vqmon.sampling import BurstBudget
from vqmon.testing import EPOCH, FakeScorer, FakeSource, textured_frame

STREAM = Stream("news", "fake", sampling="every", sample_every=1.0, segment_seconds=10)


def watch(source: FakeSource, stream: Stream = STREAM, **kwargs: object) -> list[Segment]:
    return list(monitor(stream, source, FakeScorer(), **kwargs))  # type: ignore[arg-type]


def second(at: float, *, late: int = 0) -> Traffic:
    """One second of ordinary traffic that ends at `at`."""
    packets = (Packet(at - 1, 1.0, 1000, key=True),)
    return Traffic(at, 1.0, 1.0, EPOCH + timedelta(seconds=at), 1000, packets, late_frames=late)


def test_a_segment_remembers_its_worst_second() -> None:
    """A bad tenth weighs more than its length, and its frame is the segment's worst: the mean is
    75, that of the worst fifth 55.
    """
    source = FakeSource(brightness=[80] * 9 + [30])

    [segment] = watch(source)

    assert segment.quality == pytest.approx(0.7 * 75 + 0.3 * 55, abs=2)
    assert segment.quality_worst == pytest.approx(30, abs=3)
    assert segment.frames_scored == 10


def test_segments_follow_each_other_without_gap_or_overlap() -> None:
    """Availability is a sum over rows, so rows must tile time."""
    segments = watch(FakeSource(brightness=[60] * 35))

    assert [s.start for s in segments] == [0, 10, 20, 30]
    assert [s.seconds for s in segments] == [10, 10, 10, 5]
    for before, after in itertools.pairwise(segments):
        assert after.started_at == before.started_at + timedelta(seconds=before.seconds)


def test_what_was_measured_before_a_failure_is_not_lost() -> None:
    error = SourceUnavailable("fake", "timeout_read", "gone")
    line = monitor(STREAM, FakeSource(brightness=[60] * 14, error=error), FakeScorer())

    kept = [next(line), next(line)]

    assert [s.seconds for s in kept] == [10, 4]
    assert kept[1].quality is not None
    with pytest.raises(SourceUnavailable):
        next(line)


def test_a_lost_source_closes_the_segment_in_progress() -> None:
    """The outage belongs to the supervisor's no-signal rows, not to this segment."""
    ordinary = [i for i in FakeSource(brightness=[60] * 4)._media if not isinstance(i, Event)]
    lost = Event("lost", 4.0, EPOCH + timedelta(seconds=4), reason="timeout_read")
    later = [
        replace(textured_frame(t), captured_at=EPOCH + timedelta(seconds=t)) for t in (30.0, 31.0)
    ]

    segments = watch(FakeSource([*ordinary, lost, *later]))

    assert [(s.start, s.seconds) for s in segments] == [(0, 4), (30, 1)]
    assert segments[1].started_at == EPOCH + timedelta(seconds=30)


def test_black_frames_are_not_scored() -> None:
    """A quality model's opinion of a black picture means nothing."""
    [segment] = watch(FakeSource(brightness=[0] * 10))

    assert segment.quality is None
    assert segment.no_score_reason == "black"
    assert "black" in {f.name for f in segment.findings}


def test_pictures_that_cannot_be_scored_say_why() -> None:
    """HDR without tone mapping would get a wrong score; silence is better."""
    media: list[Media] = [
        replace(textured_frame(float(t)), colour=Colour(transfer="pq")) for t in range(10)
    ]

    [segment] = watch(FakeSource(media))

    assert segment.quality is None
    assert segment.no_score_reason == "unsupported_picture"


def test_sound_without_pictures_gives_a_segment_without_a_score() -> None:
    segments = watch(FakeSource([second(float(t)) for t in range(1, 21)]))

    assert [s.no_score_reason for s in segments] == ["no_frames", "no_frames"]
    assert sum(s.seconds for s in segments) == pytest.approx(20)


def test_traffic_belongs_to_the_second_it_describes() -> None:
    """Traffic is known only when its second is over; it must not slip into the next segment."""
    media: list[Media] = []
    for t in range(20):
        media += [textured_frame(float(t), seed=t), second(t + 1.0)]

    segments = watch(FakeSource(media))

    assert len(segments) == 2
    assert segments[0].facts["keyframes"] == segments[1].facts["keyframes"] == 10


def test_frames_are_scored_in_batches_when_asked() -> None:
    scorer = FakeScorer()

    segments = list(monitor(STREAM, FakeSource(brightness=[60] * 20), scorer, batch=4))

    assert scorer.batches == [4, 4, 2, 4, 4, 2]
    assert [s.frames_scored for s in segments] == [10, 10]


def test_batches_do_not_change_the_result() -> None:
    """The same input gives the same score, however it is computed."""
    one, many = (
        list(monitor(STREAM, FakeSource(brightness=[60, 20, 90] * 7), FakeScorer(), batch=b))
        for b in (1, 8)
    )

    assert [(s.quality, s.findings) for s in one] == [(s.quality, s.findings) for s in many]


def test_dense_scores_do_not_count_double() -> None:
    """A burst scores the bad second six times; it must still count as the tenth that it is: the
    mean is 74, that of the worst fifth 50.
    """
    bad = [5 + n / 6 for n in range(6)]
    media: list[Media] = [
        textured_frame(t, brightness=20.0 if 5 <= t < 6 else 80.0, seed=n)
        for n, t in enumerate(sorted({float(t) for t in range(10)} | set(bad)))
    ]
    stream = replace(STREAM, sample_every=0.1)

    [segment] = watch(FakeSource(media), stream)

    assert segment.quality == pytest.approx(0.7 * 74 + 0.3 * 50, abs=4)


def test_evidence_is_offered_every_scored_frame_and_closes_the_segment() -> None:
    class Keeper:
        def __init__(self) -> None:
            self.offered: list[float] = []

        def offer(self, frame: Frame, quality: float | None) -> None:
            assert quality is not None
            self.offered.append(frame.position)

        def close(self, segment: Segment) -> Segment:
            return replace(segment, thumbnail="thumb.jpg")

    keeper = Keeper()

    [segment] = watch(FakeSource(brightness=[60] * 10), evidence=keeper)

    assert segment.thumbnail == "thumb.jpg"
    assert keeper.offered == [float(t) for t in range(10)]


def test_a_stream_gives_its_place_in_the_budget_back() -> None:
    budget = BurstBudget(1.0)

    watch(FakeSource(brightness=[60] * 3), budget=budget)

    assert budget._members == 0


def test_an_empty_source_gives_no_segment() -> None:
    assert watch(FakeSource([Event("opened", 0.0, EPOCH)])) == []


def test_late_frames_are_said_in_the_facts() -> None:
    """Under overload monitoring gets coarser and says so."""
    media: list[Media] = []
    for t in range(20):
        media += [textured_frame(float(t), seed=t), second(t + 1.0, late=10)]

    segments = watch(FakeSource(media, live=True))

    assert segments[-1].facts["coarser_by"] >= 2
    assert "overload" in {f.name for f in segments[-1].findings}


def test_gulps_of_media_do_not_tear_holes_into_the_rows() -> None:
    """HLS delivers six seconds at once; rows still tile time."""
    media: list[Media] = [
        replace(
            textured_frame(float(t), seed=t),
            captured_at=EPOCH + timedelta(seconds=6 * (t // 6 + 1)),
        )
        for t in range(30)
    ]

    segments = watch(FakeSource(media, live=True))

    starts = [s.started_at for s in segments]
    assert [(b - a).total_seconds() for a, b in itertools.pairwise(starts)] == [10, 10]


def test_time_that_passed_without_media_is_not_counted_as_watched() -> None:
    """A stream that delivers half of real time falls behind; its rows must not claim the rest."""
    media: list[Media] = [
        replace(textured_frame(float(t), seed=t), captured_at=EPOCH + timedelta(seconds=2 * t))
        for t in range(40)
    ]

    segments = watch(FakeSource(media, live=True))

    spent = (segments[-1].started_at - segments[0].started_at).total_seconds()
    assert spent > 1.5 * segments[-1].start
