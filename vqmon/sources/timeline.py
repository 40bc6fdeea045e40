"""Timestamps of a stream become positions that never go back. Pure: the clock is passed in.

A stream's own time starts anywhere, wraps, is reset by a restarted encoder and vanishes while a
connection is down. A position starts at 0 with the first picture and only grows: over a jump it
goes on, over an outage it grows by the time that passed.
"""

from __future__ import annotations

import math

JUMP_SECONDS = 1.0
"""A step this far from the expected one is a jump (or a gap, when time really passed)."""

WRAP_SECONDS = 2**33 / 90000
"""MPEG timestamps begin anew every 26.5 hours; that is no fault."""

PATIENCE_SECONDS = 2.0
"""After this long without a picture, sound alone carries the time on."""

IDLE_SECONDS = 0.5
IDLE_SHARE = 0.5
"""Reading waited: once for this long, or for this share of a second: we keep up."""


class Lag:
    """How far media is behind the wall clock because *we* are slow.

    Whoever has to wait for the next packet is not slow, whatever its time stamps say: then the
    lag counts from zero again. So an encoder that pauses or runs slow makes nobody late.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.least = math.inf
        self._since = -math.inf
        self._waited = 0.0

    @property
    def behind(self) -> float:
        """Seconds behind the least lag since we last had to wait."""
        return self.now - self.least

    def note(self, position: float, clock: float, waited: float) -> None:
        """Media at `position` arrived at `clock` (monotonic) after `waited` seconds of reading."""
        self.now = clock - position
        self._waited += waited
        elapsed = clock - self._since
        idle = elapsed >= 1.0 and self._waited > IDLE_SHARE * elapsed
        if idle or waited >= IDLE_SECONDS:
            self.least = self.now
        if elapsed >= 1.0:
            self._since, self._waited = clock, 0.0
        self.least = min(self.least, self.now)


class Timeline:
    """Positions of one source, over all its connections.

    live, paced: as in `Opening`. trusted: the container's time stamps are right as they are
    (MP4, Matroska), so a long step forward is a long frame and not a jump.
    """

    def __init__(self, *, live: bool = False, paced: bool = False) -> None:
        self.live = live
        self.paced = paced
        self.trusted = False
        self.position = 0.0
        self.lag = Lag()
        self._offset: float | None = None
        self._previous = self._highest = self._other = -math.inf
        self._without_driver = 0.0
        self._interval = 0.0

    def connect(self, away: float, *, trusted: bool) -> None:
        """A connection begins `away` seconds after the last media; its time starts anywhere."""
        self.trusted = trusted
        self.position += away
        self._offset = None
        self._interval = 0.0
        self.lag = Lag()

    @property
    def anchored(self) -> bool:
        return self._offset is not None

    def anchor(self, raw: float) -> None:
        """`raw` (s) is where the connection's first picture or sound stands."""
        self._offset = self.position - raw
        self._previous = self._highest = self._other = -math.inf
        self._without_driver = 0.0

    def at(self, raw: float) -> float:
        """Position of a raw time stamp (s), never before the start of the source."""
        assert self._offset is not None
        return max(0.0, raw + self._offset)

    def step(self, raw: float, duration: float, clock: float, waited: float = 0.0) -> float | None:
        """Advance to the next packet in decode order; return the size of a jump, if it is one.

        raw: decode time (s). duration: of the packet before this one, 0 when unknown.
        clock: monotonic time of arrival; waited: seconds that reading it took.
        """
        if self._previous == -math.inf:
            jump = None
        else:
            jump = self._judge(raw, raw - self._previous, duration, clock)
        self._previous = raw
        self._highest = max(self._highest, raw)
        self._without_driver = 0.0
        self.position = max(self.position, self.at(raw))
        self.lag.note(self.position, clock, waited)
        return jump

    def reach(self, raw: float) -> None:
        """A packet that has no decode time: time is at least where it is shown."""
        self.position = max(self.position, self.at(raw))

    def pass_by(self, seconds: float) -> None:
        """A packet without any time stamp took this long."""
        self.position += seconds

    def follow(self, raw: float) -> None:
        """A packet of the other kind (sound beside pictures): it carries time on its own only
        when the pictures stay away.
        """
        step = raw - self._other
        self._other = raw
        if not 0 < step < JUMP_SECONDS:
            return
        self._without_driver += step
        if self._without_driver > PATIENCE_SECONDS:
            self.position += step

    def _judge(self, raw: float, step: float, duration: float, clock: float) -> float | None:
        expected = duration or self._interval
        if step < -1e-6:
            return self._backward(raw, step - expected, clock)
        if self.at(raw) < self.position - PATIENCE_SECONDS - JUMP_SECONDS:
            return self._resume(raw, expected, clock)
        if step - expected > max(JUMP_SECONDS, 2 * self._interval) and not self._passed(raw, clock):
            self._rebase(raw, expected, clock)
            return step - expected
        self._interval += 0.1 * (step - self._interval) if self._interval else step
        return None

    def _backward(self, raw: float, jump: float, clock: float) -> float | None:
        """Time went back. A little is disorder and is clamped; more is a new beginning."""
        if self._highest - raw <= JUMP_SECONDS:
            return jump
        self._rebase(raw, self._interval, clock)
        return None if abs(jump + WRAP_SECONDS) < JUMP_SECONDS else jump

    def _resume(self, raw: float, expected: float, clock: float) -> float:
        """Pictures go on where they stopped although the sound went further."""
        jump = self.at(raw) - self.position
        self._rebase(raw, expected, clock)
        return jump

    def _passed(self, raw: float, clock: float) -> bool:
        """Whether a long step forward is time that really passed: a gap and not a jump."""
        if self.trusted:
            return True
        if not self.live:
            return False
        return clock - self.at(raw) >= self.lag.least - JUMP_SECONDS

    def _rebase(self, raw: float, expected: float, clock: float) -> None:
        """Go on from here; on a paced source also by the time that passed since."""
        onward = self.position + expected
        if self.live and self.paced:
            onward = max(onward, clock - self.lag.now)
        self._offset = onward - raw
        self._highest = raw
