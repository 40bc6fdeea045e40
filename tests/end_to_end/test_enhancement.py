"""Enhancement inside a running daemon: a live stream, its packet ring, and the default model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vqmon_enhancement", reason="pip install -e plugins/enhancement")

from tests.daemons import Daemon
from vqmon.demo.broadcast import Channel, Wire, serve, viewing
from vqmon.demo.studio import HEIGHT, RATE, WIDTH, Aim, Studio
from vqmon.domain import Decision
from vqmon.errors import StoreError
from vqmon.files import score_file
from vqmon.scorers import load_scorer
from vqmon.sources.scene import make_scene
from vqmon.store import open_store

PATIENCE = 240.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


SECONDS = 24


class Reel:
    """What the multiplexer wrote, picture by picture."""

    def __init__(self) -> None:
        self.pictures: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.pictures[-1] += bytes(data)
        return len(data)


def starved() -> list[bytes]:
    """Far too few bits, ahead of time: a busy machine would not keep up with real time."""
    scene, reel = make_scene(WIDTH, HEIGHT), Reel()
    reel.pictures.append(b"")
    studio = Studio(reel, Aim(30, 90))
    for number in range(SECONDS * RATE):
        reel.pictures.append(b"")
        studio.show(number, scene.render(number / RATE))
    return reel.pictures


def play(channel: Channel, pictures: list[bytes], ending: threading.Event) -> None:
    """In real time, from the moment the first viewer joins."""
    wire = Wire(channel)
    channel.first_viewer.wait()
    began = time.monotonic()
    for number, picture in enumerate(pictures):
        if ending.wait(max(0.0, began + number / RATE - time.monotonic())):
            return
        wire.write(picture)


@pytest.fixture
def channel() -> Iterator[str]:
    """The address of a live channel whose encoder starves; it ends with the test."""
    channel, ending = Channel(), threading.Event()
    port = serve(viewing(channel))
    arguments = (channel, starved(), ending)
    threading.Thread(target=play, args=arguments, daemon=True).start()
    yield f"http://127.0.0.1:{port}/live.ts"
    ending.set()


@pytest.fixture
def daemon(channel: str, tmp_path: Path) -> Iterator[Daemon]:
    """Watches it; it ends with the test."""
    stream = {"url": channel, "segment": "4s", "packet_ring": "60s", "options": {"live": "yes"}}
    running = Daemon(
        tmp_path,
        streams={"starved": stream},
        defaults={"sampling": {"mode": "every", "every": "1s"}},
        plugins={"enhancement": {"min_severity": 2, "budget": "30s", "per_hour": 1}},
    )
    running.start()
    running.wait_for(lambda: running.heard("READY=1"), PATIENCE)
    yield running
    running.close()


def decisions(daemon: Daemon) -> list[Decision]:
    try:
        with open_store(f"sqlite:///{daemon.folder}/data/vqmon.db", migrate=False) as store:
            return store.decisions("enhancement")
    except StoreError:
        return []  # not made yet


def test_a_bad_segment_of_a_live_stream_is_enhanced_from_its_packets(daemon: Daemon) -> None:
    """What the model prefers is kept beside what was received, with the reason."""
    until = time.monotonic() + PATIENCE
    while len(decisions(daemon)) < 2 and time.monotonic() < until:
        time.sleep(1.0)

    begun, kept = decisions(daemon)
    assert (begun.kind, kept.kind) == ("begin", "keep"), kept
    assert begun.segment == kept.segment
    [row] = [it for it in daemon.rows() if it.id == kept.segment]
    assert any(it.name in begun.reason for it in row.findings)
    assert str(row.model).startswith("lite@")
    shelf = daemon.folder / "data" / "plugins" / "enhancement" / "kept"
    original, enhanced, told = (
        shelf / f"{row.id}.{ending}" for ending in ("original.mkv", "enhanced.mp4", "json")
    )
    assert sorted(shelf.iterdir()) == sorted([original, enhanced, told])
    assert json.loads(told.read_text())["reason"] == kept.reason
    assert "preferred" in kept.reason
    scorer = load_scorer()
    before, after = (score_file(str(it), scorer).quality for it in (original, enhanced))
    assert before is not None
    assert after is not None
    assert after > before + 1.0
    assert abs(before - (row.quality or 0.0)) < 10  # it is that segment, from its keyframe on
    assert not daemon.events("plugin_failed")
    assert daemon.stop() == 0
