"""The closed loop's own judgement, its settings, and what it says when it cannot begin."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vqmon import plugins
from vqmon.demo import loop
from vqmon.demo.encoder import CALM, FROM_SECONDS, WILD, Camera, Order
from vqmon.demo.story import Story, line, verdict
from vqmon.domain import Alert, Decision, Finding, Segment
from vqmon.errors import VqmonError

BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def decision(kind: str, seconds: float, reason: str = "because") -> Decision:
    return Decision("adaptive_encoding", "demo", kind, reason, at(seconds), id=f"{kind}-{seconds}")


ALERT = Alert("demo", "compression", "warning", at(50), "Compression for 10 s.", id="a")
CLEARED = replace(ALERT, closed_at=at(70), cleared="No compression for 10 s.")
HEARD = {"at": at(52).isoformat(), "quality": 8.0, "cap_kbps": 1500}
WHOLE = Story(
    at(40),
    [CLEARED],
    [decision("raise", 51), decision("asked", 51.1), decision("keep", 68, "stays: better")],
    [HEARD],
)


def test_a_closed_loop_is_told_in_the_order_of_time() -> None:
    """What was raised when, asked, verified and cleared."""
    told = [line(it) for it in WHOLE.chapters()]

    assert WHOLE.closed
    assert told == [
        "12:00:40  harder    The camera begins to turn fast.",
        "12:00:50  raised    Compression for 10 s.",
        "12:00:51  asked     Because.",
        "12:00:52  heard     The encoder was asked, by a signed webhook, for quality 8 under 1500 kb/s.",
        "12:01:08  verified  Stays: better.",
        "12:01:10  cleared   No compression for 10 s.",
    ]
    assert verdict(WHOLE) == "The loop is closed: raised, asked, verified, kept, cleared."


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"alerts": [ALERT]}, "the alert was not cleared."),
        ({"heard": []}, ""),
        ({"decisions": WHOLE.decisions[:2]}, "the change was not judged."),
        (
            {"decisions": [*WHOLE.decisions[:2], decision("roll_back", 68)], "alerts": [ALERT]},
            "the alert was not cleared, the change was taken back.",
        ),
        ({"alerts": [], "decisions": [], "heard": []}, "no alert was raised, the plugin did not"),
    ],
)
def test_a_loop_that_is_not_closed_says_what_is_missing(changed: Any, told: str) -> None:
    """A demonstration that only boasts convinces nobody."""
    story = replace(WHOLE, **changed)

    assert story.closed == (not told)
    assert told in verdict(story)


def test_a_second_alert_opens_the_loop_again() -> None:
    """What raised must be over, all of it."""
    assert not replace(WHOLE, alerts=[CLEARED, replace(ALERT, id="b", opened_at=at(80))]).closed


def test_the_summary_fits_a_terminal_and_admits_a_busy_machine() -> None:
    """Whoever reads that the loop was not closed must learn why."""
    busy = Segment(
        "demo",
        at(40),
        40.0,
        5.0,
        findings=(Finding("overload", 3, 1.0, 9.0, 5.0, "%", None, 40, 4),),
    )

    told = loop.summary(WHOLE, [busy])

    assert max(len(it) for it in told.splitlines()) <= 80
    assert told.endswith("This machine was too busy to look closely for 4 s.")


def test_the_settings_are_right_by_the_rules_of_vqmon_and_of_the_plugin(tmp_path: Any) -> None:
    """They are those that an operator would write; the loop tests put them into a file."""
    adaptive = pytest.importorskip("vqmon_adaptive_encoding.settings")
    given = loop.configuration("http://127.0.0.1:9/live.ts", "http://127.0.0.1:9/", SECRET)

    settings = loop.configured(tmp_path, given)
    own = adaptive.AdaptiveEncodingSettings.model_validate(settings.plugins[loop.PLUGIN].own)

    assert own.mode_of(loop.STREAM) == "act"
    assert not settings.notifiers["encoder"].alerts
    assert settings.rules_of(loop.STREAM)["compression"].raise_seconds == 10


def test_what_is_shortened_is_said_with_what_is_usual() -> None:
    """Nobody shall take the settings of a demonstration for good ones."""
    adaptive = pytest.importorskip("vqmon_adaptive_encoding.settings")
    usual = adaptive.Rules()
    said = loop.SHORTENED
    rules = loop.configuration("http://127.0.0.1:9/a", "http://127.0.0.1:9/", SECRET)["plugins"][
        loop.PLUGIN
    ]["rules"]

    named = {what.rpartition("(")[2].rstrip(")"): values for what, values in said.items()}

    assert rules.keys() <= named.keys()
    assert all(str(rules[name]).rstrip("s") == named[name][0].partition(" ")[0] for name in rules)
    seconds = {"sustained": 30, "settle": 20, "verify_segments": 3, "verify_within": 600}
    assert all(getattr(usual, name) == value for name, value in seconds.items())
    words = " ".join(loop.announcement().split())
    assert "settle) 5 s (20 s)" in words
    assert "between changes (cooldown) 60 s (10 min)" in words


def test_without_the_plugin_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything starts; a newcomer has no other way to know."""
    monkeypatch.setattr(plugins, "find", lambda _: {})

    with pytest.raises(VqmonError, match="pip install vqmon-adaptive-encoding"):
        loop.run()


def test_the_camera_turns_faster_without_a_jump() -> None:
    """A cut would be another kind of harder."""
    asked: list[float] = []

    class Scene:
        def render(self, seconds: float) -> Any:
            asked.append(seconds)

    camera = Camera(Scene(), 40.0)  # type: ignore[arg-type]
    for position in (0.0, 40.0, 40.04, 41.0):
        camera.picture(position)

    assert asked == pytest.approx(
        [
            FROM_SECONDS,
            FROM_SECONDS + 40 * CALM,
            FROM_SECONDS + 40 * CALM + 0.04 * WILD,
            FROM_SECONDS + 40 * CALM + WILD,
        ]
    )


def test_secrets_are_made_anew_for_each_run() -> None:
    """And the encoder begins on the lowest rung of the ladder."""
    one, other = loop.first_order(40.0), loop.first_order(40.0)

    assert one.secret != other.secret
    assert isinstance(one, Order)
    assert (one.quality, one.cap_kbps) == loop.LADDER[0]
