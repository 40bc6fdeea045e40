"""Gaps, starvation, loss, lateness, jumps and format changes, from packets and events."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.scenes import (
    EPOCH,
    FORMAT,
    Scene,
    feed,
    format_of,
    found,
    lasting,
    named,
    opened,
    show,
    watched,
    within,
)
from vqmon.domain import Event, Finding, Format, Frame, Packet, Traffic
from vqmon.signals import Signals


def traffic(position: float, *packets: Packet, **changes: float) -> Traffic:
    second = Traffic(position, 1.0, 1.0, EPOCH, 1000, packets)
    return replace(second, **changes)  # type: ignore[arg-type]


def after(*events: Event, end: float = 20.0) -> tuple[Finding, ...]:
    signals = Signals(sampling="every")
    signals.event(opened())
    for event in events:
        signals.event(event)
    return signals.findings(0, end)


# Gaps -------------------------------------------------------------------------------------------


def test_missing_packets_are_stutter() -> None:
    [finding] = named(found(Scene(dropped=within(5.04, 5.8), rate=25), 10), "stutter")

    assert finding.start == pytest.approx(5.04, abs=0.05)
    assert finding.value == pytest.approx(0.8, abs=0.05)
    assert finding.limit == 0.25
    assert finding.severity == 3


def test_a_short_gap_is_no_stutter() -> None:
    assert not found(Scene(dropped=within(5.04, 5.2), rate=25), 10)


@pytest.mark.parametrize("rate", [1, 2, 5])
def test_a_low_frame_rate_is_no_stutter(rate: int) -> None:
    """Cameras in an archive run at one picture a second."""
    assert not found(Scene(rate=rate), 60)


def test_an_irregular_frame_rate_is_no_stutter() -> None:
    """Screens and webcams send a picture when there is a new one."""
    steps = [0.04, 0.3, 0.1, 0.28, 0.04, 0.3, 0.06, 0.29]
    signals, position = Signals(sampling="every"), 0.0
    signals.event(opened())

    for index in range(200):
        position += steps[index % len(steps)]
        signals.traffic(traffic(position, Packet(position, 0.0, 3000, index % 50 == 0)))

    assert not named(signals.findings(0, position), "stutter")


def test_a_gap_that_is_told_after_its_segment_closed_is_not_lost() -> None:
    """Traffic is told once a second; a segment closes at the first picture beyond it."""
    signals = Signals(sampling="every")
    media = list(Scene(dropped=within(9.3, 9.7), rate=25).media(12))
    late = next(m for m in media if isinstance(m, Traffic) and m.position == 10)
    place = media.index(late)
    media[place], media[place + 1] = media[place + 1], media[place]

    for item in media:
        if isinstance(item, Frame) and item.position == 10:
            assert not signals.findings(0, 10)
        show(signals, item)

    [finding] = named(signals.findings(10, 12), "stutter")
    assert finding.start == 10
    assert finding.seconds == pytest.approx(0.4, abs=0.1)


def test_an_outage_is_no_stutter() -> None:
    """The time without a connection is told by its own rows."""
    lost = Event("lost", 10.0, EPOCH, reason="timeout_read")
    back = Event("reconnected", 14.0, EPOCH, FORMAT, seconds=4.0)
    scene = Scene(dropped=within(10, 14), events=(lost, back))

    findings = found(scene, 30)

    assert not named(findings, "stutter")


# Feed -------------------------------------------------------------------------------------------


def test_less_media_than_time_is_underfed() -> None:
    findings = found(Scene(slow=lambda t: 2.0 if t > 60 else 1.0), 120)

    [finding] = named(findings, "underfed")
    assert finding.value == pytest.approx(50, abs=3)
    assert finding.unit == "% of real time"
    assert finding.severity == 3
    assert finding.start >= 40


def test_a_stream_that_comes_in_gulps_is_fed() -> None:
    """HLS gives six seconds at once and then nothing for six."""
    gulps = Scene(slow=lambda t: 5.5 if t % 6 == 0 else 0.1)

    assert not named(found(gulps, 120), "underfed")


def test_a_file_is_never_underfed() -> None:
    """It is read as fast as it can be, and its wall time is its media time."""
    assert not found(Scene(), 60)


def test_waiting_without_any_media_counts_as_time() -> None:
    signals = Signals(sampling="every")
    feed(signals, Scene().media(50))

    for _ in range(20):
        signals.traffic(traffic(50.0, seconds=0.0, wall_seconds=2.0))
    feed(signals, Scene().media(2, start=50.1))

    assert named(signals.findings(0, 52), "underfed")


def test_an_outage_begins_the_count_anew() -> None:
    """After a reconnect, what was missing before it is not held against the stream."""
    signals = Signals(sampling="every")
    feed(signals, Scene(slow=lambda _: 1.6).media(25))
    signals.event(Event("lost", 25.0, EPOCH, reason="eof"))
    signals.event(Event("reconnected", 25.0, EPOCH, FORMAT))

    feed(signals, Scene().media(30, start=25.0))

    assert not named(signals.findings(0, 55), "underfed")


# Loss -------------------------------------------------------------------------------------------


def test_damaged_packets_are_packet_loss() -> None:
    [finding] = named(found(Scene(damaged=within(4, 4.5)), 10), "packet_loss")

    assert (finding.start, finding.seconds) == (4, 1)
    assert finding.value == pytest.approx(5.0)
    assert finding.severity == 3
    assert finding.unit == "% of packets"


def test_decoder_complaints_alone_need_to_be_many() -> None:
    """Decoders grumble about odd streams that look fine."""
    signals = Signals(sampling="every")
    packets = tuple(Packet(t / 100, 0.01, 900, t % 100 == 0) for t in range(2000))
    for second in range(1, 21):
        mine = packets[(second - 1) * 100 : second * 100]
        errors = {5: 1, 12: 30}.get(second, 0)
        signals.traffic(traffic(float(second), *mine, decode_errors=errors))

    [finding] = named(signals.findings(0, 20), "packet_loss")

    assert (finding.start, finding.seconds) == (11, 1)
    assert finding.confidence < 0.9


def test_loss_that_goes_on_is_one_finding() -> None:
    scene = Scene(damaged=lambda t: t % 2 < 0.1 and 4 < t < 14)

    assert len(named(found(scene, 20), "packet_loss")) == 1


# Lateness ---------------------------------------------------------------------------------------


def test_pictures_that_vqmon_could_not_decode_are_its_own_fault() -> None:
    scene = Scene(late=lambda t: 4 if 5 < t <= 8 else 0)

    [finding] = named(found(scene, 10), "overload")

    assert (finding.start, finding.seconds) == (5, 3)
    assert finding.value == pytest.approx(10.7, abs=0.2)


def test_a_few_late_pictures_are_no_overload() -> None:
    assert not found(Scene(late=lambda _: 1, rate=25), 20)


def test_a_single_late_keyframe_is_no_overload() -> None:
    """At keyframes only, one of five in ten seconds would be twenty percent."""
    scene = Scene(late=lambda t: 1 if t == 5 else 0, dense=lambda _: False)

    assert not found(scene, 10, sampling="keyframes")


# Events -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "severity", "limit"), [(-0.08, 1, 0), (-20, 3, 0), (1.5, 2, 1)])
def test_a_clock_that_jumps_is_told_with_its_step(step: float, severity: int, limit: float) -> None:
    [finding] = after(Event("timestamp_jump", 4.0, EPOCH, seconds=step))

    assert finding.name == "timestamp_jump"
    assert (finding.value, finding.limit, finding.severity) == (step, limit, severity)
    assert (finding.start, finding.seconds) == (4, 0)


def test_a_clock_that_keeps_jumping_is_one_fault() -> None:
    """Broken time stamps would fill a report with hundreds of rows."""
    jumps = [Event("timestamp_jump", 2 + i / 10, EPOCH, seconds=-1.0 - i) for i in range(50)]

    [finding] = after(*jumps)

    assert finding.value == -50
    assert finding.start == 2
    assert finding.seconds == pytest.approx(4.9)


@pytest.mark.parametrize(
    ("changes", "severity", "value", "limit"),
    [
        ({"width": 72, "height": 36}, 3, 36, 72),
        ({"width": 48, "height": 24}, 4, 24, 72),
        ({"width": 288, "height": 144}, 1, 144, 72),
        ({"frame_rate": 12.5}, 2, 12.5, 25),
        ({"frame_rate": 5.0}, 4, 5, 25),
        ({"codec": "hevc"}, 2, 1, 0),
        ({"pixel_format": "yuv422p"}, 1, 1, 0),
        ({"audio_codec": None}, 3, 0, 1),
        ({"audio_codec": "opus"}, 1, 1, 0),
    ],
)
def test_a_format_change_is_as_bad_as_what_is_lost(
    changes: dict[str, object], severity: int, value: float, limit: float
) -> None:
    [finding] = after(Event("format_changed", 4.0, EPOCH, format_of(**changes)))

    assert finding.name == "format_changed"
    assert (finding.severity, finding.value, finding.limit) == (severity, value, limit)
    assert finding.unit


def test_an_encoder_that_comes_back_different_has_changed_its_format() -> None:
    lost = Event("lost", 10.0, EPOCH, reason="eof")
    back = Event("reconnected", 12.0, EPOCH, format_of(width=72, height=36), seconds=2.0)

    [finding] = after(lost, back)

    assert finding.name == "format_changed"


@pytest.mark.parametrize(
    "same",
    [FORMAT, format_of(frame_rate=25.2), format_of(frame_rate=0.0), format_of(container="flv")],
)
def test_what_nobody_would_notice_is_no_change(same: Format) -> None:
    assert not after(Event("reconnected", 4.0, EPOCH, same))


def test_an_event_between_two_segments_is_told_once() -> None:
    """`lost` closes a segment before it is told, and the next begins after the outage."""
    signals = Signals(sampling="every")
    signals.event(opened())
    first = signals.findings(0, 8)
    signals.event(Event("lost", 8.0, EPOCH, reason="timeout_read"))
    signals.event(Event("reconnected", 30.0, EPOCH, format_of(codec="hevc"), seconds=22.0))
    second = signals.findings(30.1, 40.1), signals.facts(30.1, 40.1)
    third = signals.findings(40.1, 50.1), signals.facts(40.1, 50.1)

    assert not first
    assert [f.name for f in second[0]] == ["format_changed"]
    assert second[0][0].start == 30.1
    assert (second[1]["reconnects"], second[1]["lost"]) == (1, ["timeout_read"])
    assert not third[0]
    assert third[1]["reconnects"] == 0
    assert "lost" not in third[1]


# Facts ------------------------------------------------------------------------------------------


def test_facts_are_what_was_measured() -> None:
    facts = watched(Scene(rate=25), 20).facts(0, 10)

    assert facts["bitrate_kbps"] == pytest.approx((24 * 8000 + 22000 + 16000) * 8e-3, rel=0.1)
    assert facts["video_bitrate_kbps"] < facts["bitrate_kbps"]
    assert facts["frame_rate"] == 25
    assert facts["gop_seconds"] == 2
    assert (facts["packets"], facts["keyframes"], facts["pictures"]) == (250, 5, 250)
    assert facts["qp"] == 24
    assert (facts["codec"], facts["width"], facts["height"]) == ("h264", 144, 72)
    assert facts["audio_loudness_lufs"] == pytest.approx(-20)
    assert facts["media_ratio"] == 1
    assert (facts["corrupt_packets"], facts["decode_errors"], facts["late_frames"]) == (0, 0, 0)
    assert (facts["freeze_seconds"], facts["black_seconds"]) == (0, 0)
    assert 60 < facts["luma_mean"] < 180
    assert facts["sampling"] == "every"


def test_facts_are_json_and_leave_out_what_is_unknown() -> None:
    """They are stored as JSON, and null would look like a measurement."""
    rich = watched(Scene(damaged=within(3, 4)), 10).facts(0, 10)
    poor = Signals().facts(0, 10)

    for facts in (rich, poor):
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts
        assert None not in facts.values()
    assert "qp" not in poor
    assert "bitrate_kbps" not in poor


def test_every_second_of_traffic_is_counted_in_exactly_one_segment() -> None:
    """Also those that straddle a border and are told after it."""
    signals, media = Signals(sampling="every"), list(Scene(rate=25).media(30))
    borders, told = [0.0, 7.3, 14.9, 22.0, 30.0], 0

    queue = list(pairwise(borders))
    for item in media:
        if isinstance(item, Frame) and queue and item.position >= queue[0][1]:
            told += signals.facts(*queue.pop(0))["packets"]
        show(signals, item)
    told += sum(signals.facts(*segment)["packets"] for segment in queue)

    assert told == 750


def test_a_lost_connection_ends_what_the_picture_showed() -> None:
    """The rows of the outage say the rest."""
    scene = Scene(damaged=within(7, 8), events=(Event("lost", 8.0, EPOCH, reason="eof"),))

    findings = found(scene, 8)

    assert lasting(findings, "corrupted") == pytest.approx(1)
