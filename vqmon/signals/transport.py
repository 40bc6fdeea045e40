"""Faults that packets tell: gaps, starvation, loss, lateness; and the distance of keyframes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from statistics import median

from vqmon.domain import Event, Finding, Packet, Traffic
from vqmon.signals.ledger import Ledger, mean, percent
from vqmon.signals.limits import SCALES
from vqmon.signals.spans import Track, found

GAP_FRAMES = 3.0
"""A decode-time gap is a fault from this many usual distances on (and from the scale's limit)."""

GAP_BASELINE = 96
"""Packet distances that make the usual one; an irregular stream is judged by its 95th centile."""

GAP_LEAST_BASELINE = 12
UNDERFED_WINDOW = 45.0
UNDERFED_CLEAR = 75.0
"""Percent of real time at which a starved stream counts as fed again."""

GRACE_SECONDS = 1.0
"""After joining a stream in the middle, the first packets are damaged by the joining itself."""

ERRORS_ALONE_PERCENT = 1.0
"""Decoder complaints without one corrupt packet are loss only from this share of packets on:
decoders also grumble about odd but intact streams."""

LOSS_JOIN_SECONDS = 2.0

LATE_INTERVALS = 10
LATE_LEAST = 3
"""Of the last ten intervals together: at keyframes only, one late picture is a large share."""

LATELY_SECONDS = 5.0
"""So long after damage or a gap a closer look still tells something."""


class Gaps:
    """Stutter that shows in decode times: pictures are missing between packets."""

    def __init__(self) -> None:
        self.track = Track(join=2.0)
        self.usual = 0.0  # median distance of packets, seconds; 0 before there are any
        self.seen: deque[float] = deque(maxlen=256)
        self._closed_until = float("-inf")
        self._last: Packet | None = None
        self._distances: deque[float] = deque(maxlen=GAP_BASELINE)

    def packet(self, packet: Packet) -> None:
        last, self._last = self._last, packet
        if last is None:
            return
        distance = packet.position - last.position
        if self.track.on:
            self.track.finish(packet.position)
            self.seen.append(packet.position)
        elif self._is_gap(distance):
            self._note(last.position + self.usual, packet.position, distance)
        elif distance > 0:
            self._learn(packet, distance)

    def waited(self, position: float) -> None:
        """No packet came up to here: a gap is told while it lasts, not when it is over."""
        if self._last is not None and self._is_gap(position - self._last.position):
            start = self._last.position + self.usual
            self.track.begin(start, position - self._last.position)

    def lately(self, position: float) -> bool:
        """Whether there was a gap within the last seconds."""
        return bool(self.seen) and position - self.seen[-1] <= LATELY_SECONDS

    def restart(self, position: float) -> None:
        """Positions before and after this moment say nothing about each other."""
        self._last = None
        self.track.finish(position)

    def forget(self, before: float, closed_until: float) -> None:
        self.track.forget(before)
        self._closed_until = closed_until
        while self.seen and self.seen[0] < before:
            self.seen.popleft()

    def _note(self, start: float, end: float, distance: float) -> None:
        """Packets are told a second late: a gap of a closed segment counts in the next."""
        shift = max(0.0, self._closed_until - start)
        self.track.mark(start + shift, end + shift, distance)
        self.seen.append(start + shift)

    def _learn(self, packet: Packet, distance: float) -> None:
        self._distances.append(distance)
        if len(self._distances) < GAP_LEAST_BASELINE or packet.key:
            self.usual = median(self._distances)

    def _is_gap(self, distance: float) -> bool:
        return distance > SCALES["stutter"].limit and distance > self._limit()

    def _limit(self) -> float:
        if len(self._distances) < GAP_LEAST_BASELINE:
            return float("inf")
        ordered = sorted(self._distances)
        rare = ordered[int(0.95 * (len(ordered) - 1))]
        usual = ordered[len(ordered) // 2]
        regular = rare < 1.5 * usual
        return GAP_FRAMES * (usual if regular else rare)


class Feed:
    """Underfed: less media than time, over a sliding window of wall time."""

    def __init__(self) -> None:
        self.track = Track(larger_is_worse=False)
        self._window: deque[tuple[float, float, float]] = deque(maxlen=4096)
        self._media = self._wall = 0.0

    def traffic(self, traffic: Traffic) -> None:
        begin = traffic.position - traffic.seconds
        self._window.append((begin, traffic.seconds, traffic.wall_seconds))
        self._media += traffic.seconds
        self._wall += traffic.wall_seconds
        while self._wall - self._window[0][2] >= UNDERFED_WINDOW:
            _, media, wall = self._window.popleft()
            self._media -= media
            self._wall -= wall
        if self._wall >= UNDERFED_WINDOW:
            self._judge(begin, percent(self._media, self._wall))

    def restart(self, position: float) -> None:
        self.track.finish(position)
        self._window.clear()
        self._media = self._wall = 0.0

    def _judge(self, begin: float, share: float) -> None:
        if self.track.on and share >= UNDERFED_CLEAR:
            self.track.finish(begin)
        elif share < SCALES["underfed"].limit:
            self.track.begin(begin if self.track.on else self._window[0][0], share)


class Loss:
    """Seconds in which packets came damaged or the decoder complained."""

    def __init__(self) -> None:
        self.track = Track(join=LOSS_JOIN_SECONDS)
        self._grace_until = GRACE_SECONDS
        self._bad_at = float("-inf")

    def traffic(self, traffic: Traffic) -> None:
        begin = traffic.position - traffic.seconds
        if begin < self._grace_until:
            return
        bad = max(traffic.corrupt_packets, sum(p.corrupt for p in traffic.packets))
        packets = len(traffic.packets)
        if bad or percent(traffic.decode_errors, packets) > ERRORS_ALONE_PERCENT:
            self.track.mark(begin, traffic.position)
            self._bad_at = traffic.position

    def lately(self, position: float) -> bool:
        """Whether there was damage within the last seconds."""
        return position - self._bad_at <= LATELY_SECONDS

    def restart(self, position: float) -> None:
        self._grace_until = position + GRACE_SECONDS


class Keyframes:
    """Distances of keyframes."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._distances: deque[tuple[float, float]] = deque(maxlen=256)

    def packet(self, packet: Packet) -> None:
        if not packet.key:
            return
        if self._last is not None and packet.position > self._last:
            self._distances.append((packet.position, packet.position - self._last))
        self._last = packet.position

    def restart(self) -> None:
        self._last = None

    def usual(self) -> float:
        """Median of the last distances, seconds; 0 before there are two keyframes."""
        return median(d for _, d in list(self._distances)[-8:]) if self._distances else 0.0

    def mean(self, start: float, end: float) -> float | None:
        """Of the distances that ended in a segment, else of the last one before it."""
        inside = [d for p, d in self._distances if start <= p < end]
        earlier = [d for p, d in self._distances if p < start][-1:]
        return mean(inside or earlier)


class Transport:
    """All of the above for one stream."""

    def __init__(self, ledger: Ledger) -> None:
        self.gaps = Gaps()
        self.feed = Feed()
        self.loss = Loss()
        self.keyframes = Keyframes()
        self.late = Track(join=LOSS_JOIN_SECONDS)
        self._ledger = ledger
        self._decoded = 0
        self._recent: deque[tuple[int, int]] = deque(maxlen=LATE_INTERVALS)

    def traffic(self, traffic: Traffic) -> None:
        for packet in traffic.packets:
            self.gaps.packet(packet)
            self.keyframes.packet(packet)
        self.gaps.waited(traffic.position)
        self.feed.traffic(traffic)
        self.loss.traffic(traffic)
        self._lateness(traffic)

    def decoded(self) -> None:
        """One more picture was decoded."""
        self._decoded += 1

    def event(self, event: Event) -> None:
        if event.kind != "format_changed":
            self.gaps.restart(event.position)
            self.keyframes.restart()
        if event.kind in ("opened", "lost", "reconnected"):
            self.feed.restart(event.position)
            self.loss.restart(event.position)

    def findings(self, start: float, end: float) -> Iterator[Finding]:
        seconds = self._ledger.seconds_touching(start, end)
        for cut in self.gaps.track.cuts(start, end):
            yield found("stutter", cut, cut.worst, 0.9)
        for cut in self.feed.track.cuts(start, end):
            yield found("underfed", cut, cut.worst, 0.95, digits=1)
        corrupt = sum(s.corrupt for s in seconds)
        lost = percent(
            corrupt or sum(s.errors for s in seconds),
            max(corrupt, sum(s.packets for s in seconds)),
        )
        for cut in self.loss.track.cuts(start, end):
            yield found("packet_loss", cut, lost, 0.95 if corrupt else 0.7, digits=3)
        late = sum(s.late for s in seconds)
        share = percent(late, late + len(self._ledger.pictures_shown(start, end)))
        for cut in self.late.cuts(start, end):
            yield found("overload", cut, share, 1.0, digits=1)

    def forget(self, before: float, closed_until: float) -> None:
        self.gaps.forget(before, closed_until)
        for track in (self.feed.track, self.loss.track, self.late):
            track.forget(before)

    def _lateness(self, traffic: Traffic) -> None:
        late, self._decoded = traffic.late_frames, self._decoded + traffic.late_frames
        self._recent.append((late, self._decoded))
        self._decoded = 0
        in_all, wanted = (sum(each) for each in zip(*self._recent, strict=True))
        behind = percent(in_all, wanted) > SCALES["overload"].limit and in_all >= LATE_LEAST
        if late and behind:
            self.late.mark(traffic.position - traffic.seconds, traffic.position)
