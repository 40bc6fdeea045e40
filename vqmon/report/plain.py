"""The report for programs and terminals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from vqmon import __version__
from vqmon.domain import Alert, Asked, Decision, Segment
from vqmon.report import opinions, words
from vqmon.report.contents import Fault, Quality, Report, StreamReport, Totals
from vqmon.report.episodes import Episode
from vqmon.report.page import headline

CSV_COLUMNS = (
    "stream",
    "since",
    "until",
    "watched_seconds",
    "availability",
    "scored_seconds",
    "quality_mean",
    "quality_median",
    "quality_p5",
    "quality_worst",
    "fault_seconds",
    "faults",
    "top_fault",
    "severity",
    "no_score_reason",
    "model",
)
"""One row per stream, worst first. Times are ISO 8601 in UTC; `availability` is 0..1; `faults`
is NAME=SECONDS, separated by blanks; `no_score_reason` is the commonest."""

ALERTS_SHOWN = DECISIONS_SHOWN = DISAGREEMENTS_SHOWN = 5

BAR = " ▁▂▃▄▅▆▇█"


def to_json(report: Report) -> str:
    """The report as a JSON object.

    since, until, made_at (ISO 8601 UTC), version, by_segment, notes, headline, and `total` and
    each of `streams` (worst first) with: watched_seconds, up_seconds, scored_seconds, segments,
    availability (0..1 or null), quality (null, or mean, median, p5, worst, histogram: seconds in
    ten bins). A stream has besides: name, models, no_score (seconds by reason), faults (name,
    seconds, episodes, severity, longest, complete), episodes (name, starts_at, ends_at, seconds,
    severity, value, limit, unit, region, segment), worst (segments: id, started_at, seconds,
    quality, quality_worst, uncertainty, findings, explanation, model, evidence, thumbnail, and
    writer: null, or state, cause, alert, asked_at, attempts, reason, opinion and disagreement),
    disagreements (the same of segments where writer and scorer differ, and segment), alerts
    (id, rule, severity, opened_at, closed_at, reason, cleared, incident, acknowledged_by, segment),
    decisions (id, plugin, stream, kind, reason, at, data, segment, alert; oldest first) and timeline
    (starts_at, seconds, quality, worst, up).
    """
    document = {
        "since": _iso(report.since),
        "until": _iso(report.until),
        "made_at": _iso(report.made_at),
        "version": __version__,
        "by_segment": report.by_segment,
        "notes": list(report.notes),
        "headline": headline(report),
        "total": _sums(report.totals, report.quality),
        "streams": [_stream(stream) for stream in report.streams],
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(report: Report) -> str:
    """A table with CSV_COLUMNS."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for stream in report.streams:
        writer.writerow([_harmless(value) for value in _row(report, stream)])
    return out.getvalue()


def to_text(report: Report, width: int = 80) -> str:
    """For a terminal of `width` columns, plain."""
    period = f"{words.moment(report.since)} to {words.moment(report.until)} UTC"
    lines = [f"{period} ({words.lasting(report.seconds)})", printable(headline(report))]
    if not report.streams:
        return "\n".join([*lines, *_what_to_do(report)]) + "\n"
    for stream in report.streams:
        lines += ["", *_paragraph(stream, width)]
    return "\n".join([*lines, *(f"\nNote: {note}" for note in report.notes)]) + "\n"


def _sums(totals: Totals, quality: Quality | None) -> dict[str, Any]:
    return asdict(totals) | {
        "availability": totals.availability,
        "quality": asdict(quality) if quality else None,
    }


def _stream(stream: StreamReport) -> dict[str, Any]:
    return {
        "name": stream.name,
        **_sums(stream.totals, stream.quality),
        "models": list(stream.models),
        "no_score": dict(stream.no_score),
        "faults": [asdict(fault) for fault in stream.faults],
        "episodes": [_episode(episode) for episode in stream.episodes],
        "alerts": [_alert(alert) for alert in stream.alerts],
        "decisions": [_decision(decision) for decision in stream.decisions],
        "worst": [_worst_json(segment, stream) for segment in stream.worst],
        "disagreements": [_disagreement(asked) for asked in stream.disagreements],
        "timeline": [asdict(p) | {"starts_at": _iso(p.starts_at)} for p in stream.timeline],
    }


def _episode(episode: Episode) -> dict[str, Any]:
    finding = episode.finding
    return {
        "name": episode.name,
        "starts_at": _iso(episode.starts_at),
        "ends_at": _iso(episode.ends_at),
        "seconds": episode.seconds,
        "severity": episode.severity,
        "value": finding.value,
        "limit": finding.limit,
        "unit": finding.unit,
        "region": finding.region,
        "segment": episode.segment.id,
    }


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "rule": alert.rule,
        "severity": alert.severity,
        "opened_at": _iso(alert.opened_at),
        "closed_at": _iso(alert.closed_at) if alert.closed_at else None,
        "reason": alert.reason,
        "cleared": alert.cleared,
        "incident": alert.incident,
        "acknowledged_by": alert.acknowledged_by,
        "segment": alert.segment,
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return asdict(decision) | {"at": _iso(decision.at)}


def _worst_json(segment: Segment, stream: StreamReport) -> dict[str, Any]:
    asked = stream.asked.get(segment.id)
    return segment_json(segment) | {"writer": opinions.as_json(asked) if asked else None}


def _disagreement(asked: Asked) -> dict[str, Any]:
    return {"segment": asked.question.segment} | opinions.as_json(asked)


def segment_json(segment: Segment) -> dict[str, Any]:
    """As in the list of worst segments."""
    return {
        "id": segment.id,
        "started_at": _iso(segment.started_at),
        "seconds": segment.seconds,
        "quality": segment.quality,
        "quality_worst": segment.quality_worst,
        "uncertainty": segment.uncertainty,
        "findings": [asdict(finding) for finding in segment.findings],
        "explanation": segment.explanation,
        "model": segment.model,
        "evidence": list(segment.evidence),
        "thumbnail": segment.thumbnail,
    }


def _row(report: Report, stream: StreamReport) -> list[Any]:
    totals, quality = stream.totals, stream.quality
    top = stream.faults[0] if stream.faults else None
    return [
        stream.name,
        _iso(report.since),
        _iso(report.until),
        round(totals.watched_seconds, 3),
        None if totals.availability is None else round(totals.availability, 6),
        round(totals.scored_seconds, 3),
        *([round(q, 2) for q in (quality.mean, quality.median, quality.p5, quality.worst)]
          if quality else [None] * 4),
        round(sum(fault.seconds for fault in stream.faults), 3),
        " ".join(f"{fault.name}={fault.seconds:.3f}" for fault in stream.faults),
        top.name if top else None,
        top.severity if top else None,
        next(iter(stream.no_score), None),
        " ".join(stream.models),
    ]  # fmt: skip


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe (OWASP)."""
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}:
        return "'" + value
    return value


def _what_to_do(report: Report) -> list[str]:
    if report.known_streams:
        return [
            f"Streams in the database: {', '.join(report.known_streams)}. Try a longer --since."
        ]
    return ["The database holds no segments yet: start `vqmon run` and ask again."]


def _paragraph(stream: StreamReport, width: int) -> list[str]:
    totals = stream.totals
    available = words.share(totals.up_seconds, totals.watched_seconds)
    watched = words.lasting(totals.watched_seconds)
    lines = [printable(stream.name), f"  available {available} of {watched} watched"]
    if stream.quality:
        q = stream.quality
        lines.append(
            f"  quality   mean {q.mean:.0f} ({words.grade(q.mean)}), median {q.median:.0f}, "
            f"5 % below {q.p5:.0f}, worst frame {q.worst:.0f}"
        )
        lines.append(f"            {_line(stream, max(20, min(72, width - 14)))}")
    else:
        lines.append("  quality   never scored")
    lines += _alerts(stream.alerts)
    lines += _decisions(stream.decisions)
    lines += [f"  fault     {_fault(fault)}" for fault in stream.faults]
    lines += [
        f"  no score  {words.lasting(seconds)}: {words.reason(reason)}"
        for reason, seconds in stream.no_score.items()
    ]
    if stream.worst:
        lines += _worst(stream.worst[0])
        lines += _writer(stream.asked.get(stream.worst[0].id))
    lines += _disagreements(stream.disagreements)
    return lines


def _alerts(alerts: Sequence[Alert]) -> list[str]:
    lines = []
    for alert in alerts[:ALERTS_SHOWN]:
        when = f"{words.moment(alert.opened_at)} UTC {words.firing(alert)}"
        lines.append(f"  alert     {when}, {alert.severity}: {printable(alert.reason)}")
    if len(alerts) > ALERTS_SHOWN:
        lines.append(f"  alerts    {len(alerts) - ALERTS_SHOWN} more; see vqmon alerts list")
    return lines


def _decisions(decisions: Sequence[Decision]) -> list[str]:
    """The newest, the oldest of them first."""
    lines = []
    if len(decisions) > DECISIONS_SHOWN:
        lines.append(f"  decisions {len(decisions) - DECISIONS_SHOWN} more; see vqmon plugins")
    for it in decisions[-DECISIONS_SHOWN:]:
        what = f"{words.moment(it.at)} UTC {printable(words.named(it.kind))}"
        lines.append(f"  decision  {what}: {printable(it.reason)}")
    return lines


def _fault(fault: Fault) -> str:
    more = "" if fault.complete else "+"
    times = "once" if fault.episodes == 1 and not more else f"{fault.episodes}{more} times"
    worst = f", {words.severity(fault.severity)}" if fault.severity else ""
    return f"{words.named(fault.name)} {words.lasting(fault.seconds)} ({times}{worst})"


def _line(stream: StreamReport, columns: int) -> str:
    """Quality over time in eighths; a blank where there is no score."""
    points = stream.timeline
    per = max(1, -(-len(points) // columns))
    groups = [points[n : n + per] for n in range(0, len(points), per)]
    marks = []
    for group in groups:
        known = [p.quality for p in group if p.quality is not None]
        marks.append(BAR[1 + min(7, int(sum(known) / len(known) / 12.5))] if known else BAR[0])
    return "".join(marks)


def _worst(segment: Segment) -> list[str]:
    told = printable(" ".join(segment.explanation.split()))
    quality = "no score" if segment.quality is None else f"{segment.quality:.0f}"
    return [f"  worst     {words.moment(segment.started_at)} UTC, quality {quality}: {told}"]


def _writer(asked: Asked | None) -> list[str]:
    """What the writer says of it, shortened to a line."""
    if asked is None:
        return []
    lines = [f"  writer    {printable(opinions.writer_said(asked))}"]
    if asked.opinion and asked.opinion.explanation:
        told = printable(" ".join(asked.opinion.explanation.split()))
        lines.append(f"            {told}")
    return lines


def _disagreements(some: Sequence[Asked]) -> list[str]:
    lines = []
    for it in some[:DISAGREEMENTS_SHOWN]:
        if it.disagreement:
            told = printable(it.disagreement.sentence)
            lines.append(f"  differs   segment {it.question.segment[:12]}: {told}")
    if len(some) > DISAGREEMENTS_SHOWN:
        lines.append(f"  differs   {len(some) - DISAGREEMENTS_SHOWN} more")
    return lines


def printable(text: str) -> str:
    """Without control characters, which a terminal might obey."""
    return "".join(c if c.isprintable() or c == " " else "?" for c in text)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
