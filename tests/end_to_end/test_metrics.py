"""Metrics and health as Prometheus, an orchestrator and an operator meet them: over HTTP."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from tests.contract import servers
from tests.daemons import Daemon, moving

STAGED = (
    "synthetic:?live=1&size=96x64&fps=5&gop=0.5&audio=0"
    "&faults=black@2-4,packet_loss@4-5:5,timestamp_jump@6-6.5,no_signal@8-17"
)
"""Black, lossy, jumping, away for nine seconds, and well again."""


class Scraped(Daemon):
    """A daemon whose metrics are read as Prometheus reads them."""

    @property
    def url(self) -> str:
        return str(self.events("http_listening")[-1]["url"])

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", trust_env=False, timeout=10)

    def sample(self, name: str, **labels: str) -> float | None:
        """One number; None when it is absent."""
        found = [
            it.value
            for family in parsed(self.get("/metrics").text)
            for it in family.samples
            if it.name == f"vqmon_{name}" and labels.items() <= it.labels.items()
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def number(self, name: str, **labels: str) -> float:
        value = self.sample(name, **labels)
        assert value is not None, name
        return value


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Scraped]]:
    """Makes daemons and ends them."""
    with ExitStack() as stack:

        def make(name: str = "vqmon", **settings: Any) -> Scraped:
            folder = tmp_path / name
            folder.mkdir()
            made = Scraped(folder, **settings)
            stack.callback(made.close)
            return made

        yield make


def test_numbers_follow_a_stream_that_goes_down_and_comes_back(
    daemon: Callable[..., Scraped],
) -> None:
    """The score is there, vanishes while there is none, and is there again."""
    streams = {"news": {"url": STAGED}, **moving("sports")}
    vqmon = daemon(streams=streams, notifiers={"log": {"type": "log"}})
    vqmon.started()
    assert vqmon.number("stream_fault_seconds_total", stream="news", type="freeze") == 0

    vqmon.wait_for(lambda: vqmon.sample("stream_quality_score", stream="news") is not None)
    vqmon.wait_for(lambda: vqmon.sample("stream_fault_active", stream="news", type="no_signal"), 40)
    assert vqmon.sample("stream_quality_score", stream="news") is None
    assert vqmon.sample("stream_degradation", stream="news", type="blur") is None
    assert vqmon.number("stream_up", stream="news") == 0
    vqmon.wait_for(lambda: vqmon.sample("stream_quality_score", stream="news") is not None, 40)

    assert vqmon.number("stream_up", stream="news") == 1
    assert vqmon.number("stream_reconnects_total", stream="news", reason="timeout_read") == 1
    assert vqmon.number("stream_fault_seconds_total", stream="news", type="black") >= 1
    assert vqmon.number("stream_fault_seconds_total", stream="news", type="no_signal") > 5
    assert vqmon.number("stream_corrupt_packets_total", stream="news") > 0
    assert vqmon.number("stream_timestamp_discontinuities_total", stream="news") == 1
    assert vqmon.number("stream_bytes_total", stream="sports") > 0
    assert abs(vqmon.number("stream_last_frame_timestamp_seconds", stream="news") - time.time()) < 9
    assert vqmon.sample("stream_info", stream="news", codec="h264", width="96", height="64") == 1
    assert 0 < vqmon.number("stream_quality_score", stream="sports") <= 100
    assert vqmon.number("scorer_batch_size_sum") > 10
    assert vqmon.number("scorer_latency_seconds_count") == vqmon.number("scorer_batch_size_sum")
    assert vqmon.number("db_write_seconds_count") > 5
    assert vqmon.number("alerts_active", severity="critical") == 0
    assert vqmon.number("webhook_dead_letters", target="log") == 0
    assert vqmon.stop() == 0


def test_counters_go_on_over_the_death_of_the_processes_that_count(
    daemon: Callable[..., Scraped],
) -> None:
    """A counter that falls looks like a restart of the daemon."""
    vqmon = daemon(streams=moving("news"))
    vqmon.started()
    vqmon.wait_for(lambda: vqmon.number("scorer_batch_size_sum") > 3)
    scored = vqmon.number("scorer_batch_size_sum")
    received = vqmon.number("stream_bytes_total", stream="news")

    vqmon.processes("ingest")[0].kill()
    vqmon.wait_for(lambda: vqmon.number("process_restarts_total", process="ingest") == 1)
    vqmon.processes("scoring")[0].kill()
    vqmon.wait_for(lambda: vqmon.get("/readyz").status_code == 503)
    assert vqmon.get("/readyz").text == "The scoring process does not answer.\n"
    assert vqmon.number("scorer_up") == 0
    assert vqmon.get("/livez").status_code == 200, "a restart of all would help nobody"
    vqmon.wait_for(lambda: vqmon.get("/readyz").status_code == 200, 40)

    reconnects = {"stream": "news", "reason": "process_restarted"}
    assert vqmon.number("stream_reconnects_total", **reconnects) == 1
    assert vqmon.number("process_restarts_total", process="scoring") == 1
    vqmon.wait_for(lambda: vqmon.number("stream_bytes_total", stream="news") > received + 2000)
    vqmon.wait_for(lambda: vqmon.number("scorer_batch_size_sum") > scored)


def test_a_reload_takes_the_numbers_of_removed_streams_away(
    daemon: Callable[..., Scraped],
) -> None:
    """And one that is refused is told."""
    vqmon = daemon(streams=moving("news", "sports"))
    vqmon.started()
    vqmon.wait_for(lambda: vqmon.sample("stream_quality_score", stream="sports") is not None)
    read = vqmon.number("config_last_reload_success_timestamp_seconds")

    vqmon.configure(streams=moving("news") | {"films": {"url": "gopher://x"}})
    assert vqmon.process
    vqmon.process.send_signal(signal.SIGHUP)
    vqmon.wait_for(lambda: vqmon.number("config_reload_failures_total") >= 1)
    assert vqmon.number("config_last_reload_successful") == 0
    assert vqmon.number("stream_up", stream="sports") == 1

    vqmon.configure(streams=moving("news"))
    vqmon.process.send_signal(signal.SIGHUP)
    vqmon.wait_for(lambda: "sports" not in vqmon.get("/metrics").text)
    assert vqmon.number("config_last_reload_successful") == 1
    assert vqmon.number("config_last_reload_success_timestamp_seconds") > read
    assert vqmon.number("stream_up", stream="news") == 1


@pytest.mark.slow
def test_a_database_that_takes_nothing_makes_the_daemon_unready(
    daemon: Callable[..., Scraped],
) -> None:
    """Watching goes on; what waits is told in bytes."""
    vqmon = daemon(streams=moving("news"))
    vqmon.started()
    vqmon.wait_for(lambda: vqmon.scored("news"))

    with closing(sqlite3.connect(vqmon.folder / "data/vqmon.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        vqmon.wait_for(lambda: vqmon.get("/readyz").status_code == 503, 60)
        assert "database" in vqmon.get("/readyz").text
        assert vqmon.number("db_up") == 0
        assert vqmon.number("db_queue_bytes") > 0
        assert vqmon.number("db_write_failures_total") >= 1
        assert vqmon.number("stream_quality_score", stream="news") > 0
        other.execute("ROLLBACK")

    vqmon.wait_for(lambda: vqmon.get("/readyz").status_code == 200, 60)
    vqmon.wait_for(lambda: vqmon.number("db_queue_bytes") == 0)


@pytest.mark.slow
def test_daemons_of_one_machine_start_whatever_their_addresses(
    daemon: Callable[..., Scraped],
) -> None:
    """The second is told what to do, and watches meanwhile; it is served once the first ends."""
    first = daemon("first", streams=moving("news"))
    first.started()
    address = first.url.removeprefix("http://")
    second = daemon("second", streams=moving("sports"), http=address)
    second.started()

    second.wait_for(lambda: second.scored("sports"))
    [warning] = second.events("http_not_listening")
    assert f"{address} is taken" in warning["error"]
    assert "`http: off`" in warning["error"]
    assert second.events("vqmon_ready")[0]["http"] == "off"
    assert first.events("vqmon_ready")[0]["http"] == first.url
    assert first.stop() == 0
    second.wait_for(lambda: second.events("http_listening"), 30)

    second.wait_for(lambda: second.number("stream_up", stream="sports") == 1)


def test_one_that_stands_by_is_alive_and_not_ready(daemon: Callable[..., Scraped]) -> None:
    """An orchestrator must neither restart it nor send anybody to it."""
    active = daemon("active", streams=moving("news"))
    active.started()
    database = f"sqlite:///{active.folder}/data/vqmon.db"
    second = daemon("second", streams=moving("news"), database=database)

    second.start("--standby")
    second.wait_for(lambda: second.log_path.exists() and second.events("standing_by"), 30)
    assert second.get("/livez").status_code == 200
    assert second.get("/readyz").text == "vqmon stands by until another one ends.\n"
    assert "process_resident_memory_bytes" in second.get("/metrics").text
    active.stop()

    second.wait_for(lambda: second.get("/readyz").status_code == 200, 60)
    second.wait_for(lambda: second.number("stream_up", stream="news") == 1)


def test_nothing_listens_when_http_is_off(daemon: Callable[..., Scraped]) -> None:
    vqmon = daemon(streams=moving("news"), http="off")
    vqmon.started()

    listens = [it for it in vqmon_connections(vqmon) if it.status == "LISTEN"]

    assert listens == []
    assert vqmon.events("vqmon_ready")[0]["http"] == "off"


def vqmon_connections(vqmon: Daemon) -> list[Any]:
    assert vqmon.process
    return psutil.Process(vqmon.process.pid).net_connections("inet")


def test_people_who_hold_connections_keep_no_daemon_from_watching_or_ending(
    daemon: Callable[..., Scraped],
) -> None:
    """Its answers come from threads of their own, bounded in number and time."""
    vqmon = daemon(streams=moving("news"))
    vqmon.started()
    host, port = vqmon.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for _ in range(100):
            held = stack.enter_context(socket.create_connection((host, int(port))))
            held.sendall(b"GET /metrics HTTP/1.1\r\n")
        seen = len(vqmon.scored("news"))
        vqmon.wait_for(lambda: len(vqmon.scored("news")) >= seen + 3)

        began = time.monotonic()
        assert vqmon.stop() == 0

    assert time.monotonic() - began < 10


def test_the_official_tool_finds_nothing_to_complain_about(daemon: Callable[..., Scraped]) -> None:
    """`promtool check metrics` knows the conventions better than we do."""
    promtool = servers.need("promtool")
    vqmon = daemon(streams=moving("news"), notifiers={"log": {"type": "log"}})
    vqmon.started()
    vqmon.wait_for(lambda: vqmon.sample("stream_quality_score", stream="news") is not None)

    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=vqmon.get("/metrics").content,
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
