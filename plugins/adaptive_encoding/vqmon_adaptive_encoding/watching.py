"""What the newest segments of a stream say: is there a fault that more bitrate mends? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import dropwhile
from statistics import median

from vqmon.domain import Finding, Segment
from vqmon_adaptive_encoding.settings import Rules

MENDABLE = frozenset({"compression", "banding", "bitrate_collapse"})
"""What a higher bitrate can mend. Not blur or noise of a camera, nor an upscaled picture."""

CONGESTED = frozenset({"underfed", "packet_loss", "corrupted", "timestamp_jump", "no_signal"})
"""While one of these is there, more bitrate would make it worse."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A mendable fault without a break.

    finding: its worst; seconds: watched so far; segments: the newest of it.
    """

    finding: Finding
    seconds: float
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Watched:
    """The newest segments of a stream, oldest first, and what they add up to.

    faulty_seconds: of the mendable fault that goes on, without a break.
    clean_seconds: scored time without a mendable fault since the last one; time without a
        score counts for nothing.
    """

    recent: tuple[Segment, ...] = ()
    faulty_seconds: float = 0.0
    clean_seconds: float = 0.0

    def seen(self, segment: Segment, rules: Rules) -> Watched:
        """With one more; what is older than the rules look back is forgotten."""
        faulty, clean = 0.0, self.clean_seconds
        if worst(segment, rules) is not None:
            faulty, clean = self.faulty_seconds + segment.seconds, 0.0
        elif segment.scored:
            clean += segment.seconds
        oldest = end(segment) - timedelta(seconds=looks_back(rules))
        kept = dropwhile(lambda s: end(s) < oldest, self.recent)
        return Watched((*kept, segment), faulty, clean)


def looks_back(rules: Rules) -> float:
    """Seconds of segments that a decision may need."""
    return 60 + max(2 * rules.sustained, rules.settle + rules.verify_within)


def end(segment: Segment) -> datetime:
    return segment.started_at + timedelta(seconds=segment.seconds)


def worst(segment: Segment, rules: Rules) -> Finding | None:
    """The most severe mendable finding that counts."""
    counting = [
        finding
        for finding in segment.findings
        if finding.name in MENDABLE
        and finding.severity >= rules.min_severity
        and finding.confidence >= rules.min_confidence
    ]
    return max(counting, key=lambda f: (f.severity, f.confidence), default=None)


def congested(segment: Segment) -> str | None:
    """The name of what forbids asking for more, if anything."""
    return next((f.name for f in segment.findings if f.name in CONGESTED), None)


def trouble(watched: Watched, rules: Rules) -> Trouble | None:
    """A mendable fault that has lasted long enough, up to the newest segment."""
    if not watched.recent or watched.faulty_seconds < rules.sustained:
        return None
    lasting: list[tuple[Segment, Finding]] = []
    for segment in reversed(watched.recent):
        finding = worst(segment, rules)
        if finding is None:
            break
        lasting.append((segment, finding))
    found = max((f for _, f in lasting), key=lambda f: (f.severity, f.confidence))
    segments = tuple(segment for segment, _ in reversed(lasting))
    return Trouble(found, watched.faulty_seconds, segments)


def kbps(segment: Segment) -> float | None:
    """All that arrived, kb/s of media time; None when it was not measured."""
    measured = segment.facts.get("bitrate_kbps", segment.facts.get("video_bitrate_kbps"))
    return float(measured) if isinstance(measured, int | float) else None


def usual_kbps(segments: Sequence[Segment]) -> float | None:
    measured = [rate for rate in map(kbps, segments) if rate is not None]
    return median(measured) if measured else None


def typical(segments: Sequence[Segment]) -> Segment:
    """The scored segment of median quality: one picture of all of them. At least one is scored."""
    scored = sorted((s for s in segments if s.quality is not None), key=lambda s: s.quality or 0.0)
    return scored[(len(scored) - 1) // 2]
