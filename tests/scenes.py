"""Streams made up second by second, for what is measured over time: no decoder, no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import AudioLevel, Event, Finding, Format, Frame, Media, Packet, Traffic
from vqmon.measures import glance
from vqmon.signals import Signals

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
HEIGHT, WIDTH = 72, 144
FORMAT = Format("h264", WIDTH, HEIGHT, "yuv420p", 25.0, "aac", 48000, "mpegts")

Luma = NDArray[np.uint8]
GREY = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)


def photograph(seed: int = 1) -> Luma:
    """Texture over soft shapes, as a camera sees the world."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 35, (HEIGHT // 12, WIDTH // 12)).repeat(12, 0).repeat(12, 1)
    fine = rng.normal(0, 8, (HEIGHT, WIDTH))
    return np.clip(120 + coarse + fine, 20, 230).astype(np.uint8)


def slate() -> Luma:
    """A drawn picture: a plain field and two bars."""
    picture = np.full((HEIGHT, WIDTH), 60, np.uint8)
    picture[24:34, 30:110] = 200
    picture[40:46, 50:90] = 150
    return picture


PHOTOGRAPH = photograph()
BLACK = np.full((HEIGHT, WIDTH), 16, np.uint8)


def moving(time: float) -> Luma:
    """A camera that pans: everything moves, all the time."""
    return np.roll(PHOTOGRAPH, round(75 * time), axis=1)


def noisy(sigma: float, base: Luma = PHOTOGRAPH) -> Callable[[float], Luma]:
    """A fixed camera: nothing moves but the sensor's noise."""

    def picture(time: float) -> Luma:
        rng = np.random.default_rng(round(time * 1000))
        return np.clip(base + rng.normal(0, sigma, base.shape), 0, 255).round().astype(np.uint8)

    return picture


@dataclass(frozen=True)
class Scene:
    """A stream as functions of time.

    luma: what is seen; size, key_size: bytes of inter packets and of keyframes; level: sound, None for none.
    dense: whether pictures between keyframes are decoded; dropped: whether a packet is missing;
    damaged: whether packet and picture are corrupt; slow: wall seconds per media second.
    """

    luma: Callable[[float], Luma] = moving
    size: Callable[[float], int] = lambda _: 8000
    key_size: Callable[[float], int] = lambda _: 20000
    level: Callable[[float], float | None] = lambda _: -20.0
    dense: Callable[[float], bool] = lambda _: True
    dropped: Callable[[float], bool] = lambda _: False
    damaged: Callable[[float], bool] = lambda _: False
    late: Callable[[float], int] = lambda _: 0
    qp: Callable[[float], float | None] = lambda _: 24.0
    slow: Callable[[float], float] = lambda _: 1.0
    events: tuple[Event, ...] = ()
    rate: int = 10
    gop: float = 2.0

    def media(self, seconds: float, start: float = 0.0) -> Iterator[Media]:
        """What a source would yield, in its order."""
        events = [opened(start), *self.events]
        packets: list[Packet] = []
        count = round(seconds * self.rate)
        for index in range(count):
            time = round(start + index / self.rate, 6)
            while events and events[0].position <= time:
                yield events.pop(0)
            key = index % round(self.gop * self.rate) == 0
            if not self.dropped(time):
                packets.append(self._packet(time, key=key))
                if key or self.dense(time):
                    yield self._frame(time, key=key)
            if (index + 1) % self.rate == 0:
                yield self._traffic(round(start + (index + 1) / self.rate, 6), packets)
                packets = []

    def _packet(self, time: float, *, key: bool) -> Packet:
        size = self.key_size(time) if key else self.size(time)
        return Packet(time, 1 / self.rate, size, key, corrupt=self.damaged(time))

    def _frame(self, time: float, *, key: bool) -> Frame:
        return Frame(
            (self.luma(time), GREY, GREY),
            time,
            EPOCH + timedelta(seconds=time),
            seconds=1 / self.rate,
            key=key,
            corrupt=self.damaged(time),
            qp=self.qp(time),
        )

    def _traffic(self, position: float, packets: list[Packet]) -> Traffic:
        level = self.level(position - 0.5)
        return Traffic(
            position,
            1.0,
            self.slow(position),
            EPOCH + timedelta(seconds=position),
            sum(p.size for p in packets) + 16000,
            tuple(packets),
            corrupt_packets=sum(p.corrupt for p in packets),
            late_frames=self.late(position),
            audio=None if level is None else sound(level, position),
        )


def sound(dbfs: float, position: float = 1.0, clipped: float = 0.0) -> AudioLevel:
    """One second whose loudness, level and peak are alike."""
    return AudioLevel(position, 1.0, dbfs, min(0.0, dbfs + 10), dbfs, clipped)


def opened(position: float = 0.0, form: Format = FORMAT) -> Event:
    return Event("opened", position, EPOCH, form)


def within(start: float, end: float) -> Callable[[float], bool]:
    """True in [start, end)."""
    return lambda time: start <= time < end


def switched(
    start: float, end: float, then: Callable[[float], Luma], other: Callable[[float], Luma] = moving
) -> Callable[[float], Luma]:
    """`other`, but `then` in [start, end)."""
    return lambda time: then(time) if start <= time < end else other(time)


def held(start: float, other: Callable[[float], Luma] = moving) -> Callable[[float], Luma]:
    """For any later time, the picture of `start`."""
    return lambda _: other(start)


def feed(signals: Signals, media: Iterator[Media]) -> None:
    for item in media:
        show(signals, item)


def show(signals: Signals, item: Media) -> None:
    if isinstance(item, Frame):
        signals.glance(item, glance(item))
    elif isinstance(item, Traffic):
        signals.traffic(item)
    else:
        signals.event(item)


def watched(
    scene: Scene, seconds: float, *, expect: frozenset[str] = frozenset(), sampling: str = "every"
) -> Signals:
    """Signals that have seen `seconds` of a scene."""
    signals = Signals(expect, sampling)  # type: ignore[arg-type]
    feed(signals, scene.media(seconds))
    return signals


def found(scene: Scene, seconds: float, **kwargs: object) -> tuple[Finding, ...]:
    """What is wrong with `seconds` of a scene, as one segment."""
    return watched(scene, seconds, **kwargs).findings(0, seconds)  # type: ignore[arg-type]


def named(findings: tuple[Finding, ...], name: str) -> list[Finding]:
    return [f for f in findings if f.name == name]


def lasting(findings: tuple[Finding, ...], name: str) -> float:
    """Seconds of one fault, all findings together."""
    return sum(f.seconds for f in findings if f.name == name)


def format_of(**changes: object) -> Format:
    return replace(FORMAT, **changes)  # type: ignore[arg-type]
