"""What a plugin's process gives to the plugin, on a real database, real packets, a real model."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from vqmon.domain import Decision, Segment
from vqmon.errors import ScorerError, VqmonError
from vqmon.evidence import PacketRing, folder_name
from vqmon.plugins.context import Context, PluginPlan
from vqmon.plugins.finding import Found
from vqmon.ports import PluginContext
from vqmon.store import SqlStore, open_store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    kind = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(kind)
    return url


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Context]]:
    contexts: list[Context] = []

    def make(database: str, targets: tuple[str, ...] = ("encoder",), **fields: Any) -> Context:
        plan = PluginPlan(
            found=Found(fields.pop("name", "mine"), path=str(tmp_path / "mine.py")),
            settings={},
            folder=tmp_path,
            memory=10**9,
            timeout=10.0,
            database=database,
            data_dir=tmp_path / "plugins" / "mine",
            evidence=tmp_path / "evidence",
            packets=tmp_path / "packets",
            scoring=tmp_path / "scoring.sock",
        )
        contexts.append(Context(plan, targets))
        return contexts[-1]

    yield make
    for it in contexts:
        it.close()


def segment(**fields: Any) -> Segment:
    given: dict[str, Any] = {"started_at": NOON, "start": 0.0, "seconds": 10.0}
    return Segment("news", **given | fields)


def test_it_is_what_plugins_are_promised(made: Callable[..., Context]) -> None:
    """Types are checked here."""
    context: PluginContext = made("sqlite:///nothing.db")

    assert context.plugin == "mine"
    assert context.data_dir.is_dir()


def test_it_reads_what_was_stored_and_keeps_what_was_decided(
    database: str, made: Callable[..., Context]
) -> None:
    """All on its own connection: nobody has to answer it."""
    stored = segment(quality=30.0)
    with open_store(database) as store:
        store.add([stored])
        context = made(database)

        context.record(Decision("somebody", "news", "raise", "because", NOON))

        assert context.segments("news") == context.segments(None) == [stored]
        assert context.segments("news", until=NOON) == []
        assert context.segment(stored.id) == stored
        assert [it.plugin for it in context.decisions()] == ["mine"]
        assert store.decisions() == context.decisions("news", since=NOON)
        assert made(database, name="other").decisions() == []


def outbox(store: SqlStore) -> list[Any]:
    return [it.delivery for it in reversed(store.queued())]


def test_messages_go_into_the_outbox_once_and_in_order(
    database: str, made: Callable[..., Context]
) -> None:
    """They are signed, sent and tried again like those of alerts."""
    with open_store(database) as store:
        context = made(database)

        for _ in range(2):
            context.notify("encoder", {"kbps": 4000}, event_id="d1", stream="news")
        context.notify("encoder", {"kbps": 2000}, stream="news", within=30)

        first, second = outbox(store)
        assert (first.id, first.kind, first.body) == ("d1", "plugin", {"kbps": 4000})
        assert first.expires_at is None
        assert second.expires_at - second.created_at == timedelta(seconds=30)
        assert first.topic == second.topic != ""
        now = datetime.now(UTC)
        assert store.claim("encoder", "me", now, seconds=9)
        assert store.claim("encoder", "me", now, seconds=9) is None


def test_a_target_that_nobody_configured_is_refused(
    tmp_path: Path, made: Callable[..., Context]
) -> None:
    """It would wait in the outbox for ever. Targets may come with a reload."""
    with open_store(f"sqlite:///{tmp_path}/x.db"):
        context = made(f"sqlite:///{tmp_path}/x.db", targets=())
    with pytest.raises(VqmonError, match="known: none"):
        context.notify("encoder", {})

    context.targets = ("encoder",)

    assert context.notify("encoder", {})


def test_pictures_are_those_that_are_still_there(
    tmp_path: Path, made: Callable[..., Context]
) -> None:
    """Retention may have been quicker."""
    kept = tmp_path / "evidence" / "news" / "1.jpg"
    kept.parent.mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(kept)

    found = made("sqlite:///x.db").frames(segment(evidence=("news/1.jpg", "news/2.jpg")))

    assert found == [kept]


def test_a_database_that_is_away_is_said_in_words(
    tmp_path: Path, made: Callable[..., Context]
) -> None:
    with pytest.raises(VqmonError, match="does not exist yet"):
        made(f"sqlite:///{tmp_path}/none.db").segments("news")


def live_packets(path: Path, seconds: float) -> Iterator[tuple[Any, Any]]:
    """Packets of a file as they would arrive: each at its own time."""
    with av.open(str(path)) as container:
        begun, first = time.time(), None
        for packet in container.demux():
            if packet.dts is None:
                continue
            first = packet.dts if first is None else first
            at = float((packet.dts - first) * packet.time_base)
            if at > seconds:
                return
            time.sleep(max(0.0, begun + at - time.time()))
            yield packet, container


def written(path: Path, seconds: int) -> Path:
    """25 pictures a second, a keyframe each half second, B frames between."""
    with av.open(str(path), "w", format="mpegts") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "2"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.gop_size = 12
        for number in range(25 * seconds):
            picture = av.VideoFrame(64, 48, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes([number % 200 + 20]) * plane.buffer_size)
            picture.pts = number
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
    return path


def test_a_clip_holds_the_packets_of_its_segment(
    tmp_path: Path, made: Callable[..., Context]
) -> None:
    """From a live ring that goes on growing, the last second of the segment included."""
    ring = PacketRing(tmp_path / "packets" / folder_name("news"), 60)
    file = written(tmp_path / "live.ts", 7)
    begun = time.time()
    for packet, container in live_packets(file, 4.9):
        ring.tee(packet, container)
    started_at = datetime.fromtimestamp(begun + 1.5, UTC)

    path = made("sqlite:///x.db").clip(segment(started_at=started_at, seconds=2.0))

    assert path is not None
    assert path.parent == tmp_path / "plugins" / "mine"
    with av.open(str(path)) as clip:
        pictures = [it.time or 0.0 for it in clip.decode(video=0)]
    assert 1.9 < pictures[-1] - pictures[0] < 2.7
    ring.close()


def test_without_packets_there_is_no_clip(tmp_path: Path, made: Callable[..., Context]) -> None:
    assert made("sqlite:///x.db").clip(segment()) is None
    assert list((tmp_path / "plugins" / "mine").iterdir()) == []


@pytest.fixture
def scoring(tmp_path: Path) -> Iterator[None]:
    program = Path(__file__).with_name("scoring_process.py")
    process = subprocess.Popen([sys.executable, str(program), str(tmp_path / "scoring.sock")])
    yield
    process.kill()
    process.wait()


def test_files_are_scored_by_the_scoring_process(
    tmp_path: Path, made: Callable[..., Context], scoring: None
) -> None:
    """The model is loaded once on the machine, and scores as it scores the streams."""
    context = made("sqlite:///x.db")

    found = context.score(written(tmp_path / "x.ts", 4), every=1.0)

    assert len(found) >= 3
    assert {it.model for it in found} == {"mean@1"}
    assert all(it.quality is not None for it in found)


def test_what_cannot_be_scored_says_why(tmp_path: Path, made: Callable[..., Context]) -> None:
    with pytest.raises(ScorerError, match="no such file"):
        made("sqlite:///x.db").score(tmp_path / "none.mp4")


def test_stored_segments_are_compared_without_the_scoring_process(
    made: Callable[..., Context],
) -> None:
    """While it is being replaced, a roll-back can still be decided."""
    bad, good = segment(quality=30.0, uncertainty=4.0), segment(quality=70.0, uncertainty=4.0)

    assert made("sqlite:///x.db").compare(bad, good).better == "b"
