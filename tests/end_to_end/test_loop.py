"""The closed loop, whole: a real encoder, the real daemon, rules, outbox and plugin.

And again with an encoder that does not do what it is told, and with one that nobody can reach.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("vqmon_adaptive_encoding", reason="pip install -e plugins/adaptive_encoding")

from tests.daemons import Daemon
from vqmon.demo import loop
from vqmon.demo.broadcast import serve
from vqmon.demo.commands import Command, Commands, answering
from vqmon.demo.encoder import Order
from vqmon.domain import Alert, Decision, Queued
from vqmon.errors import StoreError
from vqmon.store import SqlStore, open_store

PROGRAM = [sys.executable, "-m", "vqmon"]
PATIENCE = 180.0
BASE = {"crf": 24.5, "cap_kbps": 220}

pytestmark = pytest.mark.timeout(600)


class Loop:
    """An encoder whose content is hard after a few seconds, and a daemon that watches it."""

    def __init__(self, daemon: Daemon, order: Order, urls: dict[str, str]) -> None:
        self.daemon = daemon
        self.order = order
        self.urls = urls

    @property
    def state(self) -> dict[str, Any]:
        return loop.state_of(self.urls["commands"])

    def read(self, what: Callable[[SqlStore], Any]) -> Any:
        try:
            url = f"sqlite:///{self.daemon.folder}/data/vqmon.db"
            with open_store(url, migrate=False) as store:
                return what(store)
        except StoreError:
            return []  # not made yet

    @property
    def decisions(self) -> list[Decision]:
        return self.read(lambda store: store.decisions(stream=loop.STREAM))  # type: ignore[no-any-return]

    @property
    def kinds(self) -> list[str]:
        return [it.kind for it in self.decisions]

    @property
    def alerts(self) -> list[Alert]:
        return self.read(lambda store: store.alerts(loop.STREAM))  # type: ignore[no-any-return]

    @property
    def queued(self) -> list[Queued]:
        """Oldest first."""
        return self.read(lambda store: store.queued("encoder"))[::-1]  # type: ignore[no-any-return]

    @property
    def told(self) -> str:
        """For whoever wants to know why a test fails."""
        return "\n".join(map(str, [*self.decisions, *self.alerts, *self.queued, *self.rows]))

    @property
    def rows(self) -> list[str]:
        return [
            f"{row.started_at:%H:%M:%S} {row.quality} {row.no_score_reason} "
            f"{[(it.name, it.severity) for it in row.findings]} {row.facts.get('bitrate_kbps')}"
            for row in self.read(lambda store: store.segments(loop.STREAM))
        ]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Looks once a second: each look opens the database anew."""
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() - begun < PATIENCE, self.told
            time.sleep(1)


@pytest.fixture
def looped(tmp_path: Path) -> Iterator[Callable[..., Loop]]:
    """Starts both; they end with the test."""
    with ExitStack() as stack:

        def start(commands: str | None = None, **changed: Any) -> Loop:
            order = loop.first_order(5.0, **changed)
            urls = stack.enter_context(loop.encoder(order, tmp_path / "encoder.log"))
            if commands:
                urls["commands"] = commands
            settings = loop.configuration(urls["live"], urls["commands"], order.secret)
            daemon = Daemon(tmp_path, **settings)
            stack.callback(daemon.close)
            daemon.start()
            daemon.wait_for(lambda: daemon.heard("READY=1"), PATIENCE)
            return Loop(daemon, order, urls)

        yield start


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_the_demonstration_closes_the_loop_and_its_report_tells_the_story(tmp_path: Path) -> None:
    """What `make demo-loop` promises, exactly as a newcomer runs it."""
    done = subprocess.run(
        [*PROGRAM, "demo", "--loop", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "The loop is closed: raised, asked, verified, kept, cleared." in done.stdout
    told = done.stdout.partition("What happened (UTC):")[2]
    for word in ("harder", "raised", "asked", "heard", "verified", "cleared"):
        assert re.search(rf"^  \d\d:\d\d:\d\d  {word} ", told, re.MULTILINE), word
    path = Path(re.findall(r"^Report: (.+)$", done.stdout, re.MULTILINE)[0])
    html = path.read_text()
    assert "Compression for 10 s" in html
    assert "asks for quality 8 under 1500 kb/s instead of quality 5 under 220 kb/s" in html
    assert re.search("stays at quality 8 under 1500 kb/s: better", html)

    with open_store(f"sqlite:///{path.parent / 'vqmon.db'}", migrate=False) as store:
        [alert] = [it for it in store.alerts(loop.STREAM) if it.rule == "compression"]
        kinds = [it.kind for it in store.decisions(stream=loop.STREAM)]
        sent = store.queued("encoder")
        rows = store.segments(loop.STREAM)
    assert kinds[:3] == ["raise", "asked", "keep"]
    assert alert.closed_at is not None
    assert [it.state for it in sent] == ["delivered"]
    jumps = {it.name for row in rows for it in row.findings} & {"timestamp_jump", "format_changed"}
    assert jumps == set()


@pytest.mark.slow
def test_an_encoder_that_ignores_the_request_is_sent_back(looped: Callable[..., Loop]) -> None:
    """It says yes and does nothing: only the pictures tell, and they are believed."""
    it = looped(obeys=False)

    it.wait_for(lambda: "restored" in it.kinds)
    it.wait_for(lambda: [one.state for one in it.queued] == ["delivered"] * 2)

    assert it.kinds[:4] == ["raise", "asked", "roll_back", "restored"]
    assert [one["action"] for one in it.state["heard"]] == ["raise", "roll_back"]
    assert {key: it.state[key] for key in BASE} == BASE
    back = next(one for one in it.decisions if one.kind == "roll_back")
    assert "nothing improved" in back.reason
    assert "the encoder did not follow" in back.reason
    [alert] = it.alerts
    assert alert.firing
    # It does not try again at once; why not is on record.
    it.wait_for(lambda: "wait" in it.kinds)
    assert "1 in vain" in it.decisions[it.kinds.index("wait")].reason
    assert it.daemon.stop() == 0


@pytest.mark.slow
def test_an_encoder_that_is_gone_strands_nothing(looped: Callable[..., Loop]) -> None:
    """Its ear is closed while its stream goes on; later somebody restarts it."""
    port = free_port()
    it = looped(commands=f"http://127.0.0.1:{port}/", commands_port=None)

    it.wait_for(lambda: it.queued and it.queued[0].attempts >= 2)
    assert it.queued[0].state == "waiting"
    assert "refused" in (it.queued[0].error or "").lower()
    it.wait_for(lambda: "roll_back" in it.kinds)
    it.wait_for(lambda: it.queued[0].state == "dead")

    listed = subprocess.run(
        [*PROGRAM, "webhooks", "list", "-c", str(it.daemon.file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"encoder +plugin +demo +dead", listed.stdout), listed.stdout

    done: list[Command] = []
    commands = Commands(it.order.secret, loop.STREAM, done.append)
    serve(answering(commands, dict), port)
    it.wait_for(lambda: done)

    # What it hears is where it is: the request that nobody wants any more is not among it.
    assert [(one.action, one.quality, one.cap_kbps) for one in done] == [("roll_back", 5.0, 220)]
    it.wait_for(lambda: {one.state for one in it.queued} == {"dead", "delivered"})
    it.wait_for(lambda: "restored" in it.kinds)
    assert it.kinds[:5] == ["raise", "asked", "failed", "roll_back", "restored"]
    assert it.daemon.stop() == 0


@pytest.mark.slow
def test_ctrl_c_tells_what_happened_until_then_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Two minutes are long; whoever has seen enough may go."""
    process = subprocess.Popen(
        [*PROGRAM, "demo", "--loop", "--folder", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for text in process.stdout:
        if "quality 7" in text or "quality 6" in text:
            break
    family = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "The loop was not closed: no alert was raised" in out
    assert "Report: " in out
    assert "Traceback" not in errors
    assert len(family) >= 4
    deadline = time.monotonic() + 10
    while (left := [it for it in family if it.is_running()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [it for it in left if it.status() != psutil.STATUS_ZOMBIE] == []
