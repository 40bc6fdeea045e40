"""Bitrate collapse: the video's rate falls far below the stream's own, and the picture pays.

Still scenes of a variable-rate stream fall as far without harm, so a low rate alone is no
finding. The rule: for 3 s the rate over the last few seconds (at least one GOP) is below 35 %
of its median over the last five minutes, and one of these holds

    the quantiser of keyframes rose by 4 steps over its own median, or
    compression or blur shows in most recent pictures and did not before, or
    half of the pictures or more went missing with it, or
    the decoder gives no quantiser, the pictures move at least half as much as usual, and
    it has lasted for 6 s.

The median stands still while the rate is low, so that a collapse does not become the norm
before ten minutes have passed. A format change starts everything anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from statistics import median

from vqmon.domain import Finding, Frame, Traffic
from vqmon.signals.limits import SCALES
from vqmon.signals.spans import Track, found

WINDOW_SECONDS = 4.0
WINDOW_LIMIT = 12.0
GOPS = 2.0
HISTORY = 300
LEAST_HISTORY = 8
LEAST_SECONDS = 3.0
WITHOUT_QP_SECONDS = 6.0
NEW_NORMAL_SECONDS = 600.0

QP_STEPS = 4.0
"""Six steps double the quantiser; four are plainly visible."""

SHOWN, SHOWN_BEFORE = 0.5, 0.2
MOTION_SHARE = 0.5
RATE_SHARE = 0.5
RECENT_SECONDS = 6.0


class Usual:
    """A value now against its own median; values are (position, value)."""

    def __init__(self, recent: float) -> None:
        self._recent_seconds = recent
        self._recent: deque[tuple[float, float]] = deque(maxlen=256)
        self._past: deque[float] = deque(maxlen=HISTORY)

    def add(self, position: float, value: float, *, learn: bool) -> None:
        self._recent.append((position, value))
        while self._recent[0][0] < position - self._recent_seconds:
            _, old = self._recent.popleft()
            if learn:
                self._past.append(old)

    def now(self) -> float | None:
        return median(v for _, v in self._recent) if self._recent else None

    def before(self) -> float | None:
        return median(self._past) if self._past else None


class Bitrate:
    """Feed traffic, keyframes' quantisers and motion, and what sampled pictures show."""

    def __init__(self) -> None:
        self.track = Track(least=LEAST_SECONDS, join=2.0, larger_is_worse=False)
        self._clear()

    def restart(self, position: float) -> None:
        """Another connection or format: rates before do not compare."""
        self.track.finish(position)
        self._clear()

    def _clear(self) -> None:
        self._window: deque[tuple[float, int, int]] = deque(maxlen=256)
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._counts: deque[float] = deque(maxlen=HISTORY)
        self._qp = Usual(RECENT_SECONDS)
        self._motion = Usual(RECENT_SECONDS)
        self._poor = Usual(RECENT_SECONDS)
        self._low_since: float | None = None
        self.share: float | None = None

    @property
    def low(self) -> bool:
        """Whether the rate is far below the usual one, with or without harm."""
        return self._low_since is not None

    def key(self, frame: Frame, motion: float | None) -> None:
        """A decoded keyframe; motion: how much it differs from the one before, 0..255."""
        if frame.qp is not None:
            self._qp.add(frame.position, frame.qp, learn=not self.low)
        if motion is not None:
            self._motion.add(frame.position, motion, learn=not self.low)

    def sampled(self, position: float, *, poor: bool) -> None:
        """A sampled picture; poor: compressed or blurred."""
        self._poor.add(position, float(poor), learn=not self.low)

    def traffic(self, traffic: Traffic, gop_seconds: float) -> None:
        if traffic.seconds <= 0:
            return
        size = sum(p.size for p in traffic.packets)
        self._window.append((traffic.seconds, size, len(traffic.packets)))
        wanted = min(WINDOW_LIMIT, max(WINDOW_SECONDS, GOPS * gop_seconds))
        while sum(w[0] for w in self._window) - self._window[0][0] >= wanted:
            self._window.popleft()
        seconds = sum(w[0] for w in self._window)
        rate = sum(w[1] for w in self._window) / seconds
        count = sum(w[2] for w in self._window) / seconds
        self._judge(traffic, rate, count)

    def findings(self, start: float, end: float) -> Iterator[Finding]:
        for cut in self.track.cuts(start, end):
            yield found("bitrate_collapse", cut, cut.worst, 0.8, digits=1)

    def facts(self) -> dict[str, float]:
        """The rate as a share of the usual one, percent, once there is a usual one."""
        return {} if self.share is None else {"bitrate_percent_of_usual": round(self.share, 1)}

    def _judge(self, traffic: Traffic, rate: float, count: float) -> None:
        begin = traffic.position - traffic.seconds
        usual = median(self._rates) if len(self._rates) >= LEAST_HISTORY else None
        self.share = 100 * rate / usual if usual else None
        if self.share is None or self.share >= SCALES["bitrate_collapse"].limit:
            self._low_since = None
            self.track.finish(begin)
            self._learn(rate, count)
            return
        self._low_since = begin if self._low_since is None else self._low_since
        lasted = traffic.position - self._low_since
        if lasted > NEW_NORMAL_SECONDS:
            self._rates.clear()
            self._counts.clear()
        elif self.track.on or (lasted >= LEAST_SECONDS and self._harmed(lasted, count)):
            self.track.begin(self._low_since, self.share)

    def _learn(self, rate: float, count: float) -> None:
        self._rates.append(rate)
        self._counts.append(count)

    def _harmed(self, lasted: float, count: float) -> bool:
        """Whether the picture pays for the low rate."""
        if count < RATE_SHARE * median(self._counts):
            return True
        now, before = self._qp.now(), self._qp.before()
        if now is not None and before is not None and now - before >= QP_STEPS:
            return True
        if _rose(self._poor):
            return True
        return now is None and lasted >= WITHOUT_QP_SECONDS and self._still_moving()

    def _still_moving(self) -> bool:
        now, before = self._motion.now(), self._motion.before()
        return now is not None and before is not None and now >= MOTION_SHARE * before


def _rose(poor: Usual) -> bool:
    now, before = poor.now(), poor.before()
    return now is not None and before is not None and now >= SHOWN and before <= SHOWN_BEFORE
