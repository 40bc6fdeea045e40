"""Bitrate collapse: few bits alone are no fault, few bits that the picture pays for are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scenes import (
    EPOCH,
    Luma,
    Scene,
    format_of,
    found,
    held,
    lasting,
    moving,
    named,
    noisy,
    show,
    switched,
)
from vqmon.domain import Event, Finding, Frame
from vqmon.signals import Signals


def low(time: float) -> bool:
    return 20 <= time < 40


def starved(
    share: float = 0.1,
    *,
    qp: Callable[[float], float | None] = lambda t: 38.0 if low(t) else 24.0,
    luma: Callable[[float], Luma] = moving,
) -> Scene:
    """A stream whose packets all shrink to a share at 20 s and come back at 40 s."""
    part: Callable[[float], float] = lambda t: share if low(t) else 1.0  # noqa: E731 - used twice
    return Scene(
        luma,
        size=lambda t: round(8000 * part(t)),
        key_size=lambda t: round(20000 * part(t)),
        qp=qp,
    )


def collapse(scene: Scene, seconds: float = 60) -> list[Finding]:
    return named(found(scene, seconds), "bitrate_collapse")


def test_few_bits_and_a_coarser_quantiser_are_a_collapse() -> None:
    [finding] = collapse(starved())

    assert finding.start == pytest.approx(20, abs=4)
    assert finding.start + finding.seconds == pytest.approx(40, abs=3)
    assert (finding.limit, finding.unit) == (35, "% of usual")


@pytest.mark.parametrize(("share", "severity"), [(0.3, 2), (0.2, 3), (0.1, 4), (0.03, 5)])
def test_the_fewer_bits_are_left_the_graver_it_is(share: float, severity: int) -> None:
    [finding] = collapse(starved(share))

    assert finding.severity == severity
    assert finding.value == pytest.approx(100 * share, abs=2)


def test_a_rate_that_halves_is_no_collapse() -> None:
    assert not collapse(starved(0.5))


def test_a_still_scene_of_a_variable_rate_stream_needs_fewer_bits() -> None:
    """The quantiser stays: the encoder gives what the picture asks for."""
    assert not collapse(starved(0.05, qp=lambda _: 24.0, luma=switched(20, 40, noisy(1.0))))


def test_compression_that_shows_is_evidence_where_the_quantiser_is_not() -> None:
    """Two-pass encoders keep the quantiser and drop detail instead."""
    poor = Finding("compression", 3, 0.8, 2.0, 1.0)
    signals = Signals(sampling="every")

    for item in starved(qp=lambda _: 24.0).media(60):
        show(signals, item)
        if isinstance(item, Frame) and item.key:
            signals.picture(item, [poor] * low(item.position))

    assert named(signals.findings(0, 60), "bitrate_collapse")


def test_without_quantiser_the_motion_that_goes_on_is_evidence() -> None:
    """HEVC and others tell no quantiser."""
    unknown: Callable[[float], float | None] = lambda _: None  # noqa: E731 - used twice

    assert collapse(starved(qp=unknown))
    assert not collapse(starved(qp=unknown, luma=switched(20, 40, noisy(1.0))))


def test_pictures_that_go_missing_with_the_bits_are_evidence() -> None:
    """An encoder under pressure drops pictures before anything else."""
    thinned = Scene(
        key_size=lambda _: 8000,
        dropped=lambda t: low(t) and round(t * 10) % 10 not in (0, 4),
    )

    assert collapse(thinned)


def test_a_collapse_lasts_until_the_bits_are_back() -> None:
    """It must not become the norm within minutes."""
    for_long = Scene(
        size=lambda t: 8000 if t < 20 else 300,
        key_size=lambda t: 20000 if t < 20 else 1000,
        qp=lambda t: 24.0 if t < 20 else 45.0,
        rate=5,
    )

    assert lasting(found(for_long, 400), "bitrate_collapse") == pytest.approx(380, abs=12)


def test_another_format_has_another_usual_rate() -> None:
    """A ladder that switches down is told as a format change, once."""
    change = Event("format_changed", 20.0, EPOCH, format_of(width=72, height=36))
    switched_down = Scene(
        size=lambda t: 8000 if t < 20 else 800,
        key_size=lambda t: 20000 if t < 20 else 2000,
        qp=lambda t: 24.0 if t < 20 else 34.0,
        events=(change,),
    )

    findings = found(switched_down, 60)

    assert {f.name for f in findings} == {"format_changed"}


def test_bits_that_vary_with_the_content_are_no_collapse() -> None:
    scene = Scene(size=lambda t: 2000 + 12000 * (int(t / 7) % 3 == 0), qp=lambda _: 26.0, rate=5)

    assert not collapse(scene, 120)


def test_long_gops_do_not_look_like_a_collapse_between_keyframes() -> None:
    """Half of a surveillance stream's bits are in one keyframe every ten seconds."""
    scene = Scene(noisy(1.0), size=lambda _: 300, qp=lambda t: 24.0 + 6 * (t > 50), gop=10, rate=5)

    assert not collapse(scene, 100)


def test_a_frozen_picture_is_a_freeze_and_no_collapse() -> None:
    scene = Scene(switched(20, 40, held(20)), size=lambda t: 40 if low(t) else 8000)

    assert {f.name for f in found(scene, 60)} == {"freeze"}
