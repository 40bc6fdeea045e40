"""The scoring process under everything that can happen to it and to those that ask it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from vqmon.domain import Assessment
from vqmon.errors import ScorerError, ScorerUnavailable
from vqmon.measures import Measures
from vqmon.preprocess import Prepared
from vqmon.scorers.serving import ScoringServer
from vqmon.scorers.shared import IN_FLIGHT, SharedScorer
from vqmon.scorers.wire import LENGTHS
from vqmon.testing import FakeScorer

PROGRAM = Path(__file__).with_name("scoring_process.py")
LARGE = (8, 64, 64, 3)
"""float32: 384 KiB, as patches of a learned network may be."""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def address(tmp_path: Path) -> Path:
    return tmp_path / "run" / "scorer.sock"


@pytest.fixture
def start(address: Path) -> Iterator[Start]:
    """Starts scoring processes on `address`, and ends them."""
    started: list[subprocess.Popen[bytes]] = []

    def run(seconds: float = 0.0) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, str(PROGRAM), str(address), str(seconds)])
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def picture(value: float, position: float = 0.0, *, large: bool = False) -> Prepared:
    measures = np.full(40, value, np.float32)
    inputs: dict[str, NDArray[np.generic]] = {"measures": measures}
    if large:
        inputs["patches"] = np.full(LARGE, value, np.float32)
    return Prepared(position, Measures(values=measures, cells={}), inputs)


def ready(scorer: SharedScorer) -> SharedScorer:
    """Wait until the scoring process, which takes a second to start, answers."""
    assert eventually(lambda: scorer.assess([picture(1)])[0].quality == 1)
    return scorer


def eventually(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_everything_a_scorer_says_comes_back(address: Path, start: Start) -> None:
    """Findings, regions and raw outputs must survive the way between processes."""
    start()

    with ready(SharedScorer(address)) as scorer:
        [assessment] = scorer.assess([picture(42, 7.5)])

    assert assessment.position == 7.5
    assert assessment.quality == 42
    assert assessment.outputs == {"score": (42.0, 0.25)}
    assert assessment.model == "mean@1"
    [finding] = assessment.findings
    assert (finding.name, finding.region, finding.start) == ("blur", ("top", "centre"), 7.5)
    assert finding.cost == 4.5


def test_large_inputs_cross_as_exactly_as_small_ones(address: Path, start: Start) -> None:
    """Above a few kilobytes inputs lie in shared memory; more pictures than slots still work."""
    start()

    with ready(SharedScorer(address, deadline=30)) as scorer:
        batch = [picture(i % 100, i, large=True) for i in range(5 * IN_FLIGHT)]
        qualities = [a.quality for a in scorer.assess(batch)]

    assert qualities == [i % 100 for i in range(5 * IN_FLIGHT)]


def test_pictures_of_several_processes_and_threads_share_batches(
    address: Path, start: Start
) -> None:
    """One inference for all streams is what the process is for."""
    start(0.05)

    with ready(SharedScorer(address, deadline=30)) as one, ready(SharedScorer(address)) as two:
        with ThreadPoolExecutor(8) as threads:
            asked = [(one, i) if i % 2 else (two, i) for i in range(40)]
            qualities = list(threads.map(lambda a: a[0].assess([picture(a[1])])[0].quality, asked))
        stats = one.stats()

    assert qualities == list(range(40))
    assert stats["clients"] == 2
    assert stats["pictures"] >= 40
    assert max(int(size) for size in stats["batch_sizes"]) > 1
    assert stats["batches"] == sum(stats["batch_sizes"].values())
    assert 0 < stats["latency_seconds"] / stats["pictures"] <= stats["latency_seconds_max"]


def test_an_idle_scoring_process_answers_at_once(address: Path, start: Start) -> None:
    """Batching must not add a wait when one stream asks alone."""
    start()

    with ready(SharedScorer(address)) as scorer:
        took = []
        for _ in range(50):
            begun = time.perf_counter()
            scorer.assess([picture(5)])
            took.append(time.perf_counter() - begun)

    assert sorted(took)[25] < 0.02


def test_without_a_scoring_process_pictures_come_back_unscored_by_the_deadline(
    address: Path,
) -> None:
    """Monitoring goes on without scores, and says why; later calls do not even wait."""
    with SharedScorer(address, model="measures@1", deadline=0.5) as scorer:
        begun = time.monotonic()
        assessed = scorer.assess([picture(1, 3.0), picture(2, 4.0)])
        first = time.monotonic() - begun
        scorer.assess([picture(3)])
        second = time.monotonic() - begun - first

    assert [(a.position, a.quality, a.no_score_reason) for a in assessed] == [
        (3.0, None, "scorer_unavailable"),
        (4.0, None, "scorer_unavailable"),
    ]
    assert assessed[0].model == "measures@1"
    assert first < 1.5
    assert second < 0.3


def test_statistics_of_an_absent_process_are_an_error(address: Path) -> None:
    """A metric that is not known must not read as zero."""
    with SharedScorer(address, deadline=0.2) as scorer, pytest.raises(ScorerUnavailable):
        scorer.stats()


@pytest.mark.parametrize("large", [False, True], ids=["inline", "shared memory"])
def test_a_killed_scoring_process_is_replaced_without_a_new_client(
    address: Path, start: Start, large: bool
) -> None:
    """The supervisor restarts it on the same address; streams must notice by themselves. What was
    handed over before the death was noticed comes back unscored, so ask again for a while.
    """
    first = start()
    with ready(SharedScorer(address, deadline=20)) as scorer:
        assert scorer.assess([picture(8, large=large)])[0].quality == 8

        first.kill()
        first.wait()
        start()

        until = time.monotonic() + 20
        while scorer.assess([picture(9, large=large)])[0].quality != 9:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_picture_under_way_when_the_process_dies_comes_back_unscored(
    address: Path, start: Start
) -> None:
    """Nobody waits out a deadline for an answer that cannot come."""
    process = start(0.2)
    with ready(SharedScorer(address, deadline=20)) as scorer:
        answers: list[Assessment] = []
        asking = threading.Thread(target=lambda: answers.extend(scorer.assess([picture(1)] * 16)))
        asking.start()
        time.sleep(0.05)
        process.kill()
        asking.join(5)

    assert not asking.is_alive()
    assert "scorer_unavailable" in {a.no_score_reason for a in answers}


def test_a_hung_scoring_process_costs_one_deadline_and_then_nothing(
    address: Path, start: Start
) -> None:
    """A stopped process keeps its connections; a live stream must not stall behind it."""
    process = start()
    with ready(SharedScorer(address, deadline=1.0)) as scorer:
        process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        [late] = scorer.assess([picture(1)])
        waited = time.monotonic() - begun
        time.sleep(1.2)
        begun = time.monotonic()
        [refused] = scorer.assess([picture(1)])
        at_once = time.monotonic() - begun
        process.send_signal(signal.SIGCONT)
        recovered = eventually(lambda: scorer.assess([picture(6)])[0].quality == 6, 10)

    assert late.no_score_reason == refused.no_score_reason == "scorer_unavailable"
    assert 0.9 < waited < 2
    assert at_once < 0.5
    assert recovered


def test_one_picture_that_cannot_be_scored_spoils_no_other(address: Path, start: Start) -> None:
    """Streams that share a batch must not share their faults."""
    start(0.05)

    with ready(SharedScorer(address, deadline=20)) as scorer:
        assessed = scorer.assess([picture(3), picture(-1, 5.0), picture(4)])

    assert [a.quality for a in assessed] == [3, None, 4]
    assert assessed[1].no_score_reason == "scorer_failed"
    assert assessed[1].position == 5.0


def test_nothing_is_left_behind_when_clients_are_killed(address: Path, start: Start) -> None:
    """`kill -9` of an ingest process must free its slots; the memory has no name to stay under."""
    process = psutil.Process(start().pid)
    with ready(SharedScorer(address, deadline=20)) as scorer:
        idle = process.num_fds()
        clients = [subprocess.Popen([sys.executable, "-c", _CLIENT, str(address)]) for _ in "ab"]
        connected = eventually(lambda: _arenas(process) == 2)

        for client in clients:
            client.kill()
            client.wait()

        assert connected
        assert eventually(lambda: _arenas(process) == 0 and process.num_fds() == idle)
        assert scorer.assess([picture(2, large=True)])[0].quality == 2
    assert eventually(lambda: _arenas(process) == 0)


_CLIENT = """
import sys, time
from pathlib import Path
import numpy as np
from vqmon.measures import Measures
from vqmon.preprocess import Prepared
from vqmon.scorers.shared import SharedScorer

values = np.ones(1 << 18, np.float32)
picture = Prepared(0.0, Measures(values=values, cells={}), {"measures": values})
SharedScorer(Path(sys.argv[1]), deadline=20).assess([picture] * 4)
time.sleep(60)
"""


def _arenas(process: psutil.Process) -> int:
    return sum("vqmon-inputs" in m.path for m in process.memory_maps(grouped=False))


def test_a_killed_scoring_process_leaves_no_memory_with_its_clients(
    address: Path, start: Start
) -> None:
    """Clients live for weeks; every replaced scoring process must give its arena back."""
    ours = psutil.Process()
    with SharedScorer(address, deadline=20) as scorer:
        for _ in range(3):
            process = start()
            ready(scorer)
            assert scorer.assess([picture(2, large=True)])[0].quality == 2
            process.kill()
            process.wait()

        assert eventually(lambda: _arenas(ours) == 0)


def test_the_scoring_process_ends_soon_after_its_parent(address: Path) -> None:
    """An orphan would hold the GPU and the address; five seconds are the limit."""
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(PROGRAM), str(address)])
    with ready(SharedScorer(address, deadline=20)) as scorer:
        orphan = psutil.Process(scorer.stats()["process"])
        parent.kill()
        parent.wait()

        begun = time.monotonic()
        gone = eventually(lambda: not orphan.is_running(), 10)

    assert gone
    assert time.monotonic() - begun < 5


_PARENT = """
import subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]])
"""


def test_an_end_of_file_on_the_lifeline_ends_serving(address: Path) -> None:
    """Under a fork server the parent is not the supervisor: only the held pipe tells."""
    from multiprocessing import Pipe

    from vqmon.scorers.serving import serve_scorer

    reading, held = Pipe(duplex=False)
    serving = threading.Thread(
        target=serve_scorer, args=(FakeScorer(), address), kwargs={"lifeline": reading}
    )
    serving.start()
    assert eventually(address.exists)

    held.close()
    serving.join(4)

    assert not serving.is_alive()
    assert not address.exists()


def test_only_this_user_may_connect(address: Path) -> None:
    """Whoever can write to the socket can use up the scorer."""
    server = ScoringServer(FakeScorer(), address)

    assert address.stat().st_mode & 0o777 == 0o600
    assert address.parent.stat().st_mode & 0o777 == 0o700
    server.close()


def test_a_successor_takes_the_address_over_and_keeps_it(address: Path) -> None:
    """The predecessor, ending late, must not take the new one's socket away."""
    old = ScoringServer(FakeScorer(), address)
    new = ScoringServer(FakeScorer(), address)

    old.close()

    assert address.exists()
    new.close()
    assert not address.exists()


def test_an_address_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    """A socket path has room for about a hundred characters; say so instead of a traceback."""
    with pytest.raises(ScorerError, match=r"cannot listen.*under 90 characters"):
        ScoringServer(FakeScorer(), tmp_path / ("long" * 40) / "scorer.sock")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        LENGTHS.pack(2, 0) + b"[]",
        LENGTHS.pack(1 << 30, 0),
        LENGTHS.pack(15, 0) + b'{"type":"arena"}'[:15],
        LENGTHS.pack(16, 0) + b'{"type":"other"}',
    ],
    ids=["http", "no object", "too long", "no json", "unknown type"],
)
def test_a_client_that_speaks_nonsense_is_dropped_and_nobody_else(
    address: Path, start: Start, nonsense: bytes
) -> None:
    """The socket may be found by a port scanner or an older vqmon."""
    start()

    with ready(SharedScorer(address, deadline=20)) as scorer:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(10)
            stranger.connect(str(address))
            stranger.sendall(nonsense)
            while stranger.recv(4096):
                pass

        assert scorer.assess([picture(5)])[0].quality == 5
