"""The outbox in SQL: deliveries wait here, per target, until they are delivered or given up.

Every function takes a connection inside a transaction; times are UTC. A delivery is sent by whom
it is claimed for; a claim ends by itself, so that a killed daemon loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from vqmon.domain import Delivery, Disabled, Queued
from vqmon.store.engine import Database
from vqmon.store.segments import plain
from vqmon.store.tables import outbox, outbox_disabled
from vqmon.summing import utc

CHUNK = 500
"""Values in one statement: SQLite allows few."""

FREE = {"claimed_by": None, "claimed_until": None}


class SqlOutbox:
    """`vqmon.ports.Outbox` in SQL; a part of `vqmon.store.SqlStore`."""

    _database: Database

    def enqueue(self, deliveries: Iterable[Delivery]) -> None:
        """Add in one transaction; one that is known (id and target) is left alone."""
        batch = list(deliveries)
        if batch:
            self._database.write(lambda connection: insert(connection, batch))

    def renew(self, delivery: Delivery) -> bool:
        """Try a dead letter anew, unless its target is gone for good; whether there is one."""
        return self._database.write(lambda connection: renew(connection, delivery))

    def standing(self, delivery_id: str, target: str) -> Queued | None:
        """How one delivery stands; None when it is unknown or no longer kept."""
        return self._database.read(lambda connection: standing(connection, delivery_id, target))

    def claim(self, target: str, by: str, now: datetime, *, seconds: float) -> Queued | None:
        """The oldest that is due and that nobody else is sending, for so long."""
        now, until = utc(now), utc(now) + timedelta(seconds=seconds)
        return self._database.write(lambda connection: claim(connection, target, by, now, until))

    def delivered(self, one: Queued, at: datetime, *, again_at: datetime | None = None) -> None:
        """It arrived; again_at: when it must be sent again."""
        self._database.write(lambda connection: delivered(connection, one, at, again_at))

    def failed(self, one: Queued, by: str, error: str, *, due_at: datetime | None) -> None:
        """An attempt of this claimant failed; it is due again then, or given up (None)."""
        self._database.write(lambda connection: failed(connection, one, by, error, due_at))

    def hasten(self, target: str, now: datetime) -> None:
        """What waits after a failure is due at once: the target is back."""
        now = utc(now)
        self._database.write(lambda connection: hasten(connection, target, now))

    def release(self, by: str) -> None:
        """Give up the claims of someone who is known to send nothing any more."""
        self._database.write(lambda connection: release(connection, by))

    def due(self, now: datetime) -> list[str]:
        """Targets that something is due for, sorted."""
        now = utc(now)
        return self._database.read(lambda connection: due(connection, now))

    def backlog(self) -> dict[tuple[str, str], int]:
        """How many wait and how many are dead letters, by (target, state); what is none is left
        out.
        """
        return self._database.read(backlog)

    def queued(
        self, target: str | None = None, states: Sequence[str] = (), *, limit: int | None = None
    ) -> list[Queued]:
        """The newest first; states: some of `Queued.state`, empty for all."""
        return self._database.read(lambda connection: select(connection, target, states, limit))

    def retry(
        self, now: datetime, *, delivery_id: str | None = None, target: str | None = None
    ) -> list[Queued]:
        """Make what is dead, or waits after a failure, due at once; return it."""
        now = utc(now)
        return self._database.write(lambda connection: retry(connection, now, delivery_id, target))

    def disable(self, one: Disabled) -> None:
        """Note that a target is gone, and give up all that waits for it."""
        self._database.write(lambda connection: disable(connection, one))

    def enable(self, target: str) -> None:
        """Forget that a target was gone."""
        self._database.write(lambda connection: enable(connection, target))

    def disabled(self) -> list[Disabled]:
        """By name of the target."""
        return self._database.read(disabled)

    def prune_deliveries(self, before: datetime, *, limit: int = 500) -> int:
        """Delete some of the settled ones made before, and of those nobody took for as long."""
        before = utc(before)
        return self._database.write(lambda connection: prune(connection, before, limit))


def insert(connection: sa.Connection, some: Iterable[Delivery]) -> None:
    """Put deliveries into the outbox, in order; one that is known (id and target) is left alone.

    Call it in the transaction that stores what the deliveries tell of.
    """
    batch = {(it.id, it.target): it for it in some}
    known = _known(connection, batch)
    for key, delivery in batch.items():
        if key not in known:
            _insert(connection, delivery)


def renew(connection: sa.Connection, delivery: Delivery) -> bool:
    """Make a dead letter wait again with all attempts before it; whether there is one."""
    gone = sa.select(outbox_disabled.c.target).where(outbox_disabled.c.target == outbox.c.target)
    dead = sa.and_(outbox.c.id == delivery.id, outbox.c.target == delivery.target)
    values = {
        "state": "waiting",
        "attempts": 0,
        "due_at": delivery.created_at,
        "expires_at": delivery.expires_at,
    }
    renewed = connection.execute(
        sa.update(outbox).where(dead, outbox.c.state == "dead", ~gone.exists()).values(values)
    )
    return renewed.rowcount > 0


def standing(connection: sa.Connection, id_: str, target: str) -> Queued | None:
    """One delivery, None when there is none."""
    query = sa.select(outbox).where(outbox.c.id == id_, outbox.c.target == target)
    found = connection.execute(query).one_or_none()
    return None if found is None else _queued(found)


def claim(
    connection: sa.Connection, target: str, by: str, now: datetime, until: datetime
) -> Queued | None:
    """The oldest delivery that is due for a target and that nobody else is sending.

    Deliveries of one topic go in their order: none is given while an earlier one waits.
    """
    earlier = outbox.alias()
    in_the_way = (
        sa.select(earlier.c.number)
        .where(earlier.c.target == outbox.c.target, earlier.c.topic == outbox.c.topic)
        .where(earlier.c.topic != "", earlier.c.number < outbox.c.number)
        .where(sa.or_(earlier.c.state == "waiting", earlier.c.claimed_until > now))
    )
    query = (
        sa.select(outbox)
        .where(outbox.c.target == target, _due(now), ~in_the_way.exists())
        .order_by(outbox.c.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    taken = {
        "claimed_by": by,
        "claimed_until": until,
        "tried_at": now,
        "attempts": found.attempts + 1,
    }
    connection.execute(sa.update(outbox).where(outbox.c.number == found.number).values(taken))
    return replace(_queued(found), tried_at=now, attempts=found.attempts + 1)


def delivered(
    connection: sa.Connection, one: Queued, at: datetime, again_at: datetime | None
) -> None:
    """It arrived. again_at: when it must be sent again, for a target that keeps state."""
    values: dict[str, Any] = {"delivered_at": at, "error": None, **FREE}
    if again_at is None:
        values["state"] = _unless_replaced("delivered")
    else:
        values |= {"due_at": again_at, "attempts": 0}
    connection.execute(sa.update(outbox).where(_is(one)).values(values))


def failed(
    connection: sa.Connection, one: Queued, by: str, error: str, due_at: datetime | None
) -> None:
    """An attempt failed. due_at: when the next one is due; None gives up.

    Nothing happens when somebody else has claimed it meanwhile.
    """
    values: dict[str, Any] = {"error": plain(error), **FREE}
    if due_at is None:
        values["state"] = _unless_replaced("dead")
    else:
        values["due_at"] = due_at
    mine = sa.and_(_is(one), outbox.c.claimed_by == by)
    connection.execute(sa.update(outbox).where(mine).values(values))


def hasten(connection: sa.Connection, target: str, now: datetime) -> None:
    """What waits after a failure is due at once, with the attempts that it has left."""
    late = sa.and_(outbox.c.state == "waiting", outbox.c.error.is_not(None), outbox.c.due_at > now)
    which = sa.and_(outbox.c.target == target, late)
    connection.execute(sa.update(outbox).where(which).values(due_at=now))


def release(connection: sa.Connection, by: str) -> None:
    """Give up every claim of someone who is known to send nothing any more.

    What was cut off is no failed attempt, or a few restarts would make a dead letter of it.
    """
    mine = sa.and_(outbox.c.claimed_by == by, outbox.c.attempts > 0)
    values = {"attempts": outbox.c.attempts - 1, **FREE}
    connection.execute(sa.update(outbox).where(mine).values(values))


def due(connection: sa.Connection, now: datetime) -> list[str]:
    """Targets that something is due for, sorted."""
    query = sa.select(outbox.c.target).where(_due(now)).distinct().order_by(outbox.c.target)
    return list(connection.scalars(query))


def backlog(connection: sa.Connection) -> dict[tuple[str, str], int]:
    """How many are in one of these states, by (target, state)."""
    query = (
        sa.select(outbox.c.target, outbox.c.state, sa.func.count())
        .where(outbox.c.state.in_(["waiting", "dead"]))
        .group_by(outbox.c.target, outbox.c.state)
    )
    return {(target, state): count for target, state, count in connection.execute(query)}


def select(
    connection: sa.Connection, target: str | None, states: Sequence[str], limit: int | None
) -> list[Queued]:
    """The newest first."""
    query = sa.select(outbox).order_by(outbox.c.number.desc()).limit(limit)
    if target is not None:
        query = query.where(outbox.c.target == target)
    if states:
        query = query.where(outbox.c.state.in_(states))
    return [_queued(found) for found in connection.execute(query)]


def retry(
    connection: sa.Connection, now: datetime, id_: str | None, target: str | None
) -> list[Queued]:
    """Make what is dead, or waits after a failure, due at once with all attempts before it.

    id_: of one delivery, or the beginning of it; target: only what is meant for it.
    """
    stuck = sa.or_(
        outbox.c.state == "dead", sa.and_(outbox.c.state == "waiting", outbox.c.error.is_not(None))
    )
    query = sa.select(outbox).where(stuck).order_by(outbox.c.number)
    if id_ is not None:
        query = query.where(outbox.c.id.startswith(id_, autoescape=True))
    if target is not None:
        query = query.where(outbox.c.target == target)
    found = [(row.number, _queued(row)) for row in connection.execute(query)]
    values = {"state": "waiting", "attempts": 0, "due_at": now, "expires_at": None}
    for number, _ in found:
        connection.execute(sa.update(outbox).where(outbox.c.number == number).values(values))
    for name in {it.delivery.target for _, it in found}:
        enable(connection, name)
    return [_afresh(it, now) for _, it in found]


def disable(connection: sa.Connection, one: Disabled) -> None:
    """Note that a target is gone, and give up what waits for it."""
    enable(connection, one.target)
    connection.execute(
        sa.insert(outbox_disabled).values(
            target=one.target,
            fingerprint=one.fingerprint,
            reason=plain(one.reason),
            at=one.at,
        )
    )
    waiting = sa.and_(outbox.c.target == one.target, outbox.c.state == "waiting")
    values = {"state": "dead", "error": plain(one.reason), **FREE}
    connection.execute(sa.update(outbox).where(waiting).values(values))


def enable(connection: sa.Connection, target: str) -> None:
    """Forget that a target was gone."""
    connection.execute(sa.delete(outbox_disabled).where(outbox_disabled.c.target == target))


def disabled(connection: sa.Connection) -> list[Disabled]:
    """By name."""
    rows = connection.execute(sa.select(outbox_disabled).order_by(outbox_disabled.c.target))
    return [Disabled(it.target, it.fingerprint, it.reason, it.at) for it in rows]


def prune(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete old deliveries that are settled, or that nobody has taken for as long."""
    over = sa.or_(outbox.c.state != "waiting", outbox.c.due_at < before)
    numbers = connection.scalars(
        sa.select(outbox.c.number).where(outbox.c.created_at < before, over).limit(limit)
    ).all()
    for begin in range(0, len(numbers), CHUNK):
        some = numbers[begin : begin + CHUNK]
        connection.execute(sa.delete(outbox).where(outbox.c.number.in_(some)))
    return len(numbers)


def _due(now: datetime) -> sa.ColumnElement[bool]:
    free = sa.or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until <= now)
    return sa.and_(outbox.c.state == "waiting", outbox.c.due_at <= now, free)


def _is(one: Queued) -> sa.ColumnElement[bool]:
    return sa.and_(outbox.c.id == one.delivery.id, outbox.c.target == one.delivery.target)


def _unless_replaced(state: str) -> sa.Case[str]:
    return sa.case((outbox.c.state == "waiting", state), else_=outbox.c.state)


def _known(connection: sa.Connection, batch: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    ids = list(dict.fromkeys(id_ for id_, _ in batch))
    found: set[tuple[str, str]] = set()
    for begin in range(0, len(ids), CHUNK):
        some = outbox.c.id.in_(ids[begin : begin + CHUNK])
        rows = connection.execute(sa.select(outbox.c.id, outbox.c.target).where(some))
        found |= {(row.id, row.target) for row in rows}
    return found


def _insert(connection: sa.Connection, delivery: Delivery) -> None:
    if delivery.replaces:
        connection.execute(
            sa.update(outbox)
            .where(outbox.c.target == delivery.target, outbox.c.topic == delivery.topic)
            .where(outbox.c.state == "waiting")
            .values(state="replaced")
        )
    connection.execute(sa.insert(outbox).values(_row(delivery)))


def _row(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "target": delivery.target,
        "kind": delivery.kind,
        "topic": delivery.topic,
        "stream": delivery.stream,
        "body": plain(delivery.body),
        "created_at": delivery.created_at,
        "expires_at": delivery.expires_at,
        "state": "waiting",
        "due_at": delivery.created_at,
        "attempts": 0,
    }


def _queued(found: sa.Row[Any]) -> Queued:
    delivery = Delivery(
        id=found.id,
        target=found.target,
        kind=found.kind,
        body=found.body,
        created_at=found.created_at,
        stream=found.stream,
        topic=found.topic,
        expires_at=found.expires_at,
    )
    return Queued(
        delivery,
        found.state,
        found.due_at,
        found.attempts,
        found.error,
        found.tried_at,
        found.delivered_at,
    )


def _afresh(it: Queued, now: datetime) -> Queued:
    delivery = replace(it.delivery, expires_at=None)
    return replace(it, delivery=delivery, state="waiting", attempts=0, due_at=now)
