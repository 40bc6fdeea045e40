"""Files and pictures through the same line as streams, summed up to one result each."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from vqmon.domain import CELLS, Finding, Segment, Stream
from vqmon.errors import SourceError, VqmonError
from vqmon.explain import REASONS, explain, sentence
from vqmon.pipeline import monitor
from vqmon.ports import Evidence, Scorer

SAMPLE_EVERY = 1.0
SEGMENT_SECONDS = 10.0
BATCH = 8

CSV_COLUMNS = ("source", "quality", "uncertainty", "top_finding", "severity", "no_score_reason")

_COUNTS = frozenset(
    {
        "black_seconds",
        "bursts",
        "corrupt_packets",
        "corrupt_pictures",
        "decode_errors",
        "frames_decoded",
        "freeze_seconds",
        "gaps",
        "keyframes",
        "late_frames",
        "packets",
        "pictures",
        "reconnects",
        "timestamp_jumps",
    }
)
"""Facts that are added up; others are averaged."""


@dataclass(frozen=True, slots=True)
class FileResult:
    """What is known of one file, picture or watched stretch as a whole.

    source: as the caller named it. quality: mean weighted by duration, 0..100, or None with
    `no_score_reason`. uncertainty: one standard deviation, points; a mean too, since a model's
    errors on one piece of content go together. findings: those of the segments, a fault that
    goes on from one to the next being one. sentence, explanation: the short and the long reason.
    message: for people, why there is no score or why the file was not read to its end.
    """

    source: str
    segments: tuple[Segment, ...] = ()
    quality: float | None = None
    uncertainty: float | None = None
    model: str | None = None
    findings: tuple[Finding, ...] = ()
    sentence: str = ""
    explanation: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    no_score_reason: str | None = None
    message: str = ""

    @property
    def scored(self) -> bool:
        return self.quality is not None

    @property
    def top_finding(self) -> Finding | None:
        """The worst, the longest of equals."""
        return max(self.findings, key=lambda it: (it.severity, it.seconds), default=None)


def score_file(
    path: str,
    scorer: Scorer,
    *,
    sample_every: float = SAMPLE_EVERY,
    segment_seconds: float = SEGMENT_SECONDS,
    watched: Callable[[Segment], None] = lambda _segment: None,
    evidence: Evidence | None = None,
) -> FileResult:
    """Score a video file or a picture. Never raises for what is wrong with the file.

    path: as the caller wrote it; it is read as a local path whatever it looks like.
    watched: called with every segment as soon as it is complete.
    evidence: is offered every scored picture.
    """
    from vqmon.sources import open_source

    segments: list[Segment] = []
    failure = None
    try:
        _check_readable(path)
        stream = Stream(
            name=Path(path).name,
            url=str(Path(path).absolute()),
            sampling="every",
            sample_every=sample_every,
            segment_seconds=segment_seconds,
        )
        source = open_source(stream)
        for segment in monitor(stream, source, scorer, evidence=evidence, batch=BATCH):
            segments.append(segment)
            watched(segment)
    except SourceError as error:
        failure = error
    except VqmonError:  # the model, and it would fail on every other file too
        raise
    except Exception as error:
        if os.environ.get("VQMON_DEBUG"):
            raise
        return _failed(path, segments, error)
    return summed_up(path, segments, failure=failure)


def _failed(path: str, segments: Sequence[Segment], error: Exception) -> FileResult:
    """A bug of ours met this file; those that wait after it must not suffer."""
    failure = SourceError(
        path,
        "scorer_failed",
        f"unexpected {type(error).__name__}: {error}; this is a bug in vqmon, and VQMON_DEBUG=1 in "
        "front of the same command shows where",
    )
    whole = summed_up(path, segments, failure=failure)
    return replace(whole, quality=None, uncertainty=None, no_score_reason=failure.reason)


def summed_up(
    source: str,
    segments: Sequence[Segment],
    *,
    failure: SourceError | None = None,
    gap: float = SAMPLE_EVERY,
) -> FileResult:
    """Segments of one source as a whole. failure: what ended it early, or left it unread.

    gap: findings of one name that come closer than this, seconds, are one.
    """
    scored = [it for it in segments if it.scored]
    whole = FileResult(
        source=source,
        segments=tuple(segments),
        model=next((it.model for it in reversed(segments) if it.model), None),
        findings=merged_findings(segments, gap),
        message=failure.message if failure else "",
    )
    if scored:
        whole = replace(
            whole,
            quality=round(_mean(scored, [it.quality or 0.0 for it in scored]), 2),
            uncertainty=round(_mean(scored, [it.uncertainty or 0.0 for it in scored]), 2),
        )
    else:
        reason = _why_no_score(segments, failure)
        message = whole.message or _because(reason, segments)
        whole = replace(whole, no_score_reason=reason, message=message)
    return _explained(whole)


def merged_findings(segments: Iterable[Segment], gap: float = SAMPLE_EVERY) -> tuple[Finding, ...]:
    """A fault that goes on from segment to segment becomes one, with its seconds added."""
    whole: list[Finding] = []
    newest: dict[str, int] = {}
    for finding in chain.from_iterable(_by_start(segment) for segment in segments):
        at = newest.get(finding.name)
        if at is not None and finding.start - _end(whole[at]) <= gap:
            whole[at] = _joined(whole[at], finding)
        else:
            newest[finding.name] = len(whole)
            whole.append(finding)
    return tuple(whole)


def as_json(result: FileResult) -> dict[str, Any]:
    """The object that `vqmon score --json` prints for one file."""
    return {
        "source": result.source,
        **_said(result),
        "segments": [
            {"start": it.start, "seconds": it.seconds, **_said(it)} for it in result.segments
        ],
    }


def as_csv_row(result: FileResult) -> str:
    """One line without its end, columns as in CSV_COLUMNS; empty where there is nothing."""
    top = result.top_finding
    return csv_line(
        (
            result.source,
            "" if result.quality is None else f"{result.quality:.2f}",
            "" if result.uncertainty is None else f"{result.uncertainty:.2f}",
            top.name if top else "",
            str(top.severity) if top else "",
            result.no_score_reason or "",
        )
    )


def csv_line(cells: Iterable[str]) -> str:
    """Cells quoted where they must be."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # only these are quoted within cells
    return line.getvalue().removesuffix("\r\n")


def _check_readable(path: str) -> None:
    """Raise SourceError for what FFmpeg would report less clearly, or wait for without end."""
    if not path:
        raise SourceError(path, "not_found", "the name is empty")
    if not os.path.lexists(path):
        hint = "; `vqmon probe URL` watches streams" if "://" in path else ""
        raise SourceError(path, "not_found", f"no such file{hint}")
    if not os.path.exists(path):  # noqa: PTH110  a broken link
        raise SourceError(path, "not_found", "the link points to a file that does not exist")
    if Path(path).is_dir():
        raise SourceError(path, "invalid_data", "is a folder; name the files in it")
    if not Path(path).is_file():
        hint = "; `vqmon probe` reads pipes" if Path(path).is_fifo() else ""
        raise SourceError(path, "invalid_data", f"is not a regular file{hint}")
    if not os.access(path, os.R_OK):
        raise SourceError(path, "auth", "may not be read by this user; check its permissions")
    if Path(path).suffix.lower() == ".sdp":
        raise SourceError(
            path, "invalid_data", "describes a live stream; watch it with `vqmon probe`"
        )
    if not Path(path).stat().st_size:
        raise SourceError(path, "invalid_data", "is empty (0 bytes)")


def _why_no_score(segments: Sequence[Segment], failure: SourceError | None) -> str:
    reasons = [it.no_score_reason for it in segments if it.no_score_reason]
    if reasons:
        return max(reasons, key=reasons.count)
    return failure.reason if failure else "no_frames"


def _explained(whole: FileResult) -> FileResult:
    """With the chain of reasons for the whole, in the same words as a segment's."""
    if not whole.segments:
        said = f"There is no score: {whole.message}."
        return replace(whole, sentence=said, explanation=said)
    together = as_segment(whole)
    return replace(
        whole, sentence=sentence(together), explanation=explain(together), facts=together.facts
    )


def as_segment(whole: FileResult) -> Segment:
    """All of it as one long segment; there must be at least one."""
    return replace(
        whole.segments[0],
        seconds=round(sum(it.seconds for it in whole.segments), 3),
        frames_scored=sum(it.frames_scored for it in whole.segments),
        quality=whole.quality,
        quality_worst=min(_worst_qualities(whole), default=None),
        uncertainty=whole.uncertainty,
        findings=whole.findings,
        facts=merged_facts(whole.segments),
        no_score_reason=whole.no_score_reason,
    )


def _because(reason: str, segments: Sequence[Segment]) -> str:
    if reason == "no_frames" and not segments:
        return "no picture could be decoded; the file is damaged, cut off or scrambled"
    known = REASONS.get(reason)
    return f"{known.because}. {known.remedy.rstrip('.')}" if known else reason


def _worst_qualities(whole: FileResult) -> Iterator[float]:
    return (it.quality_worst for it in whole.segments if it.quality_worst is not None)


def merged_facts(segments: Sequence[Segment]) -> dict[str, Any]:
    """Facts of all segments together: counts added, measures averaged over time (decibels as
    powers), peaks at their highest; a text only where all agree.
    """
    names = dict.fromkeys(name for it in segments for name in it.facts)
    merged = {name: _fact(name, [it for it in segments if name in it.facts]) for name in names}
    return {name: value for name, value in merged.items() if value is not None}


def _fact(name: str, segments: Sequence[Segment]) -> Any:
    values = [it.facts[name] for it in segments]
    if all(isinstance(it, list) for it in values):
        return list(chain.from_iterable(values))
    if not all(isinstance(it, int | float) and not isinstance(it, bool) for it in values):
        return values[0] if all(value == values[0] for value in values) else None
    if name in _COUNTS:
        return sum(values)
    if name.endswith("peak_dbfs"):
        return max(values)
    if name.endswith(("_dbfs", "_lufs")):
        return round(10 * math.log10(_mean(segments, [10 ** (it / 10) for it in values])), 1)
    return values[0] if len(set(values)) == 1 else round(_mean(segments, values), 2)


def _mean(segments: Sequence[Segment], values: Sequence[float]) -> float:
    weights = [max(it.seconds, 1e-3) for it in segments]
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def _by_start(segment: Segment) -> Iterator[Finding]:
    return iter(sorted(segment.findings, key=lambda it: it.start))


def _end(finding: Finding) -> float:
    return finding.start + finding.seconds


def _joined(one: Finding, next_one: Finding) -> Finding:
    """The worse of both tells value and limit; cells are put together; overlap counts once."""
    worse = max(one, next_one, key=_badness)
    overlap = min(max(0.0, _end(one) - next_one.start), next_one.seconds)
    return replace(
        worse,
        confidence=max(one.confidence, next_one.confidence),
        region=_together(one.region, next_one.region),
        start=one.start,
        seconds=round(one.seconds + next_one.seconds - overlap, 3),
        cost=_mean_cost(one, next_one),
    )


def _mean_cost(*found: Finding) -> float | None:
    """Points of quality, weighted by time; None when neither states any."""
    stated = [(it.cost, max(it.seconds, 1e-3)) for it in found if it.cost is not None]
    if not stated:
        return None
    return round(sum(cost * s for cost, s in stated) / sum(s for _, s in stated), 2)


def _badness(finding: Finding) -> tuple[int, float]:
    """Severity first, then how far the value is beyond its limit."""
    if finding.value is None or finding.limit is None:
        return finding.severity, 0.0
    return finding.severity, abs(finding.value - finding.limit)


def _together(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if one is None or other is None:
        return None
    return tuple(cell for cell in CELLS if cell in one or cell in other)


def _said(it: FileResult | Segment) -> dict[str, Any]:
    return {
        "quality": it.quality,
        "uncertainty": it.uncertainty,
        "model": it.model,
        "findings": [_finding(finding) for finding in it.findings],
        "explanation": it.explanation,
        "no_score_reason": it.no_score_reason,
    }


def _finding(it: Finding) -> dict[str, Any]:
    return {
        "name": it.name,
        "severity": it.severity,
        "confidence": it.confidence,
        "value": it.value,
        "limit": it.limit,
        "region": None if it.region is None else list(it.region),
        "start": round(it.start, 3),
        "seconds": round(it.seconds, 3),
        "cost": it.cost,
    }
