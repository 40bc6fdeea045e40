"""All signals together: clean streams stay silent, faults add up, nothing grows."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scenes import (
    BLACK,
    EPOCH,
    Luma,
    Scene,
    feed,
    found,
    lasting,
    moving,
    named,
    noisy,
    photograph,
    show,
    sound,
    watched,
)
from vqmon import measures
from vqmon.domain import Event, Finding, Frame, Traffic
from vqmon.signals import SCALES, Signals

SECONDS = 60

KINDS = ("black", "freeze", "mute", "damage", "drop", "starve", "late")


@dataclass(frozen=True)
class Fault:
    kind: str
    start: float
    end: float

    def at(self, position: float) -> bool:
        return self.start <= position < self.end


@st.composite
def faults(draw: st.DrawFn) -> list[Fault]:
    """Up to three faults one after the other, from 0.1 s to half a minute."""
    edges = sorted(draw(st.lists(st.integers(30, 10 * SECONDS), max_size=6, unique=True)))
    return [
        Fault(draw(st.sampled_from(KINDS)), a / 10, b / 10)
        for a, b in zip(edges[::2], edges[1::2], strict=False)
    ]


def scene_with(script: list[Fault]) -> Scene:
    def is_on(kind: str, position: float) -> bool:
        return any(f.kind == kind and f.at(position) for f in script)

    def luma(position: float) -> Luma:
        stopped = next((f for f in script if f.kind == "freeze" and f.at(position)), None)
        return BLACK if is_on("black", position) else moving(stopped.start if stopped else position)

    return Scene(
        luma,
        level=lambda t: -120.0 if is_on("mute", t) else -20.0,
        damaged=lambda t: is_on("damage", t),
        dropped=lambda t: is_on("drop", t),
        slow=lambda t: 3.0 if is_on("starve", t) else 1.0,
        late=lambda t: 3 if is_on("late", t) else 0,
    )


def totals(findings: tuple[Finding, ...]) -> Counter[str]:
    seconds: Counter[str] = Counter()
    for finding in findings:
        seconds[finding.name] += finding.seconds  # type: ignore[assignment]
    return seconds


scripted = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@scripted
@given(faults(), st.lists(st.floats(1, SECONDS - 1), max_size=6, unique=True))
def test_durations_add_up_wherever_segments_are_cut(
    script: list[Fault], borders: list[float]
) -> None:
    """Availability and alert rules sum over rows; rows must not depend on where they begin."""
    edges = [0.0, *sorted(borders), float(SECONDS)]
    whole = totals(watched(scene_with(script), SECONDS).findings(0, SECONDS))
    signals = watched(scene_with(script), SECONDS)

    pieces: Counter[str] = Counter()
    for start, end in pairwise(edges):
        pieces += totals(signals.findings(start, end))

    assert set(pieces) == set(+whole)
    for name, seconds in pieces.items():
        assert seconds == pytest.approx(whole[name], abs=1e-3), name


@scripted
@given(faults(), st.floats(0, 30), st.floats(0.1, 30))
def test_a_finding_lies_in_its_segment_and_in_its_ranges(
    script: list[Fault], start: float, length: float
) -> None:
    end = start + length

    for finding in watched(scene_with(script), SECONDS).findings(start, end):
        assert start <= finding.start < end
        assert 0 <= finding.seconds <= end - finding.start + 1e-5
        assert 0 <= finding.confidence <= 1
        assert finding.value is not None
        assert finding.limit is not None
        assert finding.unit


@scripted
@given(faults())
def test_closing_segments_on_the_way_loses_no_more_than_it_takes_to_be_sure(
    script: list[Fault],
) -> None:
    """Live segments close before a fault that began at their end is proved."""
    whole = totals(watched(scene_with(script), SECONDS).findings(0, SECONDS))
    signals, live, start = Signals(sampling="every"), Counter[str](), 0.0

    for item in scene_with(script).media(SECONDS):
        begins = item.position - item.seconds if isinstance(item, Traffic) else item.position
        if begins >= start + 10:
            live += totals(signals.findings(start, start + 10))
            start += 10
        show(signals, item)
    live += totals(signals.findings(start, SECONDS))

    for name, seconds in whole.items():
        assert live[name] == pytest.approx(seconds, abs=len(script) * _proof(name)), name


def _proof(name: str) -> float:
    """Seconds until a fault is sure, which may lie in the segment before; and one of traffic."""
    proofs = {"underfed": 45.0, "bitrate_collapse": 8.0, "freeze": 4.0, "audio_silence": 5.0}
    return proofs.get(name, 1.0) + 1.0


@given(st.integers(0, 1000), st.sampled_from([1.0, 2.5]), st.integers(2, 12))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_natural_motion_raises_nothing(seed: int, noise: float, speed: int) -> None:
    """The release gate: at most one false alert per stream and day."""
    still = photograph(seed)
    camera = noisy(noise, still)

    def luma(position: float) -> Luma:
        import numpy as np

        return np.roll(camera(position), speed * round(10 * position), axis=1)

    scene = Scene(luma, size=lambda t: 4000 + (seed * round(t * 10)) % 6000)

    assert not found(scene, 40)


def test_what_was_reported_is_forgotten_and_the_rest_is_not() -> None:
    signals = watched(scene_with([Fault("black", 4, 6), Fault("black", 14, 18)]), 30)

    first, second = signals.findings(0, 10), signals.findings(10, 20)

    assert lasting(first, "black") == pytest.approx(2)
    assert lasting(second, "black") == pytest.approx(4)
    assert not named(signals.findings(20, 30), "black")


def test_findings_and_facts_of_a_segment_can_be_asked_for_twice() -> None:
    signals = watched(scene_with([Fault("black", 4, 6), Fault("damage", 7, 8)]), 10)

    assert signals.findings(0, 10) == signals.findings(0, 10)
    assert signals.facts(0, 10) == signals.facts(0, 10)
    assert signals.facts(0, 10)["black_seconds"] == pytest.approx(2)


def test_findings_come_in_order_of_time() -> None:
    script = [Fault("damage", 4, 5), Fault("black", 7, 9), Fault("mute", 12, 20)]

    starts = [f.start for f in watched(scene_with(script), 30).findings(0, 30)]

    assert len(starts) >= 3
    assert starts == sorted(starts)


def test_a_lost_connection_ends_every_fault_that_went_on() -> None:
    """The outage is the supervisor's to tell; a fault must not seem to last through it."""
    signals = Signals(sampling="every")
    feed(signals, scene_with([Fault("black", 10, 60), Fault("mute", 10, 60)]).media(20))
    signals.findings(0, 20)

    signals.event(Event("lost", 20.0, EPOCH, reason="eof"))
    signals.event(Event("reconnected", 50.0, EPOCH, seconds=30.0))

    assert not signals.findings(20, 50)


def test_nothing_grows_with_time() -> None:
    """Streams are watched for months."""
    signals, sizes, start = Signals(sampling="keyframes"), [], 0.0
    scene = Scene(dense=lambda _: False, damaged=lambda t: t % 40 < 1, rate=5)

    for item in scene.media(3600):
        show(signals, item)
        if isinstance(item, Traffic) and item.position - start >= 10:
            signals.findings(start, start + 10)
            start += 10
            sizes.append(len(pickle.dumps(signals)))

    assert max(sizes[240:]) < 1.02 * max(sizes[120:240])
    assert max(sizes) < 150_000


@pytest.mark.slow
def test_memory_is_bounded_even_when_nobody_ever_asks() -> None:
    signals = Signals(sampling="every")

    feed(signals, Scene(damaged=lambda t: t % 4 < 1, rate=5).media(3600))

    assert len(pickle.dumps(signals)) < 1_000_000


def test_a_glance_costs_little() -> None:
    """It is taken of every decoded picture of every stream."""
    signals = Signals(sampling="every")
    frames = [f for f in Scene(rate=25).media(10) if isinstance(f, Frame)]
    seen = [measures.glance(f) for f in frames]

    began = time.thread_time()
    for frame, glance in zip(frames, seen, strict=True):
        signals.glance(frame, glance)
    each = (time.thread_time() - began) / len(frames)

    assert each < 0.001


def test_measured_degradations_of_sampled_pictures_are_merged() -> None:
    """From real measures: a picture without light is told as such."""
    signals = Signals(sampling="every")
    dark = Scene(lambda t: (16 + (moving(t).astype(int) - 16) // 12).astype("uint8"))
    for item in dark.media(10):
        show(signals, item)
        if isinstance(item, Frame) and item.key:
            signals.picture(item, measures.findings(item, measures.measure(item)))

    [finding] = named(signals.findings(0, 10), "underexposed")

    assert (finding.start, finding.seconds) == (0, 10)


def test_every_limit_in_the_table_is_used_by_some_finding() -> None:
    """A row that nothing reads would be a promise that is not kept."""
    twins = {"audio_loud", "audio_quiet", "audio_unheard"}
    scripts = [[Fault(kind, 20, 50)] for kind in KINDS]
    seen = {f.name for script in scripts for f in found(scene_with(script), SECONDS)}

    levels = [sound(-5.0)] * 20 + [sound(-10.0, clipped=0.1)] * 10
    signals = Signals(sampling="every")
    for second, level in enumerate(levels, 1):
        signals.traffic(Traffic(float(second), 1.0, 1.0, EPOCH, 1, audio=level))
    signals.event(Event("timestamp_jump", 30.0, EPOCH, seconds=5.0))
    seen |= {f.name for f in signals.findings(0, 31)}

    assert SCALES.keys() - twins - {"slate", "bitrate_collapse"} <= seen
