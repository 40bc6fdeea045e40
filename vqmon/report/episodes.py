"""One fault is one episode, however many segments it lies in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vqmon.domain import Finding, Segment

BRIEF_PAUSE_SECONDS = 2.0
"""A fault that stops for no longer than this, or than its segment lasts, has not ended."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A fault from its beginning to its end, wall clock (UTC).

    seconds: how long it lasted, pauses left out. severity: the worst. finding: what was
    measured at the worst. segment: the one that shows it best. segments: how many it lies in.
    """

    name: str
    starts_at: datetime
    ends_at: datetime
    seconds: float
    severity: int
    finding: Finding
    segment: Segment
    segments: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """The part of an episode in one segment."""

    starts_at: datetime
    ends_at: datetime
    finding: Finding
    segment: Segment


def episodes(segments: Iterable[Segment]) -> list[Episode]:
    """All faults in the segments of one stream, by beginning. Segments come in any order."""
    by_name: dict[str, list[_Piece]] = {}
    for piece in _pieces(segments):
        by_name.setdefault(piece.finding.name, []).append(piece)
    found = [episode for pieces in by_name.values() for episode in _merged(pieces)]
    return sorted(found, key=lambda e: (e.starts_at, -e.severity, e.name))


def _pieces(segments: Iterable[Segment]) -> Iterator[_Piece]:
    for segment in segments:
        for finding in segment.findings:
            into = min(max(0.0, finding.start - segment.start), segment.seconds)
            seconds = min(max(0.0, finding.seconds), segment.seconds)
            begins = segment.started_at + timedelta(seconds=into)
            yield _Piece(begins, begins + timedelta(seconds=seconds), finding, segment)


def _merged(pieces: list[_Piece]) -> Iterator[Episode]:
    pieces.sort(key=lambda piece: piece.starts_at)
    together: list[_Piece] = []
    end: datetime | None = None
    for piece in pieces:
        pause = timedelta(seconds=max(BRIEF_PAUSE_SECONDS, piece.segment.seconds))
        if end is not None and piece.starts_at - end > pause:
            yield _episode(together)
            together, end = [], None
        together.append(piece)
        end = piece.ends_at if end is None else max(end, piece.ends_at)
    if together:
        yield _episode(together)


def _episode(pieces: Sequence[_Piece]) -> Episode:
    """Of equally severe pieces the longest is shown."""
    worst = max(pieces, key=lambda p: (p.finding.severity, p.ends_at - p.starts_at))
    return Episode(
        name=worst.finding.name,
        starts_at=pieces[0].starts_at,
        ends_at=max(piece.ends_at for piece in pieces),
        seconds=_covered(pieces),
        severity=worst.finding.severity,
        finding=worst.finding,
        segment=worst.segment,
        segments=len({piece.segment.id for piece in pieces}),
    )


def _covered(pieces: Sequence[_Piece]) -> float:
    """Seconds in at least one of the pieces, which are ordered by beginning."""
    seconds, reached = 0.0, pieces[0].starts_at
    for piece in pieces:
        begins = max(piece.starts_at, reached)
        seconds += max(0.0, (piece.ends_at - begins).total_seconds())
        reached = max(reached, piece.ends_at)
    return seconds
