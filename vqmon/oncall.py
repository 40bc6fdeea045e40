"""What people on call ask: which alerts there are, what other rules would have raised, and which
limits would fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vqmon.alerting import Quiet, Rule
from vqmon.alerting.replaying import Pair, Replayed, replay, side_by_side, slim
from vqmon.alerting.rules import default_clear_limit
from vqmon.alerting.tuning import Proposal, tune
from vqmon.domain import Alert, Segment, Silence, Stream
from vqmon.errors import VqmonError
from vqmon.ports import ActingStore, SegmentStore
from vqmon.quantities import format_duration
from vqmon.report.words import lasting
from vqmon.settings import Settings

WARM_UP = timedelta(hours=1)
"""Read before a replay's beginning, so that baselines are learnt and what fired then is known."""

LEAST_HISTORY = 3600.0
"""Seconds from which limits can be told."""

AT_ONCE = timedelta(hours=6)
"""History is read in pieces of this length."""


@dataclass(frozen=True, slots=True)
class StreamReplay:
    """One stream under the new rules beside what happened to it."""

    stream: str
    pairs: tuple[Pair, ...]
    told: frozenset[str]
    watched_seconds: float

    @property
    def would(self) -> list[Alert]:
        return [it.would for it in self.pairs if it.would]

    @property
    def did(self) -> list[Alert]:
        return [it.did for it in self.pairs if it.did]


def replayed(
    store: ActingStore,
    settings: Settings,
    new: Settings,
    streams: Sequence[str],
    *,
    since: datetime,
    until: datetime,
) -> Iterator[StreamReplay]:
    """Streams one by one. settings: what streams are; new: the rules to try."""
    for name in streams:
        found = _replay(store, _stream(settings, name), new, since, until)
        would = [it for it in found.alerts if it.closed_at is None or it.closed_at >= since]
        did = store.alerts(name, since, until)
        pairs = tuple(side_by_side(would, did))
        yield StreamReplay(name, pairs, found.told, found.watched_seconds)


def _replay(
    store: SegmentStore, stream: Stream, new: Settings, since: datetime, until: datetime
) -> Replayed:
    return replay(
        stream,
        list(new.rules_of(stream.name).values()),
        history(store, stream.name, since - WARM_UP, until),
        grace=new.alerts.grace,
        quiet=Quiet(windows=new.windows()),
    )


def tuned(
    store: SegmentStore, settings: Settings, name: str, since: datetime, until: datetime
) -> list[Proposal]:
    """Proposals for all rules of a stream from [since, until).

    Raises VqmonError when too little is stored of it.
    """
    segments = [slim(it) for it in history(store, name, since, until)]
    watched = sum(it.seconds for it in segments)
    if watched < LEAST_HISTORY:
        raise VqmonError(
            f"{lasting(watched)} are stored of {name} in this time, too little to tell: limits need "
            f"{lasting(LEAST_HISTORY)} or more, better some days"
        )
    rules = list(settings.rules_of(name).values())
    return tune(_stream(settings, name), rules, segments, grace=settings.alerts.grace)


def history(
    store: SegmentStore, stream: str, since: datetime, until: datetime
) -> Iterator[Segment]:
    """Segments of a stream, oldest first, without holding all of them."""
    while since < until:
        end = min(since + AT_ONCE, until)
        yield from store.segments(stream, since, end)
        since = end


def _stream(settings: Settings, name: str) -> Stream:
    """As configured; one that is only stored has no particulars."""
    return settings.stream(name) if name in settings.streams else Stream(name, "")


def state(alert: Alert, silences: Sequence[Silence], settings: Settings, now: datetime) -> str:
    """resolved, acknowledged, silenced or firing."""
    if not alert.firing:
        return "resolved"
    if alert.acknowledged_by:
        return "acknowledged"
    return "silenced" if Quiet(silences, settings.windows())(alert, now) else "firing"


def as_json(it: Alert | Silence) -> dict[str, Any]:
    """Plain values; times are ISO 8601 in UTC."""
    plain = asdict(it)
    if isinstance(it, Alert):
        plain |= {"labels": dict(it.labels), "evidence": list(it.evidence)}
    return {
        name: _iso(value) if isinstance(value, datetime) else value for name, value in plain.items()
    }


def replay_json(it: StreamReplay) -> dict[str, Any]:
    """One stream of `vqmon replay --json`."""
    return {
        "stream": it.stream,
        "watched_seconds": it.watched_seconds,
        "would_raise": len(it.would),
        "raised": len(it.did),
        "alerts": [
            {
                "would": pair.would and as_json(pair.would) | {"told": pair.would.id in it.told},
                "did": pair.did and as_json(pair.did),
            }
            for pair in it.pairs
        ],
    }


def proposal_json(it: Proposal) -> dict[str, Any]:
    """One rule of `vqmon alerts tune --json`."""
    return {
        "rule": it.present.name,
        "raised": it.raised,
        "would_raise": it.then,
        "changed": it.changed,
        "settings": written(it),
    }


def written(it: Proposal) -> Mapping[str, Any] | str:
    """What differs from the present rule, as it is written in the configuration."""
    if it.proposed is None:
        return "off"
    return {
        key: value
        for (key, value), (_, present) in zip(_keys(it.proposed), _keys(it.present), strict=True)
        if value != present and value is not None
    }


def _keys(rule: Rule) -> Iterator[tuple[str, Any]]:
    yield "limit", rule.limit
    derived = rule.clear_limit == default_clear_limit(rule.on, rule.limit)
    yield "clear_limit", None if derived else rule.clear_limit
    yield "for", format_duration(rule.raise_seconds)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
