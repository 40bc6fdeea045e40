"""A stream made of arithmetic, with known damage at known times: for trying, teaching, testing.

    synthetic:?size=1280x720&fps=25&seconds=60&faults=black@10-15,blur@30-36:4

Everything the other sources report is here too (packets with plausible sizes, sound levels,
events), so that whatever reads a source can be checked against what was done on purpose.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from vqmon.domain import (
    AudioLevel,
    Depth,
    Event,
    Format,
    Frame,
    Media,
    Packet,
    Traffic,
)
from vqmon.ports import everything
from vqmon.sources.impairments import IMPAIRMENTS, Planes
from vqmon.sources.recipe import Recipe, Staged, parse
from vqmon.sources.retry import SourceStatus
from vqmon.sources.scene import Scene, make_scene

LATE_SECONDS = 0.5
"""A live picture later than this is dropped and counted."""

HOLD_SECONDS = (0.16, 0.24, 0.32, 0.48, 0.72)
"""How long stutter holds each picture, by level."""

COLLAPSE = (2.0, 3.5, 6.0, 10.0, 18.0)
"""What a bitrate collapse divides the bitrate by, by level."""

LOSS = (0.01, 0.03, 0.08, 0.2, 0.5)
"""Share of packets that packet loss damages, by level."""

UNDERFED_PACE = (0.65, 0.55, 0.45, 0.35, 0.25)
"""Seconds of media per second of wall clock while underfed, by level."""

JUMP_SECONDS = (1.5, 5.0, 30.0, -30.0, -3600.0)


class SyntheticSource:
    """See the module. Raises SourceRejected, naming what is allowed, when the URL is wrong."""

    def __init__(self, url: str, name: str = "") -> None:
        self.url = url
        self.name = name
        self.recipe = parse(url)
        self.status = SourceStatus(since=time.monotonic())
        self._stopping = threading.Event()

    @property
    def live(self) -> bool:
        return self.recipe.live

    def open(
        self, depth: Callable[[], Depth] = everything
    ) -> AbstractContextManager[Iterator[Media]]:
        return self._open(depth)

    def stop(self) -> None:
        self._stopping.set()

    @contextmanager
    def _open(self, depth: Callable[[], Depth]) -> Iterator[Iterator[Media]]:
        recipe = self.recipe
        scene = make_scene(recipe.width, recipe.height, recipe.seed)
        clock = _Clock(recipe.live, self._stopping)
        media = _Play(recipe, scene, clock, depth).run()
        try:
            yield self._told(media)
        finally:
            media.close()
            self.status = SourceStatus("stopped", since=time.monotonic())

    def _told(self, media: Iterator[Media]) -> Iterator[Media]:
        """The media, with `status` kept as other sources keep it."""
        for item in media:
            if self._stopping.is_set():
                return
            now = time.monotonic()
            if isinstance(item, Event) and item.kind == "lost":
                self.status = replace(
                    self.status, state="down", reason=item.reason, detail=item.detail, since=now
                )
            elif isinstance(item, Event) and item.kind in {"opened", "reconnected"}:
                reconnects = self.status.reconnects + (item.kind == "reconnected")
                self.status = SourceStatus("up", since=now, reconnects=reconnects)
            if isinstance(item, Traffic):
                self.status = replace(self.status, last_packet_monotonic=now)
            yield item


class _Clock:
    """Wall time, real for a live source and pretended for others."""

    def __init__(self, live: bool, stopping: threading.Event) -> None:
        self.live = live
        self._stopping = stopping
        self._began = time.monotonic()
        self._epoch = datetime.now(UTC)
        self._due = 0.0

    def advance(self, seconds: float) -> None:
        """Let wall time pass; a live source sleeps, in steps that `stop` can end."""
        self._due += seconds
        if self.live:
            self._stopping.wait(max(0.0, -self.late))

    @property
    def stopped(self) -> bool:
        return self._stopping.is_set()

    @property
    def late(self) -> float:
        """Seconds behind real time; never for a source that is not live."""
        return time.monotonic() - self._began - self._due if self.live else 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began if self.live else self._due

    def now(self) -> datetime:
        return datetime.now(UTC) if self.live else self._epoch + timedelta(seconds=self._due)


@dataclass(slots=True)
class _Second:
    """What becomes the next Traffic."""

    start: float
    wall_start: float
    cpu_start: float
    packets: list[Packet] = field(default_factory=list)
    errors: int = 0
    late: int = 0


class _Play:
    """One run through the recipe."""

    def __init__(
        self, recipe: Recipe, scene: Scene, clock: _Clock, depth: Callable[[], Depth]
    ) -> None:
        self._recipe = recipe
        self._scene = scene
        self._clock = clock
        self._depth = depth
        self._rng = np.random.default_rng(recipe.seed)
        self._period = 1 / recipe.fps
        self._skipped = 0
        self._away_since: float | None = None
        self._before: dict[str, Staged] = {}
        self._second = self._new_second(0.0)

    def run(self) -> Generator[Media, None, None]:
        yield self._event("opened", 0.0, format_=self._format(halved=False))
        for number in itertools.count():
            position = number * self._period
            if position >= self._recipe.seconds - 1e-9 or self._clock.stopped:
                break
            staged = self._recipe.staged(position)
            yield from self._changes(position, staged)
            self._before = staged
            if "no_signal" in staged:
                self._clock.advance(self._period)
                continue
            pace = UNDERFED_PACE[staged["underfed"].level - 1] if "underfed" in staged else 1.0
            self._clock.advance(self._period / pace)
            yield from self._picture(number, position, staged)
            if position + self._period - self._second.start >= 1 - 1e-9:
                yield self._traffic(position + self._period)
        yield from self._rest()

    def _changes(self, position: float, staged: dict[str, Staged]) -> Iterator[Event]:
        """What begins or ends here and is not part of a picture."""
        started, ended = staged.keys() - self._before.keys(), self._before.keys() - staged.keys()
        if "no_signal" in started:
            self._away_since = position
            detail = "staged: nothing arrives"
            yield self._event("lost", position, reason="timeout_read", detail=detail)
        if "no_signal" in ended and self._away_since is not None:
            away = position - self._away_since
            yield self._event(
                "reconnected", position, seconds=away, format_=self._format(halved=False)
            )
            self._second = self._new_second(position)
        if "timestamp_jump" in started:
            step = JUMP_SECONDS[staged["timestamp_jump"].level - 1]
            yield self._event("timestamp_jump", position, seconds=step)
        if "format_changed" in started | ended:
            halved = "format_changed" in started
            yield self._event("format_changed", position, format_=self._format(halved=halved))

    def _picture(self, number: int, position: float, staged: dict[str, Staged]) -> Iterator[Frame]:
        key = number % max(1, round(self._recipe.gop * self._recipe.fps)) == 0
        lost = "packet_loss" in staged and self._rng.random() < _level(LOSS, staged["packet_loss"])
        packet = self._packet(number, position, key=key, lost=lost, staged=staged)
        self._second.packets.append(packet)
        self._second.errors += lost
        late = self._clock.late > LATE_SECONDS
        self._second.late += late
        if late or not _decoded(self._depth(), number, key=key):
            self._skipped += 1
            return
        planes = self._planes(position, staged, lost=lost)
        skipped, self._skipped = self._skipped, 0
        yield Frame(
            planes,
            position,
            self._clock.now(),
            seconds=self._period,
            key=key,
            skipped=skipped,
            corrupt=lost or "corrupted" in staged,
            qp=self._qp(staged),
        )

    def _planes(self, position: float, staged: dict[str, Staged], *, lost: bool) -> Planes:
        planes = self._scene.render(_shown_at(position, staged))
        for name, fault in staged.items():
            if name in IMPAIRMENTS:
                planes = IMPAIRMENTS[name](planes, fault.level, self._rng)
        if "bitrate_collapse" in staged:
            planes = IMPAIRMENTS["compression"](planes, staged["bitrate_collapse"].level, self._rng)
        if lost:
            planes = IMPAIRMENTS["corrupted"](planes, staged["packet_loss"].level, self._rng)
        if "format_changed" in staged:
            planes = _halved(planes)
        return planes

    def _packet(
        self, number: int, position: float, *, key: bool, lost: bool, staged: dict[str, Staged]
    ) -> Packet:
        """Keyframes take a third of the bits; pictures that do not change take next to none."""
        recipe = self._recipe
        per_gop = recipe.kbps * 125 * recipe.gop
        between = max(1, round(recipe.gop * recipe.fps) - 1)
        size = per_gop / 3 if key else per_gop / 1.5 / between
        if "bitrate_collapse" in staged:
            size /= _level(COLLAPSE, staged["bitrate_collapse"])
        if staged.keys() & {"black", "slate"}:
            size = 1200 if key else 40
        elif _still(number, self._period, staged) and not key:
            size = 60
        size *= self._rng.uniform(0.9, 1.1) * (0.5 if lost else 1.0)
        return Packet(position, self._period, max(24, round(size)), key, corrupt=lost)

    def _qp(self, staged: dict[str, Staged]) -> float:
        starved = [f.level for n, f in staged.items() if n in {"compression", "bitrate_collapse"}]
        return 26.0 + 5.0 * max(starved, default=0)

    def _traffic(self, end: float) -> Traffic:
        second, wall, cpu = self._second, self._clock.elapsed, time.thread_time()
        self._second = self._new_second(end)
        staged = self._recipe.staged((second.start + end) / 2)
        sound = _sound(end, end - second.start, staged) if self._recipe.audio else None
        return Traffic(
            position=end,
            seconds=end - second.start,
            wall_seconds=wall - second.wall_start,
            captured_at=self._clock.now(),
            bytes=sum(p.size for p in second.packets) + (16_000 if sound else 0),
            packets=tuple(second.packets),
            corrupt_packets=sum(p.corrupt for p in second.packets),
            decode_errors=second.errors,
            late_frames=second.late,
            cpu_seconds=cpu - second.cpu_start,
            audio=sound,
        )

    def _rest(self) -> Iterator[Media]:
        if self._second.packets:
            end = self._second.packets[-1].position + self._period
            yield self._traffic(end)

    def _new_second(self, position: float) -> _Second:
        return _Second(position, self._clock.elapsed, time.thread_time())

    def _format(self, *, halved: bool) -> Format:
        recipe = self._recipe
        width, height = recipe.width, recipe.height
        if halved:
            width, height = _half(width), _half(height)
        return Format(
            codec="h264",
            width=width,
            height=height,
            pixel_format="yuv420p",
            frame_rate=recipe.fps,
            audio_codec="aac" if recipe.audio else None,
            audio_rate=48_000 if recipe.audio else 0,
            container="synthetic",
        )

    def _event(
        self,
        kind: str,
        position: float,
        *,
        format_: Format | None = None,
        seconds: float = 0.0,
        reason: str | None = None,
        detail: str = "",
    ) -> Event:
        now = self._clock.now()
        return Event(kind, position, now, format_, seconds, reason, detail)  # type: ignore[arg-type]


def _level(table: tuple[float, ...], fault: Staged) -> float:
    return table[fault.level - 1]


def _shown_at(position: float, staged: dict[str, Staged]) -> float:
    """The scene's time: held by freeze and stutter."""
    if "freeze" in staged:
        return staged["freeze"].start
    if "stutter" in staged:
        hold = _level(HOLD_SECONDS, staged["stutter"])
        return math.floor(position / hold + 1e-9) * hold
    return position


def _still(number: int, period: float, staged: dict[str, Staged]) -> bool:
    now, before = (_shown_at(n * period, staged) for n in (number, number - 1))
    return now == before


def _decoded(depth: Depth, number: int, *, key: bool) -> bool:
    if depth is Depth.KEYFRAMES:
        return key
    return key or depth is Depth.ALL or number % 2 == 0


def _half(side: int) -> int:
    return max(2, side // 4 * 2)


def _halved(planes: Planes) -> Planes:
    """Every other sample, as a cheap scaler does; even sizes."""
    rows, columns = (_half(side) for side in planes[0].shape)
    y, u, v = planes
    return (
        np.ascontiguousarray(y[::2, ::2][:rows, :columns]),
        np.ascontiguousarray(u[::2, ::2][: rows // 2, : columns // 2]),
        np.ascontiguousarray(v[::2, ::2][: rows // 2, : columns // 2]),
    )


def _sound(position: float, seconds: float, staged: dict[str, Staged]) -> AudioLevel:
    """Speech at about the broadcast level of -23 LUFS (EBU R 128), swelling and falling."""
    swell = 2.5 * math.sin(position * 0.7) + 1.5 * math.sin(position * 1.9)
    if "audio_silence" in staged:
        return AudioLevel(position, seconds, -120.0, -120.0, -120.0, 0.0)
    if "audio_clipping" in staged:
        share = 0.004 * staged["audio_clipping"].level ** 2
        return AudioLevel(position, seconds, -6.0, 0.0, -6.5, share)
    rms = -24.0 + swell
    if "audio_loudness" in staged:
        rms += 3.0 * staged["audio_loudness"].level
    return AudioLevel(position, seconds, rms, min(-0.3, rms + 13.0), rms + 0.7, 0.0)
