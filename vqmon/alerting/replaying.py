"""Rules over history: what they would have raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from vqmon.alerting.judging import GRACE_SECONDS, judge
from vqmon.alerting.rules import Rule
from vqmon.alerting.states import StreamState
from vqmon.domain import Alert, Segment, Stream


@dataclass(frozen=True, slots=True)
class Replayed:
    """alerts: all that were raised, in order, those that still fire included.

    told: ids of those that somebody would have been told of. watched_seconds: of media.
    """

    alerts: tuple[Alert, ...] = ()
    told: frozenset[str] = frozenset()
    watched_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """What new rules would have raised beside what happened; one of both may be missing."""

    would: Alert | None
    did: Alert | None


def replay(
    stream: Stream,
    rules: Sequence[Rule],
    segments: Iterable[Segment],
    *,
    grace: float = GRACE_SECONDS,
    quiet: Callable[[Alert, datetime], bool] = lambda *_: False,
) -> Replayed:
    """Begin with nothing and take one segment after the other, the oldest first."""
    state, seconds = StreamState(), 0.0
    alerts: dict[str, Alert] = {}
    told: set[str] = set()
    for segment in segments:
        turn = judge(stream, rules, state, segment, grace=grace, quiet=quiet)
        state = turn.state
        seconds += segment.seconds
        alerts |= {it.id: it for it in turn.alerts}
        told |= {it.alert.id for it in turn.events}
    return Replayed(tuple(alerts.values()), frozenset(told), seconds)


def side_by_side(would: Iterable[Alert], did: Iterable[Alert]) -> list[Pair]:
    """Alerts of the same stream and rule that overlap in time stand beside each other."""
    left = sorted(did, key=lambda it: it.opened_at)
    pairs = []
    for alert in sorted(would, key=lambda it: it.opened_at):
        same = next((it for it in left if _same(alert, it)), None)
        if same is not None:
            left.remove(same)
        pairs.append(Pair(alert, same))
    pairs += [Pair(None, it) for it in left]
    return sorted(pairs, key=_begins)


def slim(segment: Segment) -> Segment:
    """Without what no rule looks at, so that a week fits into memory."""
    return replace(segment, outputs=(), explanation="", thumbnail=None, evidence=())


def _same(one: Alert, other: Alert) -> bool:
    return (
        (one.stream, one.rule) == (other.stream, other.rule)
        and (one.closed_at is None or other.opened_at <= one.closed_at)
        and (other.closed_at is None or one.opened_at <= other.closed_at)
    )


def _begins(pair: Pair) -> tuple[datetime, str, str]:
    first = min((it for it in (pair.would, pair.did) if it), key=lambda it: it.opened_at)
    return first.opened_at, first.stream, first.rule
