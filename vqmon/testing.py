"""Fakes for everything vqmon needs from the outside; public, for the tests of plugins too."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from vqmon.cascade import BUDGET_PERIOD, TOO_LATE, for_machines, rank
from vqmon.deciding import checked_event_id, checked_payload, compared, no_such_target, owned
from vqmon.domain import (
    Acting,
    Alert,
    Asked,
    Assessment,
    Comparison,
    Decision,
    Delivery,
    Depth,
    Disabled,
    Disagreement,
    Event,
    Format,
    Frame,
    Media,
    Opinion,
    Packet,
    Question,
    Queued,
    Rollup,
    Segment,
    Silence,
    Traffic,
)
from vqmon.errors import ScorerError, StoreError
from vqmon.ports import Scorer, everything
from vqmon.preprocess import Prepared
from vqmon.summing import PERIODS, checked, merged, summed, utc

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
BEGINNING = datetime.min.replace(tzinfo=UTC)
END = datetime.max.replace(tzinfo=UTC)


def textured_frame(
    position: float = 0.0,
    *,
    brightness: float = 50.0,
    size: tuple[int, int] = (128, 96),
    seed: int = 0,
) -> Frame:
    """A frame (width, height) of smooth noise around `brightness` (0..100 of full range)."""
    width, height = size
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 12, (height // 4, width // 4)).repeat(4, 0).repeat(4, 1)
    luma = np.clip(16 + 2.19 * brightness + noise * (brightness > 5), 16, 235)
    grey = np.full((height // 2, width // 2), 128, np.uint8)
    return Frame((luma.astype(np.uint8), grey, grey), position, EPOCH + timedelta(seconds=position))


class FakeSource:
    """Plays media given as a list: frames by brightness, or any Frame, Traffic and Event.

    brightness: one frame per entry, 0..100, `1 / rate` seconds apart, each different.
    error: raised where the media end, as a failing source would.
    """

    def __init__(
        self,
        media: Sequence[Media] = (),
        *,
        brightness: Sequence[float] = (),
        rate: float = 1.0,
        live: bool = False,
        error: Exception | None = None,
    ) -> None:
        self.live = live
        self.opened = 0
        self._media = list(media) or list(_played(brightness, rate))
        self._error = error
        self._stopped = False

    @contextmanager
    def open(self, depth: Callable[[], Depth] = everything) -> Iterator[Iterator[Media]]:
        self.opened += 1
        yield self._play(depth)

    def stop(self) -> None:
        self._stopped = True

    def _play(self, depth: Callable[[], Depth]) -> Iterator[Media]:
        for item in self._media:
            if self._stopped:
                return
            if isinstance(item, Frame) and not item.key and depth() is Depth.KEYFRAMES:
                continue
            yield item
        if self._error is not None:
            raise self._error


def _played(brightness: Sequence[float], rate: float) -> Iterator[Media]:
    yield Event("opened", 0.0, EPOCH, format=Format("raw", 128, 96, "yuv420p", rate))
    for number, value in enumerate(brightness):
        at = number / rate
        yield textured_frame(at, brightness=value, seed=number)
        yield Traffic(
            at + 1 / rate,
            1 / rate,
            1 / rate,
            EPOCH + timedelta(seconds=at + 1 / rate),
            1000,
            packets=(Packet(at, 1 / rate, 1000, key=True),),
        )


class FakeScorer:
    """Scores by a function of the prepared picture; by default its brightness, 0..100."""

    model = "fake@1"

    def __init__(self, quality: Callable[[Prepared], float] | None = None) -> None:
        self._quality = quality or (
            lambda p: float(np.clip(p.measures["luma_mean"] / 2.55, 0, 100))
        )
        self.batches: list[int] = []

    def assess(self, pictures: Sequence[Prepared]) -> list[Assessment]:
        if pictures:
            self.batches.append(len(pictures))
        return [self._one(picture) for picture in pictures]

    def compare(
        self,
        a: Sequence[Assessment],
        b: Sequence[Assessment],
        *,
        same_content: bool = False,  # noqa: ARG002  its errors are nil
    ) -> Comparison:
        margin = _mean(a) - _mean(b)
        text = f"{margin:+.1f} points"
        if abs(margin) < 1:
            return Comparison("similar", margin, 0.5, text)
        return Comparison("a" if margin > 0 else "b", margin, float(margin > 0), text)

    def _one(self, picture: Prepared) -> Assessment:
        quality = self._quality(picture)
        return Assessment(
            picture.position, quality, 5.0, outputs={"quality": (quality,)}, model=self.model
        )


def _mean(assessed: Sequence[Assessment]) -> float:
    return float(np.mean([a.quality for a in assessed if a.quality is not None] or [0.0]))


class MemoryOutbox:
    """`vqmon.ports.Outbox` in a dictionary; passes the same contract as the real ones."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: dict[tuple[str, str], Queued] = {}
        self._claims: dict[tuple[str, str], tuple[str, datetime]] = {}
        self._disabled: dict[str, Disabled] = {}
        self._lock = threading.RLock()

    def enqueue(self, deliveries: Iterable[Delivery]) -> None:
        """Add all; one that is known (id and target) is left alone."""
        with self._lock:
            for it in deliveries:
                if (it.id, it.target) in self._queue:
                    continue
                if it.replaces:
                    self._replace_topic_of(it)
                self._queue[it.id, it.target] = Queued(
                    replace(it, replaces=False), "waiting", it.created_at
                )

    def renew(self, delivery: Delivery) -> bool:
        """Try a dead letter anew, unless its target is gone for good; whether there is one."""
        key = (delivery.id, delivery.target)
        with self._lock:
            it = self._queue.get(key)
            if it is None or it.state != "dead" or delivery.target in self._disabled:
                return False
            again = replace(it.delivery, expires_at=delivery.expires_at)
            self._queue[key] = replace(
                it, delivery=again, state="waiting", attempts=0, due_at=delivery.created_at
            )
        return True

    def standing(self, delivery_id: str, target: str) -> Queued | None:
        """How one delivery stands; None when it is unknown or no longer kept."""
        return self._queue.get((delivery_id, target))

    def claim(self, target: str, by: str, now: datetime, *, seconds: float) -> Queued | None:
        """The oldest that is due and that nobody else is sending, for so long."""
        with self._lock:
            earlier: list[Delivery] = []
            for key, it in self._queue.items():
                blocked = any(_same_topic(one, it.delivery) for one in earlier)
                taken = key in self._claims and self._claims[key][1] > now
                if it.state == "waiting" or taken:
                    earlier.append(it.delivery)
                due = it.state == "waiting" and it.due_at <= now
                if it.delivery.target == target and due and not taken and not blocked:
                    self._claims[key] = (by, now + timedelta(seconds=seconds))
                    claimed = replace(it, attempts=it.attempts + 1, tried_at=now)
                    self._queue[key] = claimed
                    return claimed
        return None

    def delivered(self, one: Queued, at: datetime, *, again_at: datetime | None = None) -> None:
        """It arrived; again_at: when it must be sent again."""
        key = (one.delivery.id, one.delivery.target)
        with self._lock:
            self._claims.pop(key, None)
            it = replace(self._queue[key], delivered_at=at, error=None)
            if again_at is not None:
                it = replace(it, due_at=again_at, attempts=0)
            elif it.state == "waiting":
                it = replace(it, state="delivered")
            self._queue[key] = it

    def failed(self, one: Queued, by: str, error: str, *, due_at: datetime | None) -> None:
        """An attempt of this claimant failed; it is due again then, or given up (None)."""
        key = (one.delivery.id, one.delivery.target)
        with self._lock:
            if self._claims.get(key, ("", None))[0] != by:
                return
            del self._claims[key]
            it = replace(self._queue[key], error=error)
            if due_at is not None:
                it = replace(it, due_at=due_at)
            elif it.state == "waiting":
                it = replace(it, state="dead")
            self._queue[key] = it

    def hasten(self, target: str, now: datetime) -> None:
        """What waits after a failure is due at once: the target is back."""
        with self._lock:
            for it in self.queued(target, ["waiting"]):
                if it.error is not None and it.due_at > now:
                    self._queue[it.delivery.id, target] = replace(it, due_at=now)

    def release(self, by: str) -> None:
        """Give up the claims of someone who is known to send nothing any more."""
        with self._lock:
            for key in [key for key, it in self._claims.items() if it[0] == by]:
                it = self._queue[key]
                self._queue[key] = replace(it, attempts=max(0, it.attempts - 1))
            self._claims = {key: it for key, it in self._claims.items() if it[0] != by}

    def due(self, now: datetime) -> list[str]:
        """Targets that something is due for, sorted."""
        with self._lock:
            return sorted(
                {
                    it.delivery.target
                    for key, it in self._queue.items()
                    if it.state == "waiting" and it.due_at <= now
                    if key not in self._claims or self._claims[key][1] <= now
                }
            )

    def queued(
        self, target: str | None = None, states: Sequence[str] = (), *, limit: int | None = None
    ) -> list[Queued]:
        """The newest first; states: some of `Queued.state`, empty for all."""
        with self._lock:
            found = [
                it
                for it in reversed(self._queue.values())
                if target in (None, it.delivery.target) and (not states or it.state in states)
            ]
        return found[: _count(limit)]

    def retry(
        self, now: datetime, *, delivery_id: str | None = None, target: str | None = None
    ) -> list[Queued]:
        """Make what is dead, or waits after a failure, due at once; return it."""

        def stuck(it: Queued) -> bool:
            return (
                (it.state == "dead" or (it.state == "waiting" and it.error is not None))
                and it.delivery.id.startswith(delivery_id or "")
                and target in (None, it.delivery.target)
            )

        with self._lock:
            found = self._settle(stuck, state="waiting", attempts=0, due_at=now)
            for it in found:
                key = (it.delivery.id, it.delivery.target)
                self._queue[key] = replace(it, delivery=replace(it.delivery, expires_at=None))
                self.enable(it.delivery.target)
            return [self._queue[it.delivery.id, it.delivery.target] for it in found]

    def disable(self, one: Disabled) -> None:
        """Note that a target is gone, and give up all that waits for it."""
        with self._lock:
            self._disabled[one.target] = one
            waiting = self._settle(
                lambda it: it.state == "waiting" and it.delivery.target == one.target,
                state="dead",
                error=one.reason,
            )
            for it in waiting:
                self._claims.pop((it.delivery.id, it.delivery.target), None)

    def enable(self, target: str) -> None:
        """Forget that a target was gone."""
        self._disabled.pop(target, None)

    def backlog(self) -> dict[tuple[str, str], int]:
        """How many wait and how many are dead letters, by (target, state); what is none is left
        out.
        """
        with self._lock:
            kept = Counter((it.delivery.target, it.state) for it in self._queue.values())
        return {key: count for key, count in kept.items() if key[1] in ("waiting", "dead")}

    def disabled(self) -> list[Disabled]:
        """By name of the target."""
        return [self._disabled[name] for name in sorted(self._disabled)]

    def prune_deliveries(self, before: datetime, *, limit: int = 500) -> int:
        """Delete some of the settled ones made before, and of those nobody took for as long."""
        with self._lock:
            old = [
                key
                for key, it in self._queue.items()
                if it.delivery.created_at < before and (it.state != "waiting" or it.due_at < before)
            ][:limit]
            for key in old:
                del self._queue[key]
        return len(old)

    def _replace_topic_of(self, newer: Delivery) -> None:
        self._settle(
            lambda it: it.state == "waiting" and _same_topic(it.delivery, newer), state="replaced"
        )

    def _settle(self, which: Callable[[Queued], bool], **fields: Any) -> list[Queued]:
        """Change those that are still of use and match; return them as they are now."""
        changed = []
        for key, it in self._queue.items():
            if it.state in ("waiting", "dead") and which(it):
                self._queue[key] = replace(it, **fields)
                changed.append(self._queue[key])
        return changed


def _same_topic(one: Delivery, other: Delivery) -> bool:
    return bool(one.topic) and (one.target, one.topic) == (other.target, other.topic)


class MemoryDecisions:
    """`vqmon.ports.Decisions` in a list; passes the same contract as the real ones."""

    def __init__(self) -> None:
        super().__init__()
        self._decisions: dict[str, Decision] = {}

    def record(self, decision: Decision) -> None:
        """Keep it; a known id is left alone."""
        self._decisions.setdefault(decision.id, replace(decision, at=utc(decision.at)))

    def decisions(
        self,
        plugin: str | None = None,
        stream: str | None = None,
        since: datetime | None = None,
        *,
        newest: int | None = None,
    ) -> list[Decision]:
        """Oldest first, those of one moment as they were recorded; newest: the last so many."""
        begin, _ = _range(since, None)
        found = sorted(
            (
                it
                for it in list(self._decisions.values())
                if plugin in (None, it.plugin) and stream in (None, it.stream) and it.at >= begin
            ),
            key=lambda it: it.at,
        )
        return found if newest is None else found[max(0, len(found) - newest) :]

    def prune_decisions(self, before: datetime, *, limit: int = 500) -> int:
        """Delete at most `limit` of the oldest made before; return how many."""
        before = utc(before)
        old = [it for it in self.decisions() if it.at < before][:limit]
        for it in old:
            del self._decisions[it.id]
        return len(old)


class MemoryQuestions:
    """`vqmon.ports.Questions` in a dictionary; passes the same contract as the real ones."""

    _segments: dict[str, Segment]

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[str, Asked] = {}
        self._claimed: dict[str, tuple[str, datetime]] = {}
        self._askings: list[tuple[str, datetime]] = []

    def ask(self, question: Question, *, again: bool = False) -> Asked | None:
        """Ask as soon as possible, anew when it was given up; None: no such segment."""
        known = self._asked.get(question.segment)
        if known is None:
            self._ask_all([question])
        elif known.state == "waiting":
            due = replace(known, question=question, due_at=question.asked_at)
            self._asked[question.segment] = due
        elif known.state == "unanswered" or again:
            self._claimed.pop(question.segment, None)
            anew = replace(known, question=question, state="waiting", reason=None)
            self._asked[question.segment] = replace(anew, attempts=0, due_at=question.asked_at)
        return self._asked.get(question.segment)

    def question(self, segment_id: str) -> Asked | None:
        """About this segment; None when nothing was asked."""
        return self._asked.get(segment_id)

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
        begin, end = _range(since, until)
        found = [
            it
            for it in self._asked.values()
            if stream in (None, it.question.stream)
            and begin <= it.question.asked_at < end
            and (not states or it.state in states)
            and (not differing or (it.state == "answered" and _differs(it)))
        ]
        return sorted(found, key=_newest_first)[: _count(limit)]

    def opinions(self, segment_ids: Iterable[str]) -> dict[str, Asked]:
        """What was asked about these segments, by segment."""
        return {it: self._asked[it] for it in segment_ids if it in self._asked}

    def question_due(self, instance: str, now: datetime, *, segment: str | None = None) -> bool:
        """Whether something waits to be asked, the budget aside."""
        return bool(self._questions_due(instance, utc(now), segment))

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
        now, used = utc(now), self.budget_used(instance, now)
        some = self._questions_due(instance, now, segment) if used < per_hour else []
        if used >= for_machines(per_hour):
            some = [it for it in some if it.question.cause == "demand"]
        if not some:
            return None
        some.sort(key=lambda it: (rank(it.question.cause), *_newest_first(it)))
        one = replace(some[0], attempts=some[0].attempts + 1, tried_at=now)
        self._asked[one.question.segment] = one
        self._claimed[one.question.segment] = by, now + timedelta(seconds=seconds)
        self._askings.append((instance, now))
        return one

    def answer(self, one: Asked, by: str, opinion: Opinion, disagreement: Disagreement) -> bool:
        """Keep what the writer said, unless the claim is no longer of this claimant."""
        said: dict[str, Any] = {"opinion": opinion, "disagreement": disagreement}
        return self._settle_question(one, by, state="answered", reason=None, **said)

    def put_off(self, one: Asked, by: str, reason: str, *, due_at: datetime | None) -> bool:
        """There is no answer: it is due again then, or given up (None) for this reason."""
        if due_at is None:
            return self._settle_question(one, by, state="unanswered", reason=reason)
        return self._settle_question(one, by, reason=reason, due_at=utc(due_at))

    def hold_up(self, instance: str, reason: str) -> None:
        """Nothing can be asked at present; all that wait say why."""
        for id_, it in self._asked.items():
            if it.state == "waiting" and it.question.instance == instance:
                self._asked[id_] = replace(it, reason=reason)

    def release_questions(self, instance: str) -> None:
        """Give up the claims of someone who is known to ask nothing any more."""
        for it in self.claimed_questions(instance):
            del self._claimed[it.question.segment]
            self._asked[it.question.segment] = replace(it, attempts=it.attempts - 1)

    def claimed_questions(self, instance: str) -> list[Asked]:
        """Those that somebody claims."""
        claimed = [self._asked[id_] for id_ in sorted(self._claimed)]
        return [it for it in claimed if it.question.instance == instance]

    def last_asked(self, instance: str, cause: str) -> dict[str, datetime]:
        """When a question of this cause was last asked, by stream."""
        found = [it.question for it in self._asked.values() if it.question.cause == cause]
        mine = [it for it in found if it.instance == instance]
        return {it.stream: it.asked_at for it in sorted(mine, key=lambda it: it.asked_at)}

    def budget_used(self, instance: str, now: datetime) -> int:
        """How often the writer was asked in the hour before now."""
        begin = utc(now) - BUDGET_PERIOD
        return sum(of == instance and at > begin for of, at in self._askings)

    def expire_questions(self, now: datetime) -> int:
        """Give up those that were not asked in time, of all instances; return how many."""
        now = utc(now)
        late = [
            it
            for id_, it in self._asked.items()
            if it.state == "waiting" and it.question.expires_at <= now and self._unclaimed(id_, now)
        ]
        for it in late:
            given_up = replace(it, state="unanswered", reason=it.reason or TOO_LATE)
            self._asked[it.question.segment] = given_up
            self._claimed.pop(it.question.segment, None)
        return len(late)

    def prune_askings(self, before: datetime) -> int:
        """Forget how often was asked before; the budget needs an hour."""
        before, count = utc(before), len(self._askings)
        self._askings = [it for it in self._askings if it[1] >= before]
        return count - len(self._askings)

    def _ask_all(self, some: Iterable[Question]) -> None:
        """Those about segments that are stored; what waits already may become more urgent."""
        for it in some:
            times = {"asked_at": utc(it.asked_at), "expires_at": utc(it.expires_at)}
            question = replace(it, **times)  # type: ignore[arg-type]
            known = self._asked.get(it.segment)
            if known is None and it.segment in self._segments:
                self._asked[it.segment] = Asked(question, "waiting", question.asked_at)
            elif known and known.state == "waiting" and rank(it.cause) < rank(known.question.cause):
                self._asked[it.segment] = replace(known, question=question)

    def _questions_due(self, instance: str, now: datetime, segment: str | None) -> list[Asked]:
        return [
            it
            for id_, it in self._asked.items()
            if it.question.instance == instance
            and it.state == "waiting"
            and segment in (None, id_)
            and it.due_at <= now < it.question.expires_at
            and self._unclaimed(id_, now)
        ]

    def _unclaimed(self, segment_id: str, now: datetime) -> bool:
        return segment_id not in self._claimed or self._claimed[segment_id][1] <= now

    def _settle_question(self, one: Asked, by: str, **fields: Any) -> bool:
        id_ = one.question.segment
        if id_ not in self._asked or self._claimed.get(id_, ("",))[0] != by:
            return False
        del self._claimed[id_]
        self._asked[id_] = replace(self._asked[id_], **fields)
        return True


def _differs(it: Asked) -> bool:
    return it.disagreement is not None and it.disagreement.differs


def _newest_first(it: Asked) -> tuple[float, str]:
    return -it.question.asked_at.timestamp(), it.question.segment


class MemoryAlerts:
    """`vqmon.ports.AlertStore` in dictionaries; passes the same contract as the real ones."""

    def __init__(self) -> None:
        super().__init__()
        self._alerts: dict[str, Alert] = {}
        self._silences: dict[str, Silence] = {}
        self._states: dict[tuple[str, str], dict[str, Any]] = {}

    def alerts(
        self,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        firing: bool | None = None,
        limit: int | None = None,
    ) -> list[Alert]:
        """That fired at some time within [since, until), the newest first."""
        begin, end = _range(since, until)
        found = [
            it
            for it in self._alerts.values()
            if stream in (None, it.stream)
            and it.opened_at < end
            and (it.closed_at is None or it.closed_at >= begin)
            and firing in (None, it.firing)
        ]
        ordered = sorted(found, key=lambda it: (it.stream, it.rule, it.id))
        return sorted(ordered, key=lambda it: it.opened_at, reverse=True)[: _count(limit)]

    def alert(self, alert_id: str) -> Alert | None:
        """By id, or by an unambiguous beginning of it; StoreError when it is ambiguous."""
        found: Alert | None = _beginning(self._alerts, alert_id, "alerts")
        return found

    def acknowledge(self, alert_id: str, by: str, at: datetime, note: str = "") -> Alert | None:
        """Note that somebody has taken an alert on; None when there is none of this id."""
        at, found = utc(at), self.alert(alert_id)
        if found is None:
            return None
        known = replace(found, acknowledged_by=by, acknowledged_at=at, note=note)
        self._alerts[found.id] = known
        return known

    def silence(self, silence: Silence) -> None:
        """From now on, until it ends, alerts that match are told to nobody."""
        begins, ends = utc(silence.created_at), utc(silence.expires_at)
        self._silences[silence.id] = replace(silence, created_at=begins, expires_at=ends)

    def silences(self, now: datetime | None = None) -> list[Silence]:
        """Those that have not ended by now (or all), the first to end in front."""
        begin = utc(now) if now else BEGINNING
        found = [it for it in self._silences.values() if it.expires_at > begin]
        return sorted(found, key=lambda it: (it.expires_at, it.id))

    def unsilence(self, silence_id: str, at: datetime) -> Silence | None:
        """End a silence; by id, or by an unambiguous beginning of it. None: there is none."""
        at, found = utc(at), _beginning(self._silences, silence_id, "silences")
        if found is None:
            return None
        self._silences[found.id] = replace(found, expires_at=min(at, found.expires_at))
        return self._silences[found.id]

    def alert_states(self, instance: str) -> dict[str, dict[str, Any]]:
        """What the rules of this daemon remember, by stream."""
        return {stream: it for (of, stream), it in self._states.items() if of == instance}

    def prune_alerts(self, before: datetime, *, limit: int = 500) -> int:
        """Delete at most `limit` alerts resolved before, and silences ended before."""
        before = utc(before)
        old = [it.id for it in self._alerts.values() if it.closed_at and it.closed_at < before]
        for id_ in old[:limit]:
            del self._alerts[id_]
        self._silences = {n: it for n, it in self._silences.items() if it.expires_at >= before}
        return len(old[:limit])

    def _act(self, acting: Acting) -> None:
        for it in acting.alerts:
            known = self._alerts.get(it.id)
            resolved = {"closed_at": it.closed_at, "cleared": it.cleared}
            self._alerts[it.id] = replace(known, **resolved) if known else it  # type: ignore[arg-type]
        for stream, state in acting.states.items():
            if state is None:
                self._states.pop((acting.instance, stream), None)
            else:
                self._states[acting.instance, stream] = dict(state)


def _beginning(known: Mapping[str, Any], beginning: str, what: str) -> Any:
    """The one with this id, or the only one whose id begins so."""
    if not beginning or beginning in known:
        return known.get(beginning)
    found = [it for id_, it in known.items() if id_.startswith(beginning)]
    if len(found) > 1:
        raise StoreError(f"several {what} begin with {beginning!r}: give more of it")
    return found[0] if found else None


class MemoryStore(MemoryAlerts, MemoryOutbox, MemoryDecisions, MemoryQuestions):
    """`vqmon.ports.SegmentStore` in dictionaries; passes the same contract as the real ones."""

    def __init__(self) -> None:
        super().__init__()
        self._segments: dict[str, Segment] = {}
        self._rollups: dict[tuple[int, datetime, str], Rollup] = {}

    def add(self, some: Iterable[Segment], acting: Acting | None = None) -> None:
        """Store all or, when one cannot be stored (ValueError), none; a known id is left alone."""
        batch: dict[str, Segment] = {}
        for segment in some:
            batch.setdefault(segment.id, checked(segment))
        with self._lock:
            new = {id_: s for id_, s in batch.items() if id_ not in self._segments}
            self._segments |= new
            for share in summed(new.values()):
                key = (share.period, share.starts_at, share.stream)
                known = self._rollups.get(key)
                self._rollups[key] = merged(known, share) if known else share
            self._act(acting or Acting())
            self.enqueue(acting.deliveries if acting else ())
            self._ask_all(acting.questions if acting else ())

    def missing(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids under which no segment is stored."""
        with self._lock:
            return set(ids) - self._segments.keys()

    def segments(
        self,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        worst_first: bool = False,
        limit: int | None = None,
        finding: str | None = None,
    ) -> list[Segment]:
        """By started_at, oldest first; or by quality, worst first (unscored left out)."""
        begin, end = _range(since, until)
        found = [
            segment
            for segment in self._by_time()
            if (stream is None or segment.stream == stream)
            and begin <= segment.started_at < end
            and (finding is None or any(f.name == finding for f in segment.findings))
        ]
        if worst_first:
            found = sorted((s for s in found if s.quality is not None), key=_quality)
        return found[: _count(limit)]

    def segment(self, segment_id: str) -> Segment | None:
        """By id, or by an unambiguous beginning of it; StoreError when it is ambiguous."""
        with self._lock:
            if segment_id in self._segments or not segment_id:
                return self._segments.get(segment_id)
            found = [s for id_, s in self._segments.items() if id_.startswith(segment_id)]
        if len(found) > 1:
            raise StoreError(f"several segments begin with {segment_id!r}: give more of it")
        return found[0] if found else None

    def streams(self) -> list[str]:
        """Names that have segments or roll-ups, sorted."""
        with self._lock:
            return sorted(
                {s.stream for s in self._segments.values()}
                | {r.stream for r in self._rollups.values()}
            )

    def last(self, stream: str) -> Segment | None:
        """The newest segment of a stream."""
        found = self.segments(stream)
        return found[-1] if found else None

    def rollups(
        self,
        period: int,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Rollup]:
        """period: 60 or 3600. Oldest first, then by stream."""
        if period not in PERIODS:
            raise ValueError(f"roll-ups have a period of 60 or 3600 seconds, not {period}")
        begin, end = _range(since, until)
        with self._lock:
            return [
                rollup
                for (length, starts_at, name), rollup in sorted(self._rollups.items(), key=_key)
                if length == period
                and (stream is None or name == stream)
                and begin <= starts_at < end
            ]

    def prune(self, before: datetime, *, limit: int = 500) -> list[str]:
        """Delete the oldest segments started before; return pictures that nobody needs now."""
        with self._lock:
            gone = self.segments(until=before, limit=limit)
            for segment in gone:
                del self._segments[segment.id]
                self._asked.pop(segment.id, None)
                self._claimed.pop(segment.id, None)
            return self._unneeded(gone)

    def forget_pictures(self, before: datetime, *, limit: int = 500) -> list[str]:
        """Take the pictures off the oldest segments that have any; return their paths."""
        with self._lock:
            bearing = [s for s in self.segments(until=before) if _pictures(s)][: _count(limit)]
            for segment in bearing:
                self._segments[segment.id] = replace(segment, thumbnail=None, evidence=())
            return self._unneeded(bearing)

    def known_pictures(self, paths: Iterable[str]) -> set[str]:
        """Those of the paths that a segment names."""
        with self._lock:
            return set(paths) & {p for s in self._segments.values() for p in _pictures(s)}

    def prune_rollups(self, before: datetime) -> int:
        """Delete roll-ups that start before; return how many."""
        before = utc(before)
        with self._lock:
            old = [key for key in self._rollups if key[1] < before]
            for key in old:
                del self._rollups[key]
            return len(old)

    def size_bytes(self) -> int:
        """0: memory is no disk."""
        return 0

    def _by_time(self) -> list[Segment]:
        with self._lock:
            return sorted(self._segments.values(), key=lambda s: (s.started_at, s.stream, s.id))

    def _unneeded(self, gone: Iterable[Segment]) -> list[str]:
        paths = dict.fromkeys(path for segment in gone for path in _pictures(segment))
        needed = self.known_pictures(paths)
        return [path for path in paths if path not in needed]


def _pictures(segment: Segment) -> list[str]:
    return [path for path in (segment.thumbnail, *segment.evidence) if path]


def _range(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    return (utc(since) if since else BEGINNING, utc(until) if until else END)


def _quality(segment: Segment) -> float:
    assert segment.quality is not None
    return segment.quality


def _key(item: tuple[tuple[int, datetime, str], Rollup]) -> tuple[int, datetime, str]:
    return item[0]


def _count(limit: int | None) -> int | None:
    if limit is not None and limit < 0:
        raise ValueError(f"a limit counts segments, so it is not {limit}")
    return limit


class FakeContext:
    """`vqmon.ports.PluginContext` in memory: fill it, give it to a plugin, look at what it did.

    store: what was seen and decided; fill it with `store.add([segment])`.
    notified: (target, payload, event id) of everything sent.
    targets: names that `notify` takes; None takes all. away: those that do not answer; what is
        for them waits in `store`. now: when messages are sent, and arrive.
    pictures, clips: files by the id of a segment.
    scores: what `score` says, by the name of a file; what is missing cannot be scored.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        plugin: str = "fake",
        store: MemoryStore | None = None,
        scorer: Scorer | None = None,
        targets: Iterable[str] | None = None,
    ) -> None:
        """data_dir: a folder of the test (`tmp_path`), where the plugin needs one."""
        self.plugin = plugin
        self.store = store or MemoryStore()
        self.scorer = scorer or FakeScorer()
        self.targets = None if targets is None else set(targets)
        self.away: set[str] = set()
        self.now = EPOCH
        self.notified: list[tuple[str, dict[str, Any], str]] = []
        self.pictures: dict[str, list[Path]] = {}
        self.clips: dict[str, Path] = {}
        self.scores: dict[str, list[Assessment]] = {}
        self._data_dir = data_dir

    @property
    def data_dir(self) -> Path:
        """The folder that was given."""
        if self._data_dir is None:
            raise ValueError("this plugin wants a folder: FakeContext(tmp_path)")
        self._data_dir.mkdir(parents=True, exist_ok=True)
        return self._data_dir

    def segments(
        self, stream: str | None, since: datetime | None = None, until: datetime | None = None
    ) -> list[Segment]:
        """What was put into `store`."""
        return self.store.segments(stream, since, until)

    def segment(self, segment_id: str) -> Segment | None:
        """What was put into `store`."""
        return self.store.segment(segment_id)

    def frames(self, segment: Segment) -> list[Path]:
        """What was put into `pictures`."""
        return self.pictures.get(segment.id, [])

    def clip(self, segment: Segment) -> Path | None:
        """What was put into `clips`."""
        return self.clips.get(segment.id)

    def compare(
        self,
        a: Segment | Sequence[Assessment],
        b: Segment | Sequence[Assessment],
        *,
        same_content: bool = False,
    ) -> Comparison:
        """By `scorer`, under the same conditions as the real one."""
        return compared(self.scorer, a, b, same_content=same_content)

    def score(self, path: Path, *, every: float = 1.0) -> list[Assessment]:  # noqa: ARG002
        """What was put into `scores`."""
        if path.name not in self.scores:
            raise ScorerError(f"{path}: cannot be scored; tell FakeContext in `scores`")
        return self.scores[path.name]

    def record(self, decision: Decision) -> None:
        """Into `store`."""
        self.store.record(owned(decision, self.plugin))

    def decisions(self, stream: str | None = None, since: datetime | None = None) -> list[Decision]:
        """What this plugin has put into `store`."""
        return self.store.decisions(self.plugin, stream, since)

    def notify(
        self,
        target: str,
        payload: Mapping[str, Any],
        *,
        event_id: str | None = None,
        stream: str | None = None,
        within: float | None = None,
    ) -> str:
        """Into `notified`, once for each id; again when it had been given up."""
        if self.targets is not None and target not in self.targets:
            raise no_such_target(target, sorted(self.targets))
        id_ = checked_event_id(event_id or uuid.uuid4().hex)
        body = checked_payload(payload)
        until = None if within is None else self.now + timedelta(seconds=within)
        message = Delivery(id_, target, "plugin", body, self.now, stream, expires_at=until)
        known = self.store.standing(id_, target)
        self.store.enqueue([message])
        if self.store.renew(message) or known is None:
            self.notified.append((target, body, id_))
        if target not in self.away:
            self._deliver(target)
        return id_

    def delivery(self, target: str, event_id: str) -> Queued | None:
        """As `store` knows it: delivered at once, or waiting while its target is `away`."""
        if target not in self.away:
            self._deliver(target)
        return self.store.standing(event_id, target)

    def _deliver(self, target: str) -> None:
        while (one := self.store.claim(target, "fake", self.now, seconds=60)) is not None:
            self.store.delivered(one, self.now)
