"""What operators ask of the outbox: who is told, what waits, what was given up; a trial message."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from vqmon.domain import Disabled, Queued, Receipt
from vqmon.errors import ConfigError, DeliveryFailed, TargetGone
from vqmon.notifiers import open_notifier
from vqmon.notifying import Target, trial
from vqmon.ports import Outbox


@dataclass(frozen=True, slots=True)
class Standing:
    """How a target stands. state: ok · failing · disabled · unconfigured; error: the latest.

    waiting, dead: deliveries; those of alerts that a state target is told again are not waiting.
    """

    name: str
    type: str | None
    state: str
    waiting: int
    dead: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a test message: a receipt, or an error."""

    target: str
    id: str
    receipt: Receipt | None
    error: str | None = None
    status: int | None = None


def standings(outbox: Outbox, targets: Iterable[Target]) -> list[Standing]:
    """Of configured targets, in their order; then of those that only the outbox knows."""
    known = {target.name: target for target in targets}
    stuck = outbox.queued(states=["waiting", "dead"])
    disabled = {it.target: it for it in outbox.disabled()}
    names = [*known, *sorted({it.delivery.target for it in stuck} - known.keys())]
    return [
        _standing(name, known, [it for it in stuck if it.delivery.target == name], disabled)
        for name in names
    ]


def _standing(
    name: str,
    known: Mapping[str, Target],
    stuck: list[Queued],
    disabled: Mapping[str, Disabled],
) -> Standing:
    target, gone = known.get(name), disabled.get(name)
    told = [it for it in stuck if it.state == "dead" or it.error or not it.delivered_at]
    counts = Counter(it.state for it in told)
    failing = next((it.error for it in told if it.state == "waiting" and it.error), None)
    latest = failing or next((it.error for it in told if it.error), None)
    if target is None:
        state = "unconfigured"
    elif gone and gone.fingerprint == target.fingerprint:
        state, latest = "disabled", gone.reason
    else:
        state = "failing" if failing else "ok"
    kind = target.type if target else None
    return Standing(name, kind, state, counts["waiting"], counts["dead"], latest)


def try_out(target: Target) -> Trial:
    """Send a signed test message now, past the outbox, and say what came back."""
    now = datetime.now(UTC)
    delivery = trial(target, now, f"test-{uuid.uuid4().hex}")
    try:
        receipt = open_notifier(target).send(delivery, now)
    except TargetGone as error:
        said = f"{error}; the daemon would send it nothing more until its configuration changes"
        return Trial(target.name, delivery.id, None, said, error.status)
    except DeliveryFailed as error:
        return Trial(target.name, delivery.id, None, str(error), error.status)
    except ConfigError as error:
        return Trial(target.name, delivery.id, None, str(error))
    return Trial(target.name, delivery.id, receipt, status=receipt.status)


def as_json(one: Standing | Trial | Queued) -> dict[str, Any]:
    """For scripts; times are ISO 8601 in UTC."""
    plain = asdict(one)
    if isinstance(one, Queued):
        plain = plain.pop("delivery") | plain
        del plain["replaces"]
    if isinstance(one, Trial):
        receipt = plain.pop("receipt") or {}
        plain["text"], plain["seconds"] = receipt.get("text"), receipt.get("seconds")
    return {name: _moment(value) for name, value in plain.items()}


def _moment(value: Any) -> Any:
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value
