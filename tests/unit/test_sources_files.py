"""Files, good and bad: each gives its pictures or a clear error, never a traceback or a hang."""

from __future__ import annotations

import contextlib
import gc
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.media import write_clip
from vqmon.domain import Depth, Event, Frame, Media, Stream, Traffic
from vqmon.errors import SourceError, SourceRejected
from vqmon.sources import open_source, plan
from vqmon.sources.failures import failure


def watch(path: Path | str, depth: Depth = Depth.ALL) -> list[Media]:
    with open_source(Stream("x", str(path))).open(lambda: depth) as media:
        return list(media)


def frames(items: list[Media]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def traffic(items: list[Media]) -> list[Traffic]:
    return [item for item in items if isinstance(item, Traffic)]


def events(items: list[Media], kind: str) -> list[Event]:
    return [item for item in items if isinstance(item, Event) and item.kind == kind]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "a.ts", 4.0)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv", "avi"])
def test_a_file_gives_every_frame_and_all_of_its_time(tmp_path: Path, suffix: str) -> None:
    """The same clip in any container is the same four seconds."""
    options = {"bf": "0"} if suffix == "avi" else {}
    path = write_clip(tmp_path / f"a.{suffix}", 4.0, options=options)

    items = watch(path)

    assert len(frames(items)) == 100
    assert [f.position for f in frames(items)] == pytest.approx(
        [index / 25 for index in range(100)], abs=0.003
    )
    told = traffic(items)
    assert sum(t.seconds for t in told) == pytest.approx(3.96, abs=0.05)
    assert sum(len(t.packets) for t in told) == 100
    assert sum(t.seconds for t in told) == sum(t.wall_seconds for t in told)
    assert sum(t.bytes for t in told) == pytest.approx(path.stat().st_size, rel=0.25)
    assert [e.kind for e in items if isinstance(e, Event)] == ["opened"]


def test_positions_never_go_back_over_all_that_is_given(clip: Path) -> None:
    """Segments are cut by them."""
    for depth in Depth:
        positions = [item.position for item in watch(clip, depth)]

        assert positions == sorted(positions)


def test_sound_is_measured_to_the_end(clip: Path) -> None:
    """A 1 kHz tone at 0.2 in both channels: -17 dB RMS, -14 LUFS; no second is dropped."""
    heard = [t.audio for t in traffic(watch(clip, Depth.KEYFRAMES)) if t.audio]

    assert sum(a.seconds for a in heard) == pytest.approx(4.0, abs=0.1)
    assert [a.position for a in heard] == sorted(a.position for a in heard)
    for level in heard[:-1]:
        assert level.rms_dbfs == pytest.approx(-17, abs=0.3)
        assert level.loudness_lufs == pytest.approx(-14, abs=0.5)


def test_raw_video_without_time_stamps_gets_some(tmp_path: Path) -> None:
    """An elementary stream carries none at all."""
    path = write_clip(tmp_path / "a.h264", 2.0, sound=False, container="h264")

    found = [frame.position for frame in frames(watch(path))]

    assert len(found) == 50
    assert found == sorted(found)
    assert found[-1] == pytest.approx(1.96, abs=0.15)


def test_the_format_is_told_at_opening(tmp_path: Path) -> None:
    """Reports and alerts name codec, size and rate."""
    [event] = events(watch(write_clip(tmp_path / "a.mp4", 1.0)), "opened")

    assert event.format is not None
    shown = (event.format.codec, event.format.width, event.format.height, event.format.frame_rate)
    assert shown == ("h264", 320, 180, 25.0)
    assert (event.format.audio_codec, event.format.audio_rate) == ("aac", 48000)


def test_av1_is_called_by_its_name_and_not_by_its_decoder(tmp_path: Path) -> None:
    """`libdav1d` in a report would puzzle an operator."""
    path = write_clip(tmp_path / "a.mkv", 0.4, codec="libsvtav1", sound=False)

    [event] = events(watch(path), "opened")

    assert event.format is not None
    assert event.format.codec == "av1"


def test_a_change_of_resolution_is_an_event_and_goes_on(tmp_path: Path) -> None:
    """An encoder ladder or a regional opt-out changes the picture size mid-stream."""
    first = write_clip(tmp_path / "a.ts", 2.0, options={"bf": "0"})
    second = write_clip(tmp_path / "b.ts", 2.0, width=640, height=360, options={"bf": "0"})
    joined = tmp_path / "c.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())

    items = watch(joined)

    [changed] = events(items, "format_changed")
    assert changed.format is not None
    assert (changed.format.width, changed.format.height) == (640, 360)
    assert {f.planes[0].shape for f in frames(items)} == {(180, 320), (360, 640)}
    positions = [item.position for item in items]
    assert positions == sorted(positions)


def test_a_timestamp_reset_is_an_event_and_time_goes_on(tmp_path: Path) -> None:
    """A restarted encoder: time stamps fall from four seconds to zero, and FFmpeg says nothing."""
    clip = write_clip(tmp_path / "a.ts", 4.0, sound=False, options={"bf": "0"})
    again = tmp_path / "b.ts"
    again.write_bytes(clip.read_bytes() * 2)

    items = watch(again)

    [jump] = events(items, "timestamp_jump")
    assert jump.seconds == pytest.approx(-4.0, abs=0.1)
    assert jump.position == pytest.approx(4.0, abs=0.1)
    positions = [frame.position for frame in frames(items)]
    assert positions == sorted(positions)
    assert positions[-1] == pytest.approx(7.96, abs=0.15)


def test_lost_packets_are_counted_although_every_frame_comes_out(
    clip: Path, tmp_path: Path
) -> None:
    """0.5 % of a transport stream missing raises nothing in FFmpeg."""
    data = clip.read_bytes()
    rng = np.random.default_rng(1)
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    kept = [p for i, p in enumerate(packets) if i < 40 or rng.random() > 0.005]
    damaged = tmp_path / "a.ts"
    damaged.write_bytes(b"".join(kept))

    items = watch(damaged)

    told = traffic(items)
    assert sum(t.corrupt_packets for t in told) > 0
    assert sum(t.decode_errors for t in told) > 0
    assert any(frame.corrupt for frame in frames(items))
    assert len(frames(items)) >= 90


def test_a_clean_file_has_no_complaints(clip: Path) -> None:
    """Otherwise packet loss would be found everywhere."""
    for depth in Depth:
        told = traffic(watch(clip, depth))

        assert sum(t.corrupt_packets + t.decode_errors for t in told) == 0


def test_a_single_frame_is_a_video(tmp_path: Path) -> None:
    """One-frame clips come out of thumbnailers and broken recordings."""
    path = write_clip(tmp_path / "a.mp4", 1 / 25, sound=False)

    for depth in Depth:
        assert len(frames(watch(path, depth))) == 1


@pytest.mark.parametrize("container", ["mp4", "ts", "mkv"])
def test_a_truncated_file_gives_what_is_there(tmp_path: Path, container: str) -> None:
    """A recording cut off by a full disk; what was measured must not be lost."""
    path = write_clip(tmp_path / f"a.{container}", 4.0)
    cut = tmp_path / f"cut.{container}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    items = watch(cut)

    assert len(frames(items)) > 20
    assert events(items, "opened")


def message(path: Path | str) -> str:
    with pytest.raises(SourceRejected) as caught:
        watch(path)
    assert caught.value.reason in {"invalid_data", "not_found", "auth"}
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    """FFmpeg would say `Invalid data found when processing input`."""
    (tmp_path / "a.mp4").touch()

    assert "is empty (0 bytes)" in message(tmp_path / "a.mp4")


def test_a_text_called_mp4_is_no_video(tmp_path: Path) -> None:
    """A saved error page is the usual case."""
    (tmp_path / "a.mp4").write_text("<html>404</html>" * 100)

    assert "not a video" in message(tmp_path / "a.mp4")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the path, which is what was mistyped."""
    assert "check the path" in message(tmp_path / "no.mp4")


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    """`vqmon score *` meets them."""
    assert "is a folder" in message(tmp_path)


def test_random_bytes_are_no_video(tmp_path: Path) -> None:
    """Whatever FFmpeg takes them for, it must end."""
    (tmp_path / "a.ts").write_bytes(os.urandom(300_000))

    items: list[Media] = []
    with contextlib.suppress(SourceError):
        items = watch(tmp_path / "a.ts")

    assert not frames(items)


def test_a_forbidden_file_says_so() -> None:
    """The remedy is a permission, not another file. (Root may read everything, so the error is
    made here instead of met.)
    """
    opening = plan("/videos/a.ts", {})

    error = failure(opening, PermissionError(13, "Permission denied"), elapsed=0, opened=False)

    assert isinstance(error, SourceRejected)
    assert error.reason == "auth"
    assert "denied" in str(error)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    """With the reason, so that nobody looks for a decoder."""
    path = write_clip(tmp_path / "a.mp4", 1.0, video=False)

    assert "has no video, only sound" in message(path)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    """An album cover would otherwise be scored as a one-frame video."""
    path, cover = tmp_path / "a.mp4", tmp_path / "c.jpg"
    Image.new("RGB", (64, 64), "red").save(cover)
    sound = write_clip(tmp_path / "s.mp4", 1.0, video=False)
    with av.open(str(sound)) as source, av.open(str(cover)) as art, av.open(str(path), "w") as out:
        tone = out.add_stream_from_template(source.streams.audio[0])
        picture = out.add_stream_from_template(art.streams.video[0])
        picture.disposition = av.stream.Disposition.attached_pic
        for made, stream in ((source, tone), (art, picture)):
            for packet in made.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)

    assert "has no video, only sound" in message(path)


def png_bomb(path: Path, width: int, height: int) -> Path:
    """A PNG whose header promises more than its few bytes hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("size", [(30000, 30000), (20000, 500), (65000, 60000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """A few hundred bytes must not cost 3.6 GB."""
    path = png_bomb(tmp_path / "a.png", *size)
    before = resident()

    text = message(path)

    assert f"{size[0]}x{size[1]}" in text
    assert "too large" in text
    assert resident() - before < 100e6


def test_an_8k_picture_is_read(tmp_path: Path) -> None:
    """The limit is for bombs, not for large pictures."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (7680, 4320), "green").save(path)

    [frame] = frames(watch(path))

    assert (frame.width, frame.height) == (7680, 4320)


def test_a_playlist_file_cannot_fetch_from_the_network(tmp_path: Path) -> None:
    """A local playlist of unknown origin must not make vqmon call servers."""
    path = tmp_path / "a.m3u8"
    path.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )

    assert "invalid" in message(path).lower() or "not a video" in message(path)


def test_a_colon_in_a_file_name_is_no_scheme(clip: Path, tmp_path: Path) -> None:
    """Recorders write times into names: `camera 12:30.ts`."""
    path = tmp_path / "cam 12:30.ts"
    path.write_bytes(clip.read_bytes())

    assert len(frames(watch(path))) == 100
    assert len(frames(watch(f"file:{path}"))) == 100
    assert len(frames(watch(f"file://{path}"))) == 100


def test_stop_ends_the_iteration_from_another_thread(clip: Path) -> None:
    """A visit by schedule ends, a daemon shuts down."""
    source = open_source(Stream("x", str(clip)))

    with source.open() as media:
        next(media)
        thread = threading.Thread(target=source.stop)
        thread.start()
        thread.join()
        rest = list(media)

    assert not frames(rest)
    assert len(rest) <= 1  # what was counted so far


def test_every_packet_passes_the_tee_before_it_is_decoded(clip: Path) -> None:
    """The packet ring on disk is for enhancement and the writer: nothing may be missing."""
    passed: list[int] = []

    def tee(packet: Any, container: Any) -> None:
        assert packet.stream.type in {"video", "audio"}
        passed.append(packet.stream_index)

    with open_source(Stream("x", str(clip)), tee=tee).open(lambda: Depth.KEYFRAMES) as media:
        list(media)

    assert passed.count(0) == 100
    assert passed.count(1) > 150


def test_pictures_are_freed_without_the_garbage_collector(tmp_path: Path) -> None:
    """A reference cycle per picture once kept 300 MB a stream until a collection came by."""
    path = write_clip(tmp_path / "a.mkv", 6.0, width=1280, height=720, sound=False, gop=50)
    frames(watch(path, Depth.KEYFRAMES))
    gc.collect()
    gc.disable()
    try:
        before = resident()
        with open_source(Stream("x", str(path))).open() as media:
            count = sum(isinstance(item, Frame) for item in media)
        grown = resident() - before
    finally:
        gc.enable()

    assert count == 150  # 207 MB in all
    assert grown < 60e6


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_is_flat_over_500_openings(tmp_path: Path) -> None:
    """A stream that reconnects all night must not eat the machine."""
    path = write_clip(tmp_path / "a.ts", 1.0)
    after = _grown_over(500, lambda: watch(path, Depth.KEYFRAMES))

    assert after < 8e6


@pytest.mark.slow
def test_memory_is_flat_over_500_failures(tmp_path: Path) -> None:
    """A camera that is off for a month neither."""
    path = tmp_path / "a.ts"
    path.write_bytes(os.urandom(50_000))

    def fail() -> None:
        with contextlib.suppress(SourceError):
            watch(path)

    assert _grown_over(500, fail) < 8e6


def _grown_over(times: int, act: Callable[[], object]) -> int:
    for _ in range(50):
        act()
    gc.collect()
    before = resident()
    for _ in range(times):
        act()
    gc.collect()
    return resident() - before
