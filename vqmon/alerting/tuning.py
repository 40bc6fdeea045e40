"""Limits that fit a stream, from its own history, taken to be as it should be.

A rule is as strict as it can be without raising more than so many alerts a day on that history;
one that fires for hours counts for each hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vqmon.alerting.judging import GRACE_SECONDS
from vqmon.alerting.replaying import replay
from vqmon.alerting.rules import DROP, HOUR, NO_SCORE, NO_SIGNAL, QUALITY, WORST, Rule
from vqmon.alerting.rules import default_clear_limit as clear_limit
from vqmon.domain import Alert, Segment, Stream

DAY = 86_400.0
MARGIN = 5.0
"""Points of quality between what history has and what raises."""

STEP = 5
LONGER = (2.0, 4.0, 10.0)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One rule as it is and as it might be; None: history has it all the time, switch it off.

    raised: alerts that the present rule raises on that history; then: the proposed one.
    """

    present: Rule
    proposed: Rule | None
    raised: int
    then: int

    @property
    def changed(self) -> bool:
        return self.proposed != self.present


def tune(
    stream: Stream,
    rules: Sequence[Rule],
    segments: Sequence[Segment],
    *,
    most_per_day: float = 1.0,
    grace: float = GRACE_SECONDS,
) -> list[Proposal]:
    """One proposal for each rule, in order. segments: the oldest first (see `replaying.slim`)."""

    def alerts_of(rule: Rule) -> list[Alert]:
        return list(replay(stream, [rule], segments, grace=grace).alerts)

    whole = replay(stream, rules, segments, grace=grace)
    ends = max((_end(it) for it in segments[-1:]), default=None)
    most = int(most_per_day * whole.watched_seconds / DAY)

    def fits(alerts: Sequence[Alert]) -> bool:
        return sum(1 + _hours(it, ends) for it in alerts) <= most

    return [
        _proposed(rule, [it for it in whole.alerts if it.rule == rule.name], alerts_of, fits)
        for rule in rules
    ]


def _end(segment: Segment) -> datetime:
    return segment.started_at + timedelta(seconds=segment.seconds)


def _hours(alert: Alert, ends: datetime | None) -> int:
    """Whole hours that it fired; one that still does, until the end of the history."""
    until = alert.closed_at or ends or alert.opened_at
    return int((until - alert.opened_at).total_seconds() / HOUR)


def _proposed(
    rule: Rule,
    now: Sequence[Alert],
    alerts_of: Callable[[Rule], list[Alert]],
    fits: Callable[[Sequence[Alert]], bool],
) -> Proposal:
    def suits(other: Rule) -> bool:
        return fits(alerts_of(other))

    if rule.on in (QUALITY, WORST, DROP):
        fitting = _strictest(rule, suits)
        if fitting is None or abs(fitting.limit - rule.limit) < STEP:
            fitting = rule if fits(now) else fitting
    else:
        fitting = rule if fits(now) else next(filter(suits, _milder(rule)), None)
    if fitting == rule:
        return Proposal(rule, rule, len(now), len(now))
    return Proposal(rule, fitting, len(now), len(alerts_of(fitting)) if fitting else 0)


def _strictest(rule: Rule, suits: Callable[[Rule], bool]) -> Rule | None:
    """By halving: what a limit raises, a stricter one raises too."""
    limits = list(range(STEP, 100, STEP)) if rule.on != DROP else list(range(100 - STEP, 0, -STEP))
    low, high = -1, len(limits) - 1  # limits[low] fits; beyond high none does
    while low < high:
        middle = (low + high + 1) // 2
        if suits(_limited(rule, limits[middle])):
            low = middle
        else:
            high = middle - 1
    if low < 0:
        return None
    margin = MARGIN if rule.on == DROP else -MARGIN
    limit = limits[low] + margin
    return _limited(rule, limit) if 0 < limit < 100 else None


def _limited(rule: Rule, limit: float) -> Rule:
    return replace(rule, limit=float(limit), clear_limit=clear_limit(rule.on, limit))


def _milder(rule: Rule) -> Iterator[Rule]:
    """The least change first: worse findings only, then longer ones only."""
    limits = [rule.limit]
    if rule.on not in (NO_SIGNAL, NO_SCORE):
        limits = [float(it) for it in range(int(rule.limit), 6)]
    for longer in (1.0, *LONGER):
        for limit in limits:
            seconds = max(rule.raise_seconds, 10.0) * longer if longer > 1 else rule.raise_seconds
            milder = replace(rule, limit=limit, clear_limit=limit, raise_seconds=seconds)
            if milder != rule:
                yield milder
