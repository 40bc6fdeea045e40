"""Silence, loudness and clipping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.scenes import EPOCH, FORMAT, Scene, found, lasting, named, sound
from vqmon.domain import AudioLevel, Event, Finding, Format, Traffic
from vqmon.signals import Signals


def heard(
    levels: Sequence[AudioLevel | None],
    *,
    expect: frozenset[str] = frozenset(),
    form: Format = FORMAT,
) -> tuple[Finding, ...]:
    """Findings of a stream with these sound levels, a second each."""
    signals = Signals(expect, "every")
    signals.event(Event("opened", 0.0, EPOCH, form))
    for second, level in enumerate(levels, 1):
        signals.traffic(Traffic(float(second), 1.0, 1.0, EPOCH, 16000, audio=level))
    return signals.findings(0, len(levels))


def test_silence_after_sound_is_found() -> None:
    scene = Scene(level=lambda t: -120.0 if 10 < t < 18 else -20.0)

    [finding] = named(found(scene, 30), "audio_silence")

    assert (finding.start, finding.seconds) == (10, 8)
    assert (finding.value, finding.limit, finding.severity) == (8, 5, 2)


def test_a_pause_in_speech_is_no_silence() -> None:
    assert not found(Scene(level=lambda t: -90.0 if 10 < t < 14 else -25.0), 30)


def test_room_tone_is_no_silence() -> None:
    """Nobody speaks, but the microphone is open."""
    assert not found(Scene(level=lambda t: -55.0 if 10 < t < 30 else -25.0), 40)


def test_a_sound_track_that_vanishes_is_silence() -> None:
    """No packets at all is what viewers hear as silence, too."""
    [finding] = named(heard([sound(-20.0)] * 10 + [None] * 10), "audio_silence")

    assert (finding.start, finding.seconds) == (10, 10)


def test_an_announced_track_that_never_comes_is_silence() -> None:
    [finding] = named(heard([None] * 60), "audio_silence")

    assert finding.seconds == pytest.approx(50)


def test_a_stream_without_sound_is_complete() -> None:
    assert not heard([None] * 60, form=replace(FORMAT, audio_codec=None))


def test_a_track_that_was_mute_from_the_start_is_a_weak_finding() -> None:
    """Many cameras carry one for ever; but a feed that died before the watch must not pass."""
    [finding] = named(heard([sound(-120.0)] * 60), "audio_silence")

    assert finding.severity == 1
    assert finding.confidence == 0.5
    assert not heard([sound(-120.0)] * 25)


def test_no_sound_is_expected_where_the_operator_says_so() -> None:
    levels = [sound(-20.0)] * 10 + [sound(-120.0)] * 30 + [sound(-3.0, clipped=0.2)] * 20

    assert heard(levels)
    assert not heard(levels, expect=frozenset({"no_audio"}))


@pytest.mark.parametrize(("lufs", "severity"), [(-8, 1), (-6, 2), (-4, 3), (-2, 4)])
def test_sound_that_is_too_loud_for_long_is_found(lufs: float, severity: int) -> None:
    [finding] = heard([sound(-20.0)] * 10 + [sound(lufs)] * 15 + [sound(-20.0)] * 10)

    assert finding.name == "audio_loudness"
    assert finding.severity == severity
    assert finding.value == pytest.approx(lufs, abs=0.1)
    assert finding.seconds == pytest.approx(15, abs=3)
    assert (finding.limit, finding.unit) == (-9, "LUFS")


def test_a_loud_moment_is_programme() -> None:
    assert not heard([sound(-20.0)] * 10 + [sound(-5.0)] * 5 + [sound(-20.0)] * 10)


def test_sound_that_is_too_quiet_for_long_is_found() -> None:
    levels = [sound(-50.0)] * 45

    [finding] = heard(levels)

    assert finding.name == "audio_loudness"
    assert finding.limit == -40
    assert finding.severity == 3
    assert finding.seconds == 45


def test_a_quiet_scene_is_drama() -> None:
    assert not heard([sound(-23.0)] * 20 + [sound(-45.0)] * 20 + [sound(-23.0)] * 20)


@pytest.mark.parametrize("loudness", [-27.0, -23.0, -16.0, -14.0, -11.0])
def test_programmes_at_any_norm_are_right(loudness: float) -> None:
    """EBU R128, ATSC A/85, streaming platforms, loud music."""
    levels = [sound(loudness + (3 if s % 4 == 0 else -2)) for s in range(60)]

    assert not heard(levels)


def test_clipping_is_found_where_it_lasts() -> None:
    levels = [sound(-12.0)] * 5 + [sound(-10.0, clipped=0.05)] * 4 + [sound(-12.0)] * 5

    [finding] = heard(levels)

    assert finding.name == "audio_clipping"
    assert (finding.start, finding.seconds) == (5, 4)
    assert (finding.value, finding.severity) == (5, 3)


def test_a_single_clipped_second_is_no_fault() -> None:
    assert not heard([sound(-12.0)] * 5 + [sound(-10.0, clipped=0.05)] + [sound(-12.0)] * 5)


def test_a_limiter_at_full_scale_is_no_clipping() -> None:
    assert not heard([sound(-12.0, clipped=0.0005)] * 30)


def test_silence_across_borders_adds_up() -> None:
    signals = Signals(sampling="every")
    total = 0.0
    for second in range(1, 61):
        level = sound(-120.0 if 12 < second <= 47 else -20.0)
        signals.traffic(Traffic(float(second), 1.0, 1.0, EPOCH, 16000, audio=level))
        if second % 10 == 0:
            total += lasting(signals.findings(second - 10, second), "audio_silence")

    assert total == pytest.approx(35)


def test_facts_of_sound_are_power_means() -> None:
    """Decibels do not average: half the time 20 dB louder is 3 dB below the louder half."""
    signals = Signals()
    for second, level in enumerate([-30.0, -10.0] * 5, 1):
        signals.traffic(Traffic(float(second), 1.0, 1.0, EPOCH, 1, audio=sound(level)))

    facts = signals.facts(0, 10)

    assert facts["audio_loudness_lufs"] == pytest.approx(-12.97, abs=0.1)
    assert facts["audio_peak_dbfs"] == 0
