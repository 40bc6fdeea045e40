"""Rules over segments: tables of what happened, and sequences that nobody thought of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqmon.alerting import CONDITIONS, RULES, Quiet, Rule, StreamState, Window, judge, release
from vqmon.alerting.quiet import cron
from vqmon.alerting.rules import default_clear_limit, default_limit, faults
from vqmon.domain import (
    DOWN_REASONS,
    NO_SCORE_REASONS,
    Alert,
    AlertEvent,
    Finding,
    Schedule,
    Segment,
    Silence,
    Stream,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEWS = Stream("news", "rtsp://x")
BLACK = RULES["black"]


class Watching:
    """A stream whose segments follow each other, and what its rules make of them."""

    def __init__(self, *rules: Rule, stream: Stream = NEWS, **how: Any) -> None:
        self.stream = stream
        self.rules: Sequence[Rule] = rules
        self.how = {"grace": 0.0} | how
        self.state = StreamState()
        self.at = 0.0
        self.told: list[AlertEvent] = []
        self.alerts: dict[str, Alert] = {}

    def see(self, *spans: tuple[str, float, float], seconds: float = 10.0, **fields: Any) -> None:
        """A segment with findings (name, begin, seconds): seconds into it."""
        severity = fields.pop("severity", 4)
        value = fields.pop("value", 9.0)
        found = tuple(
            Finding(name, severity, 1.0, value, 0.5, "s", None, self.at + begin, length)
            for name, begin, length in spans
        )
        given_fields: dict[str, Any] = {"quality": 70.0, "model": "m@1"} | fields
        segment = Segment(
            self.stream.name,
            NOON + timedelta(seconds=self.at),
            self.at,
            seconds,
            findings=found,
            id=f"{self.at:.3f}",
            **given_fields,
        )
        self.take(segment)
        self.at += seconds

    def down(self, reason: str = "refused", seconds: float = 10.0, **fields: Any) -> None:
        self.see(seconds=seconds, quality=None, no_score_reason=reason, **fields)

    def take(self, segment: Segment) -> None:
        turn = judge(self.stream, self.rules, self.state, segment, **self.how)
        self.state = StreamState.from_json(json.loads(json.dumps(turn.state.as_json())))
        assert self.state == turn.state
        self.told += turn.events
        self.alerts |= {it.id: it for it in turn.alerts}

    @property
    def story(self) -> list[tuple[str, str, float]]:
        """(what, rule, when) of all that was told."""
        return [(it.kind, it.alert.rule, (it.at - NOON).total_seconds()) for it in self.told]


def all_of(seconds: float = 10.0) -> tuple[str, float, float]:
    return ("black", 0.0, seconds)


# Raising and clearing


def test_a_fault_over_several_segments_adds_up() -> None:
    """Segments are ours; a viewer sees half a minute of black."""
    news = Watching(BLACK)

    news.see(("black", 6.0, 4.0))
    news.see(all_of())
    news.see(all_of())
    assert news.story == []
    news.see(all_of())

    assert news.story == [("firing", "black", 36.0)]
    alert = news.told[0].alert
    assert (alert.finding, alert.severity, alert.firing) == ("black", "critical", True)
    assert (
        alert.reason == "Black picture for 30 s: the picture is black (measured 9 s, limit 0.5 s)."
    )


def test_a_firing_alert_is_told_once_and_its_end_once() -> None:
    """An alarm that rings every cycle is switched off."""
    news = Watching(BLACK)
    for _ in range(12):
        news.see(all_of())
    news.see(("black", 0.0, 2.0))
    for _ in range(3):
        news.see()

    assert news.story == [("firing", "black", 30.0), ("resolved", "black", 132.0)]
    [alert] = news.alerts.values()
    assert alert.closed_at == NOON + timedelta(seconds=132)
    assert alert.cleared == "No black picture for 10 s."


def test_what_is_shorter_than_for_says_nothing() -> None:
    """Cuts, fades and the break before the news."""
    news = Watching(BLACK)
    for _ in range(20):
        news.see(("black", 2.0, 4.0))

    assert news.story == []
    assert news.state.episodes == {}


def test_a_brief_pause_does_not_begin_the_count_anew() -> None:
    """A flash of picture in a black minute is no recovery."""
    news = Watching(BLACK)
    for _ in range(4):
        news.see(("black", 0.0, 8.5))

    assert news.story == [("firing", "black", 34.5)]


def test_raising_and_clearing_have_limits_of_their_own() -> None:
    """Around one limit an alert would flutter."""
    rule = Rule("q", "quality", limit=40, clear_limit=50, raise_seconds=20, clear_seconds=20)
    news = Watching(rule)

    for quality in (30, 30, 45, 45, 45, 55, 45, 55, 55):
        news.see(quality=quality)

    assert news.story == [("firing", "q", 20.0), ("resolved", "q", 90.0)]
    assert (
        news.told[0].alert.reason == "Quality below 40 for 20 s: it fell to 30 of 100 (limit 40)."
    )
    assert news.told[1].alert.cleared == "Quality is 50 or better for 20 s (55)."


def test_an_alert_is_kept_firing_for_as_long_as_asked() -> None:
    """A fault that comes back every minute is one story."""
    rule = replace(BLACK, keep_firing_for=60.0)
    news = Watching(rule)
    for _ in range(4):
        news.see(all_of())
    for _ in range(5):
        news.see()
    news.see(all_of())
    for _ in range(7):
        news.see()

    assert news.story == [("firing", "black", 30.0), ("resolved", "black", 160.0)]


def test_a_finding_below_the_limit_does_not_raise() -> None:
    """A slight stutter is worth a row, not a call."""
    news = Watching(replace(BLACK, limit=3, clear_limit=2))
    for _ in range(9):
        news.see(all_of(), severity=2)
    assert news.story == []

    for _ in range(3):
        news.see(all_of(), severity=3)
    for _ in range(3):
        news.see(all_of(), severity=2)
    assert [it[0] for it in news.story] == ["firing"]

    news.see(all_of(), severity=1)
    assert [it[0] for it in news.story] == ["firing", "resolved"]


def test_a_fault_without_length_raises_a_rule_without_for() -> None:
    """A jump of the clock takes no time, yet it happened."""
    news = Watching(RULES["timestamp_jump"])

    news.see(("timestamp_jump", 4.0, 0.0))
    for _ in range(6):
        news.see()

    assert news.story == [("firing", "timestamp_jump", 4.0), ("resolved", "timestamp_jump", 64.0)]
    assert news.told[0].alert.reason.startswith("Timestamp jump seen:")


def test_the_worst_second_can_be_watched_alone() -> None:
    """Ten seconds of mean hide one of mud."""
    news = Watching(Rule("w", "quality_worst", limit=20, clear_limit=30, raise_seconds=10))

    news.see(quality=80, quality_worst=10)

    assert "Worst picture below 20" in news.told[0].alert.reason
    assert news.told[0].alert.value == 10


# What is usual


def drop(**fields: Any) -> Rule:
    return Rule("drop", "quality_drop", limit=20, clear_limit=10, raise_seconds=20, **fields)


def test_a_drop_is_measured_against_the_streams_own_past() -> None:
    """A camera that is always soft is no news; one that was sharp an hour ago is."""
    news = Watching(drop())
    for _ in range(70):
        news.see(quality=80)
    for _ in range(3):
        news.see(quality=55)

    assert news.story == [("firing", "drop", 720.0)]
    alert = news.told[0].alert
    assert alert.value == pytest.approx(25, abs=0.5)
    assert "below its usual of 80" in alert.reason


def test_a_young_baseline_says_nothing() -> None:
    """Ten minutes have to be seen first."""
    news = Watching(drop())
    for _ in range(30):
        news.see(quality=80)
    for _ in range(9):
        news.see(quality=20)

    assert news.story == []


def test_another_model_begins_a_new_baseline_without_an_alert() -> None:
    """Scales differ between models: an upgrade at night must wake nobody."""
    news = Watching(drop())
    for _ in range(70):
        news.see(quality=80)
    for _ in range(70):
        news.see(quality=50, model="m@2")
    assert news.story == []

    for _ in range(3):
        news.see(quality=25, model="m@2")
    news.see(quality=50, model="m@3")

    assert [it[0] for it in news.story] == ["firing", "resolved"]
    assert "Another quality model" in news.told[1].alert.cleared


def test_what_lasts_for_days_becomes_usual() -> None:
    """Winter is no fault: the alert clears by itself."""
    news = Watching(drop())
    for _ in range(20):
        news.see(quality=80, seconds=200.0)
    for _ in range(800):
        news.see(quality=55, seconds=200.0)

    assert [it[0] for it in news.story if it[0] != "repeat"] == ["firing", "resolved"]


# While nothing arrives


def test_a_dead_stream_is_one_alert_about_the_signal() -> None:
    """Everything else about a stream that is down is noise."""
    news = Watching(*RULES.values())
    for _ in range(5):
        news.see()
    for _ in range(30):
        news.down("timeout_read")
    for _ in range(4):
        news.see()

    assert news.story == [("firing", "no_signal", 80.0), ("resolved", "no_signal", 360.0)]
    reason = news.told[0].alert.reason
    assert reason == "No signal for 30 s: data stopped coming (limit 30 s)."
    assert news.told[1].alert.cleared == "The signal is back for 10 s."


def test_scores_between_two_losses_raise_nothing() -> None:
    """A connection that comes and goes delivers mud; the loss is the story."""
    news = Watching(RULES["no_signal"], replace(RULES["quality"], raise_seconds=10.0))
    for _ in range(4):
        news.down()
    for _ in range(4):
        news.see(quality=5, seconds=8.0)
        news.down(seconds=8.0)

    assert news.story == [("firing", "no_signal", 30.0)]


def test_a_fault_that_nobody_can_see_any_more_is_resolved() -> None:
    """A black picture cannot be told from a dead stream: after three segments nothing is known."""
    news = Watching(RULES["no_signal"], BLACK)
    for _ in range(4):
        news.see(all_of())
    for _ in range(5):
        news.down("eof")

    assert news.story == [
        ("firing", "black", 30.0),
        ("firing", "no_signal", 70.0),
        ("resolved", "black", 70.0),
    ]
    assert news.told[2].alert.cleared == "Not measured for 30 s: the stream ended."


def test_missing_scores_raise_unless_another_rule_tells_why() -> None:
    """A scoring process that stays away must be noticed; a black picture is told already."""
    news = Watching(*RULES.values())
    for _ in range(13):
        news.down("scorer_unavailable")
    assert news.story == [("firing", "no_score", 120.0)]
    assert "the scoring process was away" in news.told[0].alert.reason

    lobby = Watching(RULES["no_score"])
    for _ in range(40):
        lobby.down("black")
    assert lobby.story == []


@pytest.mark.parametrize("reason", ["process_restarted", "visit_missed", "stopped"])
def test_a_gap_of_our_own_neither_raises_nor_clears(reason: str) -> None:
    """Nobody looked."""
    news = Watching(BLACK)
    for _ in range(4):
        news.see(all_of())
    news.down(reason)
    news.see(all_of())

    assert news.story == [("firing", "black", 30.0)]


def test_watching_that_stops_for_an_hour_ends_what_was_pending_and_keeps_what_fired() -> None:
    """An upgrade of vqmon is no recovery of the stream."""
    for seen, story in ((2, []), (4, [("firing", "black", 30.0)])):
        news = Watching(BLACK)
        for _ in range(seen):
            news.see(all_of())
        news.at += 3600
        for _ in range(2):
            news.see(all_of())

        assert news.story == story


def test_expected_content_raises_nothing() -> None:
    """The operator has said so."""
    stream = replace(NEWS, expect=frozenset({"still_pictures", "no_audio"}))
    news = Watching(*RULES.values(), stream=stream)
    for _ in range(40):
        news.see(("freeze", 0, 10), ("audio_silence", 0, 10), ("slate", 0, 10), severity=5)

    assert news.story == []


# Beginning to watch


def test_a_new_stream_raises_nothing_in_its_first_minute() -> None:
    """Encoders, players and people settle."""
    news = Watching(BLACK, grace=60.0)
    for _ in range(7):
        news.see(all_of())

    assert news.story == [("firing", "black", 60.0)]


def test_grace_begins_anew_after_a_long_time_away() -> None:
    """A daemon that was off for an hour knows as little as a new one."""
    news = Watching(BLACK, grace=60.0)
    for _ in range(10):
        news.see()
    news.at += 3600
    begun = news.at
    for _ in range(7):
        news.see(all_of())

    assert news.story == [("firing", "black", begun + 60.0)]


# Visits


VISITED = replace(NEWS, schedule=Schedule(300.0, 30.0))


def visit(news: Watching, *blacks: float) -> None:
    """Three segments with so many black seconds each, then nothing until the next visit."""
    begun = news.at
    for seconds in blacks:
        facts = {"visit": True, "represents_seconds": 100.0}
        spans = [("black", 0.0, seconds)] if seconds else []
        news.see(*spans, facts=facts)
    news.at = begun + 300


@pytest.mark.parametrize(
    ("blacks", "fires"),
    [((10, 10, 10), True), ((0, 5, 10), True), ((10, 4.9, 0), False), ((0, 0, 10), False)],
)
def test_one_bad_visit_raises_when_the_fault_filled_half_of_it(
    blacks: tuple[float, ...], fires: bool
) -> None:
    """A visit stands for its whole period, so three black seconds are not a black half minute."""
    news = Watching(BLACK, stream=VISITED, grace=60.0)

    visit(news, *blacks)

    assert [it[0] for it in news.story] == ["firing"] * fires


def test_one_good_visit_clears() -> None:
    """It stands for the period, too."""
    news = Watching(BLACK, stream=VISITED)
    visit(news, 10, 10, 10)
    visit(news, 10, 10, 10)
    visit(news, 10, 0, 0)
    visit(news, 0, 0, 0)

    assert news.story == [("firing", "black", 20.0), ("resolved", "black", 630.0)]


def test_a_rule_longer_than_the_period_needs_several_bad_visits() -> None:
    """Fifteen minutes are three visits of five."""
    news = Watching(replace(BLACK, raise_seconds=900.0), stream=VISITED)
    visit(news, 10, 10, 10)
    visit(news, 10, 10, 10)
    assert news.story == []

    visit(news, 10, 10, 10)

    assert [it[0] for it in news.story] == ["firing"]


def test_two_missed_visits_and_a_third_end_what_was_known() -> None:
    """A score is fresh for two periods."""
    news = Watching(BLACK, stream=VISITED)
    visit(news, 10, 10, 10)
    for _ in range(3):
        facts = {"visit": True, "represents_seconds": 300.0}
        news.down("visit_missed", seconds=30.0, facts=facts)
        news.at += 270

    assert [it[0] for it in news.story] == ["firing", "resolved"]


# Incidents, acknowledgement, repeats, silence


def test_overlapping_alerts_are_one_incident_and_later_ones_another() -> None:
    """Black, silent and frozen at once is one phone call."""
    news = Watching(*RULES.values())
    for _ in range(5):
        news.see(all_of(), ("audio_silence", 0.0, 10.0), severity=5)
    for _ in range(3):
        news.see()
    for _ in range(4):
        news.see(all_of())

    incidents = [it.incident for it in news.alerts.values()]
    assert len(incidents) == 3
    assert incidents[0] == incidents[1] != incidents[2]


def test_a_firing_alert_is_repeated_until_somebody_takes_it_on() -> None:
    """Forgotten is worse than told twice a day."""
    news = Watching(replace(BLACK, repeat=100.0))
    for _ in range(24):
        news.see(all_of())
    assert [it[0::2] for it in news.story] == [
        ("firing", 30.0),
        ("repeat", 130.0),
        ("repeat", 230.0),
    ]
    assert len({it.id for it in news.told}) == 3

    news.how["as_known"] = lambda it: replace(it, acknowledged_by="ada", note="on it")
    for _ in range(30):
        news.see(all_of())
    news.see()

    assert [it[0] for it in news.story[3:]] == ["resolved"]
    assert news.told[-1].alert.acknowledged_by == "ada"


def silence(**fields: Any) -> Silence:
    return Silence("ada", "known", NOON, NOON + timedelta(seconds=100), **fields)


def test_a_silenced_alert_is_recorded_and_told_when_the_silence_ends() -> None:
    """Silence is about people, not about facts."""
    news = Watching(BLACK, quiet=Quiet([silence()]))
    for _ in range(9):
        news.see(all_of())
    assert news.story == []
    assert len(news.alerts) == 1

    for _ in range(3):
        news.see(all_of())

    assert news.story == [("firing", "black", 100.0)]
    assert news.told[0].alert.opened_at == NOON + timedelta(seconds=30)


def test_who_was_told_of_an_alert_is_told_of_its_end_even_in_silence() -> None:
    """A receiver must not be left with an alert for ever."""
    late = replace(silence(), expires_at=NOON + timedelta(days=1))
    quiet: list[Silence] = []
    news = Watching(BLACK, quiet=Quiet(quiet))
    for _ in range(4):
        news.see(all_of())
    quiet.append(late)
    for _ in range(2):
        news.see()

    assert [it[0] for it in news.story] == ["firing", "resolved"]


@pytest.mark.parametrize(
    ("fields", "quiet"),
    [
        ({}, True),
        ({"stream": "ne*"}, True),
        ({"stream": "lobby"}, False),
        ({"rule": "black"}, True),
        ({"rule": "freeze"}, False),
        ({"severity": "critical"}, True),
        ({"severity": "info"}, False),
    ],
)
def test_a_silence_matches_by_stream_rule_and_severity(fields: dict[str, str], quiet: bool) -> None:
    """Nobody silences more than they mean."""
    alert = Alert("news", "black", "critical", NOON, "because")

    assert Quiet([silence(**fields)])(alert, NOON) is quiet
    assert not Quiet([silence(**fields)])(alert, NOON + timedelta(seconds=100))


@pytest.mark.parametrize(
    ("at", "quiet"),
    [
        ("2026-03-01T02:59:59", False),
        ("2026-03-01T03:00:00", True),
        ("2026-03-01T04:29:59", True),
        ("2026-03-01T04:30:00", False),
        ("2026-03-02T03:30:00", False),
        ("2026-03-08T03:30:00", True),
    ],
)
def test_a_maintenance_window_comes_again(at: str, quiet: bool) -> None:
    """Every Sunday at three, for an hour and a half; 1 March 2026 is a Sunday."""
    window = Window("weekly", trigger=cron("0 3 * * 0"), seconds=5400.0, streams=("news",))
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)

    assert Quiet(windows=[window])(Alert("news", "black", "info", NOON, ""), moment) is quiet
    assert not Quiet(windows=[window])(Alert("lobby", "black", "info", NOON, ""), moment)


def test_a_maintenance_window_may_be_a_single_one() -> None:
    """The move to the new encoder."""
    window = Window("move", NOON, NOON + timedelta(hours=1))

    assert [window.open(NOON + timedelta(minutes=it)) for it in (-1, 0, 59, 60)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "days"),
    [("1-5", "mon,tue,wed,thu,fri"), ("0,6", "sun,sat"), ("5-7", "fri,sat,sun"), ("mon-wed", None)],
)
def test_weekdays_count_as_in_crontab(text: str, days: str | None) -> None:
    """APScheduler counts from Monday; whoever writes 0 means Sunday."""
    trigger = cron(f"0 3 * * {text}")

    assert f"day_of_week='{days or text}'" in str(trigger)


@pytest.mark.parametrize("text", ["", "0 3 * *", "61 3 * * *", "0 3 * * 9", "x y z a b"])
def test_a_bad_crontab_line_is_refused(text: str) -> None:
    """At the configuration, not at three in the morning."""
    with pytest.raises(ValueError):
        cron(text)


# Rules that change


def test_the_alert_of_a_removed_rule_is_resolved() -> None:
    """Nobody would ever clear it."""
    news = Watching(BLACK)
    for _ in range(4):
        news.see(all_of())

    turn = release(news.state, NOON + timedelta(hours=1), "gone", keep={"freeze": RULES["freeze"]})

    assert [(it.kind, it.alert.cleared) for it in turn.events] == [("resolved", "gone")]
    assert turn.state.episodes == {}
    kept = release(news.state, NOON, "gone", keep={"black": replace(BLACK, raise_seconds=99)})
    assert kept.events == ()
    assert kept.state == news.state


def test_shipped_rules_are_sound() -> None:
    """An operator's file begins with them."""
    for rule in RULES.values():
        assert list(faults(rule)) == [], rule.name
        assert rule.on in CONDITIONS
    assert {(RULES[n].raise_seconds, RULES[n].clear_seconds) for n in ("black", "freeze")} == {
        (30.0, 10.0)
    }


@pytest.mark.parametrize("on", CONDITIONS)
def test_every_condition_has_sound_limits_to_begin_with(on: str) -> None:
    """A rule of one line works."""
    limit = default_limit(on)

    assert (
        list(faults(Rule("x", on, limit=limit, clear_limit=default_clear_limit(on, limit)))) == []
    )


# Sequences that nobody thought of


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    """What a stream may do in some minutes, in any order; sometimes nobody looks."""
    found = []
    at = 0.0
    for number in range(draw(st.integers(1, 40))):
        at += draw(st.sampled_from([0.0] * 9 + [0.5, 5.0, 400.0]))
        seconds = draw(st.sampled_from([10.0, 10.0, 10.0, 3.3, 0.0, 61.0]))
        reason = draw(st.sampled_from([None] * 6 + list(NO_SCORE_REASONS)))
        names = draw(
            st.lists(st.sampled_from(["black", "freeze", "stutter", "no_signal"]), max_size=2)
        )
        findings = tuple(
            Finding(
                name,
                draw(st.integers(1, 5)),
                1.0,
                1.0,
                0.5,
                "s",
                None,
                at + draw(st.floats(-5, 12)),
                draw(st.floats(-1, 15)),
            )
            for name in names
        )
        found.append(
            Segment(
                "news",
                NOON + timedelta(seconds=at),
                at,
                seconds,
                quality=None if reason else draw(st.floats(0, 100)),
                quality_worst=None if reason else draw(st.floats(0, 100)),
                no_score_reason=reason,
                model=draw(st.sampled_from(["m@1"] * 9 + ["m@2"])),
                findings=findings,
                facts={"visit": True} if draw(st.booleans()) else {},
                id=f"s{number}",
            )
        )
        at += seconds
    return found


ALL_RULES = [
    *RULES.values(),
    Rule("at once", "black", raise_seconds=0.0, clear_seconds=0.0, pause=0.0),
    Rule("worst", "quality_worst", limit=30, clear_limit=60, raise_seconds=10, repeat=30.0),
    Rule("kept", "freeze", limit=4, clear_limit=2, raise_seconds=10, keep_firing_for=100),
]


def run(
    stream: Stream, some: Iterable[Segment], cut: Callable[[int], bool] = lambda _: False
) -> tuple[StreamState, list[AlertEvent], list[Alert]]:
    """Everything that is told; after a cut the state comes back from its JSON."""
    state = StreamState()
    events: list[AlertEvent] = []
    alerts: list[Alert] = []
    for place, segment in enumerate(some):
        if cut(place):
            state = StreamState.from_json(json.loads(json.dumps(state.as_json())))
        turn = judge(stream, ALL_RULES, state, segment, grace=30.0)
        state = turn.state
        events += turn.events
        alerts += turn.alerts
    return state, events, alerts


streams = st.sampled_from([NEWS, VISITED, replace(NEWS, expect=frozenset({"still_pictures"}))])


@settings(max_examples=80, deadline=None)
@given(streams, segments())
def test_an_episode_is_told_once_and_its_end_after_it(stream: Stream, some: list[Segment]) -> None:
    """Whatever happens: firing, then perhaps repeats, then resolved, and never two at once."""
    _, events, alerts = run(stream, some)

    assert len({it.id for it in events}) == len(events)
    by_alert: dict[str, list[str]] = {}
    firing: set[str] = set()
    for event in events:
        by_alert.setdefault(event.alert.id, []).append(event.kind)
        if event.kind == "firing":
            assert event.alert.rule not in firing
            firing.add(event.alert.rule)
        elif event.kind == "resolved":
            firing.remove(event.alert.rule)
    for kinds in by_alert.values():
        assert kinds[0] == "firing"
        assert set(kinds[1:-1]) <= {"repeat"}
        assert kinds.count("resolved") <= 1
    assert {it.id for it in alerts} == by_alert.keys()
    for alert in alerts:
        assert alert.reason
        assert alert.closed_at is None or alert.closed_at >= alert.opened_at


@settings(max_examples=60, deadline=None)
@given(streams, segments())
def test_everything_clears_once_all_is_well(stream: Stream, some: list[Segment]) -> None:
    """An alert that never ends teaches people to look away."""
    last = some[-1]
    begins = last.started_at + timedelta(seconds=last.seconds)
    facts = {"visit": True} if stream.schedule else {}
    well = [
        Segment(
            "news",
            begins + timedelta(seconds=300.0 * place if stream.schedule else 30.0 * place),
            0.0,
            30.0,
            quality=90.0,
            quality_worst=85.0,
            model="m@1",
            facts=facts,
            id=f"well{place}",
        )
        for place in range(12)
    ]

    state, events, alerts = run(stream, [*some, *well])

    assert state.firing == {}
    told = [it.kind for it in events]
    assert told.count("firing") == told.count("resolved")
    assert {it.id for it in alerts} == {it.id for it in alerts if it.closed_at}


@settings(max_examples=60, deadline=None)
@given(streams, segments(), st.sets(st.integers(0, 40)))
def test_a_restart_at_any_point_changes_nothing(
    stream: Stream, some: list[Segment], cuts: set[int]
) -> None:
    """The state is all there is, and JSON keeps it."""
    assert run(stream, some, cuts.__contains__) == run(stream, some)


@settings(max_examples=30, deadline=None)
@given(segments())
def test_a_stream_that_is_down_has_no_alert_but_that(some: list[Segment]) -> None:
    """Inhibition, whatever was before."""
    end = some[-1].started_at + timedelta(seconds=some[-1].seconds)
    down = [
        Segment(
            "news",
            end + timedelta(seconds=10.0 * place),
            0.0,
            10.0,
            no_score_reason=sorted(DOWN_REASONS)[place % 5],
            id=f"d{place}",
        )
        for place in range(10)
    ]

    state, _, _ = run(NEWS, [*some, *down])

    assert set(state.firing) == {"no_signal"}
