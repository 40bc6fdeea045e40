"""Adaptive encoding over generated hours: streams, encoders and crashes of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqmon.domain import Comparison, Decision, Finding, Segment
from vqmon.testing import EPOCH
from vqmon_adaptive_encoding.case import Case
from vqmon_adaptive_encoding.ladder import Level
from vqmon_adaptive_encoding.memory import CHANGES, remember
from vqmon_adaptive_encoding.settings import Rules
from vqmon_adaptive_encoding.targets.request import Request, TargetFailed
from vqmon_adaptive_encoding.watch import Watch
from vqmon_adaptive_encoding.watching import end

LADDER = (Level(5, 1500), Level(6, 2500), Level(7, 4000))
CASE = Case("news", LADDER, LADDER[0], 5000, Rules(), "act", live=True, target="webhook")
HOUR = timedelta(hours=1)
SEGMENT = 20.0


class Crash(Exception):
    """The plugin's process ends here."""


@dataclass
class Encoder:
    """Obeys, ignores what it accepts, refuses, or is gone; may die with the answer on its way.

    While it is `away` requests wait in an outbox on the way to it, in order; when its outbox
    `gives up`, what waits there is a dead letter until it is asked for anew.
    """

    behaviour: str = "obeys"
    level: Level = LADDER[0]
    heard: list[Request] = field(default_factory=list)
    crash_at: str | None = None
    live: bool = True
    waiting: dict[str, Request] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    delivered: dict[str, datetime] = field(default_factory=dict)
    now: datetime = EPOCH

    def ask(self, request: Request) -> bool:
        if self.crash_at == "before":
            self.crash_at = None
            raise Crash
        if self.behaviour == "gone":
            raise TargetFailed("connection refused")
        self._pass_time()
        if self.behaviour in ("away", "gives up"):
            self.waiting[request.id] = request
            if request.id in self.dead:
                self.dead.remove(request.id)
                raise TargetFailed("given up")
            return False
        self._hear(request)
        if self.behaviour.endswith("lost"):
            raise TargetFailed("timed out")
        if self.crash_at == "after":
            self.crash_at = None
            raise Crash
        return True

    def accepted_at(self, request_id: str, asked_at: datetime) -> datetime | None:
        self._pass_time()
        if request_id in self.dead:
            raise TargetFailed("given up")
        return None if request_id in self.waiting else self.delivered.get(request_id, asked_at)

    def _pass_time(self) -> None:
        for request in list(self.waiting.values()):
            late = self.now - request.at >= timedelta(seconds=request.within or 1e9)
            if self.behaviour == "gives up" or late:
                self.dead.add(self.waiting.pop(request.id).id)
            elif self.behaviour not in ("away", "gone"):
                self._hear(self.waiting.pop(request.id))
                self.delivered[request.id] = self.now

    def _hear(self, request: Request) -> None:
        self.heard.append(request)
        if self.behaviour in ("obeys", "obeys, and its answer is lost"):
            self.level = request.level


@dataclass
class Stored:
    """What vqmon keeps: the only thing that survives a crash."""

    rows: list[Decision] = field(default_factory=list)
    kept: dict[str, Segment] = field(default_factory=dict)

    def record(self, decision: Decision) -> None:
        self.rows.append(decision)

    def decisions(self, stream: str | None = None, since: datetime | None = None) -> list[Decision]:
        assert stream == "news"
        return list(self.rows)

    def segments(self, stream: str, since: datetime, until: datetime) -> list[Segment]:
        return [s for s in self.kept.values() if since <= s.started_at < until]

    def segment(self, segment_id: str) -> Segment | None:
        return self.kept.get(segment_id)

    def compare(self, a: Segment, b: Segment) -> Comparison:
        margin = (a.quality or 0) - (b.quality or 0)
        return Comparison("a" if margin > 0 else "b", margin, 0.5, "as scored")

    def notify(self, target: str, payload: Mapping[str, Any]) -> str:
        raise AssertionError


@dataclass(frozen=True)
class Minute:
    """What happens during a minute of the stream and its surroundings."""

    content: str
    encoder: str
    crash: str | None


BEHAVIOURS = (
    "obeys",
    "obeys",
    "ignores",
    "gone",
    "obeys, and its answer is lost",
    "away",
    "gives up",
)
MINUTES = st.builds(
    Minute,
    content=st.sampled_from(["hard", "hard", "hard", "easy", "down", "congested", "flat"]),
    encoder=st.sampled_from(BEHAVIOURS),
    crash=st.sampled_from([None, None, None, "now", "before", "after"]),
)
DAYS = st.lists(st.tuples(MINUTES, st.integers(1, 20)), min_size=1, max_size=6)


def seen(number: int, content: str, level: Level) -> Segment:
    """Hard content needs bits; flat content stays bad at any bitrate."""
    start = number * SEGMENT
    needed = {"hard": 3000, "flat": 10**9}.get(content, 0)
    faulty = level.cap_kbps < needed
    findings = [Finding("compression", 3, 0.9, 14.0, 10.0, "%")] * faulty
    if content == "congested":
        findings.append(Finding("packet_loss", 2, 1.0, 1.0, 0.05, "%"))
    shown = 45.0 + level.quality if faulty else 75.0
    quality = None if content == "down" else shown
    return Segment(
        "news",
        EPOCH + timedelta(seconds=start),
        start,
        SEGMENT,
        frames_scored=5,
        quality=quality,
        findings=tuple(findings),
        facts={"bitrate_kbps": 0.9 * level.cap_kbps},
        no_score_reason="timeout_read" if quality is None else None,
        id=f"s{number}",
    )


class World:
    """A stream, its encoder, and a plugin that is started again whenever it dies."""

    def __init__(self, case: Case = CASE) -> None:
        self.case = case
        self.encoder = Encoder()
        self.stored = Stored()
        self.number = 0
        self._watch: Watch | None = None

    def lives(self, days: Sequence[tuple[Minute, int]]) -> None:
        for minute, count in days:
            self.encoder.behaviour = minute.encoder
            for step in range(round(60 / SEGMENT) * count):
                if step == 0 and minute.crash == "now":
                    self._watch = None
                if step == 0 and minute.crash in ("before", "after"):
                    self.encoder.crash_at = minute.crash
                self.tick(minute.content)

    def tick(self, content: str) -> None:
        segment = seen(self.number, content, self.encoder.level)
        self.number += 1
        self.stored.kept[segment.id] = segment
        self.encoder.now = end(segment)
        if self._watch is None:
            context: Any = self.stored
            self._watch = Watch(self.case, context, self.encoder, lambda: end(segment))
        try:
            self._watch.see(segment)
        except Crash:
            self._watch = None


DEADLINE = CASE.rules.settle + CASE.rules.verify_within + 60

CALM = [(Minute("easy", "obeys", None), 30)]
"""In the end the encoder answers again and nothing is wrong, for longer than any deadline."""

relaxed = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def most_within_an_hour(moments: Sequence[datetime]) -> int:
    return max((sum(m <= n < m + HOUR for n in moments) for m in moments), default=0)


@relaxed
@given(DAYS)
def test_never_more_than_two_changes_in_any_hour(days: list[tuple[Minute, int]]) -> None:
    world = World()

    world.lives(days)

    changes = [d.at for d in world.stored.rows if d.kind in CHANGES]
    everything = [d.at for d in world.stored.rows if d.kind in (*CHANGES, "roll_back")]
    assert most_within_an_hour(changes) <= 2
    assert most_within_an_hour(everything) <= 3  # undoing the last never waits


@relaxed
@given(DAYS)
def test_every_change_ends_in_keep_or_roll_back(days: list[tuple[Minute, int]]) -> None:
    world = World()

    world.lives([*days, *CALM])

    rows = world.stored.rows
    ends = {d.data["of"]: d.kind for d in rows if d.kind in ("keep", "roll_back")}
    young = EPOCH + timedelta(seconds=world.number * SEGMENT - DEADLINE)
    for change in (d for d in rows if d.kind in CHANGES and d.at < young):
        assert change.id in ends, change
    assert len(ends) == sum(d.kind in ("keep", "roll_back") for d in rows)


@relaxed
@given(DAYS)
def test_a_raised_bitrate_is_never_stranded(days: list[tuple[Minute, int]]) -> None:
    """Whatever happened, what the encoder accepted last is what the plugin knows, or lower."""
    world = World()

    world.lives([*days, *CALM])

    memory = remember(world.stored.rows)
    assert memory.change is None or memory.change.kind == "lower"
    accepted = world.encoder.heard[-1].level if world.encoder.heard else LADDER[0]
    assert accepted.cap_kbps <= (memory.level or LADDER[0]).cap_kbps


@settings(relaxed, max_examples=4)
@given(DAYS)
def test_a_clean_day_brings_every_encoder_down_again(days: list[tuple[Minute, int]]) -> None:
    """Ten hours: a step down that had to be taken back is tried again after twice as long."""
    world = World()

    world.lives([*days, (Minute("easy", "obeys", None), 600)])

    assert world.encoder.level == LADDER[0]


@relaxed
@given(DAYS)
def test_nothing_is_ever_asked_beyond_the_ladder_nor_below_the_base(
    days: list[tuple[Minute, int]],
) -> None:
    world = World()

    world.lives(days)

    assert {r.level for r in world.encoder.heard} <= set(LADDER)


@relaxed
@given(DAYS)
def test_observing_asks_for_nothing(days: list[tuple[Minute, int]]) -> None:
    world = World(replace(CASE, mode="observe"))

    world.lives(days)

    assert world.encoder.heard == []
    assert {d.kind for d in world.stored.rows} <= {"observe", "wait"}


@relaxed
@given(DAYS)
def test_decisions_stay_few(days: list[tuple[Minute, int]]) -> None:
    """They are for people to read: not one with every segment."""
    world = World()

    world.lives(days)

    hours = 1 + world.number * SEGMENT / 3600
    assert len(world.stored.rows) <= 30 * hours


def test_the_whole_story_of_hard_content() -> None:
    """Hard content, a raise that helps twice, then easy content and the way back down."""
    world = World()

    world.lives([(Minute("hard", "obeys", None), 60), (Minute("easy", "obeys", None), 200)])

    kinds = [d.kind for d in world.stored.rows if d.kind not in ("asked", "wait", "restored")]
    assert kinds[:5] == ["raise", "keep", "raise", "keep", "recovered"]
    assert kinds[5:] == ["lower", "keep", "lower", "keep"]
    assert world.encoder.level == LADDER[0]


def test_an_encoder_that_ignores_requests_is_asked_less_and_less() -> None:
    world = World()

    world.lives([(Minute("hard", "ignores", None), 12 * 60)])

    raises = [d.at for d in world.stored.rows if d.kind == "raise"]
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(raises)]
    assert gaps == sorted(gaps)
    assert 5 <= len(raises) <= 8
    assert sum(d.kind == "roll_back" for d in world.stored.rows) == len(raises)


def test_a_silent_stream_does_not_keep_a_change_open() -> None:
    """It may have been taken out of the configuration; other streams' segments tell the time."""
    world = World()
    world.lives([(Minute("hard", "obeys", None), 1)])
    assert world.encoder.level == LADDER[1]
    watch = world._watch
    assert watch is not None

    watch.wake(EPOCH + timedelta(seconds=60 + 601))

    assert [d.kind for d in world.stored.rows[-2:]] == ["roll_back", "restored"]
    assert world.encoder.level == LADDER[0]


def test_a_lost_answer_is_taken_back_until_it_is_heard() -> None:
    """The encoder may have obeyed although nobody heard it say so."""
    world = World()

    world.lives([(Minute("hard", "obeys, and its answer is lost", None), 3)])
    assert world.encoder.heard[0].kind == "raise"
    assert {r.kind for r in world.encoder.heard[1:]} == {"roll_back"}
    assert len({r.id for r in world.encoder.heard}) == 2
    tries = len(world.encoder.heard)
    world.lives([(Minute("hard", "obeys", None), 2)])

    assert tries <= 5  # once a minute, not with every segment
    assert world.stored.rows[-1].kind in ("restored", "wait")
    assert world.encoder.level == LADDER[0]


def test_a_dead_letter_strands_nothing() -> None:
    """The outbox gave up telling the encoder to go back, which still runs at the raised level."""
    world = World()
    world.lives([(Minute("hard", "obeys", None), 1)])
    assert world.encoder.level == LADDER[1]

    world.lives(
        [(Minute("congested", "gives up", None), 5), (Minute("hard", "gives up", None), 90)]
    )

    assert world.encoder.level == LADDER[1]
    assert "restored" not in [d.kind for d in world.stored.rows]
    assert [d.kind for d in world.stored.rows].count("raise") == 1  # nothing new until then

    world.lives([(Minute("easy", "obeys", None), 2)])

    assert world.encoder.level == LADDER[0]
    assert "restored" in [d.kind for d in world.stored.rows]


def test_a_lowering_that_never_arrives_is_not_believed() -> None:
    """Or the encoder would run high for ever, while its plugin thinks it is down."""
    world = World()
    world.lives([(Minute("hard", "obeys", None), 60), (Minute("easy", "gives up", None), 100)])

    assert world.encoder.level == LADDER[2]
    assert remember(world.stored.rows).level == LADDER[2]

    world.lives([(Minute("easy", "obeys", None), 300)])

    assert world.encoder.level == LADDER[0]


def test_what_is_seen_before_the_encoder_heard_says_nothing_about_the_change() -> None:
    """Else an encoder that was busy for five minutes would be taken for one that ignores."""
    world = World()

    world.lives([(Minute("hard", "away", None), 5), (Minute("hard", "obeys", None), 5)])

    kinds = [d.kind for d in world.stored.rows if d.kind != "wait"]
    assert kinds == ["raise", "asked", "keep"]
