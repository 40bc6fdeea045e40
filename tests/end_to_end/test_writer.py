"""The writer in a real daemon: asked about what raises alerts, answered beside the scorer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.daemons import Daemon, still_running
from vqmon.domain import Alert, Asked
from vqmon.store import open_store

SERVER = Path(__file__).parent.parent / "answering_server.py"
STREAM = "synthetic:?live=1&size=96x64&fps=5&gop=0.5&audio=0&faults=noise@0-600:5"
ALWAYS = {"on": "quality", "severity": "warning", "limit": 99.5, "for": "1s", "clear": "1s"}
"""A rule that every stream breaks at once."""


class Server:
    """The answering server, which a test may end and start again on its own."""

    def __init__(self, folder: Path) -> None:
        self.mood, self.log = folder / "mood", folder / "asked"
        self.behaves("well")
        self.log.touch()
        command = [sys.executable, str(SERVER), str(self.mood), str(self.log)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def behaves(self, mood: str) -> None:
        unfinished = self.mood.with_suffix(".new")
        unfinished.write_text(mood)
        unfinished.replace(self.mood)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


@pytest.fixture
def daemon(tmp_path: Path, server: Server) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that ask the server, and ends them."""
    with ExitStack() as stack:

        def make(**writer: Any) -> Daemon:
            asks = {"model": f"remote:{server.url}", "uncertainty": 0.1} | writer
            made = Daemon(
                tmp_path,
                alerts={"grace": "0s"},
                rules={"never-good-enough": ALWAYS},
                streams={"news": {"url": STREAM}},
                writer=asks,
            )
            stack.callback(made.close)
            return made

        yield make


def questions(vqmon: Daemon, state: str | None = None) -> list[Asked]:
    if not vqmon.rows():
        return []
    with open_store(f"sqlite:///{vqmon.folder}/data/vqmon.db", migrate=False) as store:
        return store.questions(states=[state] if state else [])


def alerts(vqmon: Daemon) -> list[Alert]:
    if not vqmon.rows():
        return []
    with open_store(f"sqlite:///{vqmon.folder}/data/vqmon.db", migrate=False) as store:
        return store.alerts()


def explain(vqmon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: it for name, it in os.environ.items() if not name.startswith("VQMON_")}
    return subprocess.run(
        [sys.executable, "-m", "vqmon", "explain", *arguments, "-c", str(vqmon.file)],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )


def test_a_segment_that_raises_an_alert_gets_an_answer_beside_the_scorers(
    daemon: Callable[..., Daemon],
) -> None:
    """With the writer's name, its words and whether the two agree."""
    vqmon = daemon().started()

    vqmon.wait_for(lambda: questions(vqmon, "answered"), 60)

    asked = questions(vqmon, "answered")[-1]
    [segment] = [it for it in vqmon.rows() if it.id == asked.question.segment]
    assert asked.opinion
    assert asked.disagreement
    assert asked.opinion.quality == pytest.approx(6.25)
    assert asked.opinion.model.startswith("ready@")
    assert "The whole picture is black." in asked.opinion.explanation
    assert [it.name for it in asked.opinion.findings] == ["underexposed"]
    assert asked.opinion.pictures == segment.evidence[:2]
    assert segment.explanation
    assert segment.model != asked.opinion.model
    said = explain(vqmon, segment.id[:12], "--no-ask")
    assert said.returncode == 0, said.stderr
    assert asked.opinion.model in said.stdout
    assert asked.disagreement.sentence in said.stdout
    assert vqmon.stop() == 0


@pytest.mark.slow
def test_kill_9_under_a_question_loses_it_not_and_asks_it_not_twice(
    daemon: Callable[..., Daemon], server: Server
) -> None:
    """The next start asks again; what was cut off was no attempt."""
    server.behaves("hangs")
    vqmon = daemon(ask_on=["alert"]).started()
    vqmon.wait_for(lambda: server.asked, 60)
    [before] = questions(vqmon)
    family = vqmon.family()
    assert vqmon.process
    vqmon.process.kill()
    vqmon.process.wait()
    assert still_running(family, 6) == []
    server.behaves("well")
    vqmon.said.clear()

    vqmon.started()
    vqmon.wait_for(lambda: questions(vqmon, "answered"), 60)

    [asked] = questions(vqmon)
    assert asked.question == before.question
    assert asked.attempts == 1
    assert server.asked == ["hangs rated", "well rated", "well named"]
    assert vqmon.stop() == 0


@pytest.mark.slow
def test_whatever_the_server_does_watching_goes_on_and_the_reason_is_stored(
    daemon: Callable[..., Daemon], server: Server
) -> None:
    """Slow, broken, dead in the middle, garbage; an operator who asks is told, too."""
    vqmon = daemon(ask_on=["demand"], timeout="2s", per_hour=1000).started()
    vqmon.wait_for(lambda: [it for it in vqmon.rows() if it.evidence], 60)
    ids = [it.id for it in vqmon.rows() if it.evidence]

    for mood, says in (
        ("slow", "timed out"),
        ("broken", "CUDA out of memory"),
        ("dies", "127.0.0.1"),
        ("garbage", "127.0.0.1"),
        ("rambles", "has no <answer>"),
    ):
        server.behaves(mood)
        rows = len(vqmon.rows())
        said = explain(vqmon, ids[0], "--now", "--json")
        asked = json.loads(said.stdout)["writer"]
        assert said.returncode == 1, mood
        assert asked["opinion"] is None
        assert says in asked["reason"], (mood, asked["reason"])
        vqmon.wait_for(lambda before=rows: len(vqmon.rows()) > before, 30)  # type: ignore[misc]

    server.behaves("well")
    said = explain(vqmon, ids[0], "--wait")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "The whole picture is black." in said.stdout
    assert vqmon.stop() == 0


@pytest.mark.slow
def test_a_writers_process_that_is_killed_is_replaced_and_its_question_says_so(
    daemon: Callable[..., Daemon], server: Server
) -> None:
    """As the kernel does when memory runs out; the scorer and the streams feel nothing."""
    server.behaves("hangs")
    vqmon = daemon(ask_on=["alert"]).started()
    vqmon.wait_for(lambda: server.asked, 60)
    [process] = vqmon.processes("writer")
    others = {it.pid for it in vqmon.family()} - {process.pid}
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "500"
    assert process.nice() >= 10

    process.kill()
    vqmon.wait_for(lambda: any(it.reason for it in questions(vqmon)), 30)

    [asked] = questions(vqmon)
    assert "was killed, as it is when memory runs out" in (asked.reason or "")
    assert (asked.state, asked.attempts) == ("waiting", 1)
    vqmon.wait_for(lambda: vqmon.processes("writer"), 30)
    assert others <= {it.pid for it in vqmon.family()}
    assert vqmon.stop() == 0


@pytest.mark.slow
def test_a_writer_that_cannot_be_loaded_is_an_alert_until_another_is_configured(
    daemon: Callable[..., Daemon], server: Server
) -> None:
    """A reload brings the other one; no stream is interrupted."""
    vqmon = daemon(model="writer:no/such-model", device="cpu", ask_on=["alert"]).started()

    vqmon.wait_for(lambda: any(it.rule == "writer_away" for it in alerts(vqmon)), 60)

    [asked] = questions(vqmon)
    assert "The writer cannot be loaded" in (asked.reason or "")
    assert asked.attempts == 0
    generation = len(vqmon.events("stream_connected"))
    again = yaml.safe_load(vqmon.file.read_text())
    again["writer"]["model"] = f"remote:{server.url}"
    unfinished = vqmon.file.with_suffix(".new")
    unfinished.write_text(yaml.safe_dump(again))
    unfinished.replace(vqmon.file)
    vqmon.wait_for(lambda: questions(vqmon, "answered"), 60)
    vqmon.wait_for(
        lambda: any(it.rule == "writer_away" and it.closed_at for it in alerts(vqmon)), 30
    )
    assert len(vqmon.events("stream_connected")) == generation
    assert vqmon.stop() == 0


@pytest.mark.slow
def test_without_a_daemon_explain_asks_by_itself(
    daemon: Callable[..., Daemon], server: Server
) -> None:
    """Yesterday's segment, on the machine that has its pictures."""
    vqmon = daemon(ask_on=["demand"]).started()
    vqmon.wait_for(lambda: [it for it in vqmon.rows() if it.evidence], 60)
    assert vqmon.stop() == 0
    [segment, *_] = [it for it in vqmon.rows() if it.evidence]

    left = explain(vqmon, segment.id, "--json")
    asked = explain(vqmon, segment.id, "--now")

    assert json.loads(left.stdout)["writer"]["state"] == "waiting"
    assert asked.returncode == 0, asked.stderr
    assert "somebody asked" in asked.stdout
    assert "The whole picture is black." in asked.stdout
    assert server.asked == ["well rated", "well named"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_checkpoint_on_this_machine_is_asked_too(daemon: Callable[..., Daemon]) -> None:
    """The same way, with a model of the real family. This one is tiny and was hardly taught, so
    what it writes may be no answer; then its own words are the reason.
    """
    pytest.importorskip("torch")
    from tests.tiny_writer import school

    vqmon = daemon(model=f"writer:{school()}", device="cpu", ask_on=["alert"]).started()

    vqmon.wait_for(lambda: [it for it in questions(vqmon) if it.state != "waiting"], 120)

    [asked] = questions(vqmon)
    assert asked.attempts == 1
    if asked.opinion:
        assert 0 <= (asked.opinion.quality or 0.0) <= 100
        assert asked.opinion.details["rating"]
    else:
        assert "It looks" in (asked.reason or "")
    assert vqmon.events("writer_answered") or vqmon.events("writer_gave_no_answer")
    assert vqmon.stop() == 0
