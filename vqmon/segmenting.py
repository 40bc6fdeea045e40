"""Assessments and measured facts become segments."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from vqmon.domain import Assessment, Event, Finding, Frame, Media, Segment, Stream, Traffic

TAIL_SECONDS = 0.5
"""Media without a picture, shorter than this, at the end of a stream is no segment."""

WORST_SHARE, WORST_WEIGHT = 0.2, 0.3
"""Of a segment's time, and how much its mean counts beside that of the whole."""

LATE_ANCHOR_SECONDS = 2.0
"""A stream that stays this far behind its own clock has really lost time: re-anchor."""


@dataclass(slots=True)
class Window:
    """The segment in progress: which stretch of positions it covers and what was seen in it.

    Wall-clock starts follow the media clock from an anchor, so that rows of a stream tile time
    although frames arrive in gulps (HLS); the anchor moves forward only when every item of a
    window was late, which means that time passed without media.
    """

    stream: Stream
    start: float | None = None
    frames: int = 0
    black_frames: int = 0
    scored: list[Assessment] = field(default_factory=list)
    scored_keys: int = 0
    has_video: bool = True
    _epoch: datetime | None = None
    _least_lag: float = float("inf")
    _last: float = 0.0

    def over(self, item: Media) -> bool:
        """Whether this item no longer belongs to the segment in progress."""
        if self.start is None:
            return False
        if isinstance(item, Event) and item.kind == "lost":
            return True
        return _begins(item) >= self.start + self.stream.segment_seconds - 1e-6

    def see(self, item: Media) -> None:
        """Note that an item arrived; opens the window when none is open."""
        if isinstance(item, Event):
            if item.format is not None:
                self.has_video = bool(item.format.codec)
            if item.kind == "lost":
                self._epoch = None
            return
        self._open(_begins(item), item.captured_at)
        self._last = max(self._last, item.position)
        if isinstance(item, Frame):
            self._last = max(self._last, item.position + item.seconds)
            self.frames += 1

    @property
    def empty(self) -> bool:
        """Nothing worth a row: not open, or only the tail of something else."""
        return self.start is None or (not self.frames and self._last - self.start < TAIL_SECONDS)

    def _open(self, position: float, captured_at: datetime) -> None:
        if self._epoch is None:
            self._epoch = captured_at - timedelta(seconds=position)
        if self.start is None:
            self.start = self._last = position
        lag = (captured_at - self._epoch).total_seconds() - position
        self._least_lag = min(self._least_lag, lag)

    def end(self, item: Media | None) -> float:
        """Where the segment in progress ends when `item` comes next (None: nothing comes)."""
        assert self.start is not None
        full = self.start + self.stream.segment_seconds
        if item is None or (isinstance(item, Event) and item.kind == "lost"):
            return max(self.start, min(full, self._last))
        return full

    def started_at(self) -> datetime:
        assert self._epoch is not None
        assert self.start is not None
        return self._epoch + timedelta(seconds=self.start)

    def next(self, item: Media | None) -> None:
        """Begin anew where the closed segment ended, or wherever the stream is now."""
        end = self.end(item)
        if self._least_lag > LATE_ANCHOR_SECONDS and self._epoch is not None:
            self._epoch += timedelta(seconds=self._least_lag)
        lost = item is None or isinstance(item, Event)
        far = item is not None and _begins(item) >= end + self.stream.segment_seconds
        self.start = None if lost or far else end
        self.frames = self.black_frames = self.scored_keys = 0
        self.scored = []
        self._least_lag = float("inf")


def close(
    window: Window,
    end: float,
    findings: Sequence[Finding],
    facts: Mapping[str, Any],
    *,
    model: str | None,
) -> Segment:
    """The finished segment, without explanation and pictures."""
    assert window.start is not None
    good = [a for a in window.scored if a.quality is not None]
    weights = _standing(good, window.start, end)
    qualities = [a.quality for a in good if a.quality is not None]
    segment = Segment(
        stream=window.stream.name,
        started_at=window.started_at(),
        start=round(window.start, 3),
        seconds=round(end - window.start, 3),
        frames_scored=len(good),
        findings=tuple(findings),
        facts=dict(facts) | _counts(window),
        outputs=tuple(a.outputs for a in good),
        model=good[-1].model if good else model,
    )
    if not good:
        return replace(segment, no_score_reason=_why_no_score(window))
    return replace(
        segment,
        quality=round(_pooled(qualities, weights), 2),
        quality_worst=round(min(qualities), 2),
        uncertainty=round(_weighted([a.uncertainty or 0.0 for a in good], weights), 2),
    )


def _begins(item: Media) -> float:
    """A frame stands at its position; traffic is known only when its interval is over."""
    return item.position - item.seconds if isinstance(item, Traffic) else item.position


def _standing(assessed: Sequence[Assessment], start: float, end: float) -> list[float]:
    """How long each scored frame speaks for the picture: until the next one, seconds.

    Bursts score densely where something is wrong; without weights they would count double.
    """
    later = [a.position for a in assessed[1:]]
    edges = [min(start, *later, end), *later, end] if assessed else []
    return [max(1e-3, b - a) for a, b in pairwise(edges)]


def _pooled(qualities: Sequence[float], weights: Sequence[float]) -> float:
    """What a viewer takes from the whole: the mean, in part that of the worst fifth of the time.

    A short bad stretch is remembered beyond its length (temporal pooling by percentiles: Moorthy
    and Bovik, 2009; Seshadrinathan and Bovik, 2011). A steady segment keeps its mean.
    """
    room = WORST_SHARE * sum(weights)
    worst = 0.0
    for quality, weight in sorted(zip(qualities, weights, strict=True)):
        part = min(weight, room)
        worst += part * quality
        room -= part
    worst /= WORST_SHARE * sum(weights)
    return (1 - WORST_WEIGHT) * _weighted(qualities, weights) + WORST_WEIGHT * worst


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    """Weighted mean. For uncertainties too: a model's errors on one scene go together."""
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def _counts(window: Window) -> dict[str, Any]:
    return {
        "frames_decoded": window.frames,
        "keyframes_only": bool(window.scored) and window.scored_keys == len(window.scored),
    }


def _why_no_score(window: Window) -> str:
    reasons = [a.no_score_reason for a in window.scored if a.no_score_reason]
    if reasons:
        return statistics.mode(reasons)
    if window.black_frames:
        return "black"
    return "no_frames" if window.has_video or window.frames else "no_video"
