"""Time stamps become positions that never go back."""

from __future__ import annotations

import random

import pytest

from vqmon.sources.timeline import WRAP_SECONDS, Lag, Timeline

FRAME = 0.04


def play(
    timeline: Timeline, stamps: list[float], clock: float = 0.0, pace: float = FRAME
) -> tuple[list[float], list[float]]:
    """Feed decode times, one every `pace` seconds of wall clock; positions and jumps."""
    positions, jumps = [], []
    if not timeline.anchored:
        timeline.anchor(stamps[0])
    for index, stamp in enumerate(stamps):
        jump = timeline.step(stamp, FRAME, clock + index * pace, waited=0.03)
        positions.append(timeline.position)
        jumps += [] if jump is None else [jump]
    return positions, jumps


def frames(start: float, count: int) -> list[float]:
    return [start + index * FRAME for index in range(count)]


def test_positions_begin_at_zero_wherever_the_stream_does() -> None:
    """MPEG-TS usually starts at 1.4 s or at some hour of the encoder's day."""
    positions, jumps = play(Timeline(), frames(48211.3, 50))

    assert positions[0] == 0
    assert positions[-1] == pytest.approx(49 * FRAME)
    assert jumps == []


@pytest.mark.parametrize("live", [True, False])
def test_a_restarted_encoder_is_one_jump_and_positions_go_on(live: bool) -> None:
    """Time stamps back from 19.96 s to 0.08 s raise nothing in FFmpeg."""
    timeline = Timeline(live=live, paced=live)

    positions, jumps = play(timeline, frames(0, 500) + frames(0.08, 100))

    assert jumps == [pytest.approx(0.08 - 20.0, abs=0.01)]
    assert positions == sorted(positions)
    assert positions[-1] == pytest.approx(599 * FRAME, abs=0.1)


def test_a_jump_forward_without_time_passing_is_a_jump() -> None:
    """The position must not run ahead of the wall clock by an hour."""
    timeline = Timeline(live=True, paced=True)

    positions, jumps = play(timeline, frames(0, 100) + frames(3600, 100))

    assert jumps == [pytest.approx(3600 - 4.0, abs=0.05)]
    assert positions[-1] == pytest.approx(199 * FRAME, abs=0.1)


def test_a_pause_of_the_sender_is_a_gap_and_not_a_jump() -> None:
    """Five seconds passed and the time stamps say so: nothing is wrong with them."""
    timeline = Timeline(live=True, paced=True)
    play(timeline, frames(0, 100))

    positions, jumps = play(timeline, frames(9.0, 50), clock=9.0)

    assert jumps == []
    assert positions[0] == pytest.approx(9.0)


def test_a_long_frame_of_a_file_with_good_time_stamps_is_no_jump() -> None:
    """Screen recordings and slide shows hold a picture for seconds."""
    timeline = Timeline()
    timeline.connect(0.0, trusted=True)

    positions, jumps = play(timeline, [0.0, 5.0, 10.0, 60.0])

    assert jumps == []
    assert positions[-1] == 60


def test_the_wrap_of_mpeg_time_stamps_is_no_fault() -> None:
    """Every 26.5 hours the 33-bit counter begins anew."""
    top = WRAP_SECONDS - 1.0

    positions, jumps = play(Timeline(), frames(top, 25) + frames(top + 1.0 - WRAP_SECONDS, 25))

    assert jumps == []
    assert positions[-1] == pytest.approx(49 * FRAME, abs=0.01)


def test_a_little_disorder_is_reported_once_and_does_not_shift_time() -> None:
    """Two swapped packets must not make every later position late."""
    stamps = frames(0, 50)
    stamps[20], stamps[21] = stamps[21], stamps[20]

    positions, jumps = play(Timeline(), stamps)

    assert len(jumps) == 1
    assert positions == sorted(positions)
    assert positions[-1] == pytest.approx(49 * FRAME)


def test_a_reconnected_stream_goes_on_by_the_time_it_was_away() -> None:
    """Positions measure time, so an outage has its length in them."""
    timeline = Timeline(live=True, paced=True)
    play(timeline, frames(0, 100))

    timeline.connect(7.5, trusted=False)
    positions, jumps = play(timeline, frames(123.0, 10), clock=11.5)

    assert positions[0] == pytest.approx(99 * FRAME + 7.5)
    assert jumps == []


def test_sound_alone_carries_time_on_while_pictures_stay_away() -> None:
    """Otherwise a lost video track would stop the clock and hide itself."""
    timeline = Timeline()
    play(timeline, frames(0, 50))

    for index in range(500):
        timeline.follow(2.0 + index * 0.02)

    assert timeline.position == pytest.approx(2 + 10 - 2, abs=0.2)


def test_positions_never_go_back_whatever_arrives() -> None:
    """Everything downstream relies on it."""
    rng = random.Random(5)
    for live in (True, False):
        timeline = Timeline(live=live, paced=live)
        stamps = [rng.choice([rng.uniform(-1e5, 1e5), index * FRAME]) for index in range(500)]

        positions, _ = play(timeline, stamps)

        assert positions == sorted(positions)


def test_whoever_has_to_wait_is_not_late() -> None:
    """An encoder that runs at 0.9 of real time, or pauses, must not look like our fault."""
    lag = Lag()
    for index in range(1000):
        lag.note(0.9 * index * FRAME, index * FRAME, waited=0.035)

    assert lag.behind < 0.2

    lag.note(36.0, 1000 * FRAME + 30.0, waited=30.0)
    assert lag.behind == 0


def test_a_slow_consumer_is_late() -> None:
    """Packets are there at once, and yet the media clock falls behind."""
    lag = Lag()
    for index in range(100):
        lag.note(index * FRAME, index * 2 * FRAME, waited=0.0)

    assert lag.behind == pytest.approx(99 * FRAME)
