"""When vqmon asks to look closer, and when it lets be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scenes import BLACK, Scene, held, moving, noisy, show, slate, switched, within
from vqmon.domain import Frame
from vqmon.signals import Signals
from vqmon.signals.doubts import PAUSE, PAUSE_LIMIT, Doubts

BURST = 3.0
STILL = "motion that seems to have stopped"


def doubts_over(
    scene: Scene, seconds: float, *, granted: bool = True, expect: frozenset[str] = frozenset()
) -> Iterator[tuple[float, str | None, bool]]:
    """(position, suspicion, burst) as a sampler would see them, that decodes BURST seconds
    densely when asked and then pauses for ten.
    """
    signals, burst_until, pause_until = Signals(expect, "keyframes"), -1.0, -1.0
    for item in scene.media(seconds):
        burst = granted and item.position < burst_until
        if isinstance(item, Frame) and not item.key and not burst:
            continue
        show(signals, item)
        if signals.suspicion and granted and item.position > max(burst_until, pause_until):
            burst_until = item.position + BURST
            pause_until = burst_until + 10
        yield item.position, signals.suspicion, burst


def asked(scene: Scene, seconds: float, **kwargs: object) -> set[str]:
    return {why for _, why, _ in doubts_over(scene, seconds, **kwargs) if why}  # type: ignore[arg-type]


def bursts(scene: Scene, seconds: float) -> int:
    flags = [burst for _, _, burst in doubts_over(scene, seconds)]
    return sum(now and not before for before, now in zip([False, *flags], flags, strict=False))


def test_an_ordinary_stream_is_let_be() -> None:
    assert not asked(Scene(), 120)


@pytest.mark.parametrize(
    ("scene", "why"),
    [
        (Scene(switched(30, 90, lambda _: BLACK)), "black keyframe"),
        (Scene(switched(30, 90, held(30))), STILL),
        (
            Scene(moving, size=lambda t: 8000 if t < 30 else 40, gop=30),
            STILL,
        ),
        (Scene(damaged=within(30.5, 31.5)), "damaged packets"),
        (Scene(dropped=within(30.4, 31.5)), "gaps between packets"),
        (
            Scene(
                size=lambda t: 8000 if t < 30 else 1000,
                key_size=lambda t: 20000 if t < 30 else 1000,
            ),
            "a bitrate far below usual",
        ),
    ],
)
def test_what_keyframes_cannot_tell_raises_a_suspicion(scene: Scene, why: str) -> None:
    assert why in asked(scene, 60)


def test_where_everything_is_decoded_there_is_nothing_to_ask() -> None:
    signals = Signals(sampling="every")

    for item in Scene(switched(30, 60, lambda _: BLACK), damaged=within(10, 12)).media(60):
        show(signals, item)
        assert signals.suspicion is None


def test_a_burst_settles_a_suspicion() -> None:
    """A suspicion that stayed would burn the budget of all other streams."""
    told = list(doubts_over(Scene(switched(30, 60, lambda _: BLACK)), 60))

    asked_at = next(p for p, why, _ in told if why)
    settled_at = next(p for p, why, _ in told if p > asked_at and not why)
    assert settled_at - asked_at < BURST + 0.5


def test_without_a_burst_the_suspicion_stays() -> None:
    """The budget may be back in a minute."""
    told = list(doubts_over(Scene(switched(30, 90, lambda _: BLACK)), 80, granted=False))

    assert all(why for position, why, _ in told if position > 33)


def test_a_suspicion_ends_with_its_reason() -> None:
    told = list(doubts_over(Scene(switched(30, 36, lambda _: BLACK)), 60, granted=False))

    assert not any(why for position, why, _ in told if position > 37)


@pytest.mark.parametrize(
    "scene",
    [
        Scene(switched(10, 1e9, lambda _: slate()), size=lambda t: 40 if t > 10 else 8000, rate=5),
        Scene(noisy(0.02), size=lambda _: 40, rate=5),
        Scene(damaged=lambda t: t % 10 < 0.2, rate=5),
    ],
    ids=["slate", "still", "always damaged"],
)
def test_what_stays_odd_is_looked_at_ever_less_often(scene: Scene) -> None:
    """Still pictures, test cards and bad links must not cost bursts for ever."""
    assert 1 <= bursts(scene, 600) <= 6


def test_still_pictures_that_are_expected_raise_nothing() -> None:
    scene = Scene(switched(10, 90, held(10)), size=lambda t: 40 if t > 10 else 8000)

    told = asked(scene, 60, expect=frozenset({"still_pictures"}))

    assert STILL not in told


def waits(doubts: Doubts, position: float) -> float:
    """Raise and settle one doubt at `position`; return how long it is then left alone."""
    doubts.weigh("odd", position, unclear=True)
    doubts.looked(position, 3.0)
    waited = 0.0
    while not doubts.reason:
        waited += 5.0
        doubts.weigh("odd", position + waited, unclear=True)
    doubts.weigh("odd", position + waited, unclear=False)
    return waited


def test_pauses_grow_while_the_same_doubt_comes_back() -> None:
    doubts, position, waited = Doubts(), 0.0, [0.0]

    for _ in range(7):
        waited.append(waits(doubts, position))
        position += waited[-1]

    assert waited == sorted(waited)
    assert waited[1] == pytest.approx(PAUSE, abs=5)
    assert waited[-1] == pytest.approx(PAUSE_LIMIT, abs=5)


def test_pauses_shrink_when_a_doubt_stayed_away() -> None:
    doubts, position = Doubts(), 0.0
    for _ in range(4):
        position += waits(doubts, position)

    later = position + 3 * PAUSE_LIMIT

    assert waits(doubts, later) == pytest.approx(PAUSE, abs=5)
