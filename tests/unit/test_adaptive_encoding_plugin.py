"""The adaptive-encoding plugin as vqmon runs it: settings, requests, restarts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from vqmon.domain import Decision, Finding, Segment
from vqmon.errors import VqmonError
from vqmon.testing import EPOCH, FakeContext, FakeScorer
from vqmon_adaptive_encoding.ladder import Level
from vqmon_adaptive_encoding.memory import REQUESTS
from vqmon_adaptive_encoding.plugin import AdaptiveEncoding, case_of
from vqmon_adaptive_encoding.settings import AdaptiveEncodingSettings, Rules, StreamSettings
from vqmon_adaptive_encoding.targets.proposal import ffmpeg_advice
from vqmon_adaptive_encoding.watching import end

LADDER = [
    {"quality": 5, "cap_kbps": 1500},
    {"quality": 6, "cap_kbps": 2500},
    {"quality": 7, "cap_kbps": 4000},
]


def stream(**changed: Any) -> dict[str, Any]:
    return {
        "target": {"type": "webhook", "notifier": "encoder"},
        "ladder": LADDER,
        "cap_kbps": 5000,
    } | changed


def configured(mode: str = "act", **changed: Any) -> AdaptiveEncodingSettings:
    return AdaptiveEncodingSettings.model_validate(
        {"mode": mode, "streams": {"news": stream(**changed)}}
    )


def context() -> FakeContext:
    return FakeContext(plugin="adaptive_encoding", targets=["encoder", "ops"], scorer=FakeScorer())


def segment(
    number: int, *, quality: float = 40.0, faulty: bool = True, of: str = "news"
) -> Segment:
    finding = Finding("compression", 3, 0.9, 14.0, 10.0, "%")
    return Segment(
        of,
        EPOCH + timedelta(seconds=10 * number),
        10.0 * number,
        10.0,
        frames_scored=1,
        quality=quality,
        quality_worst=quality,
        uncertainty=2.0,
        findings=(finding,) if faulty else (),
        outputs=({"quality": (quality,)},),
        model="fake@1",
        facts={"bitrate_kbps": 1400.0},
        id=f"{of}-{number}",
    )


def acting(
    world: FakeContext, settings: AdaptiveEncodingSettings, *, late: float = 0
) -> AdaptiveEncoding:
    """The plugin, which hears of segments so many seconds after they ended."""
    return AdaptiveEncoding(world, settings, lambda: last_end(world) + timedelta(seconds=late))


def last_end(world: FakeContext) -> datetime:
    newest = world.store.last("news")
    return end(newest) if newest else EPOCH


def feed(plugin: AdaptiveEncoding, world: FakeContext, *segments: Segment) -> None:
    for one in segments:
        world.store.add([one])
        plugin.segment_closed(one)


def kinds(world: FakeContext) -> list[str]:
    return [d.kind for d in world.decisions("news")]


def test_nothing_is_sent_by_default() -> None:
    """Observing is the default: the decision is there to be read, the encoder hears nothing."""
    world = context()
    plugin = acting(world, AdaptiveEncodingSettings.model_validate({"streams": {"news": stream()}}))

    feed(plugin, world, *[segment(n) for n in range(6)])

    assert kinds(world) == ["observe", "wait"]
    assert world.notified == []


def test_the_webhook_says_what_is_wanted_and_why() -> None:
    """The body that the README documents."""
    world = context()

    feed(acting(world, configured()), world, *[segment(n) for n in range(3)])

    [(target, body, event_id)] = world.notified
    raised = world.decisions("news")[0]
    assert (target, event_id) == ("encoder", raised.id)
    assert body == {
        "type": "vqmon.adaptive_encoding",
        "version": 1,
        "decision": raised.id,
        "stream": "news",
        "action": "raise",
        "quality": 6.0,
        "cap_kbps": 2500,
        "previous": {"quality": 5.0, "cap_kbps": 1500},
        "reason": raised.reason,
        "at": "2026-01-01T00:00:30+00:00",
    }


def test_a_better_picture_is_kept() -> None:
    world = context()
    plugin = acting(world, configured())

    feed(plugin, world, *[segment(n) for n in range(3)])
    feed(plugin, world, *[segment(n, quality=70, faulty=False) for n in range(3, 9)])

    assert kinds(world) == ["raise", "asked", "keep"]
    assert [body["action"] for _, body, _ in world.notified] == ["raise"]


def test_what_was_seen_before_the_request_went_out_does_not_count() -> None:
    """On a busy machine a plugin hears late: the segments that wait show the old encoding."""
    world = context()
    plugin = acting(world, configured(), late=60)

    feed(plugin, world, *[segment(n) for n in range(9)])
    assert kinds(world) == ["raise", "asked"]
    feed(plugin, world, *[segment(n, quality=70, faulty=False) for n in range(9, 15)])

    assert kinds(world) == ["raise", "asked", "keep"]


def test_an_encoder_that_ignores_the_request_is_sent_back() -> None:
    world = context()

    feed(acting(world, configured()), world, *[segment(n) for n in range(9)])

    assert kinds(world)[:4] == ["raise", "asked", "roll_back", "restored"]
    assert [(b["action"], b["cap_kbps"]) for _, b, _ in world.notified] == [
        ("raise", 2500),
        ("roll_back", 1500),
    ]


def test_a_restarted_plugin_judges_what_the_dead_one_began() -> None:
    """State is in the decisions alone: a raised bitrate is never forgotten."""
    world = context()
    feed(acting(world, configured()), world, *[segment(n) for n in range(4)])

    again = acting(world, configured())
    feed(again, world, *[segment(n) for n in range(4, 9)])

    assert kinds(world)[:4] == ["raise", "asked", "roll_back", "restored"]


def test_a_plugin_that_died_while_asking_takes_it_back() -> None:
    world = context()
    feed(acting(world, configured()), world, *[segment(n) for n in range(3)])
    [raised, *_] = world.decisions("news")
    fresh = context()
    fresh.record(raised)  # and no `asked`

    feed(acting(fresh, configured()), fresh, segment(3))

    assert kinds(fresh)[:3] == ["raise", "roll_back", "restored"]
    assert [body["action"] for _, body, _ in fresh.notified] == ["roll_back"]


def test_an_encoder_that_does_not_answer_is_taken_back_in_the_end() -> None:
    """Its raise expires in the outbox; the way back is tried for as long as it takes."""
    world = context()
    world.away.add("encoder")
    plugin = acting(world, configured())
    feed(plugin, world, *[segment(n) for n in range(3)])

    feed(plugin, world, *[segment(n) for n in range(60, 64)])

    assert kinds(world)[:4] == ["raise", "asked", "failed", "roll_back"]
    assert "restored" not in kinds(world)
    assert "not delivered" in world.decisions("news")[2].reason


def test_a_dead_letter_is_sent_anew_under_its_id() -> None:
    """Until the encoder has taken it, nothing is restored."""
    world = context()
    plugin = acting(world, configured())
    feed(plugin, world, *[segment(n) for n in range(7)])
    world.away.add("encoder")
    feed(plugin, world, *[segment(n) for n in range(7, 9)])
    back = world.decisions("news")[-1]
    assert back.kind == "roll_back"
    given_up(world)

    feed(plugin, world, segment(9))
    world.away.clear()
    feed(plugin, world, *[segment(n) for n in range(16, 18)])

    assert kinds(world)[:4] == ["raise", "asked", "roll_back", "restored"]
    assert [(b["action"], id_) for _, b, id_ in world.notified[1:]] == [("roll_back", back.id)] * 2


def given_up(world: FakeContext) -> None:
    """The outbox has tried often enough."""
    one = world.store.claim("encoder", "me", EPOCH, seconds=1)
    assert one is not None
    world.store.failed(one, "me", "connection refused", due_at=None)


def test_an_encoder_that_cannot_be_asked_is_recorded_so() -> None:
    world = context()
    missing = configured(target={"type": "webhook", "notifier": "nobody"})

    feed(acting(world, missing), world, *[segment(n) for n in range(4)])

    assert kinds(world) == ["raise", "failed", "roll_back"]
    assert "nobody" in world.decisions("news")[1].reason


def test_another_stream_tells_the_time_of_a_silent_one() -> None:
    """A stream that was taken out gives no segments; its change must end all the same."""
    world = context()
    plugin = acting(world, configured())
    feed(plugin, world, *[segment(n) for n in range(3)])

    feed(plugin, world, segment(80, of="other"))

    assert kinds(world) == ["raise", "asked", "roll_back", "restored"]


def test_streams_that_are_not_configured_are_left_alone() -> None:
    world = context()

    feed(acting(world, configured()), world, *[segment(n, of="films") for n in range(9)])

    assert world.decisions() == []


def test_a_proposal_tells_the_operator_what_to_type() -> None:
    world = context()
    proposing = configured(target={"type": "ffmpeg", "notifier": "ops"})

    feed(acting(world, proposing), world, *[segment(n) for n in range(4)])

    assert kinds(world) == ["propose", "wait"]
    [(target, body, _)] = world.notified
    assert target == "ops"
    assert "-maxrate 2500k -bufsize 5000k" in body["advice"]


def test_a_proposal_without_a_notifier_is_only_recorded() -> None:
    world = context()

    feed(
        acting(world, configured(target={"type": "proposal"})),
        world,
        *[segment(n) for n in range(3)],
    )

    assert kinds(world) == ["propose"]
    assert world.notified == []


def test_a_failing_store_asks_for_nothing() -> None:
    """What cannot be recorded first is not done."""

    class Full(FakeContext):
        def record(self, decision: Decision) -> None:
            raise VqmonError("disk full")

    world = Full(plugin="adaptive_encoding")

    with pytest.raises(VqmonError):
        feed(acting(world, configured()), world, *[segment(n) for n in range(3)])

    assert world.notified == []


def test_a_raise_is_not_worth_hearing_once_it_has_been_judged() -> None:
    """The roll-back is, at any time."""
    worth: dict[str, float | None] = {}

    class Noting(FakeContext):
        def notify(self, target: str, payload: Mapping[str, Any], **more: Any) -> str:
            worth[payload["action"]] = more.get("within")
            return super().notify(target, payload, **more)

    world = Noting(plugin="adaptive_encoding")

    feed(acting(world, configured()), world, *[segment(n) for n in range(9)])

    assert worth == {"raise": 600.0, "roll_back": None}


def test_crf_falls_with_the_quality_wanted() -> None:
    advice = ffmpeg_advice("libx265")

    assert "-c:v libx265 -crf 24.5 " in advice(Level(5, 1500))
    assert "-crf 16.0 " in advice(Level(10, 9000))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"ladder": LADDER[:1]}, "at least 2 items"),
        ({"ladder": [LADDER[1], LADDER[0]]}, "the ladder must rise"),
        ({"ladder": [LADDER[0], {"quality": 5, "cap_kbps": 2000}]}, "the ladder must rise"),
        ({"cap_kbps": 4000}, "must stay under cap_kbps"),
        ({"base": 9}, "the quality of no rung"),
        ({"target": {"type": "telepathy"}}, "telepathy"),
        ({"target": {"type": "webhook"}}, "notifier"),
        ({"target": {"type": "mediamtx", "url": "ftp://x", "path": "y"}}, "http://"),
        ({"mode": "dream"}, "observe"),
        ({"lader": []}, "lader"),
    ],
)
def test_wrong_settings_are_refused_with_the_key(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        configured(**changed)


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ({"recover_after": "60s"}, "recover_after"),
        ({"cooldown": "1s"}, "cooldown"),
        ({"sustained": "soon"}, "sustained"),
        ({"actions": 9}, "actions"),
    ],
)
def test_safety_rules_cannot_be_loosened_beyond_their_limits(
    rules: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        AdaptiveEncodingSettings.model_validate({"rules": rules})


def test_durations_are_written_as_everywhere_in_vqmon() -> None:
    settings = AdaptiveEncodingSettings.model_validate({"rules": {"cooldown": "20m"}})

    assert settings.rules.cooldown == 1200


def test_one_stream_can_act_while_the_others_observe() -> None:
    settings = AdaptiveEncodingSettings.model_validate(
        {"streams": {"news": stream(mode="act", base=6), "films": stream()}}
    )

    assert case_of(settings, "news").mode == "act"
    assert case_of(settings, "news").base == Level(6, 2500)
    assert case_of(settings, "films").mode == "observe"


README = (Path(__file__).parents[2] / "plugins/adaptive_encoding/README.md").read_text()


def test_the_example_of_the_readme_is_valid_and_observes() -> None:
    """It is copied before it is read."""
    [example] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    section = yaml.safe_load(example)["plugins"]["adaptive_encoding"]

    settings = AdaptiveEncodingSettings.model_validate(section)

    assert settings.mode_of("news") == "observe"


@pytest.mark.parametrize(
    "name",
    [
        "mode",
        *(f"rules.{name}" for name in Rules.model_fields),
        *(f"streams.NAME.{name}" for name in StreamSettings.model_fields),
    ],
)
def test_every_setting_is_in_the_readme(name: str) -> None:
    assert f"| `{name}` |" in README


def test_the_defaults_in_the_readme_are_true() -> None:
    for name, default in re.findall(r"\| `rules\.(\w+)` \| (\S+) \|", README):
        read = AdaptiveEncodingSettings.model_validate({"rules": {name: default}})

        assert getattr(read.rules, name) == getattr(Rules(), name), name


def test_the_decisions_in_the_readme_are_those_that_are_made() -> None:
    table = README.partition("### Decisions")[2].partition("## Encoders")[0]
    made = {"observe", "propose", *REQUESTS, "asked", "failed", "keep", "restored"}

    assert {*re.findall(r"`(\w+)`", table)} == made | {"recovered", "wait", "holds"}
