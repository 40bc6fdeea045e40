"""Plugins in a real daemon: what they may do, and what they cannot do to anybody else."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.daemons import MOVING, Daemon, assert_tiled, moving
from vqmon.domain import Alert, Decision
from vqmon.errors import StoreError
from vqmon.store import open_store

ROOT = Path(__file__).parent.parent.parent
BEGIN = """
import time
from datetime import UTC, datetime
from pydantic import BaseModel
from vqmon import Decision, Plugin
"""
WATCHER = (
    BEGIN
    + """
class Watcher(Plugin):
    class Settings(BaseModel):
        word: str = "seen"

    def segment_closed(self, segment):
        self.context.record(
            Decision("watcher", segment.stream, self.settings.word, segment.id, datetime.now(UTC))
        )

    def stopping(self):
        self.context.record(Decision("watcher", "", "stopping", "", datetime.now(UTC)))
"""
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes a daemon with these plugins, files by name; it ends with the test."""
    made: list[Daemon] = []

    def make(files: dict[str, str], **settings: Any) -> Daemon:
        folder = tmp_path / "plugins"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        given = {
            "streams": moving("a"),
            "plugins_dir": str(folder),
            "plugins": {name: {} for name in files},
        }
        made.append(Daemon(tmp_path, **given | settings))
        return made[-1]

    yield make
    for it in made:
        it.close()


def decisions(daemon: Daemon, plugin: str | None = None) -> list[Decision]:
    try:
        with open_store(f"sqlite:///{daemon.folder}/data/vqmon.db", migrate=False) as store:
            return store.decisions(plugin)
    except StoreError:
        return []  # not made yet


def alerts(daemon: Daemon, *, firing: bool | None = None) -> list[Alert]:
    with open_store(f"sqlite:///{daemon.folder}/data/vqmon.db", migrate=False) as store:
        return store.alerts(firing=firing)


def errors(daemon: Daemon, plugin: str, event: str = "plugin_failed") -> list[str]:
    return [it["error"] for it in daemon.events(event) if it["plugin"] == plugin]


def test_a_plugin_hears_of_every_segment_once_it_is_stored(
    daemon: Callable[..., Daemon],
) -> None:
    """It reads the database itself, so what it is told must be there."""
    running = daemon({"watcher": WATCHER}).started()
    running.wait_for(lambda: len(decisions(running, "watcher")) >= 4, 40)

    assert running.stop() == 0

    told = [it for it in decisions(running, "watcher") if it.kind == "seen"]
    ids = [it.reason for it in told]
    known = [it.id for it in running.rows()]
    assert len(set(ids)) == len(ids)
    assert ids == known[known.index(ids[0]) :][: len(ids)]
    assert decisions(running)[-1].kind == "stopping"


MISBEHAVING = {
    "raising": BEGIN + "class P(Plugin):\n    def segment_closed(self, segment): 1 / 0\n",
    "hanging": BEGIN + "class P(Plugin):\n    def segment_closed(self, segment): time.sleep(999)\n",
    "growing": (
        BEGIN
        + "class P(Plugin):\n    def segment_closed(self, segment):\n        held = []\n"
        + "        while True: held.append(b'x' * 2_000_000); time.sleep(0.005)\n"
    ),
    "jumping": (
        BEGIN + "class P(Plugin):\n    def segment_closed(self, segment): b'x' * 20_000_000_000\n"
    ),
    "dying": "import os\nos._exit(3)\n",
    "flooding": (
        BEGIN
        + "import logging\nclass P(Plugin):\n    def segment_closed(self, segment):\n"
        + "        for n in range(20_000):\n"
        + "            logging.getLogger(__name__).error('line %s', n); print('printed', n)\n"
    ),
}


def test_misbehaving_plugins_harm_nothing_else(daemon: Callable[..., Daemon]) -> None:
    """Whatever one does, streams are watched without a gap and the other plugins go on."""
    plugins: dict[str, Any] = {name: {} for name in ("watcher", *MISBEHAVING)}
    plugins["hanging"] = {"timeout": "1s"}
    plugins["growing"] = {"memory": "150MB"}
    running = daemon({"watcher": WATCHER} | MISBEHAVING, plugins=plugins).started()

    for name, said in {
        "raising": "ZeroDivisionError",
        "hanging": "longer than 1 s in segment_closed",
        "growing": "MB of 150 MB",
        "jumping": "more `memory`",
    }.items():
        running.wait_for(partial(errors, running, name), 60)
        assert said in errors(running, name)[0]
    running.wait_for(lambda: errors(running, "dying", "plugin_parked"), 60)
    running.wait_for(lambda: running.events("plugin_lines_dropped"), 60)
    running.wait_for(lambda: errors(running, "raising", "plugin_parked"), 60)

    [parked] = decisions(running, "dying")
    assert parked.kind == "parked"
    assert "exit code 3" in parked.reason
    assert "plugin_unusable plugin=dying" in running.log_path.read_text()
    flood = [it for it in running.events() if it.get("plugin") == "flooding"]
    assert len(flood) < 1000
    begun = len(decisions(running, "watcher"))
    running.wait_for(lambda: len(decisions(running, "watcher")) > begun + 1, 30)
    assert running.stop() == 0
    assert_tiled([it for it in running.rows() if it.scored][1:], gap=1.5)
    assert not running.events("supervisor_fault")


@pytest.mark.slow
def test_a_parked_plugin_is_an_alert_until_it_is_switched_off(
    daemon: Callable[..., Daemon],
) -> None:
    """Nobody reads the log of a monitor; everybody reads its alerts."""
    settings: dict[str, Any] = {
        "streams": moving("a"),
        "notifiers": {"ops": {"type": "log", "rules": ["plugin_parked"]}},
    }
    running = daemon({"dying": MISBEHAVING["dying"]}, **settings).started()
    running.wait_for(lambda: alerts(running, firing=True), 90)

    [parked] = alerts(running)
    assert (parked.stream, parked.rule, parked.severity) == ("(vqmon)", "plugin_parked", "warning")
    assert "The plugin dying failed again and again" in parked.reason

    off = {"plugins_dir": str(running.folder / "plugins"), "plugins": {}}
    running.configure(**settings, **off)
    running.wait_for(lambda: not alerts(running, firing=True), 60)

    [ended] = alerts(running)
    assert ended.id == parked.id
    assert ended.cleared == "The plugin dying is no longer parked."
    with open_store(f"sqlite:///{running.folder}/data/vqmon.db", migrate=False) as store:
        running.wait_for(lambda: {it.state for it in store.queued("ops")} == {"delivered"}, 20)
        assert [it.delivery.kind for it in store.queued("ops")] == ["resolved", "firing"]
    assert running.stop() == 0


def test_a_plugin_that_cannot_be_stopped_does_not_hold_up_the_end(
    daemon: Callable[..., Daemon],
) -> None:
    """A service manager gives the daemon a limited time, and so does an impatient operator."""
    text = BEGIN + (
        "class P(Plugin):\n    def segment_closed(self, segment):\n"
        "        self.context.record(Decision('p', '', 'begun', '', datetime.now(UTC)))\n"
        "        time.sleep(999)\n"
    )
    running = daemon({"busy": text}).started()
    running.wait_for(lambda: decisions(running, "busy"), 30)
    family = running.family()

    begun = time.monotonic()
    code = running.stop()

    assert code == 0
    assert time.monotonic() - begun < 10
    assert not psutil.wait_procs(family, 5)[1]


def test_plugins_die_with_a_killed_daemon(daemon: Callable[..., Daemon]) -> None:
    """What nobody looks after must not go on acting."""
    running = daemon({"watcher": WATCHER}).started()
    running.wait_for(lambda: decisions(running, "watcher"), 30)
    [process] = running.processes("plugin")

    assert running.process
    running.process.kill()
    running.process.wait()

    process.wait(5)


def test_a_killed_plugin_is_started_again(daemon: Callable[..., Daemon]) -> None:
    """The kernel ends the largest process when memory runs out; it may be this one."""
    running = daemon({"watcher": WATCHER}).started()
    running.wait_for(lambda: decisions(running, "watcher"), 30)
    [process] = running.processes("plugin")

    process.send_signal(signal.SIGKILL)
    running.wait_for(lambda: errors(running, "watcher"), 20)
    before = len(decisions(running, "watcher"))
    running.wait_for(lambda: len(decisions(running, "watcher")) > before, 30)

    assert "signal 9" in errors(running, "watcher")[0]


@pytest.mark.slow
def test_a_reload_restarts_only_the_plugins_that_changed(daemon: Callable[..., Daemon]) -> None:
    """A plugin in the middle of something is not disturbed by another's settings."""
    running = daemon({"watcher": WATCHER, "other": WATCHER}).started()
    running.wait_for(lambda: decisions(running, "watcher") and decisions(running, "other"), 40)
    before = {it.pid for it in running.processes("plugin")}
    [other] = [it for it in running.processes("plugin") if "other"[:2] in comm(it)]
    settings = {
        "streams": moving("a"),
        "plugins_dir": str(running.folder / "plugins"),
        "plugins": {"watcher": {"word": "changed"}, "other": {}},
    }

    running.configure(**settings)
    running.wait_for(lambda: any(it.kind == "changed" for it in decisions(running, "watcher")), 40)

    after = {it.pid for it in running.processes("plugin")}
    assert other.pid in after
    assert len(after) == 2
    assert len(after & before) == 1
    kinds = [it.kind for it in decisions(running, "watcher")]
    assert kinds.index("stopping") < kinds.index("changed")

    settings["plugins"] = {"other": {"enabled": "false"}}
    running.configure(**settings)
    running.wait_for(lambda: not running.processes("plugin"), 30)


def test_wrong_settings_are_refused_and_the_old_ones_stay(daemon: Callable[..., Daemon]) -> None:
    """A mistake made at night must not end what worked."""
    running = daemon({"watcher": WATCHER}).started()
    running.wait_for(lambda: decisions(running, "watcher"), 30)

    running.configure(
        streams=moving("a"),
        plugins_dir=str(running.folder / "plugins"),
        plugins={"watcher": {"wrod": "x"}},
    )
    running.wait_for(lambda: running.events("configuration_refused"), 30)
    before = len(decisions(running, "watcher"))
    running.wait_for(lambda: len(decisions(running, "watcher")) > before, 20)

    [line] = [it["error"] for it in running.events("configuration_refused")]
    assert re.search(r"vqmon\.yaml:\d+:\d+: plugins\.watcher\.wrod: .*did you mean 'word'", line)


def comm(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/comm").read_text().strip().removeprefix("vqmon-plugin-")


# The documentation


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs" / "writing-plugins.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_example_of_the_documentation_does_what_it_says(
    daemon: Callable[..., Daemon],
) -> None:
    """Whoever writes a plugin begins with a copy of it."""
    [given] = [yaml.safe_load(it) for it in blocks("yaml")]
    streams = moving("fine") | {"bad": {"url": f"{MOVING.format(9)}&faults=black@0-999"}}
    running = daemon(
        {"bad_segments": blocks("python")[0]}, streams=streams, plugins=given["plugins"]
    )
    running.started()
    running.wait_for(lambda: len(decisions(running, "bad_segments")) >= 3, 40)

    assert running.stop() == 0

    found = decisions(running, "bad_segments")
    known = {it.id: it for it in running.rows()}
    assert {it.stream for it in found} <= {"bad", "fine"}
    bad = [it for it in found if it.stream == "bad"]
    assert len({it.segment for it in bad}) == len(bad) >= 2
    assert all(it.segment in known and it.kind == "bad" for it in bad)
    assert any("black" in it.reason for it in bad)
    assert any(it["event"] == "bad_segment" for it in running.events())


ACTING = (
    BEGIN
    + """
class Acting(Plugin):
    def alert_opened(self, alert):
        event = self.context.notify("encoder", {"do": "more"}, event_id=alert.id, stream=alert.stream)
        self.say("opened", alert, event)
        assert self.context.segment(alert.segment) is not None

    def alert_closed(self, alert):
        self.say("closed", alert, alert.rule)

    def say(self, kind, alert, reason):
        now = datetime.now(UTC)
        self.context.record(Decision("", alert.stream, kind, reason, now, alert=alert.id))
"""
)


def test_alerts_reach_plugins_and_their_messages_reach_the_target(
    daemon: Callable[..., Daemon],
) -> None:
    """The way from a fault to an encoder, all inside one daemon."""
    stream = {"url": f"{MOVING.format(1)}&faults=black@3-8"}
    running = daemon(
        {"acting": ACTING},
        streams={"a": stream},
        alerts={"grace": "0s"},
        rules={"black": {"for": "1s", "clear": "1s"}},
        notifiers={"encoder": {"type": "log", "alerts": "false"}},
    ).started()

    running.wait_for(lambda: {it.kind for it in decisions(running)} >= {"opened", "closed"}, 60)
    with open_store(f"sqlite:///{running.folder}/data/vqmon.db", migrate=False) as store:
        running.wait_for(lambda: [it.state for it in store.queued("encoder")] == ["delivered"], 20)
        [sent] = store.queued("encoder")

    opened, closed = decisions(running)
    assert (sent.delivery.kind, sent.delivery.body) == ("plugin", {"do": "more"})
    assert opened.alert == closed.alert == opened.reason == sent.delivery.id
    assert closed.reason == "black"
    assert running.stop() == 0
