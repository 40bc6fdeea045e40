"""A real Alertmanager takes our alerts, holds them while they fire, and resolves them in time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.servers import free_port, need
from tests.receivers import receiving
from vqmon.domain import Alert, AlertEvent, Delivery
from vqmon.errors import DeliveryFailed
from vqmon.notifiers import open_notifier
from vqmon.notifying import Target, alert_body, deliveries, trial
from vqmon.outbox import Deliverer
from vqmon.store import open_store

RESOLVE_SECONDS = 2
CONFIG = """
global: {{resolve_timeout: {resolve}s}}
route: {{receiver: us, group_by: [alertname], group_wait: 0s, group_interval: 1s}}
receivers:
  - name: us
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


class Alertmanager:
    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: list[dict[str, Any]] = []

    def alerts(self) -> dict[str, dict[str, Any]]:
        found = httpx.get(f"{self.url}/api/v2/alerts", timeout=20, trust_env=False).json()
        return {it["labels"]["alertname"]: it for it in found}


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    program = need("prometheus-alertmanager")
    folder, port = tmp_path_factory.mktemp("alertmanager"), free_port()
    with receiving() as receiver:
        config = folder / "alertmanager.yml"
        config.write_text(CONFIG.format(resolve=RESOLVE_SECONDS, url=receiver.url))
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("wb"),
        )
        running = Alertmanager(f"http://127.0.0.1:{port}")
        running.heard = []
        receiver.answer = _noting(running, receiver.answer)
        try:
            _until_ready(running, process, folder / "log")
            yield running
        finally:
            process.kill()
            process.wait(10)


def _noting(manager: Alertmanager, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def note(got: Any) -> Any:
        manager.heard.append(got.json)
        return answer(got)

    return note


def _until_ready(manager: Alertmanager, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{manager.url}/-/ready", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    pytest.fail(f"Alertmanager did not start: {log.read_text()[-2000:]}")


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)


def alert(rule: str, **fields: Any) -> Alert:
    """Began a minute ago."""
    given: dict[str, Any] = {
        "stream": "Öffentlich 📺",
        "severity": "critical",
        "opened_at": datetime.now(UTC) - timedelta(minutes=1),
        "reason": "black for 31 s",
        "finding": "black",
        "labels": {"site": "north", "empty": ""},
    }
    return Alert(rule=rule, **given | fields)


def send(manager: Alertmanager, delivery: Delivery) -> None:
    open_notifier(target(manager)).send(delivery, datetime.now(UTC))


def target(manager: Alertmanager, **fields: Any) -> Target:
    return Target("am", "alertmanager", url=manager.url, **fields)


def delivery(kind: Any, one: Alert) -> Delivery:
    event = AlertEvent(kind, one, datetime.now(UTC))
    [made] = deliveries([event], [Target("am", "alertmanager")])
    return made


def test_an_alert_is_taken_with_its_labels_and_its_beginning(manager: Alertmanager) -> None:
    """Routing and silencing there go by labels."""
    firing = alert("taken")

    send(manager, delivery("firing", firing))

    found = manager.alerts()["taken"]
    assert found["status"]["state"] == "active"
    assert found["labels"] == {
        "alertname": "taken",
        "finding": "black",
        "severity": "critical",
        "site": "north",
        "stream": "Öffentlich 📺",
    }
    assert found["annotations"]["summary"] == "Öffentlich 📺: black for 31 s"
    started = datetime.fromisoformat(found["startsAt"])
    assert abs(started - firing.opened_at) < timedelta(seconds=0.01)


def test_it_fires_for_longer_than_alertmanagers_own_timeout(manager: Alertmanager) -> None:
    """Without an end it would be taken for resolved after `resolve_timeout`; ours is told."""
    mortal = {"labels": {"alertname": "mortal"}}
    httpx.post(f"{manager.url}/api/v2/alerts", json=[mortal], timeout=20, trust_env=False)
    send(manager, delivery("firing", alert("lasting")))

    until(lambda: "mortal" not in manager.alerts())
    time.sleep(0.5)

    assert manager.alerts()["lasting"]["status"]["state"] == "active"
    ends = datetime.fromisoformat(manager.alerts()["lasting"]["endsAt"])
    assert timedelta(minutes=3) < ends - datetime.now(UTC) <= timedelta(minutes=4)


def test_it_is_resolved_with_its_true_end(manager: Alertmanager) -> None:
    """And Alertmanager tells its receivers so."""
    firing = alert("ending")
    send(manager, delivery("firing", firing))
    until(lambda: any(it["alerts"][0]["labels"]["alertname"] == "ending" for it in manager.heard))

    ended_at = datetime.now(UTC) - timedelta(seconds=5)
    send(manager, delivery("resolved", replace(firing, closed_at=ended_at)))

    until(lambda: "ending" not in manager.alerts())
    until(
        lambda: any(
            it["status"] == "resolved" and it["commonLabels"]["alertname"] == "ending"
            for it in manager.heard
        )
    )
    [told] = [
        it["alerts"][0]
        for it in manager.heard
        if it["status"] == "resolved" and it["commonLabels"]["alertname"] == "ending"
    ]
    assert abs(datetime.fromisoformat(told["endsAt"]) - ended_at) < timedelta(seconds=0.01)


def test_our_own_body_has_every_field_that_alertmanagers_webhook_has(manager: Alertmanager) -> None:
    """Compared with what the real one sends its receivers."""
    send(manager, delivery("firing", alert("compared")))
    until(lambda: manager.heard)
    theirs = manager.heard[0]

    ours = alert_body(AlertEvent("firing", alert("x"), datetime.now(UTC)), "us")

    assert theirs.keys() <= ours.keys()
    assert ours.keys() - theirs.keys() == {"vqmon"}
    assert theirs["alerts"][0].keys() == ours["alerts"][0].keys()
    for name, value in theirs.items():
        assert type(ours[name]) is type(value), name
    assert ours["version"] == theirs["version"]


def test_the_outbox_keeps_an_alert_firing_and_resolves_it(
    manager: Alertmanager, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, over a restart of the deliverer, with a shorter minute."""
    monkeypatch.setattr("vqmon.outbox.REPEAT_SECONDS", 0.5)
    monkeypatch.setattr("vqmon.notifiers.alertmanager.LASTS", timedelta(seconds=3))
    firing = alert("whole_way")
    with open_store(sqlite_url) as store:
        store.enqueue([delivery("firing", firing)])
        first = Deliverer(store, [target(manager)], by="vqmon", poll=0.05)
        first.start()
        until(lambda: "whole_way" in manager.alerts())
        assert first.stop(5)
        second = Deliverer(store, [target(manager)], by="vqmon", poll=0.05)
        second.start()
        time.sleep(4)

        assert "whole_way" in manager.alerts()
        store.enqueue([delivery("resolved", replace(firing, closed_at=datetime.now(UTC)))])
        until(lambda: "whole_way" not in manager.alerts())
        until(lambda: not store.queued(states=["waiting"]))
        assert second.stop(5)

        assert {it.delivery.kind: it.state for it in store.queued()} == {
            "firing": "replaced",
            "resolved": "delivered",
        }


def test_a_trial_is_taken_and_ends_by_itself(manager: Alertmanager) -> None:
    """`vqmon webhooks test` leaves nothing that somebody must clean up."""
    now = datetime.now(UTC)

    receipt = open_notifier(target(manager)).send(trial(target(manager), now, "t1"), now)

    assert receipt.status == 200
    ends = datetime.fromisoformat(manager.alerts()["vqmon_test"]["endsAt"])
    assert ends - now <= timedelta(minutes=4)


def test_the_url_may_name_the_api_or_not(manager: Alertmanager) -> None:
    """People paste either."""
    now = datetime.now(UTC)
    for suffix in ("", "/", "/api/v2/alerts"):
        one = Target("am", "alertmanager", url=manager.url + suffix)
        assert open_notifier(one).send(trial(one, now, "t2"), now).status == 200


def test_what_is_no_alert_is_refused_here(manager: Alertmanager) -> None:
    """A plugin's message has no place there, and says so."""
    with pytest.raises(DeliveryFailed, match="takes alerts only"):
        send(manager, Delivery("p1", "am", "plugin", {"bitrate_kbps": 1}, datetime.now(UTC)))


def test_what_alertmanager_refuses_is_shown(manager: Alertmanager) -> None:
    """A 400 with its reason."""
    made = delivery("firing", alert("refused"))
    body = dict(made.body)
    body["alerts"] = [{**body["alerts"][0], "labels": {"0bad name": "x"}}]

    with pytest.raises(DeliveryFailed, match=r"HTTP 400 Bad Request: .*label"):
        send(manager, replace(made, body=body))
