"""What the rules remember of a stream from one segment to the next; plain JSON.

What stands at its default is left out, so that a healthy stream costs a hundred bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from vqmon.alerting.baseline import Baseline
from vqmon.domain import Alert

ALERT_TIMES = ("opened_at", "closed_at", "acknowledged_at")


@dataclass(slots=True)
class Episode:
    """One rule on one stream: quiet, pending (bad > 0) or firing (alert set).

    bad, good, unknown: rule seconds of trouble, of none since the last trouble, and of not
        knowing since something was known. since_bad: since the last trouble, good or not.
    value, limit, unit: what was measured at the worst.
    visit_bad, visit_good, visit_unknown: seconds of the visit in progress; visit_told: it has
        been judged.
    raised: alerts so far. told_at: when somebody was last told of this one; repeats: how often
        they were reminded.
    """

    bad: float = 0.0
    good: float = 0.0
    since_bad: float = 0.0
    unknown: float = 0.0
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    visit_bad: float = 0.0
    visit_good: float = 0.0
    visit_unknown: float = 0.0
    visit_told: bool = False
    raised: int = 0
    alert: Alert | None = None
    told_at: datetime | None = None
    repeats: int = 0

    @property
    def pending(self) -> bool:
        return self.alert is None and self.bad > 0

    def as_json(self) -> dict[str, Any]:
        """Only what is not as it began."""
        plain = {it.name: getattr(self, it.name) for it in fields(self)}
        changed = {name: it for name, it in plain.items() if it != _DEFAULTS[name]}
        if self.alert:
            changed["alert"] = _alert_json(self.alert)
        if self.told_at:
            changed["told_at"] = self.told_at.isoformat()
        return changed


_DEFAULTS = {it.name: it.default for it in fields(Episode)}


@dataclass(slots=True)
class StreamState:
    """All rules on one stream.

    watched: rule seconds since watching began, or began anew after a long gap.
    ended_at: of the last segment (UTC). visit_seconds: of the visit in progress.
    """

    watched: float = 0.0
    ended_at: datetime | None = None
    visit_seconds: float = 0.0
    baseline: Baseline = field(default_factory=Baseline)
    episodes: dict[str, Episode] = field(default_factory=dict)

    @property
    def firing(self) -> dict[str, Alert]:
        """Alerts by rule."""
        return {name: it.alert for name, it in self.episodes.items() if it.alert}

    def copy(self) -> StreamState:
        episodes = {name: replace(it) for name, it in self.episodes.items()}
        return replace(self, baseline=replace(self.baseline), episodes=episodes)

    def as_json(self) -> dict[str, Any]:
        episodes = {name: it.as_json() for name, it in self.episodes.items()}
        return {
            "watched": self.watched,
            "ended_at": self.ended_at and self.ended_at.isoformat(),
            "visit_seconds": self.visit_seconds,
            "baseline": self.baseline.as_json(),
            "episodes": {name: it for name, it in episodes.items() if it},
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> StreamState:
        """What `as_json` gave, be it of an older or a newer vqmon; unknown keys are left out."""
        return cls(
            watched=float(stored.get("watched", 0.0)),
            ended_at=_time(stored.get("ended_at")),
            visit_seconds=float(stored.get("visit_seconds", 0.0)),
            baseline=Baseline.from_json(stored.get("baseline") or {}),
            episodes={n: _episode(it) for n, it in (stored.get("episodes") or {}).items()},
        )


def _episode(stored: Mapping[str, Any]) -> Episode:
    known = {name: it for name, it in stored.items() if name in _DEFAULTS}
    times = {"told_at": _time(known.get("told_at"))}
    alert = known.get("alert")
    return Episode(**known | times | {"alert": _alert(alert) if alert else None})


def _alert_json(alert: Alert) -> dict[str, Any]:
    plain = {it.name: getattr(alert, it.name) for it in fields(alert)}
    times = {name: plain[name] and plain[name].isoformat() for name in ALERT_TIMES}
    return plain | times | {"labels": dict(alert.labels), "evidence": list(alert.evidence)}


_ALERT_FIELDS = {it.name for it in fields(Alert)}


def _alert(stored: Mapping[str, Any]) -> Alert:
    known = {name: it for name, it in stored.items() if name in _ALERT_FIELDS}
    times = {name: _time(known.get(name)) for name in ALERT_TIMES}
    return Alert(**known | times | {"evidence": tuple(known.get("evidence", ()))})


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
