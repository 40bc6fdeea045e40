"""Stretches of time, cut at segment borders."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqmon.signals.limits import SCALES, Scale
from vqmon.signals.spans import KEPT, Track, found

times = st.floats(0, 100, allow_nan=False).map(lambda x: round(x, 3))


@st.composite
def marks(draw: st.DrawFn) -> list[tuple[float, float]]:
    """Stretches in order, possibly touching, each at least a little long."""
    edges = sorted(draw(st.lists(times, min_size=2, max_size=16, unique=True)))
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]


def track_of(stretches: list[tuple[float, float]], **kwargs: float) -> Track:
    track = Track(**kwargs)  # type: ignore[arg-type]
    for start, end in stretches:
        track.mark(start, end)
    return track


@given(marks(), st.lists(times, max_size=8, unique=True), st.floats(0, 5), st.floats(0, 3))
def test_durations_add_up_however_time_is_cut(
    stretches: list[tuple[float, float]], borders: list[float], least: float, join: float
) -> None:
    """A fault across segments is one fault: alert rules sum its seconds."""
    edges = [0.0, *sorted(b for b in borders if 0 < b < 100), 101.0]
    whole = track_of(stretches, least=least, join=join)

    cut = [sum(c.seconds for c in whole.cuts(a, b)) for a, b in pairwise(edges)]

    assert sum(cut) == pytest.approx(sum(c.seconds for c in whole.cuts(0, 101)), abs=1e-6)


@given(marks(), times, times)
def test_a_cut_never_leaves_its_segment(
    stretches: list[tuple[float, float]], a: float, b: float
) -> None:
    start, end = min(a, b), max(a, b) + 0.001

    for cut in track_of(stretches).cuts(start, end):
        assert start <= cut.start
        assert cut.start + cut.seconds <= end + 1e-9
        assert cut.so_far >= cut.seconds - 1e-9


@given(marks(), times)
def test_forgetting_the_past_changes_nothing_later(
    stretches: list[tuple[float, float]], before: float
) -> None:
    """What ended before the segment in progress is never asked for again."""
    remembering, forgetful = track_of(stretches, join=1.0), track_of(stretches, join=1.0)

    forgetful.forget(before)

    assert list(forgetful.cuts(before, 200)) == list(remembering.cuts(before, 200))


def test_a_fault_that_goes_on_reaches_to_the_end_of_its_segment() -> None:
    track = Track()

    track.begin(4.0)

    [first] = track.cuts(0, 10)
    [second] = track.cuts(10, 20)
    assert (first.start, first.seconds, first.so_far) == (4, 6, 6)
    assert (second.start, second.seconds, second.so_far) == (10, 10, 16)


def test_what_is_too_short_as_a_whole_is_not_reported_in_parts() -> None:
    """Half a second of black across a border is still half a second of black."""
    track = track_of([(9.8, 10.2)], least=0.5)

    assert not list(track.cuts(0, 10))
    assert not list(track.cuts(10, 20))


def test_a_long_fault_is_reported_where_only_its_tail_lies() -> None:
    track = track_of([(4, 10.1)], least=2.0)

    [tail] = track.cuts(10, 20)

    assert tail.seconds == pytest.approx(0.1)
    assert tail.so_far == pytest.approx(6.1)


def test_close_spans_become_one_with_the_worst_value() -> None:
    track = Track(join=2.0)

    track.mark(1, 2, 5.0)
    track.mark(3, 4, 9.0)
    track.mark(3.5, 3.8, 7.0)

    [cut] = track.cuts(0, 10)
    assert (cut.start, cut.seconds, cut.worst) == (1, 3, 9.0)


def test_for_shares_of_what_is_usual_the_smallest_is_the_worst() -> None:
    track = Track(larger_is_worse=False)

    track.begin(0, 60.0)
    track.begin(1, 20.0)
    track.begin(2, 40.0)

    assert next(track.cuts(0, 3)).worst == 20.0


def test_an_instant_belongs_to_exactly_one_segment() -> None:
    track = Track()

    track.mark(10, 10)

    assert not list(track.cuts(0, 10))
    assert len(list(track.cuts(10, 20))) == 1


def test_memory_is_bounded_when_nothing_is_ever_forgotten() -> None:
    track = Track()

    for index in range(10 * KEPT):
        track.mark(index, index + 0.5)

    assert len(track) == KEPT


@pytest.mark.parametrize("name", sorted(SCALES))
@given(a=st.floats(-200, 2000), b=st.floats(-200, 2000))
def test_severity_never_falls_while_a_fault_grows(name: str, a: float, b: float) -> None:
    scale = SCALES[name]
    mild, bad = (min(a, b), max(a, b)) if scale.rising else (max(a, b), min(a, b))

    assert 1 <= scale.severity(mild) <= scale.severity(bad) <= 5


@pytest.mark.parametrize(("name", "scale"), sorted(SCALES.items()))
def test_the_steps_of_a_scale_go_one_way_from_its_limit(name: str, scale: Scale) -> None:
    """A table typed wrongly would rate worse faults milder."""
    steps = [scale.limit, *scale.steps]

    assert steps == sorted(steps, reverse=not scale.rising), name


def test_a_finding_carries_what_was_measured_and_the_limit_it_broke() -> None:
    [cut] = track_of([(3, 9)]).cuts(0, 8)

    finding = found("black", cut, cut.so_far, 0.987)

    assert (finding.value, finding.limit, finding.unit) == (5.0, 0.5, "s")
    assert (finding.severity, finding.confidence) == (3, 0.99)
    assert (finding.start, finding.seconds) == (3, 5)
