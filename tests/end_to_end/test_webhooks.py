"""Deliveries of a real daemon to a real receiver, through kills, deaths and changes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from standardwebhooks import Webhook as OfficialWebhook

from tests.contract.servers import free_port
from tests.daemons import Daemon, moving
from tests.receivers import SECRET, Answer, Received, Receiver, receiving
from vqmon.domain import Delivery, Queued
from vqmon.store import SqlStore, open_store

FAULTY = "synthetic:?live=1&size=96x64&fps=5&gop=0.5&audio=0&seconds=600&faults={}"
NOW_AND_THEN = ",".join(f"black@{at}-{at + 3}" for at in range(2, 60, 6))

LIVES = """
import os, sys, time
from datetime import UTC, datetime, timedelta
import vqmon.outbox, vqmon.notifiers.webhook
from vqmon.notifying import Target
from vqmon.store import open_store

vqmon.outbox.RETRY_SECONDS = (0.1, 0.2, 0.2, 0.2, 0.2)
vqmon.outbox.LONGEST_PAUSE = 0.2

def live():
    target = Target("encoder", url=sys.argv[2], secrets=(sys.argv[3],), timeout=5.0)
    with open_store(sys.argv[1]) as store:
        vqmon.outbox.Deliverer(store, [target], by="vqmon", poll=0.02).start()
        while store.due(datetime.now(UTC) + timedelta(days=1)):
            time.sleep(0.1)
    os._exit(0)

lives, status = 0, 1
while status:
    if not (pid := os.fork()):
        live()
    with open(sys.argv[4] + ".new", "w") as file:
        file.write(str(pid))
    os.replace(sys.argv[4] + ".new", sys.argv[4])
    _, status = os.waitpid(pid, 0)
    lives += 1
print(lives)
"""
"""Delivers in one process after the other, as often as it is killed, until nothing waits."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path, streams=moving("news"))
    yield running
    running.close()


def stalling(_: Received) -> Answer:
    time.sleep(20)
    return Answer()


def outbox(daemon: Daemon) -> SqlStore:
    return open_store(f"sqlite:///{daemon.folder}/data/vqmon.db", migrate=False)


def queued(daemon: Daemon, *states: str) -> list[Queued]:
    with outbox(daemon) as store:
        return store.queued(states=states)


def message(id_: str, target: str = "encoder", **fields: Any) -> Delivery:
    body = {"number": id_, "text": "x" * 500}
    return Delivery(id_, target, "plugin", body, datetime.now(UTC), **fields)


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def webhook(receiver: Receiver, **fields: Any) -> dict[str, Any]:
    return {"type": "webhook", "url": receiver.url, "secret": SECRET} | fields


# Nothing lost


def test_killed_at_any_point_nothing_is_lost_and_each_event_has_one_id(
    receiver: Receiver, tmp_path: Path
) -> None:
    """Before, while and after a message is on the wire; while the receiver fails and drops."""
    rng, seen = random.Random(7), Counter[str]()
    current = tmp_path / "pid"

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.kill(int(current.read_text()), signal.SIGKILL)

    def answer(it: Received) -> Answer:
        seen[it.id] += 1
        if rng.random() < 0.2:
            threading.Timer(0.03 * rng.random(), kill).start()
        time.sleep(0.02 * rng.random())
        if seen[it.id] == 1 and rng.random() < 0.2:
            return Answer(rng.choice([500, 503, 404]))
        return Answer()

    receiver.answer = answer
    database = f"sqlite:///{tmp_path / 'vqmon.db'}"
    ids = [f"event-{number:03}" for number in range(40)]
    with open_store(database) as store:
        store.enqueue([message(it, topic=f"topic {number % 7}") for number, it in enumerate(ids)])

    command = [sys.executable, "-c", LIVES, database, receiver.url, SECRET, str(current)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)

    assert int(done.stdout) > 3
    with open_store(database) as store:
        assert [it for it in store.queued() if it.state != "delivered"] == []
    assert set(receiver.ids) == set(ids)
    bodies = {it.id: it.body for it in receiver.received}
    for it in receiver.received:
        assert it.body == bodies[it.id]
        OfficialWebhook(SECRET).verify(it.body, it.headers)
    for topic in range(7):
        firsts = [it for it in dict.fromkeys(receiver.ids) if int(it[-3:]) % 7 == topic]
        assert firsts == sorted(firsts)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_alerts_of_a_daemon_that_is_killed_arrive_once_each(
    receiver: Receiver, tmp_path: Path
) -> None:
    """The whole way from a black picture to the encoder: every alert that is stored was told, as
    firing under one id and, when it has ended, as resolved under one other.
    """
    rng = random.Random(11)
    daemon = Daemon(
        tmp_path,
        streams={
            name: {"url": FAULTY.format(NOW_AND_THEN) + f"&seed={place}"}
            for place, name in enumerate(("news", "sport"))
        },
        rules={"black": {"for": "1s", "clear": "1s"}},
        alerts={"grace": "0"},
        notifiers={"encoder": webhook(receiver, rules=["black"])},
    )
    try:
        for _ in range(4):
            _started_anew(daemon)
            time.sleep(2 + 6 * rng.random())
            assert daemon.process
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait(10)
            time.sleep(1)
        _started_anew(daemon)
        daemon.wait_for(lambda: len(queued(daemon)) > 8, 90)
        assert daemon.stop(40) == 0
        _started_anew(daemon)
        daemon.wait_for(lambda: not queued(daemon, "waiting"), 60)
        assert daemon.stop(40) == 0
        assert len(queued(daemon)) > 8

        made = queued(daemon)
        assert {it.state for it in made} == {"delivered"}
        assert set(receiver.ids) == {it.delivery.id for it in made}
        told = {it.id: it.json["vqmon"] for it in receiver.received}
        kinds = Counter((it["alert"]["id"], it["event"]) for it in told.values())
        assert set(kinds.values()) == {1}
        fired = {alert for alert, kind in kinds if kind == "firing"}
        assert {alert for alert, kind in kinds if kind == "resolved"} <= fired
        with outbox(daemon) as store:
            assert {it.id for it in store.alerts() if it.rule == "black"} == fired
        for it in receiver.received:
            OfficialWebhook(SECRET).verify(it.body, it.headers)
    finally:
        daemon.close()


def _started_anew(daemon: Daemon) -> None:
    """Ready once more: what an earlier life said does not count."""
    daemon.heard("")
    daemon.said.clear()
    daemon.started()


# A daemon at work


def test_a_black_picture_reaches_the_encoder(receiver: Receiver, daemon: Daemon) -> None:
    """Raised and resolved, with the score, the finding, the reason and the pictures."""
    daemon.configure(
        streams={"news": {"url": FAULTY.format("black@2-5")}},
        rules={"black": {"for": "1s", "clear": "1s"}},
        alerts={"grace": "0"},
        notifiers={"encoder": webhook(receiver, rules=["black"])},
    )
    daemon.started()

    daemon.wait_for(lambda: len(receiver.received) >= 2, 40)

    firing, resolved = receiver.received[:2]
    OfficialWebhook(SECRET).verify(firing.body, firing.headers)
    assert [firing.json["status"], resolved.json["status"]] == ["firing", "resolved"]
    said = firing.json["vqmon"]
    assert said["findings"][0]["name"] == "black"
    assert said["score"]["no_score_reason"] == "black"
    assert "black" in said["explanation"]
    with outbox(daemon) as store:
        segment = store.segment(said["segment"])
    assert segment
    assert said["evidence"] == list(segment.evidence)
    assert said["alert"]["id"] == resolved.json["vqmon"]["alert"]["id"]
    assert firing.json["alerts"][0]["fingerprint"] == resolved.json["alerts"][0]["fingerprint"]


def test_targets_come_change_and_go_by_reload(receiver: Receiver, daemon: Daemon) -> None:
    """Without a restart, and without disturbing the streams."""
    daemon.started()
    daemon.wait_for(lambda: daemon.rows("news"), 30)
    assert daemon.processes("delivery") == []
    with outbox(daemon) as store:
        store.enqueue([message("m1")])
    daemon.configure(streams=moving("news"), notifiers={"encoder": webhook(receiver)})

    _reload(daemon)
    daemon.wait_for(lambda: receiver.ids == ["m1"], 30)
    daemon.configure(
        streams=moving("news"),
        notifiers={"encoder": webhook(receiver, url=receiver.url + "/2", secret=[])},
    )
    _reload(daemon)
    with outbox(daemon) as store:
        store.enqueue([message("m2")])
    daemon.wait_for(lambda: len(receiver.received) == 2, 30)

    assert receiver.received[1].path == "/hook/2"
    assert "webhook-signature" not in receiver.received[1].headers
    assert len(daemon.processes("delivery")) == 1
    assert daemon.events("stream_lost") == []
    assert daemon.stop() == 0


def _reload(daemon: Daemon) -> None:
    assert daemon.process
    before = len(daemon.events("reloaded"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for(lambda: len(daemon.events("reloaded")) > before, 20)


def test_a_killed_delivery_process_is_replaced_and_watching_goes_on(
    receiver: Receiver, daemon: Daemon
) -> None:
    """Whatever a library does to it."""
    daemon.configure(streams=moving("news"), notifiers={"encoder": webhook(receiver)})
    daemon.started()
    for id_ in ("m1", "m2"):
        _replace_delivery_process(daemon)
        with outbox(daemon) as store:
            store.enqueue([message(id_)])
        until(lambda: id_ in receiver.ids)  # noqa: B023  called at once

    assert len(daemon.events("delivery_ended")) == 2
    assert len(daemon.processes("ingest")) == 1
    assert daemon.stop() == 0


def _replace_delivery_process(daemon: Daemon) -> None:
    daemon.wait_for(lambda: daemon.processes("delivery"), 20)
    [process] = daemon.processes("delivery")
    process.kill()
    daemon.wait_for(lambda: process not in daemon.processes("delivery"), 20)


def test_stopping_is_fast_while_a_receiver_stalls(receiver: Receiver, daemon: Daemon) -> None:
    """Ten seconds for everything; what was under way is sent again at the next start."""
    receiver.answer = stalling
    daemon.configure(
        streams=moving("news"), notifiers={"encoder": webhook(receiver, timeout="60s")}
    )
    daemon.started()
    with outbox(daemon) as store:
        store.enqueue([message("m1")])
    daemon.wait_for(lambda: _tried(daemon), 20)

    begun = time.monotonic()
    assert daemon.stop(25) == 0

    assert time.monotonic() - begun < 15  # 10 s, on a machine that other tests keep busy
    [one] = queued(daemon)
    assert one.state == "waiting"
    receiver.answer = lambda _: Answer()
    _started_anew(daemon)
    daemon.wait_for(lambda: queued(daemon, "delivered"), 40)


def _tried(daemon: Daemon) -> bool:
    return any(it.tried_at for it in queued(daemon))


def test_a_receiver_that_dies_gets_what_it_missed(daemon: Daemon) -> None:
    """Under the ids of the first attempts."""
    port = free_port()
    daemon.configure(
        streams=moving("news"),
        notifiers={"encoder": {"type": "webhook", "url": f"http://127.0.0.1:{port}/x"}},
    )
    daemon.started()
    with outbox(daemon) as store:
        store.enqueue([message("m1"), message("m2")])
    daemon.wait_for(lambda: daemon.events("target_failing"), 20)

    with receiving(port) as receiver:
        daemon.wait_for(lambda: sorted(set(receiver.ids)) == ["m1", "m2"], 30)

    assert [it["target"] for it in daemon.events("target_failing")] == ["encoder"]
    assert daemon.stop() == 0


def test_processes_end_with_a_killed_daemon(receiver: Receiver, daemon: Daemon) -> None:
    """No orphan goes on delivering beside the next daemon."""
    daemon.configure(streams=moving("news"), notifiers={"encoder": webhook(receiver)})
    daemon.started()
    family = daemon.family()
    assert any(it.name().startswith("vqmon-delivery") for it in family)

    assert daemon.process
    daemon.process.kill()
    daemon.process.wait(10)

    _, left = psutil.wait_procs(family, 6)
    assert [it for it in left if it.is_running() and it.status() != psutil.STATUS_ZOMBIE] == []


# Commands


def vqmon(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: it for name, it in os.environ.items() if not name.startswith("VQMON_")}
    return subprocess.run(
        [sys.executable, "-m", "vqmon", *arguments],
        check=False,
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path: Path, receiver: Receiver) -> Path:
    """With a configuration of three targets, and a database."""
    settings = {
        "data_dir": "data",
        "streams": {"news": {"url": "a.mp4"}},
        "notifiers": {
            "encoder": webhook(receiver),
            "nobody": {"type": "webhook", "url": f"http://127.0.0.1:{free_port()}/"},
            "console": {"type": "log"},
        },
    }
    (tmp_path / "vqmon.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "data").mkdir()
    open_store(f"sqlite:///{tmp_path}/data/vqmon.db").close()
    return tmp_path


def test_trying_a_target_out_sends_a_signed_message_now(folder: Path, receiver: Receiver) -> None:
    """And prints what came back."""
    receiver.answer = lambda _: Answer(202, body=b"thank you")

    done = vqmon("webhooks", "test", "encoder", folder=folder)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("encoder: HTTP 202 in ")
    assert done.stdout.endswith(" ms: thank you\n")
    [got] = receiver.received
    said = OfficialWebhook(SECRET).verify(got.body, got.headers)
    assert said["vqmon"]["event"] == "test"


def test_trying_all_out_fails_when_one_does(folder: Path) -> None:
    """For scripts of deployments."""
    done = vqmon("webhooks", "test", "--json", folder=folder)

    assert done.returncode == 1
    trials = {it["target"]: it for it in json.loads(done.stdout)}
    assert {name: it["status"] for name, it in trials.items()} == {
        "encoder": 200,
        "nobody": None,
        "console": None,
    }
    assert "refused" in trials["nobody"]["error"]
    assert trials["console"]["error"] is None
    assert trials["encoder"]["id"].startswith("test-")


def test_listing_and_retrying_dead_letters(folder: Path) -> None:
    """What was given up is seen with its reason, and can be sent after all."""
    with open_store(f"sqlite:///{folder}/data/vqmon.db") as store:
        store.enqueue([message("aaaa1"), message("bbbb1", "nobody"), message("cccc1", "removed")])
        one = store.claim("nobody", "me", datetime.now(UTC) + timedelta(seconds=1), seconds=9)
        assert one
        store.failed(one, "me", "no route to host", due_at=None)

    listed = vqmon("webhooks", "list", "--json", folder=folder)
    shown = vqmon("webhooks", "list", "--target", "nobody", "--state", "dead", folder=folder)
    again = vqmon("webhooks", "retry", "bb", folder=folder)
    nothing = vqmon("webhooks", "retry", "aa", folder=folder)

    found = json.loads(listed.stdout)
    targets = {it["name"]: (it["state"], it["waiting"], it["dead"]) for it in found["targets"]}
    assert targets == {
        "encoder": ("ok", 1, 0),
        "nobody": ("ok", 0, 1),
        "console": ("ok", 0, 0),
        "removed": ("unconfigured", 1, 0),
    }
    assert [it["id"] for it in found["deliveries"]] == ["cccc1", "bbbb1", "aaaa1"]
    assert found["deliveries"][1]["error"] == "no route to host"
    assert found["deliveries"][1]["body"]["number"] == "bbbb1"
    assert "no route to host" in shown.stdout
    assert "aaaa1" not in shown.stdout
    assert again.stdout.startswith("1 delivery due now")
    assert nothing.returncode == 1
    assert "nothing that failed has an id beginning with 'aa'" in nothing.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("test", "encodr"), "did you mean 'encoder'?"),
        (("list", "--target", "x"), "known: console, encoder, nobody"),
        (("retry",), "--target NAME or --all"),
    ],
)
def test_wrong_usage_is_told(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    """With exit code 2."""
    done = vqmon("webhooks", *arguments, folder=folder)

    assert done.returncode == 2
    assert said in done.stderr
