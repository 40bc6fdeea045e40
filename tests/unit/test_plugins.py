"""Plugins without processes: finding, settings, the queue, the fake that authors test with."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from vqmon import Decision, Plugin, PluginContext
from vqmon.cli import program
from vqmon.config import load
from vqmon.domain import Alert, Assessment, Segment
from vqmon.errors import ConfigError, PluginUnusable, ScorerError, VqmonError
from vqmon.plugins import Call, Calls, find
from vqmon.plugins.finding import Found
from vqmon.plugins.finding import load as load_plugin
from vqmon.plugins.validating import SettingsRefused, validated
from vqmon.quantities import parse_duration
from vqmon.store import open_store
from vqmon.testing import FakeContext

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLUGIN = "from vqmon import Plugin\nclass P(Plugin):\n    '''Does nothing.'''\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Writes files into a folder of plugins; what they leave in Python is removed."""
    path, modules = list(sys.path), set(sys.modules)

    def write(**files: str) -> Path:
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        return tmp_path

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def segment(stream: str = "news", **fields: Any) -> Segment:
    return Segment(stream, NOON, start=0.0, seconds=10.0, **fields)


def alert(stream: str = "news") -> Alert:
    return Alert(stream, "black", "critical", NOON, "black for 30 s")


# Finding


def test_files_and_packages_of_the_folder_are_found_without_being_imported(
    folder: Callable[..., Path],
) -> None:
    """Listing plugins must be safe whatever they do when they are imported."""
    where = folder(good="raise RuntimeError('imported')", _helper="", notes="x = 1")
    (where / "whole").mkdir()
    (where / "whole" / "__init__.py").write_text(PLUGIN)
    (where / "empty").mkdir()
    (where / "README.md").write_text("no plugin")

    found = find(where)

    assert {"good", "notes", "whole"} <= found.keys()
    assert not {"_helper", "empty", "README"} & found.keys()
    assert found["good"].where == str(where / "good.py")


def test_a_folder_that_is_not_there_holds_none(tmp_path: Path) -> None:
    """It may be made later."""
    assert find(tmp_path / "none").keys() == find(None).keys()


def test_changed_code_is_another_plugin(folder: Callable[..., Path]) -> None:
    """A reload restarts what was edited, and only that."""
    before = find(folder(one=PLUGIN, two=PLUGIN))

    after = find(folder(one=PLUGIN + "    x = 1\n"))

    assert before["two"] == after["two"]
    assert before["one"] != after["one"]


def test_the_plugin_of_a_file_is_its_own_class(folder: Callable[..., Path]) -> None:
    """What a file imports from elsewhere is not offered by it, nor is what it derives from."""
    where = folder(
        _base="from vqmon import Plugin\nclass Base(Plugin):\n    x = 1\n",
        one="from _base import Base\nclass Mine(Base):\n    pass\nclass Last(Mine):\n    pass\n",
    )

    assert load_plugin(find(where)["one"]).__name__ == "Last"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError"),
        ("def (", "cannot be imported: SyntaxError"),
        ("raise SystemExit(2)", "cannot be imported: SystemExit"),
        ("x = 1", "has no subclass of Plugin"),
        (PLUGIN + PLUGIN.replace("P(", "Q("), "several plugins (P, Q)"),
        (PLUGIN + "    Settings = dict\n", "no pydantic model"),
        (
            "from pydantic import BaseModel\n"
            + PLUGIN
            + "    class Settings(BaseModel):\n        timeout: int = 1\n",
            "'timeout', which is vqmon's own",
        ),
    ],
)
def test_what_is_no_plugin_says_so(folder: Callable[..., Path], text: str, said: str) -> None:
    """The author reads this, once."""
    found = find(folder(one=text))["one"]

    with pytest.raises(PluginUnusable) as caught:
        load_plugin(found)

    assert said in str(caught.value)
    assert "plugin one" in str(caught.value)


def test_an_entry_point_that_is_no_plugin_says_so() -> None:
    with pytest.raises(PluginUnusable, match="no subclass of Plugin"):
        load_plugin(Found("one", entry="vqmon.domain:Segment", package="x", version="1"))


# Settings


class Target(BaseModel, extra="forbid"):
    url: str = Field(description="Where to send to.")


class Chosen(BaseModel):
    below: float = Field(40, ge=0, le=100, description="Quality from which it is bad.")
    mode: Literal["observe", "act"] = "observe"
    wait: float = 30.0
    targets: dict[str, Target] = {}
    name: str = "x"

    @field_validator("wait", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        return parse_duration(value) if isinstance(value, str) else value


class Configured(Plugin):
    Settings = Chosen


def refused(**given: Any) -> list[tuple[Any, str]]:
    with pytest.raises(SettingsRefused) as caught:
        validated(Configured, given, Path("/etc"))
    return [(it.path, it.message) for it in caught.value.mistakes]


def test_texts_of_the_file_become_what_the_model_wants() -> None:
    """YAML is read as text, so that a model alone decides what a value is."""
    settings = validated(
        Configured,
        {"below": "55.5", "wait": "2m", "targets": {"a": {"url": "http://x"}}},
        Path("/etc"),
    )

    assert settings == Chosen(below=55.5, wait=120.0, targets={"a": Target(url="http://x")})


def test_a_plugin_without_settings_takes_none() -> None:
    assert validated(Plugin, {}, Path("/etc")) is None
    with pytest.raises(SettingsRefused, match="is not a setting of this plugin"):
        validated(Plugin, {"x": "1"}, Path("/etc"))


@pytest.mark.parametrize(
    ("given", "path", "said"),
    [
        ({"belwo": "3"}, ("belwo",), "did you mean 'below'?"),
        ({"timeuot": "3"}, ("timeuot",), "did you mean 'timeout'?"),
        ({"below": "300"}, ("below",), "less than or equal to 100: Quality from which it is bad."),
        ({"below": "high"}, ("below",), "must be a number"),
        ({"mode": "atc"}, ("mode",), "must be one of observe, act; did you mean 'act'?"),
        ({"wait": "soon"}, ("wait",), "a number and a unit"),
        ({"name": None}, ("name",), "needs a value"),
        ({"targets": "a"}, ("targets",), "must be a map"),
        ({"targets": {"a": {}}}, ("targets", "a", "url"), "is required: Where to send to."),
        ({"targets": {"a": {"url": "x", "ulr": "y"}}}, ("targets", "a", "ulr"), "mean 'url'?"),
    ],
)
def test_mistakes_are_told_at_their_key_with_a_remedy(
    given: dict[str, Any], path: tuple[str, ...], said: str
) -> None:
    """An operator corrects them without reading the plugin."""
    [(where, message)] = refused(**given)

    assert where == path
    assert said in message


def test_all_mistakes_are_told_at_once() -> None:
    assert [path for path, _ in refused(belwo="1", mode="x", below="no")] == [
        ("belwo",),
        ("below",),
        ("mode",),
    ]


# The configuration


def configuration(where: Path, plugins: str) -> Path:
    path = where / "vqmon.yaml"
    path.write_text(f"streams: {{a: {{url: a.mp4}}}}\nplugins_dir: .\nplugins:\n{plugins}")
    return path


def test_the_configuration_asks_the_plugin_itself(folder: Callable[..., Path]) -> None:
    """Wrong settings are refused where all others are, with file, line, key and remedy."""
    where = folder(
        one="from pydantic import BaseModel\n"
        + PLUGIN
        + "    class Settings(BaseModel):\n        below: float = 40\n"
    )
    path = configuration(where, "  one:\n    below: much\n    memroy: 1GB\n  two: {}\n")

    with pytest.raises(ConfigError) as caught:
        load(path, {}, plugins=True)

    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}:5:12: plugins.one.below: 'much': must be a number"
    assert lines[1].startswith(f"{path}:6:5: plugins.one.memroy: ")
    assert lines[1].endswith("did you mean 'memory'?")
    assert lines[2].startswith(f"{path}:7:3: plugins.two: is no plugin that is installed or in ")


def test_a_plugin_that_cannot_be_imported_does_not_keep_the_daemon_from_starting(
    folder: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Its package may have been upgraded badly; the streams must be watched all the same."""
    where = folder(dying="import os\nos._exit(3)", wrong="1 / 0", printing=f"print('x')\n{PLUGIN}")
    path = configuration(where, "  dying:\n  wrong:\n  printing: {enabled: true}\n")

    settings = load(path, {}, plugins=True)

    assert settings.plugins.keys() == {"dying", "wrong", "printing"}
    unusable = {it.__dict__["plugin"]: it.__dict__["error"] for it in caplog.records}
    assert unusable.keys() == {"dying", "wrong"}
    assert "exit code 3" in unusable["dying"]
    assert "ZeroDivisionError" in unusable["wrong"]


def test_a_disabled_plugin_is_not_asked(folder: Callable[..., Path]) -> None:
    """Its settings are kept for later, even while it is not installed."""
    path = configuration(folder(), "  gone: {enabled: false, anything: 1}\n")

    assert load(path, {}, plugins=True).plugins["gone"].own == {"anything": "1"}


# The queue


def test_calls_come_in_the_order_in_which_they_were_told() -> None:
    calls = Calls()
    given = [Call("segment_closed", segment()), Call("alert_opened", alert())]

    assert calls.put(given)
    assert not calls.put([given[0]])

    assert [calls.take(), calls.take(), calls.take(), calls.take()] == [*given, given[0], None]


def test_when_it_is_full_the_oldest_segment_goes() -> None:
    """A plugin that is slow hears of what is new, not of what was an hour ago."""
    calls = Calls(most=3)
    told = [Call("segment_closed", segment(f"s{number}")) for number in range(5)]

    calls.put(told)

    assert [calls.take(), calls.take(), calls.take()] == told[2:]
    assert calls.dropped == {"segment_closed": 2}


def test_an_alert_is_never_dropped_for_a_segment() -> None:
    """Segments come again in ten seconds, an alert does not."""
    calls = Calls(most=2)
    opened = Call("alert_opened", alert())
    calls.put([opened])

    calls.put(Call("segment_closed", segment(f"s{number}")) for number in range(9))

    assert calls.take() == opened
    assert calls.dropped == {"segment_closed": 8}


def test_of_alerts_alone_those_that_are_over_go_first() -> None:
    """A firing one still wants something to be done."""
    calls = Calls(most=3)
    over, firing, newest = alert("over"), alert("firing"), alert("newest")
    told = [
        Call("alert_opened", firing),
        Call("alert_opened", over),
        Call("alert_closed", over),
        Call("alert_opened", newest),
    ]

    calls.put(told)

    assert [calls.take(), calls.take(), calls.take()] == [told[0], told[3], None]


@given(st.lists(st.sampled_from(["segment", "opened", "closed"]), max_size=40), st.integers(1, 8))
def test_the_queue_is_bounded_whatever_comes(kinds: list[str], most: int) -> None:
    """Memory stays flat however long a plugin hangs, and no alert goes while a segment waits."""
    calls, opened, gone_before = Calls(most), [alert("x")], 0
    for kind in kinds:
        if kind == "segment":
            calls.put([Call("segment_closed", segment())])
        elif kind == "opened":
            opened.append(alert("x"))
            calls.put([Call("alert_opened", opened[-1])])
        else:
            calls.put([Call("alert_closed", opened[-1])])
        assert len(calls) <= most
        gone = calls.dropped["alert_opened"] + calls.dropped["alert_closed"]
        if gone > gone_before:
            assert all(it.hook != "segment_closed" for it in calls._waiting)
        gone_before = gone


# What plugin authors test with


def test_the_fake_context_is_a_context() -> None:
    """Types are checked here: what the fake lacks, the tests of a plugin would not notice."""
    context: PluginContext = FakeContext()

    assert Plugin(context, None).context is context


def test_a_plugin_finds_what_it_has_recorded_and_nothing_of_others() -> None:
    context = FakeContext(plugin="mine")
    context.store.record(Decision("other", "news", "x", "", NOON))

    context.record(Decision("whatever", "news", "raise", "because", NOON))

    [found] = context.decisions("news")
    assert (found.plugin, found.kind) == ("mine", "raise")
    assert context.decisions("sport") == []
    assert context.decisions(since=NOON + timedelta(seconds=1)) == []


def test_a_message_with_an_id_is_sent_once() -> None:
    """A plugin that was killed in between sends again."""
    context = FakeContext(targets=["encoder"])

    ids = {context.notify("encoder", {"kbps": 4000}, event_id="d1") for _ in range(2)}

    assert ids == {"d1"}
    assert context.notified == [("encoder", {"kbps": 4000}, "d1")]


@pytest.mark.parametrize(
    ("target", "payload", "event_id", "said"),
    [
        ("nobody", {}, None, "no target 'nobody' under `notifiers:`; known: encoder"),
        ("encoder", {"at": NOON}, None, "JSON values only"),
        ("encoder", {"x": float("nan")}, None, "JSON values only"),
        ("encoder", {"x": "y" * 300_000}, None, "at most"),
        ("encoder", {}, "two words", "no event id"),
    ],
)
def test_what_cannot_be_sent_is_refused_as_by_the_real_context(
    target: str, payload: dict[str, Any], event_id: str | None, said: str
) -> None:
    """Found by the plugin's own tests instead of at night."""
    context = FakeContext(targets=["encoder"])

    with pytest.raises(VqmonError, match=said):
        context.notify(target, payload, event_id=event_id)


def test_segments_are_compared_by_their_scores() -> None:
    """Stored segments need no second look."""
    context = FakeContext()
    bad, good = segment(quality=30.0, uncertainty=4.0), segment(quality=70.0, uncertainty=4.0)

    assert context.compare(bad, good).better == "b"
    assert context.compare([Assessment(0.0, 70.0, 4.0)], bad).better == "a"


def test_scores_of_different_models_are_not_compared() -> None:
    """Their scales differ, and the plugin would act on the difference."""
    context = FakeContext()

    with pytest.raises(ScorerError, match="different models"):
        context.compare(segment(quality=30.0, model="one@1"), segment(quality=70.0, model="two@1"))


def test_what_the_test_did_not_give_is_missing_as_in_life(tmp_path: Path) -> None:
    context = FakeContext(tmp_path / "data")

    assert context.clip(segment()) is None
    assert context.frames(segment()) == []
    assert context.data_dir.is_dir()
    with pytest.raises(ScorerError):
        context.score(tmp_path / "x.mp4")


def test_the_test_of_the_documentation_passes() -> None:
    """It is the first that an author runs."""
    page = (Path(__file__).parents[2] / "docs" / "writing-plugins.md").read_text()
    plugin, its_test = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}

    exec(plugin, names)
    exec(its_test, names)

    names["test_a_bad_segment_is_remembered"]()


# The command


def plugins(*arguments: str) -> Any:
    return CliRunner().invoke(program, ["plugins", *arguments])


def test_the_command_tells_which_plugins_can_run_and_what_they_decided(
    folder: Callable[..., Path],
) -> None:
    """An operator asks this first when nothing happens."""
    where = folder(good=PLUGIN, bad="1 / 0")
    path = configuration(where, "  good:\n  bad: {enabled: false}\n")
    with open_store(load(path, {}).database) as store:
        store.record(Decision("good", "news", "raise", "because", NOON, data={"kbps": 4000}))

    shown = plugins("-c", str(path))
    told = {it["name"]: it for it in json.loads(plugins("-c", str(path), "--json").output)}

    assert shown.exit_code == 0
    assert "Does nothing." in shown.output
    assert "bad: " in shown.output
    assert (told["good"]["state"], told["good"]["from"]) == ("enabled", str(where / "good.py"))
    assert told["good"]["decisions"][0]["data"] == {"kbps": 4000}
    assert told["bad"]["state"] == "unusable"
    assert "ZeroDivisionError" in told["bad"]["problems"][0]


@pytest.mark.parametrize(
    ("given", "state"),
    [
        ("  good: {unknown: 1}\n", "wrong settings"),
        ("  absent:\n", "missing"),
        ("  bad:\n", "unusable"),
    ],
)
def test_the_command_fails_when_an_enabled_plugin_cannot_run(
    folder: Callable[..., Path], given: str, state: str
) -> None:
    """For a check after an upgrade; before anything was stored, too."""
    path = configuration(folder(good=PLUGIN, bad="1 / 0"), given)

    result = CliRunner().invoke(
        program, ["plugins", "-c", str(path), "--json"], standalone_mode=False
    )

    assert result.return_value == 1
    assert state in {it["state"] for it in json.loads(result.output)}
