"""Black, freeze, holds, slates and damage, from pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.scenes import (
    BLACK,
    HEIGHT,
    PHOTOGRAPH,
    WIDTH,
    Luma,
    Scene,
    found,
    held,
    lasting,
    moving,
    named,
    noisy,
    photograph,
    slate,
    switched,
    within,
)
from vqmon.domain import Finding


def encoded(picture: Callable[[float], Luma], *, gop: float = 2.0) -> Callable[[float], Luma]:
    """As a stingy encoder gives it: between keyframes, what hardly changed does not change."""
    last: list[Luma] = []

    def coded(time: float) -> Luma:
        seen = picture(time).astype(np.int16)
        key = abs(time / gop - round(time / gop)) < 1e-6
        if key or not last:
            last[:] = [seen.astype(np.uint8)]
        else:
            before = last[0].astype(np.int16)
            last[:] = [np.where(np.abs(seen - before) > 12, seen, before).astype(np.uint8)]
        return last[0]

    return coded


def with_clock(time: float) -> Luma:
    """A slate whose corner shows running seconds."""
    picture = slate()
    picture[2:6, -12:-2] = 100 + 37 * int(time) % 150
    return picture


# Black ------------------------------------------------------------------------------------------


def test_black_is_found_where_it_is() -> None:
    black = named(found(Scene(switched(4, 7, lambda _: BLACK)), 10), "black")

    [finding] = black
    assert (finding.start, finding.seconds) == (4, 3)
    assert (finding.value, finding.limit, finding.unit) == (3, 0.5, "s")
    assert finding.severity == 2


def test_a_cut_through_black_is_no_fault() -> None:
    """Programmes are joined by a few black pictures."""
    assert not named(found(Scene(switched(4, 4.4, lambda _: BLACK)), 10), "black")


def test_a_letterboxed_picture_is_not_black() -> None:
    def boxed(time: float) -> Luma:
        picture = moving(time).copy()
        picture[: HEIGHT // 4] = picture[-HEIGHT // 4 :] = 16
        return picture

    assert not found(Scene(boxed), 20)


def test_a_dark_scene_that_shows_something_is_not_black() -> None:
    def night(time: float) -> Luma:
        picture = (16 + (moving(time).astype(float) - 16) * 0.06).astype(np.uint8)
        picture[20:30, 20:30] = 120  # a lamp
        return picture

    assert not named(found(Scene(night), 10), "black")


def test_a_black_keyframe_counts_until_the_next_picture() -> None:
    """Between keyframes nobody looked; the viewer saw black."""
    scene = Scene(switched(3.5, 7.5, lambda _: BLACK), dense=lambda _: False)

    [finding] = named(found(scene, 12, sampling="keyframes"), "black")

    assert (finding.start, finding.seconds) == (4, 4)


def test_a_black_picture_is_neither_frozen_nor_a_slate() -> None:
    """One fault has one name."""
    names = {f.name for f in found(Scene(switched(10, 60, lambda _: BLACK)), 60)}

    assert names == {"black"}


# Freeze -----------------------------------------------------------------------------------------


def test_motion_that_stops_everywhere_is_a_freeze() -> None:
    [finding] = named(found(Scene(switched(12, 19, held(12))), 30), "freeze")

    assert finding.start == pytest.approx(12.1)
    assert finding.seconds == pytest.approx(6.9)
    assert finding.value == pytest.approx(6.9)
    assert finding.severity == 3
    assert finding.confidence > 0.9


def test_a_picture_held_for_less_than_two_seconds_is_no_freeze() -> None:
    assert not named(found(Scene(switched(12, 13.8, held(12))), 30), "freeze")


def test_a_freeze_is_found_through_an_encoder_that_refines_the_stopped_picture() -> None:
    """Rate control spends idle bits on polishing: pictures differ a little, without motion."""

    def polished(time: float) -> Luma:
        rng = np.random.default_rng(round(time * 100))
        touched = rng.random(PHOTOGRAPH.shape) < 0.08 * np.exp(-(time - 12))
        return np.asarray(moving(12) + touched, np.uint8)

    findings = found(Scene(switched(12, 22, polished)), 30)

    assert lasting(findings, "freeze") == pytest.approx(9.5, abs=1.0)


def test_keyframes_encoded_anew_do_not_end_a_freeze() -> None:
    """Every keyframe of a frozen stream is rounded a little differently."""

    def popping(time: float) -> Luma:
        rng = np.random.default_rng(int(time / 2))
        return np.clip(moving(12) + rng.normal(0, 0.7, PHOTOGRAPH.shape), 0, 255).astype(np.uint8)

    findings = found(Scene(switched(12, 24, popping)), 30)

    assert lasting(findings, "freeze") == pytest.approx(11.9, abs=0.3)


@pytest.mark.parametrize("sigma", [0.6, 1.5, 4.0])
@pytest.mark.parametrize("coder", [lambda p: p, encoded], ids=["faithful", "stingy"])
def test_a_fixed_camera_at_night_is_not_frozen(
    sigma: float, coder: Callable[[Callable[[float], Luma]], Callable[[float], Luma]]
) -> None:
    """Nothing moves for minutes, and between keyframes nothing changes at all; but keyframes
    never come back the same, because the sensor's noise does not.
    """
    dark = (PHOTOGRAPH // 3 + 16).astype(np.uint8)
    camera = coder(noisy(sigma, dark))

    assert not found(Scene(camera, size=lambda _: 60), 60)


@pytest.mark.parametrize("dense", [True, False], ids=["every", "keyframes"])
def test_somebody_leaving_the_view_of_a_fixed_camera_freezes_nothing(*, dense: bool) -> None:
    """Motion stops suddenly and for long, but only where somebody was."""
    camera = noisy(1.0)

    def corridor(time: float) -> Luma:
        picture = camera(time).copy()
        if time % 30 < 12:
            place = int(8 * (time % 30))
            picture[20:60, place : place + 24] = photograph(2)[20:60, :24]
        return picture

    scene = Scene(
        encoded(corridor),
        size=lambda t: 3000 if t % 30 < 12 else 50,
        dense=lambda _: dense,
    )

    findings = found(scene, 90, sampling="every" if dense else "keyframes")

    assert not findings


def test_a_frozen_fixed_camera_is_told_by_its_keyframes() -> None:
    """Its noise is gone: keyframes come back the same."""
    camera = encoded(noisy(1.0))
    scene = Scene(switched(30, 60, held(30, camera), camera), size=lambda _: 60)

    findings = found(scene, 60)

    assert lasting(findings, "freeze") == pytest.approx(30, abs=2.5)
    assert named(findings, "freeze")[0].severity >= 4


def test_a_freeze_shows_in_keyframes_alone_when_nobody_may_look_closer() -> None:
    """The burst budget can be spent; then it takes longer and is less sure."""
    scene = Scene(
        switched(30, 60, held(30)),
        size=lambda t: 8000 if t < 30 else 40,
        dense=lambda _: False,
    )

    [finding] = named(found(scene, 60, sampling="keyframes"), "freeze")

    assert finding.seconds == pytest.approx(30, abs=2.1)
    assert finding.confidence < 0.7


def test_the_end_of_a_freeze_between_keyframes_is_told_by_packet_sizes() -> None:
    scene = Scene(
        switched(30, 47, held(30)),
        size=lambda t: 40 if 30 <= t < 47 else 8000,
        dense=lambda _: False,
        gop=4.0,
    )

    [finding] = named(found(scene, 60, sampling="keyframes"), "freeze")

    assert finding.start == pytest.approx(30, abs=0.2)
    assert finding.start + finding.seconds == pytest.approx(47, abs=0.2)


def test_a_burst_proves_a_freeze_soon() -> None:
    scene = Scene(
        switched(21, 40, held(21)),
        size=lambda t: 8000 if t < 21 else 40,
        dense=within(24, 27),
    )

    findings = found(scene, 30, sampling="keyframes")

    [finding] = named(findings, "freeze")
    assert finding.confidence == 0.9
    assert finding.start == pytest.approx(21, abs=1.1)


def test_a_burst_that_sees_motion_clears_the_suspicion() -> None:
    """Keyframes of a slow pan may look alike for a moment; pictures between them do not."""

    def swinging(time: float) -> Luma:
        return np.roll(PHOTOGRAPH, round(20 * np.sin(np.pi * time)), axis=1)

    scene = Scene(swinging, dense=within(24, 30))

    assert not named(found(scene, 40, sampling="keyframes"), "freeze")


def looping(time: float) -> Luma:
    """A clip of two seconds over and over: each keyframe is exactly the last one."""
    return moving(time % 2.0)


def test_a_short_loop_is_no_freeze_once_it_was_seen_to_move() -> None:
    """Idents and adverts are played so; nobody looks closer at them for ever."""
    scene = Scene(looping, dense=within(6, 9))

    assert not named(found(scene, 120, sampling="keyframes"), "freeze")


def test_a_short_loop_that_stops_is_a_freeze() -> None:
    scene = Scene(
        switched(60, 120, held(60), looping),
        size=lambda t: 8000 if t < 60 else 40,
        dense=within(6, 9),
    )

    [finding] = named(found(scene, 120, sampling="keyframes"), "freeze")

    assert finding.start == pytest.approx(60, abs=2.1)


def test_after_a_loop_keyframes_that_come_back_mean_something_again() -> None:
    """Constant bitrate hides from the packets that motion stopped."""
    programme = switched(20, 50, moving, looping)
    scene = Scene(switched(50, 110, held(50), programme), dense=within(6, 9), gop=2.5)

    assert lasting(found(scene, 110, sampling="keyframes"), "freeze") > 20


def test_a_still_picture_is_expected_where_the_operator_says_so() -> None:
    scene = Scene(switched(12, 60, held(12)))

    findings = found(scene, 60, expect=frozenset({"still_pictures"}))

    assert not findings


def test_a_stream_that_is_frozen_when_the_watch_begins_is_found_too() -> None:
    """But it takes longer: a still picture is likelier than a stopped one."""
    findings = found(Scene(held(0), size=lambda _: 40), 30)

    assert lasting(findings, "freeze") == pytest.approx(29.9, abs=0.3)
    assert not found(Scene(held(0), size=lambda _: 40), 9)


def test_an_infinite_gop_is_judged_by_time_alone() -> None:
    """Streams with periodic refresh have no keyframe to ask."""
    camera = encoded(noisy(0.2), gop=1000)
    frozen = Scene(switched(20, 70, held(20, camera), camera), gop=1000)

    assert not named(found(Scene(camera, gop=1000), 25), "freeze")
    assert lasting(found(frozen, 70), "freeze") >= 45


# Slate ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture", [lambda _: slate(), with_clock], ids=["plain", "clock"])
@pytest.mark.parametrize("dense", [True, False], ids=["every", "keyframes"])
def test_a_drawn_picture_that_stays_is_a_slate(
    picture: Callable[[float], Luma], *, dense: bool
) -> None:
    scene = Scene(switched(10, 70, picture), dense=lambda _: dense)

    findings = found(scene, 60, sampling="every" if dense else "keyframes")

    assert {f.name for f in findings} == {"slate"}
    assert lasting(findings, "slate") == pytest.approx(50, abs=2.1)


def test_a_caption_of_twenty_seconds_is_no_slate() -> None:
    assert not found(Scene(switched(10, 30, lambda _: slate())), 60)


def test_an_animated_caption_is_no_slate() -> None:
    def spinning(time: float) -> Luma:
        picture = slate()
        place = int(20 * time) % (WIDTH - 60)
        picture[50:66, place : place + 60] = 180
        return picture

    assert not named(found(Scene(switched(10, 70, spinning)), 60), "slate")


def test_one_still_picture_has_one_name() -> None:
    """A photograph that stands is a freeze, a drawing is a slate, never both."""
    photo = found(Scene(switched(10, 70, held(10))), 60)
    drawing = found(Scene(switched(10, 70, lambda _: slate())), 60)

    assert {f.name for f in photo} == {"freeze"}
    assert {f.name for f in drawing} == {"slate"}


# Holds ------------------------------------------------------------------------------------------


def stop_and_go(time: float) -> Luma:
    """Motion that halts for 0.6 s out of every 2."""
    return moving(time - min(time % 2, 0.6) if time % 2 < 0.6 else time)


def test_pictures_held_amid_motion_are_stutter() -> None:
    scene = Scene(switched(20, 30, stop_and_go), rate=25)

    findings = found(scene, 40)

    stutter = named(findings, "stutter")
    assert lasting(findings, "stutter") == pytest.approx(9, abs=1.5)
    assert all(f.start >= 20 and f.start + f.seconds <= 30.1 for f in stutter)
    assert stutter[0].value == pytest.approx(0.6, abs=0.1)
    assert not named(findings, "freeze")


@pytest.mark.parametrize("every", [2, 3, 5], ids=["twos", "threes", "fives"])
def test_a_steady_cadence_is_no_stutter(every: int) -> None:
    """Film in video and drawn animation repeat pictures as a rule."""

    def cadence(time: float) -> Luma:
        return moving(int(time * 25 + 1e-6) // every * every / 25)

    assert not found(Scene(cadence, rate=25), 40)


def test_a_three_two_pulldown_is_no_stutter() -> None:
    def pulled(time: float) -> Luma:
        field = int(time * 30 + 1e-6)
        return moving((field - field // 5) / 24)

    assert not found(Scene(pulled, rate=30), 30)


# Damage -----------------------------------------------------------------------------------------


def test_damaged_pictures_are_counted() -> None:
    scene = Scene(damaged=within(4, 5))

    [finding] = named(found(scene, 10), "corrupted")

    assert (finding.start, finding.seconds) == (4, 1)
    assert finding.value == 10.0
    assert finding.unit == "% of pictures"
    assert finding.severity == 3


def test_damage_by_joining_in_the_middle_is_no_fault() -> None:
    """The first second of a UDP stream is damaged by the moment at which one tunes in."""
    assert not found(Scene(damaged=within(0, 0.8)), 10)


def test_more_damage_is_never_milder() -> None:
    def severity(seconds: float) -> int:
        findings: tuple[Finding, ...] = found(Scene(damaged=within(2, 2 + seconds)), 10)
        return named(findings, "corrupted")[0].severity

    severities = [severity(s) for s in (0.1, 0.5, 1, 3, 7)]

    assert severities == sorted(severities)
    assert severities[-1] == 5
