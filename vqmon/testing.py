"""Fakes for everything vqmon needs from the outside; public, for the tests of plugins too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from vqmon.domain import (
    Assessment,
    Comparison,
    Depth,
    Event,
    Format,
    Frame,
    Media,
    Packet,
    Rollup,
    Segment,
    Traffic,
)
from vqmon.errors import StoreError
from vqmon.ports import everything
from vqmon.preprocess import Prepared
from vqmon.summing import PERIODS, checked, merged, summed, utc

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
BEGINNING = datetime.min.replace(tzinfo=UTC)
END = datetime.max.replace(tzinfo=UTC)


def textured_frame(
    position: float = 0.0,
    *,
    brightness: float = 50.0,
    size: tuple[int, int] = (128, 96),
    seed: int = 0,
) -> Frame:
    """A frame (width, height) of smooth noise around `brightness` (0..100 of full range)."""
    width, height = size
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 12, (height // 4, width // 4)).repeat(4, 0).repeat(4, 1)
    luma = np.clip(16 + 2.19 * brightness + noise * (brightness > 5), 16, 235)
    grey = np.full((height // 2, width // 2), 128, np.uint8)
    return Frame((luma.astype(np.uint8), grey, grey), position, EPOCH + timedelta(seconds=position))


class FakeSource:
    """Plays media given as a list: frames by brightness, or any Frame, Traffic and Event.

    brightness: one frame per entry, 0..100, `1 / rate` seconds apart, each different.
    error: raised where the media end, as a failing source would.
    """

    def __init__(
        self,
        media: Sequence[Media] = (),
        *,
        brightness: Sequence[float] = (),
        rate: float = 1.0,
        live: bool = False,
        error: Exception | None = None,
    ) -> None:
        self.live = live
        self.opened = 0
        self._media = list(media) or list(_played(brightness, rate))
        self._error = error
        self._stopped = False

    @contextmanager
    def open(self, depth: Callable[[], Depth] = everything) -> Iterator[Iterator[Media]]:
        self.opened += 1
        yield self._play(depth)

    def stop(self) -> None:
        self._stopped = True

    def _play(self, depth: Callable[[], Depth]) -> Iterator[Media]:
        for item in self._media:
            if self._stopped:
                return
            if isinstance(item, Frame) and not item.key and depth() is Depth.KEYFRAMES:
                continue
            yield item
        if self._error is not None:
            raise self._error


def _played(brightness: Sequence[float], rate: float) -> Iterator[Media]:
    yield Event("opened", 0.0, EPOCH, format=Format("raw", 128, 96, "yuv420p", rate))
    for number, value in enumerate(brightness):
        at = number / rate
        yield textured_frame(at, brightness=value, seed=number)
        yield Traffic(
            at + 1 / rate,
            1 / rate,
            1 / rate,
            EPOCH + timedelta(seconds=at + 1 / rate),
            1000,
            packets=(Packet(at, 1 / rate, 1000, key=True),),
        )


class FakeScorer:
    """Scores by a function of the prepared picture; by default its brightness, 0..100."""

    model = "fake@1"

    def __init__(self, quality: Callable[[Prepared], float] | None = None) -> None:
        self._quality = quality or (
            lambda p: float(np.clip(p.measures["luma_mean"] / 2.55, 0, 100))
        )
        self.batches: list[int] = []

    def assess(self, pictures: Sequence[Prepared]) -> list[Assessment]:
        if pictures:
            self.batches.append(len(pictures))
        return [self._one(picture) for picture in pictures]

    def compare(self, a: Sequence[Assessment], b: Sequence[Assessment]) -> Comparison:
        margin = _mean(a) - _mean(b)
        text = f"{margin:+.1f} points"
        if abs(margin) < 1:
            return Comparison("similar", margin, 0.5, text)
        return Comparison("a" if margin > 0 else "b", margin, float(margin > 0), text)

    def _one(self, picture: Prepared) -> Assessment:
        quality = self._quality(picture)
        return Assessment(
            picture.position, quality, 5.0, outputs={"quality": (quality,)}, model=self.model
        )


def _mean(assessed: Sequence[Assessment]) -> float:
    return float(np.mean([a.quality for a in assessed if a.quality is not None] or [0.0]))


class MemoryStore:
    """`vqmon.ports.SegmentStore` in dictionaries; passes the same contract as the real ones."""

    def __init__(self) -> None:
        self._segments: dict[str, Segment] = {}
        self._rollups: dict[tuple[int, datetime, str], Rollup] = {}
        self._lock = threading.RLock()

    def add(self, some: Iterable[Segment]) -> None:
        """Store all or, when one cannot be stored (ValueError), none; a known id is left alone."""
        batch: dict[str, Segment] = {}
        for segment in some:
            batch.setdefault(segment.id, checked(segment))
        with self._lock:
            new = {id_: s for id_, s in batch.items() if id_ not in self._segments}
            self._segments |= new
            for share in summed(new.values()):
                key = (share.period, share.starts_at, share.stream)
                known = self._rollups.get(key)
                self._rollups[key] = merged(known, share) if known else share

    def segments(
        self,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        worst_first: bool = False,
        limit: int | None = None,
        finding: str | None = None,
    ) -> list[Segment]:
        """By started_at, oldest first; or by quality, worst first (unscored left out)."""
        begin, end = _range(since, until)
        found = [
            segment
            for segment in self._by_time()
            if (stream is None or segment.stream == stream)
            and begin <= segment.started_at < end
            and (finding is None or any(f.name == finding for f in segment.findings))
        ]
        if worst_first:
            found = sorted((s for s in found if s.quality is not None), key=_quality)
        return found[: _count(limit)]

    def segment(self, segment_id: str) -> Segment | None:
        """By id, or by an unambiguous beginning of it; StoreError when it is ambiguous."""
        with self._lock:
            if segment_id in self._segments or not segment_id:
                return self._segments.get(segment_id)
            found = [s for id_, s in self._segments.items() if id_.startswith(segment_id)]
        if len(found) > 1:
            raise StoreError(f"several segments begin with {segment_id!r}: give more of it")
        return found[0] if found else None

    def streams(self) -> list[str]:
        """Names that have segments or roll-ups, sorted."""
        with self._lock:
            return sorted(
                {s.stream for s in self._segments.values()}
                | {r.stream for r in self._rollups.values()}
            )

    def last(self, stream: str) -> Segment | None:
        """The newest segment of a stream."""
        found = self.segments(stream)
        return found[-1] if found else None

    def rollups(
        self,
        period: int,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Rollup]:
        """period: 60 or 3600. Oldest first, then by stream."""
        if period not in PERIODS:
            raise ValueError(f"roll-ups have a period of 60 or 3600 seconds, not {period}")
        begin, end = _range(since, until)
        with self._lock:
            return [
                rollup
                for (length, starts_at, name), rollup in sorted(self._rollups.items(), key=_key)
                if length == period
                and (stream is None or name == stream)
                and begin <= starts_at < end
            ]

    def prune(self, before: datetime, *, limit: int = 500) -> list[str]:
        """Delete the oldest segments started before; return pictures that nobody needs now."""
        with self._lock:
            gone = self.segments(until=before, limit=limit)
            for segment in gone:
                del self._segments[segment.id]
            return self._unneeded(gone)

    def forget_pictures(self, before: datetime, *, limit: int = 500) -> list[str]:
        """Take the pictures off the oldest segments that have any; return their paths."""
        with self._lock:
            bearing = [s for s in self.segments(until=before) if _pictures(s)][: _count(limit)]
            for segment in bearing:
                self._segments[segment.id] = replace(segment, thumbnail=None, evidence=())
            return self._unneeded(bearing)

    def known_pictures(self, paths: Iterable[str]) -> set[str]:
        """Those of the paths that a segment names."""
        with self._lock:
            return set(paths) & {p for s in self._segments.values() for p in _pictures(s)}

    def prune_rollups(self, before: datetime) -> int:
        """Delete roll-ups that start before; return how many."""
        before = utc(before)
        with self._lock:
            old = [key for key in self._rollups if key[1] < before]
            for key in old:
                del self._rollups[key]
            return len(old)

    def size_bytes(self) -> int:
        """0: memory is no disk."""
        return 0

    def _by_time(self) -> list[Segment]:
        with self._lock:
            return sorted(self._segments.values(), key=lambda s: (s.started_at, s.stream, s.id))

    def _unneeded(self, gone: Iterable[Segment]) -> list[str]:
        paths = dict.fromkeys(path for segment in gone for path in _pictures(segment))
        needed = self.known_pictures(paths)
        return [path for path in paths if path not in needed]


def _pictures(segment: Segment) -> list[str]:
    return [path for path in (segment.thumbnail, *segment.evidence) if path]


def _range(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    return (utc(since) if since else BEGINNING, utc(until) if until else END)


def _quality(segment: Segment) -> float:
    assert segment.quality is not None
    return segment.quality


def _key(item: tuple[tuple[int, datetime, str], Rollup]) -> tuple[int, datetime, str]:
    return item[0]


def _count(limit: int | None) -> int | None:
    if limit is not None and limit < 0:
        raise ValueError(f"a limit counts segments, so it is not {limit}")
    return limit
