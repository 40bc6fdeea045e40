"""What vqmon needs from the outside, as small protocols. Fakes for all are in `vqmon.testing`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from vqmon.domain import Assessment, Comparison, Depth, Frame, Media, Rollup, Segment

if TYPE_CHECKING:
    from vqmon.preprocess import Prepared


def everything() -> Depth:
    """Decode every frame."""
    return Depth.ALL


class Source(Protocol):
    """Where media comes from: a file, a live stream, a generator."""

    @property
    def live(self) -> bool:
        """True when media arrives in real time and waits for nobody."""
        ...

    def open(
        self, depth: Callable[[], Depth] = everything
    ) -> AbstractContextManager[Iterator[Media]]:
        """Yield frames, traffic and events until the end, in order, positions never going back.

        `depth` is asked at every video packet how much to decode. A live source reconnects
        by itself and says so in events. Raises SourceRejected or SourceUnavailable when a
        file, or the first opening of a source that must not retry, fails.
        """
        ...

    def stop(self) -> None:
        """End the iteration soon; may be called from another thread."""
        ...


class Scorer(Protocol):
    """A quality model. Thread-safe; order is kept; an empty batch gives an empty list."""

    @property
    def model(self) -> str:
        """What scored, as name@version."""
        ...

    def assess(self, pictures: Sequence[Prepared]) -> list[Assessment]: ...

    def compare(self, a: Sequence[Assessment], b: Sequence[Assessment]) -> Comparison:
        """From what `assess` said of both: nothing is scored twice."""
        ...


class Evidence(Protocol):
    """Keeps the pictures that show what a segment says. One keeper per stream."""

    def offer(self, frame: Frame, quality: float | None) -> None:
        """A scored frame of the segment in progress; kept or dropped, cheaply."""
        ...

    def close(self, segment: Segment) -> Segment:
        """Write what the segment deserves; return it with `thumbnail` and `evidence` set."""
        ...


class SegmentStore(Protocol):
    """Segments and their roll-ups. Times are UTC; `since` is inclusive, `until` exclusive."""

    def add(self, segments: Iterable[Segment]) -> None:
        """Store all in one transaction, roll-ups included; a known id is left alone."""
        ...

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
        """By started_at, oldest first; or by quality, worst first (unscored left out).

        finding: only segments with a finding of this name.
        """
        ...

    def segment(self, segment_id: str) -> Segment | None:
        """By id, or by an unambiguous beginning of it."""
        ...

    def streams(self) -> list[str]:
        """Names that have rows, sorted."""
        ...

    def last(self, stream: str) -> Segment | None:
        """The newest segment of a stream."""
        ...

    def rollups(
        self,
        period: int,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Rollup]:
        """period: 60 or 3600. Oldest first, then by stream."""
        ...

    def prune(self, before: datetime, *, limit: int = 500) -> list[str]:
        """Delete at most `limit` of the oldest segments started before; return the paths of
        their pictures (evidence folder relative) so that the files can go too.
        """
        ...

    def forget_pictures(self, before: datetime, *, limit: int = 500) -> list[str]:
        """Take the pictures off at most `limit` of the oldest segments started before that have
        any; return their paths. The segments stay.
        """
        ...

    def known_pictures(self, paths: Iterable[str]) -> set[str]:
        """Those of the paths that a segment names: the other files are orphans."""
        ...

    def prune_rollups(self, before: datetime) -> int:
        """Delete roll-ups that start before; return how many."""
        ...

    def size_bytes(self) -> int:
        """What the database takes on disk, 0 when it has no disk."""
        ...
