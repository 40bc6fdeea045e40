"""The daemon as an operator meets it: real processes, killed, hung, reloaded and stopped."""

from __future__ import annotations

import fcntl
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import LOADED, MOVING, Daemon, assert_tiled, end_of, moving, still_running
from vqmon.domain import Segment
from vqmon.evidence import PacketRing
from vqmon.summing import up


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons and ends them."""
    with ExitStack() as stack:

        def make(name: str = "vqmon", **settings: Any) -> Daemon:
            folder = tmp_path / name
            folder.mkdir()
            made = Daemon(folder, **settings)
            stack.callback(made.close)
            return made

        yield make


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_configured_daemon_fills_the_database_and_stops_in_order(
    daemon: Callable[..., Daemon],
) -> None:
    """The main job, from the file to rows with scores, pictures and explanations."""
    vqmon = daemon(streams=moving("news", "sports")).started()

    vqmon.wait_for(lambda: len(vqmon.scored("news")) >= 3 and len(vqmon.scored("sports")) >= 3)
    vqmon.wait_for(lambda: vqmon.heard("STATUS=2 up, 0 down"))
    assert vqmon.stop() == 0

    for name in ("news", "sports"):
        rows = vqmon.rows(name)
        assert_tiled(rows)
        assert all(row.model and row.explanation and row.outputs for row in rows[:-1])
        assert all(
            (vqmon.folder / "data/evidence" / str(it.thumbnail)).is_file() for it in rows[:3]
        )
        assert len(rows[0].evidence) > 1, "the first segment keeps its full pictures"
    ready = vqmon.events("vqmon_ready")[0]
    assert ready["database"].endswith("vqmon.db")
    assert ready["evidence"].endswith("data/evidence")
    assert (ready["streams"], bool(ready["model"])) == (2, True)
    assert vqmon.heard("STOPPING=1")
    told = {it["event"] for it in vqmon.events() if it["level"] in ("warning", "error")}
    assert told <= LOADED, told
    assert (vqmon.folder / "data/journal-vqmon.jsonl").stat().st_size == 0


def test_after_kill_9_of_the_supervisor_nothing_is_left_running_and_no_row_is_lost(
    daemon: Callable[..., Daemon],
) -> None:
    """Orphans would hold cameras and fight the next daemon; rows are what we are for."""
    vqmon = daemon(streams=moving("news", "sports"), ingest={"streams_per_process": 1}).started()
    vqmon.wait_for(lambda: len(vqmon.scored("news")) >= 2)
    family = vqmon.family()
    assert len(family) >= 3

    assert vqmon.process
    vqmon.process.kill()
    vqmon.process.wait()
    killed = datetime.now().astimezone()

    assert not still_running(family, 5)
    before = vqmon.rows("news")
    vqmon.said.clear()
    vqmon.started()
    vqmon.wait_for(lambda: len(vqmon.scored("news")) >= len(before) + 2)
    rows = vqmon.rows("news")
    last = [row for row in rows if row.started_at < killed][-1]
    assert (killed - end_of(last)).total_seconds() < 1.6, "no more than the segment in progress"
    assert [it.id for it in rows[: len(before)]] == [it.id for it in before]


def test_when_an_ingest_process_dies_only_its_own_streams_notice(
    daemon: Callable[..., Daemon],
) -> None:
    """The gap is short, marked as ours, and nobody else has one."""
    vqmon = daemon(streams=moving("a", "b", "c", "d"), ingest={"streams_per_process": 2}).started()
    vqmon.wait_for(lambda: all(len(vqmon.scored(name)) >= 2 for name in "abcd"))

    vqmon.processes("ingest")[0].kill()
    vqmon.wait_for(lambda: len([row for row in vqmon.rows() if not up(row)]) >= 2)
    seen = {name: len(vqmon.scored(name)) for name in "abcd"}
    vqmon.wait_for(lambda: all(len(vqmon.scored(name)) > seen[name] for name in "abcd"))
    vqmon.stop()

    gaps = {name: [row for row in vqmon.rows(name) if not up(row)] for name in "abcd"}
    assert sorted(map(bool, gaps.values())) == [False, False, True, True]
    for name, gap in gaps.items():
        assert_tiled(vqmon.rows(name))
        assert {row.no_score_reason for row in gap} <= {"process_restarted"}
        assert not any(row.findings for row in gap)
        assert sum(row.seconds for row in gap) < 6.0
    [ended] = vqmon.events("ingest_ended")
    assert ended["exit_code"] == -signal.SIGKILL


@pytest.mark.slow
def test_a_process_that_hangs_is_replaced(daemon: Callable[..., Daemon]) -> None:
    """Alive is not enough: it has to say so every second."""
    vqmon = daemon(streams=moving("a", "b"), ingest={"streams_per_process": 1}).started()
    vqmon.wait_for(lambda: all(vqmon.scored(name) for name in "ab"))
    victim, sibling = vqmon.processes("ingest")

    victim.suspend()
    vqmon.wait_for(lambda: vqmon.events("ingest_replaced"), 20)
    vqmon.wait_for(lambda: not victim.is_running())
    vqmon.wait_for(lambda: len(vqmon.processes("ingest")) == 2)
    assert sibling.is_running()
    resumed = {name: len(vqmon.scored(name)) for name in "ab"}
    vqmon.wait_for(lambda: all(len(vqmon.scored(name)) > resumed[name] + 1 for name in "ab"))
    vqmon.stop()

    assert vqmon.events("ingest_replaced")[0]["reason"] == "hangs"
    gaps = {name: [row for row in vqmon.rows(name) if not up(row)] for name in "ab"}
    assert sorted(map(bool, gaps.values())) == [False, True]
    for name in "ab":
        assert_tiled(vqmon.rows(name))


def test_when_the_scoring_process_dies_segments_say_so_until_it_is_back(
    daemon: Callable[..., Daemon],
) -> None:
    """Signals, pictures and availability go on meanwhile."""
    vqmon = daemon(streams=moving("news")).started()
    vqmon.wait_for(lambda: len(vqmon.scored()) >= 2)
    [first] = vqmon.processes("scoring")

    first.kill()
    killed = datetime.now().astimezone()
    vqmon.wait_for(lambda: vqmon.processes("scoring") not in ([], [first]))
    vqmon.wait_for(lambda: [r for r in vqmon.scored() if r.started_at > killed][2:])
    vqmon.stop()

    rows = vqmon.rows()
    assert_tiled(rows)
    assert {row.no_score_reason for row in rows} <= {None, "scorer_unavailable"}
    assert vqmon.events("scoring_ended")[0]["exit_code"] == -signal.SIGKILL
    assert not vqmon.events("ingest_ended")


@pytest.mark.slow
def test_fifty_streams_stop_within_ten_seconds(daemon: Callable[..., Daemon]) -> None:
    """A service manager kills what takes longer, and with it the segments in progress."""
    names = [f"camera-{number}" for number in range(50)]
    vqmon = daemon(streams=moving(*names)).started()
    vqmon.wait_for(lambda: vqmon.heard("STATUS=50 up, 0 down"), 40)
    family = vqmon.family()

    begun = time.monotonic()
    assert vqmon.stop() == 0

    assert time.monotonic() - begun < 10
    assert not still_running(family, 0.5)
    assert {row.stream for row in vqmon.rows()} == set(names)


def test_a_second_signal_ends_the_daemon_at_once(daemon: Callable[..., Daemon]) -> None:
    """The operator's second Ctrl-C is an order, not a wish."""
    silent = socket.create_server(("127.0.0.1", 0))
    url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x"
    vqmon = daemon(streams={"stuck": {"url": url}}).started()
    silent.settimeout(15)
    connected, _ = silent.accept()
    family = vqmon.family()
    assert vqmon.process

    vqmon.process.send_signal(signal.SIGINT)
    vqmon.wait_for(lambda: vqmon.events("stopping"))
    begun = time.monotonic()
    vqmon.process.send_signal(signal.SIGINT)

    assert vqmon.process.wait(2) == 128 + signal.SIGINT
    assert time.monotonic() - begun < 1.0
    assert not still_running(family, 5)
    connected.close()
    silent.close()


@pytest.mark.parametrize("how", ["content", pytest.param("signal", marks=pytest.mark.slow)])
def test_a_reload_touches_only_what_changed(daemon: Callable[..., Daemon], how: str) -> None:
    """An operator adds a camera; the other thousand must not blink."""
    streams = moving("same", "gone", "other")
    vqmon = daemon(streams=streams).started()
    vqmon.wait_for(lambda: all(vqmon.scored(name) for name in streams))
    before = vqmon.processes("ingest")

    del streams["gone"]
    streams["other"] = {"url": MOVING.format(9), "labels": {"site": "roof"}}
    streams["new"] = {"url": MOVING.format(10)}
    vqmon.configure(streams=streams)
    if how == "signal":
        assert vqmon.process
        vqmon.process.send_signal(signal.SIGHUP)
    vqmon.wait_for(lambda: vqmon.events("reloaded"))
    reloaded = datetime.now().astimezone()
    vqmon.wait_for(
        lambda: (
            {r.stream for r in vqmon.scored() if r.started_at > reloaded}
            == {"same", "other", "new"}
        )
    )
    after = vqmon.processes("ingest")
    vqmon.stop()

    told = vqmon.events("reloaded")
    assert len(told) == 1
    assert [told[0][it] for it in ("added", "removed", "changed")] == [["new"], ["gone"], ["other"]]
    assert_tiled(vqmon.rows("same"))
    assert all(up(row) for row in vqmon.rows("same"))
    assert end_of(vqmon.rows("gone")[-1]) < reloaded + timedelta(seconds=1.5)
    assert after == before
    assert vqmon.heard("RELOADING=1")


def test_a_bad_file_changes_nothing_and_says_what_is_wrong(daemon: Callable[..., Daemon]) -> None:
    """A typing mistake at night must not stop the monitoring of everything."""
    vqmon = daemon(streams=moving("news")).started()
    vqmon.wait_for(vqmon.scored)

    vqmon.configure(streams={"news": {"url": "nonsense://x", "sampleing": {}}})
    vqmon.wait_for(lambda: vqmon.events("reload_failed"))
    rows = len(vqmon.scored())
    vqmon.wait_for(lambda: len(vqmon.scored()) >= rows + 2)
    vqmon.stop()

    told = [it["error"] for it in vqmon.events("configuration_refused")]
    assert any("sampleing" in line and "sampling" in line for line in told)
    assert all("vqmon.yaml" in line for line in told)
    assert len(vqmon.events("reload_failed")) == 1
    assert all(up(row) for row in vqmon.rows())


def test_one_daemon_is_active_and_another_waits_for_it(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Two daemons would write every row twice; a standby takes over within seconds."""
    first = daemon("first", streams=moving("news")).started()
    second = daemon("second", streams=moving("news"))
    second.configure(streams=moving("news"), data_dir=str(first.folder / "data"))

    assert second.start().wait(20) == 1
    text = second.log_path.read_text()
    assert "another vqmon is active" in text
    assert "--standby" in text
    assert "Traceback" not in text

    second.started("--standby")
    assert second.events("standing_by")
    assert not second.events("vqmon_ready")
    assert first.process
    first.process.kill()
    first.process.wait()
    second.wait_for(lambda: second.events("vqmon_ready"), 20)
    rows = len(first.rows())
    second.wait_for(lambda: len(first.rows()) > rows + 1)
    assert second.stop() == 0


@pytest.mark.slow
def test_a_daemon_whose_lock_was_taken_away_stops(daemon: Callable[..., Daemon]) -> None:
    """Somebody tidied up the lock file and started another: two must not go on side by side."""
    vqmon = daemon(streams=moving("news")).started()
    vqmon.wait_for(vqmon.scored)
    family = vqmon.family()
    path = vqmon.folder / "data/vqmon.db.vqmon.lock"

    path.unlink()
    with open(path, "w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        assert vqmon.process
        assert vqmon.process.wait(20) == 1

    assert "another vqmon has taken over" in vqmon.log_path.read_text()
    assert not still_running(family, 1)


@pytest.mark.slow
def test_a_standby_that_is_told_to_stop_stops(daemon: Callable[..., Daemon]) -> None:
    """It has nothing to lose."""
    first = daemon("first", streams=moving("news")).started()
    second = daemon("second")
    second.configure(streams=moving("news"), data_dir=str(first.folder / "data"))
    second.started("--standby")

    assert second.stop(5) == 0
    assert first.process
    assert first.process.poll() is None


def test_a_dead_stream_has_rows_that_tile_its_time(daemon: Callable[..., Daemon]) -> None:
    """Silence is a finding: availability is a sum over rows."""
    url = f"http://127.0.0.1:{free_port()}/live.m3u8"
    vqmon = daemon(streams={"dead": {"url": url, "segment": "2s"}} | moving("news")).started()

    vqmon.wait_for(lambda: len(vqmon.rows("dead")) >= 3, 25)
    vqmon.wait_for(lambda: vqmon.heard("STATUS=1 up, 1 down"))
    vqmon.stop()

    rows = vqmon.rows("dead")
    assert_tiled(rows)
    assert {row.no_score_reason for row in rows} == {"refused"}
    assert [row.seconds for row in rows[:-1]] == [2.0] * (len(rows) - 1)
    assert all(row.findings[0].name == "no_signal" for row in rows)
    assert rows[-1].findings[0].severity > rows[0].findings[0].severity
    assert all(up(row) for row in vqmon.rows("news"))


def visits_of(rows: Sequence[Segment]) -> list[list[Segment]]:
    """Rows of one stream, those of one visit together."""
    visits: list[list[Segment]] = []
    for row in rows:
        if visits and (row.started_at - end_of(visits[-1][-1])).total_seconds() < 2.0:
            visits[-1].append(row)
        else:
            visits.append([row])
    return visits


def test_scheduled_streams_are_visited_one_after_the_other(
    daemon: Callable[..., Daemon],
) -> None:
    """Between visits nothing is open; each row says how much time it stands for."""
    schedule = {"every": "10s", "for": "2s"}
    dead = {"url": f"http://127.0.0.1:{free_port()}/x", "schedule": schedule}
    vqmon = daemon(
        streams=moving("a", "b", schedule=schedule) | {"dead": dead},
        schedule={"max_concurrent_visits": 2, "misfire_grace": "8s"},
    ).started()

    assert vqmon.processes("ingest") == []
    vqmon.wait_for(lambda: all(len(visits_of(vqmon.rows(name))) > 1 for name in "ab"), 40)
    vqmon.wait_for(lambda: vqmon.rows("dead"), 25)
    assert len(vqmon.processes("visits")) == 1
    vqmon.stop()

    for name in "ab":
        first, second = visits_of(vqmon.rows(name))[:2]
        assert_tiled(first)
        assert sum(row.seconds for row in first) == pytest.approx(2.0, abs=0.05)
        assert all(row.scored and row.facts["visit"] for row in first)
        assert sum(row.facts["represents_seconds"] for row in first) == pytest.approx(10, abs=0.3)
        assert 8 < (second[0].started_at - first[0].started_at).total_seconds() < 19
    lost = visits_of(vqmon.rows("dead"))[0]
    assert {row.no_score_reason for row in lost} == {"refused"}
    assert all(row.facts["visit"] for row in lost)


@pytest.mark.slow
def test_visits_for_which_there_is_no_room_are_recorded_as_missed(
    daemon: Callable[..., Daemon],
) -> None:
    """Nobody looked, and the report must not take that for a good day."""
    schedule = {"every": "11s", "for": "10s"}
    vqmon = daemon(
        streams=moving(*"abc", schedule=schedule),
        schedule={"max_concurrent_visits": 1, "misfire_grace": "1s"},
    ).started()

    vqmon.wait_for(
        lambda: [row for row in vqmon.rows() if row.no_score_reason == "visit_missed"], 30
    )
    vqmon.stop()

    [row] = [row for row in vqmon.rows() if row.no_score_reason == "visit_missed"][:1]
    assert (row.seconds, row.facts["represents_seconds"]) == (10.0, 11.0)
    assert row.findings == ()
    assert vqmon.events("visit_missed")[0]["stream"] in "abc"


def test_a_model_that_cannot_be_loaded_stops_the_start_with_the_remedy(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Better than a daemon that watches for a week without a score."""
    vqmon = daemon(streams=moving("news"), scorer={"model": str(tmp_path / "no-such-model")})

    assert vqmon.start().wait(40) == 1

    text = vqmon.log_path.read_text()
    assert "no model folder" in text
    assert "Traceback" not in text
    assert not vqmon.heard("READY=1")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_a_stream_that_comes_and_goes_is_measured_whenever_it_is_there(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Real packets over UDP: up, silent for some seconds, up again; every second has its row."""
    port = free_port()
    url = f"udp://127.0.0.1:{port}"

    picture = "-re -f lavfi -i testsrc2=s=160x90:r=25 -c:v libx264 -preset ultrafast -g 12"

    def send() -> subprocess.Popen[bytes]:
        target = ["-f", "mpegts", f"{url}?pkt_size=1316"]
        return subprocess.Popen(["ffmpeg", "-v", "error", *picture.split(), *target])

    vqmon = daemon(
        streams={"udp": {"url": url, "options": {"read_timeout": 2}, "packet_ring": "60s"}}
    )
    sender = send()
    try:
        vqmon.started()
        vqmon.wait_for(lambda: len(vqmon.scored()) >= 3, 25)
        sender.kill()
        sender.wait()
        vqmon.wait_for(lambda: any(r.no_score_reason == "timeout_read" for r in vqmon.rows()), 25)
        sender = send()
        back = datetime.now().astimezone()
        vqmon.wait_for(lambda: [r for r in vqmon.scored() if r.started_at > back][1:], 25)
        vqmon.stop()
    finally:
        sender.kill()
        sender.wait()

    rows = vqmon.rows()
    assert_tiled(rows, gap=1.0)
    outage = [row for row in rows if row.no_score_reason == "timeout_read"]
    assert outage
    assert PacketRing(vqmon.folder / "data/packets/udp").clip(tmp_path / "clip.mp4") > 3
    assert all(row.findings[0].name == "no_signal" for row in outage[1:])


@pytest.mark.slow
def test_a_locked_database_delays_rows_and_loses_none(daemon: Callable[..., Daemon]) -> None:
    """A backup or a careless shell holds SQLite for longer than a write may wait."""
    vqmon = daemon(streams=moving("news")).started()
    vqmon.wait_for(lambda: len(vqmon.scored()) >= 2)

    with sqlite3.connect(vqmon.folder / "data/vqmon.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        vqmon.wait_for(lambda: vqmon.events("database_away"), 60)
        vqmon.wait_for(lambda: vqmon.heard("STATUS=1 up, 0 down, database away"))
        other.execute("ROLLBACK")
    other.close()
    vqmon.wait_for(lambda: vqmon.events("database_back"), 30)
    vqmon.stop()

    rows = vqmon.rows()
    assert len(rows) > 10
    assert_tiled(rows)


@pytest.mark.slow
def test_a_database_that_is_away_at_the_end_gets_its_rows_at_the_next_start(
    daemon: Callable[..., Daemon],
) -> None:
    """Stopping does not wait for it, and forgets nothing."""
    vqmon = daemon(streams=moving("news")).started()
    vqmon.wait_for(lambda: len(vqmon.scored()) >= 2)
    with sqlite3.connect(vqmon.folder / "data/vqmon.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(3)
        begun, asked_to_stop = time.monotonic(), datetime.now().astimezone()
        assert vqmon.stop(20) == 0
        assert time.monotonic() - begun < 10
        other.execute("ROLLBACK")
    other.close()
    assert (vqmon.folder / "data/journal-vqmon.jsonl").stat().st_size > 0
    first_run = datetime.now().astimezone()

    vqmon.said.clear()
    vqmon.started()
    vqmon.wait_for(lambda: [r for r in vqmon.rows() if r.started_at > first_run])
    vqmon.stop()

    rows = [row for row in vqmon.rows() if row.started_at < first_run]
    assert_tiled(rows)
    assert (asked_to_stop - end_of(rows[-1])).total_seconds() < 3, "all but the segment in progress"


@pytest.mark.slow
def test_a_standstill_of_the_supervisor_costs_no_process(daemon: Callable[..., Daemon]) -> None:
    """A debugger, a frozen container: whoever did not listen must not blame the others."""
    vqmon = daemon(streams=moving("a", "b"), ingest={"streams_per_process": 1}).started()
    vqmon.wait_for(lambda: all(vqmon.scored(name) for name in "ab"))
    before = vqmon.family()
    assert vqmon.process

    vqmon.process.send_signal(signal.SIGSTOP)
    time.sleep(14)
    vqmon.process.send_signal(signal.SIGCONT)
    vqmon.wait_for(lambda: vqmon.events("supervisor_stood_still"))
    time.sleep(2)
    assert vqmon.family() == before
    vqmon.stop()

    for name in "ab":
        assert_tiled(vqmon.rows(name))
        assert all(up(row) for row in vqmon.rows(name))


@pytest.mark.slow
def test_a_process_that_grows_is_replaced_in_order(daemon: Callable[..., Daemon]) -> None:
    """Leaks in drivers and demuxers are a fact of life; the machine must not swap for them."""
    huge = "synthetic:?live=1&size=4096x3072&fps=1&gop=1&audio=0"
    vqmon = daemon(streams={"huge": {"url": huge}}, ingest={"max_memory": "256MB"}).started()

    vqmon.wait_for(lambda: vqmon.events("ingest_replaced"), 40)
    vqmon.wait_for(lambda: any(r.no_score_reason == "process_restarted" for r in vqmon.rows()), 40)
    vqmon.stop()

    assert vqmon.events("ingest_replaced")[0]["reason"] == "memory"
    assert_tiled(vqmon.rows())
