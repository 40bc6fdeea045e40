"""Which frames are decoded and scored."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqmon.domain import Depth, Frame, Packet, Stream, Traffic
from vqmon.sampling import (
    BURST_PAUSE,
    BURST_SECONDS,
    STRAIN_CLEAR_SECONDS,
    BurstBudget,
    Sampler,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLANES = (np.zeros((2, 2), np.uint8), np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))


def frame(position: float, *, key: bool = True) -> Frame:
    return Frame(PLANES, position, NOW, key=key)


def traffic(
    position: float, *, late: int = 0, cpu: float = 0.0, keys: tuple[float, ...] = ()
) -> Traffic:
    packets = tuple(Packet(at, 0.04, 1000, key=True) for at in keys) or (
        Packet(position, 0.04, 1000, key=False),
    )
    return Traffic(
        position, 1.0, 1.0, NOW, 1000, packets=packets, late_frames=late, cpu_seconds=cpu
    )


def sampler(
    mode: str = "keyframes", every: float = 2.0, *, live: bool = True, share: float | None = None
) -> Sampler:
    stream = Stream("news", "x", sampling=mode, sample_every=every)  # type: ignore[arg-type]
    return Sampler(stream, live=live, budget=None if share is None else BurstBudget(share))


def scored(asked: Sampler, positions: list[float]) -> list[float]:
    return [at for at in positions if asked.wants(frame(at))]


def test_one_frame_a_second_of_25_is_scored() -> None:
    positions = [n / 25 for n in range(100)]

    assert scored(sampler("every", 1.0), positions) == [0, 1, 2, 3]


def test_keyframes_that_come_a_little_early_are_not_missed() -> None:
    """A GOP of 1.99 s against a distance of 2 s must not halve the number of scores."""
    positions = [n * 1.99 for n in range(20)]

    assert len(scored(sampler(every=2.0), positions)) == 20


def test_two_keyframes_a_second_are_thinned_to_one_score_in_two_seconds() -> None:
    positions = [n * 0.5 for n in range(40)]

    assert len(scored(sampler(every=2.0), positions)) == pytest.approx(10, abs=1)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=50).map(sorted))
def test_scores_are_never_denser_than_asked(positions: list[float]) -> None:
    """However irregular the stream, cost has an upper bound."""
    taken = scored(sampler("every", 2.0), positions)

    assert len(taken) <= (positions[-1] - positions[0]) / 2.0 + 2


def test_keyframe_mode_decodes_keyframes_until_something_is_suspicious() -> None:
    asked = sampler()
    assert asked.depth() is Depth.KEYFRAMES

    asked.heed(traffic(1.0), "bitrate halved")

    assert asked.depth() is Depth.ALL
    assert asked.facts()["burst_reason"] == "bitrate halved"


def test_a_burst_ends_and_is_followed_by_a_pause() -> None:
    """A fault that lasts for hours must not be decoded densely for hours."""
    asked = sampler()
    depths = []
    for tick in range(int(BURST_SECONDS + BURST_PAUSE)):
        asked.heed(traffic(tick + 0.1, keys=(float(tick),)), "still suspicious")
        asked.heed(frame(tick + 0.5, key=False), "still suspicious")
        depths.append(asked.depth())

    assert depths[0] is Depth.ALL
    assert depths[-1] is Depth.KEYFRAMES
    assert depths.count(Depth.ALL) <= BURST_SECONDS + 2


def test_bursts_get_rarer_while_nothing_changes() -> None:
    asked = sampler()
    for tick in range(600):
        asked.heed(traffic(tick + 0.1, keys=(float(tick),)), "always")
        asked.heed(frame(tick + 0.5, key=False), "always")

    assert 3 <= asked.facts()["bursts"] <= 12


def test_a_burst_scores_more_densely() -> None:
    asked = sampler(every=2.0)
    asked.heed(traffic(1.0), "blur")

    assert len(scored(asked, [2.0 + n / 25 for n in range(50)])) >= 4


def test_streams_without_budget_left_do_not_burst() -> None:
    """Bursts share a CPU budget: one troubled stream cannot starve the others."""
    asked = sampler(share=0.1)
    asked.heed(traffic(0.0), "x")
    asked.heed(traffic(1.0, cpu=5.0), "x")

    assert asked.depth() is Depth.KEYFRAMES


def test_the_budget_is_shared_by_its_members() -> None:
    budget = BurstBudget(0.5)
    for _ in range(2):
        budget.join()
    budget.spend(5.0)

    for _ in range(2):
        budget.earn(1.0)

    budget.spend(0.499)
    assert budget.allows()
    budget.spend(0.002)
    assert not budget.allows()


def test_falling_behind_makes_monitoring_coarser_and_says_so() -> None:
    asked = sampler(every=2.0)

    asked.heed(traffic(10.0, late=5), None)

    assert asked.every == 4.0
    assert asked.facts()["coarser_by"] == 2


def test_strain_ends_a_burst() -> None:
    asked = sampler()
    asked.heed(traffic(1.0), "x")

    asked.heed(traffic(2.0, late=3), "x")

    assert asked.depth() is Depth.KEYFRAMES


def test_strain_clears_after_a_healthy_while() -> None:
    asked = sampler()
    asked.heed(traffic(0.0, late=5), None)

    asked.heed(traffic(STRAIN_CLEAR_SECONDS + 1), None)

    assert "coarser_by" not in asked.facts()


def test_every_mode_under_strain_decodes_less() -> None:
    asked = sampler("every", 1.0)
    depths = []
    for tick in range(4):
        asked.heed(traffic(10.0 * tick, late=5), None)
        depths.append(asked.depth())

    assert depths == [Depth.ALL, Depth.REFERENCE, Depth.KEYFRAMES, Depth.KEYFRAMES]


def test_sparse_keyframes_make_it_decode_between_them() -> None:
    """With one keyframe in 30 s, keyframes alone would leave segments without a score."""
    asked = sampler()
    asked.heed(traffic(0.5, keys=(0.0,)), None)
    assert asked.depth() is Depth.KEYFRAMES

    asked.heed(traffic(11.0), None)

    assert asked.depth() is Depth.REFERENCE

    asked.heed(traffic(12.0, keys=(12.0,)), None)
    asked.heed(traffic(14.0, keys=(14.0,)), None)
    assert asked.depth() is Depth.KEYFRAMES


def test_files_never_burst() -> None:
    """The same file gives the same segments on every run, whatever the machine does."""
    asked = sampler(live=False)

    asked.heed(traffic(1.0), "x")

    assert asked.depth() is Depth.KEYFRAMES
