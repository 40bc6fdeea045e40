"""Who need not be told: silences that people set, and maintenance windows from the settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from vqmon.domain import Alert, Silence

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Window:
    """A time of maintenance: one stretch, or one that comes again (UTC inside).

    begins, ends: of one stretch. trigger, seconds: when it begins again and how long it takes.
    streams, rules: names, or patterns such as ``studio-*``; empty for all.
    """

    name: str
    begins: datetime | None = None
    ends: datetime | None = None
    trigger: Any = None
    seconds: float = 0.0
    streams: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    def covers(self, alert: Alert, at: datetime) -> bool:
        """Whether this alert is within it at that time."""
        matches = _matches(alert.stream, self.streams) and _matches(alert.rule, self.rules)
        return matches and self.open(at)

    def open(self, at: datetime) -> bool:
        if self.trigger is None:
            return not (self.begins and at < self.begins) and not (self.ends and at >= self.ends)
        first = self.trigger.get_next_fire_time(None, at - timedelta(seconds=self.seconds))
        if first is not None and first + timedelta(seconds=self.seconds) <= at:
            first = self.trigger.get_next_fire_time(first, first)
        return first is not None and first <= at


@dataclass(frozen=True, slots=True)
class Quiet:
    """Whether nobody is to be told of an alert at a time."""

    silences: Sequence[Silence] = ()
    windows: Sequence[Window] = field(default=())

    def __call__(self, alert: Alert, at: datetime) -> bool:
        return silenced(alert, self.silences, at) or any(
            it.covers(alert, at) for it in self.windows
        )


def silenced(alert: Alert, silences: Iterable[Silence], at: datetime) -> bool:
    """Whether one of the silences matches; one that was set while an old segment was on its way
    counts for it too.
    """
    return any(at < it.expires_at and _silences(it, alert) for it in silences)


def cron(text: str, zone: str | None = None) -> Any:
    """When a line of five crontab fields comes up. Raises ValueError.

    Days of the week count from Sunday (0 or 7), as crontab does and APScheduler does not.
    """
    from apscheduler.triggers.cron import CronTrigger

    parts = text.split()
    if len(parts) != 5:
        raise ValueError("write five fields: minute hour day month weekday, as in 0 3 * * sun")
    minute, hour, day, month, weekday = parts
    return CronTrigger(
        minute=minute,
        hour=hour,
        day=day,
        month=month,
        day_of_week=",".join(_weekdays(it) for it in weekday.split(",")),
        timezone=zone or "UTC",
    )


def _weekdays(field_: str) -> str:
    """``1-5`` as ``mon,tue,wed,thu,fri``; names and stars as they are."""
    days, _, step = field_.partition("/")
    first, _, last = days.partition("-")
    if not first.isdecimal():
        return field_.lower()
    numbers = range(int(first), int(last or first) + 1, int(step or 1))
    if not last and step:
        numbers = range(int(first), 7, int(step))
    if not numbers or max(numbers) > 7:
        raise ValueError(f"{field_}: weekdays are 0 (Sunday) to 7 (Sunday)")
    return ",".join(dict.fromkeys(WEEKDAYS[it] for it in numbers))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _silences(silence: Silence, alert: Alert) -> bool:
    return (
        fnmatchcase(alert.stream, silence.stream or "*")
        and fnmatchcase(alert.rule, silence.rule or "*")
        and silence.severity in ("", alert.severity)
    )
