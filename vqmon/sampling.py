"""Which frames are decoded, and which of them are scored.

Three forces decide. The operator asks for keyframes or for one frame every n seconds.
Suspicion asks for more: a *burst* decodes everything for a few seconds, paid from a CPU budget
that all streams of a process share. Strain asks for less: when a live stream is behind, the
distance between scored frames doubles, and the segment says so.

    depth = mode                      keyframes | every
          + burst   while something is unclear and the budget lasts
          + sparse  keyframes further apart than SPARSE_KEYFRAMES: decode between them too
          - strain  0..3, each doubles the distance between scored frames
"""

from __future__ import annotations

import threading
from typing import Any

from vqmon.domain import Depth, Frame, Media, Stream, Traffic

BURST_SECONDS = 3.0
"""Dense decoding that settles most suspicions: two GOPs at most, three at 1 s."""

BURST_EVERY = 0.5
"""Distance of scored frames in a burst, seconds."""

BURST_PAUSE = 10.0
"""Media seconds between two bursts; doubled up to BURST_PAUSE_LIMIT while nothing changes."""

BURST_PAUSE_LIMIT = 80.0
SPARSE_KEYFRAMES = 10.0
STRAIN_LIMIT = 3
STRAIN_RAISE_SECONDS = 5.0
STRAIN_CLEAR_SECONDS = 30.0


class BurstBudget:
    """CPU that the streams of one process may spend on looking closer. Thread-safe.

    share: of one core, 0 (never burst) upwards. The balance grows with the wall time that
    members report and may not exceed ten seconds' worth, so that a quiet night does not pay
    for an hour of bursts.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._balance = self._ceiling = 10.0 * share
        self._members = 0
        self._lock = threading.Lock()

    def join(self) -> None:
        with self._lock:
            self._members += 1

    def leave(self) -> None:
        with self._lock:
            self._members = max(0, self._members - 1)

    def earn(self, wall_seconds: float) -> None:
        """One member saw `wall_seconds` pass; all members together earn `share` per second."""
        with self._lock:
            earned = wall_seconds * self.share / max(1, self._members)
            self._balance = min(self._ceiling, self._balance + earned)

    def spend(self, cpu_seconds: float) -> None:
        with self._lock:
            self._balance -= cpu_seconds

    def allows(self) -> bool:
        with self._lock:
            return self._balance > 0


class Sampler:
    """Decides for one stream; `depth` is asked by the source, the rest by the pipeline."""

    def __init__(self, stream: Stream, *, live: bool, budget: BurstBudget | None = None) -> None:
        self._mode = stream.sampling
        self._every = stream.sample_every
        self._live = live
        self._budget = budget
        self._slot: int | None = None
        self._burst = _Burst()
        self._strain = _Strain()
        self._last_key = 0.0
        self._sparse = False

    def depth(self) -> Depth:
        """How much to decode from now on."""
        if self._mode == "every":
            return (Depth.ALL, Depth.ALL, Depth.REFERENCE, Depth.KEYFRAMES)[self._strain.level]
        if self._strain.level:
            return Depth.KEYFRAMES
        if self._burst.on:
            return Depth.ALL
        return Depth.REFERENCE if self._sparse else Depth.KEYFRAMES

    def wants(self, frame: Frame) -> bool:
        """Whether this frame is to be scored: at most one per slot of `every` seconds.

        Of keyframes a tenth of a slot is forgiven: every 1.99 s they still fill slots of 2 s.
        """
        every = self.every
        forgiven = 0.1 * every if self._mode == "keyframes" else 1e-6
        slot = int((frame.position + forgiven) / every)
        if slot == self._slot:
            return False
        self._slot = slot
        return True

    @property
    def every(self) -> float:
        """Distance between scored frames as it is now, seconds."""
        dense = min(self._every, BURST_EVERY) if self._burst.on else self._every
        return dense * 2.0**self._strain.level

    def heed(self, item: Media, suspicion: str | None) -> None:
        """Learn from what just passed; `suspicion` says why to look closer, None why not to."""
        if isinstance(item, Traffic):
            self._strain.heed(item)
            self._pay(item)
            self._note_keyframes(item)
        if self._mode == "keyframes" and self._live:
            before = self._burst.on
            self._burst.heed(item, suspicion, affordable=self._affordable())
            if before != self._burst.on:
                self._slot = None

    def facts(self) -> dict[str, Any]:
        """How closely the stream was watched, for the segment's facts."""
        facts: dict[str, Any] = {"sampling": self._mode, "sample_every": round(self.every, 3)}
        if self._burst.count:
            facts["bursts"] = self._burst.count
            facts["burst_reason"] = self._burst.reason
        if self._strain.level:
            facts["coarser_by"] = 2**self._strain.level
        return facts

    def _affordable(self) -> bool:
        return self._strain.level == 0 and (self._budget is None or self._budget.allows())

    def _pay(self, traffic: Traffic) -> None:
        if self._budget is None:
            return
        self._budget.earn(traffic.wall_seconds)
        if self._burst.on:
            self._budget.spend(traffic.cpu_seconds)

    def _note_keyframes(self, traffic: Traffic) -> None:
        for packet in traffic.packets:
            if packet.key:
                self._sparse = packet.position - self._last_key > SPARSE_KEYFRAMES
                self._last_key = packet.position
        if traffic.packets:
            waiting = traffic.packets[-1].position - self._last_key
            self._sparse = self._sparse or waiting > SPARSE_KEYFRAMES


class _Burst:
    """Off, or on since a position; after each a pause that grows while nothing is settled."""

    def __init__(self) -> None:
        self.on = False
        self.count = 0
        self.reason = ""
        self._dense_since: float | None = None
        self._asked_at = 0.0
        self._quiet_until = 0.0
        self._pause = BURST_PAUSE

    def heed(self, item: Media, suspicion: str | None, *, affordable: bool) -> None:
        if self.on:
            self._go_on(item, affordable=affordable)
        elif suspicion is None:
            if item.position >= self._quiet_until:
                self._pause = BURST_PAUSE
        elif item.position >= self._quiet_until and affordable:
            self.on, self.reason = True, suspicion
            self.count += 1
            self._asked_at, self._dense_since = item.position, None

    def _go_on(self, item: Media, *, affordable: bool) -> None:
        if self._dense_since is None and isinstance(item, Frame) and not item.key:
            self._dense_since = item.position
        settled = (
            self._dense_since is not None and item.position - self._dense_since >= BURST_SECONDS
        )
        hopeless = item.position - self._asked_at > BURST_SECONDS + 2 * SPARSE_KEYFRAMES
        if settled or hopeless or not affordable:
            self.on = False
            self._quiet_until = item.position + self._pause
            self._pause = min(2 * self._pause, BURST_PAUSE_LIMIT)


class _Strain:
    """How far vqmon is behind on this stream: 0 keeps up, each level halves the work."""

    def __init__(self) -> None:
        self.level = 0
        self._raised_at = self._late_at = float("-inf")

    def heed(self, traffic: Traffic) -> None:
        now = traffic.position
        if traffic.late_frames:
            self._late_at = now
            if now - self._raised_at >= STRAIN_RAISE_SECONDS and self.level < STRAIN_LIMIT:
                self.level += 1
                self._raised_at = now
        elif self.level and now - max(self._late_at, self._raised_at) >= STRAIN_CLEAR_SECONDS:
            self.level -= 1
            self._raised_at = now
