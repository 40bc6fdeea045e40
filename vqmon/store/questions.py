"""Questions to the writer in SQL: they wait here, and here are the answers.

Every function takes a connection inside a transaction; times are UTC. A question is asked by whom
it is claimed for; a claim ends by itself, so that a killed daemon loses nothing. A question goes
with its segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from vqmon.cascade import BUDGET_PERIOD, TOO_LATE, for_machines, rank
from vqmon.domain import FINDING_NAMES, Asked, Disagreement, Opinion, Question
from vqmon.store.engine import Database
from vqmon.store.segments import finding_of, plain
from vqmon.store.tables import askings, questions, segments
from vqmon.summing import utc

CHUNK = 500
"""Values in one statement: SQLite allows few."""

LOCK = 0x76716D6F61
"""PostgreSQL's key: claims are made one after the other, or two would share one budget's rest."""

FREE = {"claimed_by": None, "claimed_until": None}
ANEW = {"state": "waiting", "attempts": 0, "reason": None}


class SqlQuestions:
    """`vqmon.ports.Questions` in SQL; a part of `vqmon.store.SqlStore`."""

    _database: Database

    def ask(self, question: Question, *, again: bool = False) -> Asked | None:
        """Have the writer asked on demand; None when there is no such segment."""
        return self._database.write(lambda connection: ask(connection, question, again=again))

    def question(self, segment_id: str) -> Asked | None:
        """About this segment, None when nothing was asked."""
        return self._database.read(lambda connection: find(connection, segment_id))

    def questions(
        self,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        states: Sequence[str] = (),
        differing: bool = False,
        limit: int | None = None,
    ) -> list[Asked]:
        """Those asked within [since, until), the newest first."""
        since, until = since and utc(since), until and utc(until)
        return self._database.read(
            lambda connection: select(
                connection, stream, since, until, states, differing=differing, limit=limit
            )
        )

    def opinions(self, segment_ids: Iterable[str]) -> dict[str, Asked]:
        """What was asked about these segments, by segment."""
        ids = list(segment_ids)
        return self._database.read(lambda connection: about(connection, ids))

    def question_due(self, instance: str, now: datetime, *, segment: str | None = None) -> bool:
        """Whether a claim could succeed, the budget aside."""
        query = sa.select(questions.c.segment_id).where(_due(instance, utc(now), segment)).limit(1)
        return self._database.read(lambda connection: connection.scalar(query) is not None)

    def claim_question(
        self,
        instance: str,
        by: str,
        now: datetime,
        *,
        seconds: float,
        per_hour: int,
        segment: str | None = None,
    ) -> Asked | None:
        """The most urgent that is due, for so long, within the budget; counts in it."""
        now = utc(now)
        wanted = Claim(instance, by, now, now + timedelta(seconds=seconds), per_hour, segment)
        return self._database.write(lambda connection: claim(connection, wanted))

    def answer(self, one: Asked, by: str, opinion: Opinion, disagreement: Disagreement) -> bool:
        """The writer answered this claimant; False when somebody else has claimed it since."""
        values = _answer(opinion, disagreement)
        return self._database.write(lambda connection: settle(connection, one, by, values))

    def put_off(self, one: Asked, by: str, reason: str, *, due_at: datetime | None) -> bool:
        """This claimant got no answer; it is due again then, or given up (None)."""
        values: dict[str, Any] = {"reason": plain(reason)}
        values |= {"state": "unanswered"} if due_at is None else {"due_at": utc(due_at)}
        return self._database.write(lambda connection: settle(connection, one, by, values))

    def hold_up(self, instance: str, reason: str) -> None:
        """Nothing can be asked now; those that wait say why."""
        mine = sa.and_(questions.c.instance == instance, questions.c.state == "waiting")
        statement = sa.update(questions).where(mine).values(reason=plain(reason))
        self._database.write(lambda connection: connection.execute(statement))

    def release_questions(self, instance: str) -> None:
        """Give up the claims of someone who is known to ask nothing any more; the attempts that
        were cut off do not count.
        """
        mine = sa.and_(questions.c.instance == instance, questions.c.claimed_by.is_not(None))
        statement = sa.update(questions).where(mine)
        values = {"attempts": questions.c.attempts - 1, **FREE}
        self._database.write(lambda connection: connection.execute(statement.values(values)))

    def claimed_questions(self, instance: str) -> list[Asked]:
        """Those under way."""
        mine = sa.and_(questions.c.instance == instance, questions.c.claimed_by.is_not(None))
        query = sa.select(questions).where(mine).order_by(questions.c.segment_id)
        return self._database.read(lambda c: [_asked(found) for found in c.execute(query)])

    def last_asked(self, instance: str, cause: str) -> dict[str, datetime]:
        """When a question of this cause was last asked, by stream."""
        mine = sa.and_(questions.c.instance == instance, questions.c.cause == cause)
        newest = sa.func.max(questions.c.asked_at, type_=questions.c.asked_at.type).label("at")
        query = sa.select(questions.c.stream, newest).where(mine).group_by(questions.c.stream)
        return self._database.read(lambda c: {it.stream: it.at for it in c.execute(query)})

    def budget_used(self, instance: str, now: datetime) -> int:
        """How often the writer was asked in the hour before now."""
        now = utc(now)
        return self._database.read(lambda connection: _used(connection, instance, now))

    def expire_questions(self, now: datetime) -> int:
        """Give up those that were not asked in time, of all instances; how many."""
        now = utc(now)
        return self._database.write(lambda connection: expire(connection, now))

    def prune_askings(self, before: datetime) -> int:
        """Forget how often was asked before; an hour must be kept for the budget."""
        statement = sa.delete(askings).where(askings.c.at < utc(before))
        return self._database.write(lambda connection: connection.execute(statement).rowcount)


def insert(connection: sa.Connection, some: Iterable[Question]) -> None:
    """Put questions into the queue; one that waits already may become more urgent.

    Call it in the transaction that stores their segments. What asks about a segment that is not
    stored is left out.
    """
    batch: dict[str, Question] = {}
    for it in some:
        if it.segment not in batch or rank(it.cause) < rank(batch[it.segment].cause):
            batch[it.segment] = it
    known = about(connection, batch)
    stored = _stored(connection, [it for it in batch if it not in known])
    for id_, it in batch.items():
        if id_ in known:
            _urge(connection, known[id_], it)
        elif id_ in stored:
            connection.execute(sa.insert(questions).values(_row(it)))


def ask(connection: sa.Connection, question: Question, *, again: bool) -> Asked | None:
    """See `Questions.ask`."""
    found = find(connection, question.segment)
    if found is None:
        insert(connection, [question])
        return find(connection, question.segment)
    if found.state == "answered" and not again:
        return found
    values = _asking(question) | {"due_at": utc(question.asked_at)}
    if found.state != "waiting":
        values |= ANEW | FREE
    connection.execute(sa.update(questions).where(_is(found)).values(values))
    return find(connection, question.segment)


def find(connection: sa.Connection, segment_id: str) -> Asked | None:
    """The question about one segment."""
    return about(connection, [segment_id]).get(segment_id)


def about(connection: sa.Connection, ids: Iterable[str]) -> dict[str, Asked]:
    """By segment."""
    wanted, found = list(ids), {}
    for begin in range(0, len(wanted), CHUNK):
        some = questions.c.segment_id.in_(wanted[begin : begin + CHUNK])
        for row in connection.execute(sa.select(questions).where(some)):
            found[row.segment_id] = _asked(row)
    return found


def select(
    connection: sa.Connection,
    stream: str | None,
    since: datetime | None,
    until: datetime | None,
    states: Sequence[str],
    *,
    differing: bool,
    limit: int | None,
) -> list[Asked]:
    """See `Questions.questions`."""
    newest = (questions.c.asked_at.desc(), questions.c.segment_id)
    query = sa.select(questions).order_by(*newest).limit(limit)
    if stream is not None:
        query = query.where(questions.c.stream == stream)
    if since is not None:
        query = query.where(questions.c.asked_at >= since)
    if until is not None:
        query = query.where(questions.c.asked_at < until)
    if states:
        query = query.where(questions.c.state.in_(states))
    if differing:
        query = query.where(questions.c.state == "answered", questions.c.differs.is_(True))
    return [_asked(found) for found in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants a question, until when, within which budget; segment: about this one only."""

    instance: str
    by: str
    now: datetime
    until: datetime
    per_hour: int
    segment: str | None


def claim(connection: sa.Connection, wanted: Claim) -> Asked | None:
    """The most urgent question that is due; of those the newest, since old ones lose their use."""
    instance, now = wanted.instance, wanted.now
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    used = _used(connection, instance, now)
    if used >= wanted.per_hour:
        return None
    order = (questions.c.rank, questions.c.asked_at.desc(), questions.c.segment_id)
    query = (
        sa.select(questions).where(_due(instance, now, wanted.segment)).order_by(*order).limit(1)
    )
    if used >= for_machines(wanted.per_hour):
        query = query.where(questions.c.cause == "demand")
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    taken = {
        "claimed_by": wanted.by,
        "claimed_until": wanted.until,
        "tried_at": now,
        "attempts": found.attempts + 1,
    }
    one = replace(_asked(found), tried_at=now, attempts=found.attempts + 1)
    connection.execute(sa.update(questions).where(_is(one)).values(taken))
    noted = {"instance": instance, "at": now, "cause": found.cause, "segment": found.segment_id}
    connection.execute(sa.insert(askings).values(noted))
    return one


def settle(connection: sa.Connection, one: Asked, by: str, values: Mapping[str, Any]) -> bool:
    """What came of a claim; False, and nothing happens, when it is somebody else's by now."""
    mine = sa.and_(_is(one), questions.c.claimed_by == by)
    changed = connection.execute(sa.update(questions).where(mine).values({**values, **FREE}))
    return changed.rowcount > 0


def expire(connection: sa.Connection, now: datetime) -> int:
    """Give up what was not asked in time."""
    free = sa.or_(questions.c.claimed_until.is_(None), questions.c.claimed_until <= now)
    late = sa.and_(questions.c.state == "waiting", questions.c.expires_at <= now, free)
    reason = sa.func.coalesce(questions.c.reason, TOO_LATE)
    values = {"state": "unanswered", "reason": reason, **FREE}
    return connection.execute(sa.update(questions).where(late).values(values)).rowcount


def _urge(connection: sa.Connection, known: Asked, newer: Question) -> None:
    """Ask sooner what waits, when the newer cause is more urgent."""
    if known.state == "waiting" and rank(newer.cause) < rank(known.question.cause):
        connection.execute(sa.update(questions).where(_is(known)).values(_asking(newer)))


def _asking(question: Question) -> dict[str, Any]:
    """Who asks, and why."""
    return {
        "instance": question.instance,
        "cause": question.cause,
        "rank": rank(question.cause),
        "alert": question.alert,
        "asked_at": utc(question.asked_at),
        "expires_at": utc(question.expires_at),
    }


def _row(question: Question) -> dict[str, Any]:
    return _asking(question) | {
        "segment_id": question.segment,
        "stream": question.stream,
        "state": "waiting",
        "due_at": utc(question.asked_at),
        "attempts": 0,
    }


def _answer(opinion: Opinion, disagreement: Disagreement) -> dict[str, Any]:
    apart = asdict(disagreement)
    return {
        "state": "answered",
        "reason": None,
        "answered_at": utc(opinion.at),
        "model": opinion.model,
        "quality": plain(opinion.quality),
        "uncertainty": plain(opinion.uncertainty),
        "findings": [plain(asdict(it)) for it in opinion.findings],
        "explanation": plain(opinion.explanation),
        "pictures": list(opinion.pictures),
        "seconds": plain(opinion.seconds),
        "details": plain(opinion.details),
        "differs": apart.pop("differs"),
        "quality_difference": plain(apart.pop("quality")),
        "difference": plain(apart),
    }


def _due(instance: str, now: datetime, segment: str | None) -> sa.ColumnElement[bool]:
    free = sa.or_(questions.c.claimed_until.is_(None), questions.c.claimed_until <= now)
    due = sa.and_(
        questions.c.instance == instance,
        questions.c.state == "waiting",
        questions.c.due_at <= now,
        questions.c.expires_at > now,
        free,
    )
    return due if segment is None else sa.and_(due, questions.c.segment_id == segment)


def _used(connection: sa.Connection, instance: str, now: datetime) -> int:
    lately = sa.and_(askings.c.instance == instance, askings.c.at > now - BUDGET_PERIOD)
    query = sa.select(sa.func.count()).select_from(askings).where(lately)
    return int(connection.execute(query).scalar_one())


def _stored(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for begin in range(0, len(ids), CHUNK):
        some = segments.c.id.in_(ids[begin : begin + CHUNK])
        found |= set(connection.scalars(sa.select(segments.c.id).where(some)))
    return found


def _is(one: Asked) -> sa.ColumnElement[bool]:
    return questions.c.segment_id == one.question.segment


def _asked(found: sa.Row[Any]) -> Asked:
    question = Question(
        segment=found.segment_id,
        stream=found.stream,
        instance=found.instance,
        cause=found.cause,
        asked_at=found.asked_at,
        expires_at=found.expires_at,
        alert=found.alert,
    )
    return Asked(
        question,
        found.state,
        found.due_at,
        found.attempts,
        found.reason,
        found.tried_at,
        _opinion(found),
        _disagreement(found),
    )


def _opinion(found: sa.Row[Any]) -> Opinion | None:
    if found.answered_at is None:
        return None
    return Opinion(
        model=found.model,
        at=found.answered_at,
        quality=found.quality,
        uncertainty=found.uncertainty,
        findings=tuple(finding_of(it) for it in found.findings if it["name"] in FINDING_NAMES),
        explanation=found.explanation,
        pictures=tuple(found.pictures),
        seconds=found.seconds,
        details=found.details,
    )


def _disagreement(found: sa.Row[Any]) -> Disagreement | None:
    if found.answered_at is None:
        return None
    rest = found.difference
    return Disagreement(
        differs=found.differs,
        quality=found.quality_difference,
        only_scorer=tuple(rest["only_scorer"]),
        only_writer=tuple(rest["only_writer"]),
        sentence=rest["sentence"],
    )
