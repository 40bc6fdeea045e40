"""Replays and proposals: what other rules would have made of what is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from vqmon import oncall
from vqmon.alerting import RULES, Rule
from vqmon.alerting.replaying import replay, side_by_side
from vqmon.alerting.tuning import Proposal, tune
from vqmon.cli import program, run_program
from vqmon.daemon.alerts import Alerts
from vqmon.domain import Alert, Finding, Segment, Silence, Stream
from vqmon.errors import VqmonError
from vqmon.settings import Settings
from vqmon.store import open_store
from vqmon.testing import MemoryStore

NEWS = Stream("news", "rtsp://x")
BEGUN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)


def segment(number: int, *found: str, stream: str = "news", **fields: Any) -> Segment:
    """A minute, so long after the beginning."""
    at = 60.0 * number
    findings = tuple(
        Finding(name, fields.pop("severity", 5), 1.0, 9.0, 0.5, "s", None, at, 60.0)
        for name in found
    )
    given: dict[str, Any] = {"quality": 70.0, "quality_worst": 60.0, "model": "m@1"} | fields
    begins = BEGUN + timedelta(seconds=at)
    return Segment(stream, begins, at, 60.0, findings=findings, id=f"{stream}{number}", **given)


def history(minutes: int = 180, *black: int) -> list[Segment]:
    return [segment(n, *(["black"] if n in black else [])) for n in range(minutes)]


def configured(**changes: Any) -> Settings:
    given = {"alerts": {"grace": "0s"}, "streams": {"news": {"url": "rtsp://x.example/y"}}}
    return Settings.model_validate(given | changes)


def hour(number: float) -> datetime:
    return BEGUN + timedelta(hours=number)


# Replay


def test_a_replay_raises_what_the_daemon_raised() -> None:
    """The same code on the same rows."""
    store = MemoryStore()
    Alerts(store, configured()).add(history(60, 10, 11, 40))

    found = replay(NEWS, list(RULES.values()), store.segments(), grace=0.0)

    assert sorted(it.id for it in found.alerts) == sorted(it.id for it in store.alerts())
    assert found.told == {it.id for it in found.alerts}
    assert found.watched_seconds == 3600


def alert(rule: str, begin: float, end: float | None) -> Alert:
    closed = None if end is None else hour(end)
    return Alert("news", rule, "info", hour(begin), "because", closed_at=closed)


def test_alerts_that_overlap_stand_side_by_side() -> None:
    """New rules may see the same trouble sooner or later."""
    would = [alert("black", 1, 2), alert("black", 3, None), alert("q", 1, 2)]
    did = [alert("black", 1.5, 2.5), alert("freeze", 1, 2), alert("q", 2.5, 3)]

    pairs = side_by_side(would, did)

    assert [(p.would and p.would.rule, p.did and p.did.rule) for p in pairs] == [
        ("black", "black"),
        (None, "freeze"),
        ("q", None),
        (None, "q"),
        ("black", None),
    ]


def test_a_replay_knows_what_was_usual_before_it_begins() -> None:
    """A baseline that begins with the period would hide a drop at its start."""
    store = MemoryStore()
    store.add([segment(n, quality=80.0 if n < 120 else 40.0) for n in range(180)])
    rules = configured(rules={"quality_drop": {"limit": "30"}})

    [found] = oncall.replayed(store, configured(), rules, ["news"], since=hour(2), until=hour(3))

    assert [it.rule for it in found.would] == ["quality_drop"]
    assert found.did == []


# Tuning


def proposals(segments: list[Segment], *rules: Rule) -> dict[str, Proposal]:
    return {it.present.name: it for it in tune(NEWS, rules, segments, grace=0.0)}


def test_a_rule_that_history_never_broke_stays() -> None:
    """What works is left alone."""
    found = proposals(history(), RULES["black"], RULES["no_signal"])

    assert not any(it.changed for it in found.values())


def test_limits_of_quality_come_as_close_to_history_as_they_may() -> None:
    """A good camera is watched more strictly than a poor one."""
    rule = RULES["quality"]
    good = [segment(n, quality=80.0 - n % 7) for n in range(180)]
    poor = [segment(n, quality=30.0 - n % 14) for n in range(180)]

    found = {
        name: proposals(some, rule)["quality"] for name, some in {"a": good, "b": poor}.items()
    }

    assert found["a"].proposed
    assert found["b"].proposed
    assert 60 <= found["a"].proposed.limit <= 73
    assert found["b"].proposed.limit < 17
    assert found["a"].then == found["b"].then == 0


def test_a_noisy_rule_becomes_milder_step_by_step() -> None:
    """The least change that gives silence."""
    slides = [segment(n, "freeze", severity=4 if n % 5 < 2 else 1) for n in range(180)]

    found = proposals(slides, RULES["freeze"])["freeze"]

    assert found.raised > 10
    assert found.proposed
    assert (found.proposed.limit, found.proposed.raise_seconds) == (5, 30)
    assert found.then == 0


def test_what_history_has_all_the_time_is_proposed_to_be_off() -> None:
    """A camera without a microphone."""
    mute = [segment(n, "audio_silence") for n in range(3000)]

    found = proposals(mute, RULES["audio_silence"])["audio_silence"]

    assert found.proposed is None
    assert oncall.written(found) == "off"


def test_an_hour_of_history_is_the_least() -> None:
    """Limits from a minute would be guesses."""
    store = MemoryStore()
    store.add(history(30))

    with pytest.raises(VqmonError, match="too little to tell"):
        oncall.tuned(store, configured(), "news", hour(0), hour(5))


# The commands


Say = Callable[..., Result]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs a command on a database in which news was black twice, and still is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VQMON_CONFIG", raising=False)
    url = f"sqlite:///{tmp_path}/x.db"
    settings = {
        "database": url,
        "alerts": {"grace": "0s"},
        "streams": {"news": {"url": "rtsp://x.example/y"}},
    }
    Path("vqmon.yaml").write_text(yaml.safe_dump(settings))
    with open_store(url) as store:
        Alerts(store, configured()).add(history(181, 10, 11, 179, 180))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(program, arguments, standalone_mode=False, catch_exceptions=False)

    return run


def printed(result: Result) -> Any:
    return json.loads(result.stdout)


def test_alerts_are_listed_with_their_state_and_reason(say: Say) -> None:
    """The first look at night."""
    text = say("alerts").stdout

    assert "firing" in text
    assert "resolved" in text
    assert "the picture is black (measured 9 s, limit 0.5 s)" in text
    [firing] = printed(say("alerts", "list", "--firing", "--json"))["alerts"]
    assert (firing["state"], firing["stream"], firing["closed_at"]) == ("firing", "news", None)


def test_an_alert_is_acknowledged_by_the_beginning_of_its_id(say: Say) -> None:
    """Nobody types thirty-two digits."""
    [firing] = printed(say("alerts", "list", "--firing", "--json"))["alerts"]

    [taken] = printed(
        say("alerts", "ack", firing["id"][:6], "--by", "ada", "--note", "x", "--json")
    )
    text = say("alerts", "list").stdout

    assert (taken["acknowledged_by"], taken["note"]) == ("ada", "x")
    assert "acknowledged by ada" in text
    assert "acknowledged by bob" in say("alerts", "ack", "--stream", "news", "--by", "bob").stdout


def test_silences_are_made_listed_and_ended(say: Say) -> None:
    """And seen by whoever wonders why it is so quiet."""
    options = (
        "--stream",
        "n*",
        "--rule",
        "black",
        "--for",
        "2h",
        "--reason",
        "works",
        "--by",
        "ada",
    )
    made = printed(say("alerts", "silence", *options, "--json"))
    text = say("alerts", "list").stdout

    assert "silenced" in text
    assert f"silence {made['id'][:8]}: alerts on n* of rule black until" in text
    assert "by ada: works" in text
    assert "told again" in say("alerts", "unsilence", made["id"][:8]).stdout
    assert "silenced" not in say("alerts", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["alerts", "ack"], 2, "give the id of an alert"),
        (["alerts", "ack", "zzz"], 1, "no alert has an id beginning with 'zzz'"),
        (["alerts", "unsilence", "zzz"], 1, "no silence has an id beginning with 'zzz'"),
        (["alerts", "silence"], 2, "Missing option '--reason'"),
        (["alerts", "silence", "--reason", "x", "--stream", "nwes"], 2, "did you mean 'news'?"),
        (["alerts", "silence", "--reason", "x", "--rule", "blak"], 2, "did you mean 'black'?"),
        (["alerts", "tune", "nwes"], 2, "did you mean 'news'?"),
        (["alerts", "list", "--stream", "nwes"], 2, "did you mean 'news'?"),
        (["replay", "--since", "1h", "--until", "2h"], 2, "--since must be earlier"),
        (["replay", "--rules", "none.yaml"], 2, "none.yaml: no such file"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(
    say: Say, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, told: str
) -> None:
    """At night nobody looks things up."""
    assert run_program(arguments) == code
    assert told in capsys.readouterr().err


def test_a_replay_prints_both_sides(say: Say) -> None:
    """Before new rules go live."""
    Path("new.yaml").write_text(
        "alerts: {grace: 0s}\nrules:\n  black: {for: 90s}\n  poor: {on: quality, limit: 75}\n"
    )

    text = say("replay", "--rules", "new.yaml", "--since", "24h").stdout
    whole = printed(say("replay", "--rules", "new.yaml", "--since", "24h", "--json"))

    assert "poor (warning) still firing" in text
    assert text.count("black (critical)") == 4
    assert text.endswith("3 alerts would have been raised, 2 alerts were\n")
    [news] = whole["streams"]
    assert (news["would_raise"], news["raised"], len(news["alerts"])) == (3, 2, 3)
    assert news["watched_seconds"] == 181 * 60
    assert all(it["would"]["told"] for it in news["alerts"] if it["would"])


def test_mistakes_in_a_file_of_rules_are_told_with_their_line(
    say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a configuration."""
    Path("new.yaml").write_text("rules:\n  x: {on: blak}\n")

    assert run_program(["replay", "--rules", "new.yaml"]) == 2
    assert "new.yaml:2:11: rules.x.on: 'blak'" in capsys.readouterr().err


def test_tuning_prints_what_to_write(say: Say) -> None:
    """It is copied into the configuration."""
    text = say("alerts", "tune", "news").stdout
    rules = yaml.safe_load(text[text.index("streams:") :])["streams"]["news"]["rules"]

    found = {it["rule"]: it for it in printed(say("alerts", "tune", "news", "--json"))}

    Settings.model_validate({"streams": {"news": {"url": "x.mp4", "rules": rules}}})
    assert rules["quality"]["limit"] >= 60
    assert found["black"]["raised"] == 2
    assert found["black"]["settings"] == rules["black"] != {}
    assert found["no_signal"]["settings"] == {}


def test_a_silence_in_json_has_times_with_a_zone() -> None:
    """Programs read it."""
    told = oncall.as_json(Silence("ada", "x", hour(0), hour(1)))

    assert told["expires_at"].endswith("Z")
