"""Segments in SQL: rows from the domain, the domain from rows, and the questions asked of them.

Every function takes a connection inside a transaction; times are UTC.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np
import sqlalchemy as sa

from vqmon.domain import FINDING_NAMES, Finding, Segment
from vqmon.errors import StoreError
from vqmon.store import packing
from vqmon.store.tables import findings, pictures, rollups, segments
from vqmon.summing import fault_spans

CHUNK = 500
"""Values in one statement: SQLite allows few."""

ROW_BYTES = 400
SIDE_ROW_BYTES = 250
"""What a row takes besides its own text, index entries included; measured on both databases."""

LAST_CHARACTER = "\U0010ffff"
FINDING_FIELDS = {field.name for field in fields(Finding)}


def insert_new(connection: sa.Connection, batch: Mapping[str, Segment]) -> list[Segment]:
    """Add the segments whose ids are unknown, with their side rows; return these."""
    known = _known(connection, segments.c.id, batch)
    new = [segment for id_, segment in batch.items() if id_ not in known]
    _insert(connection, segments, [row(segment) for segment in new])
    _insert(connection, findings, [r for segment in new for r in _finding_rows(segment)])
    _insert(connection, pictures, [r for segment in new for r in _picture_rows(segment)])
    return new


def select(
    connection: sa.Connection,
    stream: str | None,
    since: datetime | None,
    until: datetime | None,
    *,
    worst_first: bool,
    limit: int | None,
    finding: str | None,
) -> list[Segment]:
    """See `SegmentStore.segments`."""
    by_time = (segments.c.started_at, segments.c.stream, segments.c.id)
    query = sa.select(segments).limit(limit)
    if worst_first:
        query = query.where(segments.c.quality.is_not(None)).order_by(segments.c.quality, *by_time)
    else:
        query = query.order_by(*by_time)
    if stream is not None:
        query = query.where(segments.c.stream == stream)
    if since is not None:
        query = query.where(segments.c.started_at >= since)
    if until is not None:
        query = query.where(segments.c.started_at < until)
    if finding is not None:
        query = query.where(segments.c.id.in_(_with_finding(finding, stream, since)))
    return [segment(found) for found in connection.execute(query)]


def find(connection: sa.Connection, beginning: str) -> Segment | None:
    """The segment with this id, or the only one whose id begins so.

    Raises StoreError when several do.
    """
    if not beginning:
        return None
    query = (
        sa.select(segments)
        .where(segments.c.id >= beginning, segments.c.id <= beginning + LAST_CHARACTER)
        .order_by(segments.c.id)
        .limit(3)
    )
    found = [segment(r) for r in connection.execute(query) if r.id.startswith(beginning)]
    if len(found) > 1 and found[0].id != beginning:
        examples = ", ".join(s.id for s in found)
        raise StoreError(f"several segments begin with {beginning!r} ({examples}): give more of it")
    return found[0] if found else None


def known(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    """Those of the ids that are stored."""
    return _known(connection, segments.c.id, ids)


def last(connection: sa.Connection, stream: str) -> Segment | None:
    """The newest segment of a stream."""
    query = (
        sa.select(segments)
        .where(segments.c.stream == stream)
        .order_by(segments.c.started_at.desc(), segments.c.id.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return segment(found) if found else None


def streams(connection: sa.Connection) -> list[str]:
    """Names with segments or roll-ups, sorted."""
    return sorted(
        {*_distinct(connection, segments.c.stream), *_distinct(connection, rollups.c.stream)}
    )


def prune(connection: sa.Connection, before: datetime, limit: int) -> list[str]:
    """Delete the oldest segments started before; return the pictures that nobody needs now."""
    ids = connection.scalars(
        sa.select(segments.c.id)
        .where(segments.c.started_at < before)
        .order_by(segments.c.started_at, segments.c.stream, segments.c.id)
        .limit(limit)
    ).all()
    paths = _pictures_of(connection, ids)
    for some in _chunks(ids):
        connection.execute(sa.delete(segments).where(segments.c.id.in_(some)))
    return _unneeded(connection, paths)


def forget_pictures(connection: sa.Connection, before: datetime, limit: int) -> list[str]:
    """Take the pictures off the oldest segments that have any; return those nobody needs now."""
    ids = connection.scalars(
        sa.select(pictures.c.segment_id)
        .where(pictures.c.started_at < before)
        .group_by(pictures.c.segment_id, pictures.c.started_at)
        .order_by(pictures.c.started_at, pictures.c.segment_id)
        .limit(limit)
    ).all()
    paths = _pictures_of(connection, ids)
    for some in _chunks(ids):
        connection.execute(sa.delete(pictures).where(pictures.c.segment_id.in_(some)))
        connection.execute(
            sa.update(segments).where(segments.c.id.in_(some)).values(thumbnail=None, evidence=[])
        )
    return _unneeded(connection, paths)


def known_pictures(connection: sa.Connection, paths: Iterable[str]) -> set[str]:
    """Those of the paths that a segment still names."""
    return _known(connection, pictures.c.path, paths)


def row(segment: Segment) -> dict[str, Any]:
    """A segment as its row."""
    found = {
        "id": segment.id,
        "stream": segment.stream,
        "started_at": segment.started_at,
        "seconds": float(segment.seconds),
        "start": float(segment.start),
        "quality": _number(segment.quality),
        "quality_worst": _number(segment.quality_worst),
        "uncertainty": _number(segment.uncertainty),
        "frames_scored": int(segment.frames_scored),
        "no_score_reason": segment.no_score_reason,
        "model": segment.model,
        "thumbnail": segment.thumbnail,
        "evidence": list(segment.evidence),
        "findings": [plain(asdict(finding)) for finding in segment.findings],
        "explanation": _text(segment.explanation),
        "facts": plain(segment.facts),
        "outputs": packing.pack(segment.outputs),
    }
    return found | {"bytes": _bytes(found)}


def segment(found: sa.Row[Any]) -> Segment:
    """A row as its segment. A finding that only a newer vqmon knows by name is left out."""
    return Segment(
        id=found.id,
        stream=found.stream,
        started_at=found.started_at,
        seconds=found.seconds,
        start=found.start,
        quality=found.quality,
        quality_worst=found.quality_worst,
        uncertainty=found.uncertainty,
        frames_scored=found.frames_scored,
        no_score_reason=found.no_score_reason,
        model=found.model,
        thumbnail=found.thumbnail,
        evidence=tuple(found.evidence),
        findings=tuple(finding_of(f) for f in found.findings if f["name"] in FINDING_NAMES),
        explanation=found.explanation,
        facts=found.facts,
        outputs=packing.unpack(found.outputs),
    )


def plain(value: Any) -> Any:
    """The value as JSON that both databases take: numpy's numbers become Python's, what is no
    number (NaN, infinity) becomes null, what is no text a replacement character.
    """
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return _text(value)
        case Mapping():
            return {_text(str(key)): plain(item) for key, item in value.items()}
        case np.generic() | np.ndarray():
            return plain(value.tolist())
        case datetime():
            return value.isoformat()
        case Iterable():
            return [plain(item) for item in value]
    return _text(str(value))


def finding_of(stored: Mapping[str, Any]) -> Finding:
    known = {name: value for name, value in stored.items() if name in FINDING_FIELDS}
    region = known.get("region")
    return Finding(**known | {"region": None if region is None else tuple(region)})


def _finding_rows(segment: Segment) -> Iterator[dict[str, Any]]:
    """One row per name and stretch of time, overlaps joined."""
    severity = {f.name: 0 for f in segment.findings}
    for found in segment.findings:
        severity[found.name] = max(severity[found.name], found.severity)
    spans = [(name, span) for name, found in fault_spans(segment).items() for span in found]
    for ordinal, (name, (begin, end)) in enumerate(spans):
        yield {
            "segment_id": segment.id,
            "ordinal": ordinal,
            "stream": segment.stream,
            "name": name,
            "started_at": segment.started_at + timedelta(seconds=begin),
            "seconds": end - begin,
            "severity": severity[name],
        }


def _picture_rows(segment: Segment) -> Iterator[dict[str, Any]]:
    paths = [segment.thumbnail, *segment.evidence]
    for path in dict.fromkeys(p for p in paths if p):
        yield {"segment_id": segment.id, "path": path, "started_at": segment.started_at}


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), rows)


def _with_finding(name: str, stream: str | None, since: datetime | None) -> sa.Select[tuple[str]]:
    query = sa.select(findings.c.segment_id).where(findings.c.name == name)
    if stream is not None:
        query = query.where(findings.c.stream == stream)
    if since is not None:
        query = query.where(findings.c.started_at >= since)
    return query


def _distinct(connection: sa.Connection, column: sa.Column[str]) -> list[str]:
    """All values of an indexed column by hopping from one to the next, not by reading all rows."""
    hops = sa.select(sa.func.min(column).label("name")).cte("hops", recursive=True)
    following = sa.select(sa.func.min(column)).where(column > hops.c.name).scalar_subquery()
    hops = hops.union_all(sa.select(following).where(hops.c.name.is_not(None)))
    return [name for name in connection.scalars(sa.select(hops.c.name)) if name is not None]


def _pictures_of(connection: sa.Connection, ids: Sequence[str]) -> list[str]:
    return [
        path
        for some in _chunks(ids)
        for path in connection.scalars(
            sa.select(pictures.c.path)
            .where(pictures.c.segment_id.in_(some))
            .order_by(pictures.c.started_at, pictures.c.path)
        )
    ]


def _unneeded(connection: sa.Connection, paths: Sequence[str]) -> list[str]:
    needed = known_pictures(connection, paths)
    return [path for path in dict.fromkeys(paths) if path not in needed]


def _known(connection: sa.Connection, column: sa.Column[str], values: Iterable[str]) -> set[str]:
    return {
        value
        for some in _chunks(values)
        for value in connection.scalars(sa.select(column).where(column.in_(some)))
    }


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(values)
    while some := list(islice(rest, CHUNK)):
        yield some


def _bytes(found: Mapping[str, Any]) -> int:
    """About what the row and its side rows take on disk."""
    side = len(found["findings"]) + len(found["evidence"]) + bool(found["thumbnail"])
    texts = json.dumps([found[name] for name in ("findings", "facts", "evidence", "explanation")])
    return ROW_BYTES + SIDE_ROW_BYTES * side + len(texts) + len(found["outputs"] or b"")


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _text(value: str) -> str:
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
