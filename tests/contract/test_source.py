"""Every protocol against a real server on loopback, and every way in which one fails.

The servers are Debian packages; a test skips and says which one is missing.
"""

from __future__ import annotations

import base64
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract import servers
from tests.media import write_clip
from vqmon.domain import DOWN_REASONS, Depth, Event, Frame, Media, Stream, Traffic
from vqmon.errors import SourceError, SourceRejected, SourceUnavailable
from vqmon.ports import Source
from vqmon.sources import open_source, plan, playing
from vqmon.sources.pyav import PyAVSource
from vqmon.sources.retry import Backoff

QUICK = {"open_timeout": "2", "read_timeout": "2"}
AT_ONCE = Backoff(steps=(0.05,), slow_lane=0.3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of MPEG-TS with B-frames and sound."""
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.ts", 4.0)


@pytest.fixture(scope="module")
def mp4(clip: Path) -> Path:
    """The same as MP4 that can be played from its beginning."""
    return write_clip(clip.with_suffix(".mp4"), 4.0, options={}, container=None)


def watch(
    source: Source,
    *,
    seconds: float = 2.2,
    depth: Depth = Depth.ALL,
    until: Callable[[list[Media]], bool] | None = None,
    limit: float = 25.0,
) -> list[Media]:
    """What a source gives within `seconds` of media, or until something was given."""
    items: list[Media] = []
    guard = threading.Timer(limit, source.stop)
    guard.start()
    try:
        with source.open(lambda: depth) as media:
            for item in media:
                items.append(item)
                if until(items) if until else item.position >= seconds:
                    break
    finally:
        guard.cancel()
    return items


def once(url: str, **options: str) -> PyAVSource:
    """A source that raises instead of trying again."""
    source = open_source(Stream("test", url, options=options), live_retry=False)
    assert isinstance(source, PyAVSource)
    return source


def stubborn(url: str, **options: str) -> PyAVSource:
    """A source that tries again, at once."""
    opening = plan(url, options)
    return PyAVSource(opening, name="test", backoff=Backoff(steps=(0.05,), slow_lane=0.3))


def frames(items: list[Media]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def traffic(items: list[Media]) -> list[Traffic]:
    return [item for item in items if isinstance(item, Traffic)]


def events(items: list[Media], *kinds: str) -> list[Event]:
    return [i for i in items if isinstance(i, Event) and (not kinds or i.kind in kinds)]


def saw(kind: str, count: int = 1) -> Callable[[list[Media]], bool]:
    return lambda items: len(events(items, kind)) >= count


# Protocols


@contextlib.contextmanager
def udp(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    port = servers.free_port()
    with servers.sending(clip, "-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316"):
        yield f"udp://127.0.0.1:{port}", {}


@contextlib.contextmanager
def multicast(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    group = f"239.255.77.7:{servers.free_port()}"
    with servers.sending(clip, "-f", "mpegts", f"udp://{group}?pkt_size=1316&localaddr=127.0.0.1"):
        yield f"udp://{group}", {"local_address": "127.0.0.1"}


@contextlib.contextmanager
def rtp(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    port = servers.free_port()
    with servers.sending(clip, "-f", "rtp_mpegts", f"rtp://127.0.0.1:{port}"):
        yield f"rtp://127.0.0.1:{port}", {}


@contextlib.contextmanager
def sdp(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    port, file = servers.free_port(), folder / "session.sdp"
    with servers.sending(
        clip, "-an", "-f", "rtp", "-sdp_file", str(file), f"rtp://127.0.0.1:{port}"
    ):
        servers.until(lambda: file.exists() and file.stat().st_size > 0)
        yield str(file), {}


@contextlib.contextmanager
def tcp(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    port = servers.free_port()
    with servers.sending(clip, "-f", "mpegts", f"tcp://127.0.0.1:{port}?listen=1"):
        time.sleep(0.5)  # the one connection that it accepts is for the reader
        yield f"tcp://127.0.0.1:{port}", {}


@contextlib.contextmanager
def http_ts(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    port = servers.free_port()
    with servers.sending(clip, "-f", "mpegts", "-listen", "1", f"http://127.0.0.1:{port}"):
        time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/live.ts", {}


@contextlib.contextmanager
def hls(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with servers.hls(clip, folder), servers.http_server(folder) as base:
        yield f"{base}/live.m3u8", {}


@contextlib.contextmanager
def hls_tls(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    authority, context = servers.certificates()
    with servers.hls(clip, folder), servers.http_server(folder, tls=context) as base:
        yield f"{base}/live.m3u8", {"ca_file": str(authority)}


@contextlib.contextmanager
def rtmp(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with servers.rtmp(clip, folder) as url:
        yield url, {}


@contextlib.contextmanager
def rtsp_tcp(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with servers.rtsp() as url:
        yield url, {}


@contextlib.contextmanager
def rtsp_udp(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with servers.rtsp() as url:
        yield url, {"transport": "udp"}


@contextlib.contextmanager
def srt(clip: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    port = servers.free_port()
    with servers.sending(clip, "-f", "mpegts", f"srt://127.0.0.1:{port}?mode=listener"):
        time.sleep(0.5)
        yield f"srt://127.0.0.1:{port}", {}


PROTOCOLS = [
    udp, multicast, rtp, sdp, tcp, http_ts, hls, hls_tls, rtmp, rtsp_tcp, rtsp_udp, srt,
]  # fmt: skip


@pytest.mark.parametrize("serve", PROTOCOLS, ids=lambda serve: serve.__name__)
def test_a_live_stream_is_read_over(serve: Any, clip: Path, tmp_path: Path) -> None:
    """Pictures, sound, time and format come over every protocol that is promised."""
    with serve(clip, tmp_path) as (url, options):
        source = once(url, **options)
        items = watch(source)

    [opened] = events(items)
    assert opened.kind == "opened"
    assert opened.format is not None
    assert (opened.format.codec, opened.format.width) == ("h264", 320)
    assert source.live
    assert len(frames(items)) >= 20
    told = traffic(items)
    assert sum(t.seconds for t in told) == pytest.approx(told[-1].position, abs=0.01)
    assert sum(t.corrupt_packets + t.decode_errors + t.late_frames for t in told) == 0
    if serve is not sdp:  # which carries pictures only
        assert any(t.audio and -25 < t.audio.loudness_lufs < -5 for t in told)
    positions = [item.position for item in items]
    assert positions == sorted(positions)


def test_an_hls_recording_ends_like_a_file(clip: Path, tmp_path: Path) -> None:
    """With its end list it is no live stream: it ends well and is not begun again."""
    with servers.hls(clip, tmp_path, live=False), servers.http_server(tmp_path) as base:
        source = open_source(Stream("test", f"{base}/live.m3u8"))
        items = watch(source, seconds=1e9)

    assert not source.live
    assert len(frames(items)) == 100
    assert not events(items, "lost")


def test_a_file_over_http_is_read_to_its_end(clip: Path, mp4: Path) -> None:
    """Progressive download, transport stream or MP4."""
    with servers.http_server(clip.parent) as base:
        for name in (clip.name, mp4.name):
            source = open_source(Stream("test", f"{base}/{name}"))

            items = watch(source, seconds=1e9)

            assert not source.live
            assert len(frames(items)) == 100
            assert not events(items, "lost")


def test_the_best_rendition_of_a_ladder_is_watched(clip: Path, tmp_path: Path) -> None:
    """Monitoring judges the top rung; the others are not even downloaded."""
    asked: list[str] = []
    small = write_clip(tmp_path / "small.ts", 4.0, width=160, height=90)
    for name, source in (("low", small), ("high", clip)):
        (tmp_path / name).mkdir()
        with servers.hls(source, tmp_path / name, live=False):
            pass
    (tmp_path / "master.m3u8").write_text(
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100000,RESOLUTION=160x90\nlow/live.m3u8\n"
        "#EXT-X-STREAM-INF:BANDWIDTH=500000,RESOLUTION=320x180\nhigh/live.m3u8\n"
    )

    with servers.http_server(tmp_path, seen=asked) as base:
        items = watch(once(f"{base}/master.m3u8"), seconds=1e9)

    assert {frame.width for frame in frames(items)} == {320}
    assert len(frames(items)) == 100
    assert len([path for path in asked if "/low/" in path and path.endswith(".ts")]) <= 2


# Opening fails


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://127.0.0.1:{port}/a",
        "rtsps://127.0.0.1:{port}/a",
        "rtmp://127.0.0.1:{port}/a/b",
        "rtmps://127.0.0.1:{port}/a/b",
        "http://127.0.0.1:{port}/a.ts",
        "http://127.0.0.1:{port}/a.m3u8",
        "https://127.0.0.1:{port}/a.mp4",
        "tcp://127.0.0.1:{port}",
    ],
)
def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time(url: str) -> None:
    """By default FFmpeg waits for ever, each protocol in its own way."""
    with servers.silent() as port:
        began = time.monotonic()
        with pytest.raises(SourceUnavailable) as caught:
            watch(once(url.format(port=port), open_timeout="1", read_timeout="1"))

    assert time.monotonic() - began < 4
    assert caught.value.reason == "timeout_open"
    assert "no answer within 1 s" in str(caught.value)


@pytest.mark.parametrize("scheme", ["udp", "rtp", "srt"])
def test_silence_on_a_datagram_port_is_given_up_in_time(scheme: str) -> None:
    """Nobody refuses a datagram."""
    if scheme == "srt":
        servers.need("srt-live-transmit")
    began = time.monotonic()
    with pytest.raises(SourceUnavailable) as caught:
        watch(once(f"{scheme}://127.0.0.1:{servers.free_port()}", open_timeout="1"))

    assert time.monotonic() - began < 6
    assert caught.value.reason == "timeout_open"


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http", "https", "tcp"])
def test_a_closed_port_is_refused(scheme: str) -> None:
    """The commonest of all: the server does not run."""
    with pytest.raises(SourceUnavailable) as caught:
        watch(once(f"{scheme}://127.0.0.1:{servers.free_port()}/a/b", **QUICK))

    assert caught.value.reason == "refused"
    assert "is the server running" in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "http", "tcp"])
def test_an_unknown_host_is_a_dns_failure(scheme: str) -> None:
    """FFmpeg gives `Input/output error` and nothing else."""
    with pytest.raises(SourceUnavailable) as caught:
        watch(once(f"{scheme}://nosuchhost.invalid:1000/a/b", **QUICK))

    assert caught.value.reason == "dns"
    assert "nosuchhost.invalid" in str(caught.value)


@pytest.mark.parametrize(("status", "reason"), [(401, "auth"), (403, "auth"), (404, "not_found")])
@pytest.mark.parametrize("name", ["live.m3u8", "a.mp4"])
def test_http_refusals_go_to_the_slow_lane(
    tmp_path: Path, status: int, reason: str, name: str
) -> None:
    """Asking a server for a wrong page every second gets one banned."""
    with (
        servers.http_server(tmp_path, answer=status) as base,
        pytest.raises(SourceRejected) as caught,
    ):
        watch(once(f"{base}/{name}", **QUICK))

    assert caught.value.reason == reason


def test_http_credentials_are_used_and_never_shown(clip: Path) -> None:
    """Right ones open; wrong ones are in no message."""
    user = base64.b64encode(b"me:secretword").decode()
    with servers.http_server(clip.parent, user=user) as base:
        url = base.replace("//", "//me:secretword@")
        good = watch(once(f"{url}/{clip.name}"))
        with pytest.raises(SourceRejected) as caught:
            watch(once(f"{url.replace('word', 'wrong')}/{clip.name}"))

    assert frames(good)
    assert caught.value.reason == "auth"
    assert "secretwrong" not in str(caught.value)


def test_rtsp_refusals_are_told_apart() -> None:
    """401 and 404 need different people."""
    with servers.rtsp("me", "secretword") as url:
        good = watch(once(url.replace("//", "//me:secretword@")), seconds=0.5)
        reasons = {}
        for wrong in (url, url.replace("//", "//me:secretwrong@")):
            with pytest.raises(SourceRejected) as caught:
                watch(once(wrong))
            reasons[wrong] = caught.value.reason
            assert "secret" not in str(caught.value)
    with servers.rtsp() as url, pytest.raises(SourceRejected) as missing:
        watch(once(url.replace("/test", "/nothing")))

    assert frames(good)
    assert set(reasons.values()) == {"auth"}
    assert missing.value.reason == "not_found"


def test_the_systems_authorities_are_trusted(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV's wheel alone knows no authority on Debian: every HTTPS stream would be refused."""
    authority, context = servers.certificates()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with servers.http_server(clip.parent, tls=context) as base:
        items = watch(once(f"{base}/{clip.name}"), seconds=1)

    assert frames(items)


@pytest.mark.parametrize("scheme", ["rtsps", "rtmps"])
def test_certificates_are_checked_for(scheme: str, tmp_path: Path) -> None:
    """TLS without checking is an invitation; not only browsers deserve better."""
    authority, context = servers.certificates()
    with servers.http_server(tmp_path, tls=context) as base:
        url = f"{scheme}://{base.partition('//')[2]}/a/b"
        reasons = []
        for options in ({}, {"ca_file": str(authority)}):
            with pytest.raises(SourceError) as caught:
                watch(once(url, **QUICK, **options))
            reasons.append(caught.value.reason)

    assert reasons[0] == "auth"
    assert reasons[1] != "auth"  # trusted; then it turns out to be a web server


def test_a_certificate_of_an_unknown_authority_is_refused(clip: Path) -> None:
    """The wheel does not verify by default; vqmon does, and says how to allow it."""
    _, context = servers.certificates()
    with servers.http_server(clip.parent, tls=context) as base:
        with pytest.raises(SourceRejected, match="ca_file") as caught:
            watch(once(f"{base}/{clip.name}"))
        allowed = watch(once(f"{base}/{clip.name}", tls_verify="no"), seconds=1)

    assert caught.value.reason == "auth"
    assert frames(allowed)


@pytest.mark.parametrize(
    "target", ["file:{secret}", "{secret}", "concat:{secret}", "subfile,,start,0,end,0,,:{secret}"]
)
def test_a_playlist_from_the_network_cannot_read_local_files(
    clip: Path, tmp_path: Path, target: str
) -> None:
    """Otherwise whoever owns a watched server owns what this machine can read."""
    served = tmp_path / "served"
    served.mkdir()
    secret = tmp_path / "secret.ts"
    secret.write_bytes(clip.read_bytes())
    (served / "live.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n"
        f"{target.format(secret=secret)}\n#EXT-X-ENDLIST\n"
    )

    items: list[Media] = []
    with servers.http_server(served) as base, contextlib.suppress(SourceError):
        items = watch(once(f"{base}/live.m3u8", **QUICK))

    assert not frames(items)


def test_srt_without_a_helper_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel cannot speak SRT; the user must not have to find that out."""
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(SourceRejected) as caught:
        watch(once("srt://127.0.0.1:9000"))

    assert caught.value.reason == "bridge_missing"
    assert "apt install" in str(caught.value)


@pytest.mark.parametrize("program", ["srt-live-transmit", "ffmpeg"])
def test_srt_works_through_either_helper_with_encryption(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """Whichever is installed; a wrong passphrase is told apart from a dead server."""
    only = tmp_path / "bin"
    only.mkdir()
    (only / program).symlink_to(servers.need(program))
    port = servers.free_port()
    target = f"srt://127.0.0.1:{port}?mode=listener&passphrase=0123456789abc&pbkeylen=16"
    with servers.sending(clip, "-f", "mpegts", target):
        time.sleep(0.5)
        monkeypatch.setenv("PATH", f"{only}")
        wrong = once(f"srt://127.0.0.1:{port}", passphrase="wrongwrongwrong", **QUICK)
        with pytest.raises(SourceError) as caught:
            watch(wrong)
        items = watch(once(f"srt://127.0.0.1:{port}", passphrase="0123456789abc"))

    assert caught.value.reason in {"auth", "timeout_open", "refused"}
    assert "wrongwrong" not in str(caught.value)
    assert len(frames(items)) > 25


def test_a_helper_dies_with_its_parent_even_by_kill_9(clip: Path) -> None:
    """An orphan would hold the one connection that an SRT listener accepts."""
    servers.need("srt-live-transmit")
    port = servers.free_port()
    code = (
        "import sys; from vqmon.domain import Stream; from vqmon.sources import open_source\n"
        f"with open_source(Stream('x', 'srt://127.0.0.1:{port}')).open() as media:\n"
        "    for item in media: print(item.position, flush=True)\n"
    )
    with servers.sending(clip, "-f", "mpegts", f"srt://127.0.0.1:{port}?mode=listener"):
        time.sleep(0.5)
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert parent.stdout is not None
        parent.stdout.readline()
        assert helpers(port)

        parent.send_signal(signal.SIGKILL)
        parent.wait()

        servers.until(lambda: not helpers(port), seconds=5)


def helpers(port: int) -> list[str]:
    """Command lines of live helper processes for this port."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            line = (
                (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if entry.name.isdigit()
                else ""
            )
            if line.startswith(("/usr/bin/srt-live", "srt-live", "/bin/sh")) and f":{port}" in line:
                found.append(line)
    return found


# It fails later


def test_a_stall_is_lost_by_timeout_and_keeps_what_came(clip: Path) -> None:
    """Connected and silent: FFmpeg would wait for ever."""
    data = clip.read_bytes()
    with servers.stalling(data[: len(data) * 3 // 4 // 188 * 188 + 100]) as port:
        source = once(f"tcp://127.0.0.1:{port}", **QUICK)
        items: list[Media] = []
        with pytest.raises(SourceUnavailable) as caught, source.open() as media:
            items += media

    assert caught.value.reason == "timeout_read"
    assert "nothing came for 2 s" in str(caught.value)
    assert len(frames(items)) > 50
    assert not any(frame.corrupt for frame in frames(items))  # the cut packet was dropped


def test_a_playlist_that_stops_growing_is_a_stall(clip: Path, tmp_path: Path) -> None:
    """The origin still answers 200 for every request; only the content is old."""
    with servers.hls(clip, tmp_path, live=False) as playlist:
        playlist.write_text(playlist.read_text().replace("#EXT-X-ENDLIST", ""))
    with servers.http_server(tmp_path) as base:
        source = once(f"{base}/live.m3u8", open_timeout="2", read_timeout="2")
        began = time.monotonic()
        with pytest.raises(SourceUnavailable) as caught:
            watch(source, seconds=1e9)

    assert caught.value.reason == "timeout_read"
    assert time.monotonic() - began < 12


def test_hls_is_waited_for_as_long_as_its_segments_are(clip: Path, tmp_path: Path) -> None:
    """Segments of 30 s come every 30 s: after 20 s of nothing all is well."""
    (tmp_path / "master.m3u8").write_text(
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=500000\nlive.m3u8?token=secret\n"
    )
    (tmp_path / "live.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:30\n#EXTINF:4,\nclip.ts\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "clip.ts").write_bytes(clip.read_bytes())

    with servers.http_server(tmp_path) as base:
        sources = [once(f"{base}/{name}.m3u8") for name in ("master", "live")]
        fixed = once(f"{base}/live.m3u8", read_timeout="25")
        for source in (*sources, fixed):
            assert frames(watch(source))

    assert [source.status.read_timeout for source in (*sources, fixed)] == [90, 90, 25]


@pytest.mark.parametrize(
    "serve",
    [udp, rtsp_tcp, *(pytest.param(serve, marks=pytest.mark.slow) for serve in (rtmp, srt))],
    ids=lambda serve: serve.__name__,
)
def test_a_frozen_sender_is_a_stall_over(serve: Any, clip: Path, tmp_path: Path) -> None:
    """Not one of the protocols says by itself that nothing comes any more."""

    def freeze(items: list[Media]) -> bool:
        if frames(items) and items[-1].position > 0.5:
            for process in servers.alive:
                process.send_signal(signal.SIGSTOP)
        return False

    with serve(clip, tmp_path) as (url, options):
        source = once(url, **(options | {"read_timeout": "1.2"}))
        with pytest.raises(SourceUnavailable) as caught:
            watch(source, until=freeze)

    assert caught.value.reason == "timeout_read"


def test_a_lost_stream_is_found_again_and_time_goes_on(clip: Path) -> None:
    """The end of a live stream is never its end: `lost`, `reconnected`, and no time is lost."""
    with servers.closing_after(clip.read_bytes()) as port:
        source = stubborn(f"tcp://127.0.0.1:{port}")
        items = watch(source, until=saw("reconnected", 2))

    kinds = [event.kind for event in events(items)]
    assert kinds[:5] == ["opened", "lost", "reconnected", "lost", "reconnected"]
    lost, reconnected = events(items, "lost")[0], events(items, "reconnected")[0]
    assert lost.reason == "eof"
    assert reconnected.format is not None
    assert 0 < reconnected.seconds < 3
    assert reconnected.position == pytest.approx(lost.position + reconnected.seconds, abs=0.2)
    positions = [item.position for item in items]
    assert positions == sorted(positions)
    assert source.status.reconnects == 2


def test_packets_before_and_after_an_outage_are_kept_apart(clip: Path) -> None:
    """A packet ring that joined them would write a file that nothing can play."""
    marks: list[str] = []

    def tee(packet: Any, container: Any) -> None:
        mark = "gap" if packet is None else "packet"
        if not marks or marks[-1] != mark:
            marks.append(mark)

    with servers.closing_after(clip.read_bytes()) as port:
        opening = plan(f"tcp://127.0.0.1:{port}", {})
        source = PyAVSource(opening, tee=tee, backoff=AT_ONCE)
        watch(source, until=lambda items: len(frames(items)) > 110)

    assert marks[:3] == ["packet", "gap", "packet"]


def test_one_outage_is_said_once(tmp_path: Path) -> None:
    """A camera that is off for a night is one event and not thirty thousand."""
    source = stubborn(f"tcp://127.0.0.1:{servers.free_port()}", **QUICK)
    threading.Timer(1.5, source.stop).start()

    items = watch(source, until=lambda _: False)

    assert [event.reason for event in events(items)] == ["refused"]
    assert source.status.state == "stopped"


def test_the_status_tells_how_a_source_stands(clip: Path) -> None:
    """The supervisor reads it from another thread for heartbeat and watchdog."""
    source = stubborn(f"tcp://127.0.0.1:{servers.free_port()}", **QUICK)
    states = [source.status]
    with source.open() as media:
        next(media)
        states.append(source.status)
    with servers.stalling(clip.read_bytes()) as port:
        source = once(f"tcp://127.0.0.1:{port}", **QUICK)
        with source.open() as media:
            next(media)
            next(media)
            states.append(source.status)

    assert [status.state for status in states] == ["connecting", "down", "up"]
    assert states[0].last_packet_monotonic is None
    assert states[1].reason == "refused"
    assert "is the server running" in states[1].detail
    assert states[2].reason is None
    assert time.monotonic() - (states[2].last_packet_monotonic or 0) < 5
    assert states[2].read_timeout == 2


def test_stop_ends_a_wait_for_the_next_attempt_at_once() -> None:
    """A stream deleted during backoff must not live on for five minutes."""
    opening = plan(f"tcp://127.0.0.1:{servers.free_port()}", QUICK)
    source = PyAVSource(opening, backoff=Backoff(steps=(60.0,)))
    threading.Timer(0.5, source.stop).start()
    began = time.monotonic()

    items = watch(source, until=lambda _: False)

    assert time.monotonic() - began < 2
    assert len(events(items, "lost")) == 1


def test_fifty_sources_stop_at_once_while_waiting() -> None:
    """SIGTERM with many streams down."""
    url = f"tcp://127.0.0.1:{servers.free_port()}"
    sources = [PyAVSource(plan(url, QUICK), backoff=Backoff(steps=(60.0,))) for _ in range(50)]
    threads = [
        threading.Thread(target=watch, args=(s,), kwargs={"until": lambda _: False})
        for s in sources
    ]
    for thread in threads:
        thread.start()
    servers.until(lambda: all(s.status.state == "down" for s in sources))

    began = time.monotonic()
    for source in sources:
        source.stop()
    for thread in threads:
        thread.join(5)

    assert time.monotonic() - began < 3
    assert not any(thread.is_alive() for thread in threads)


def test_sound_without_pictures_is_watched_on(tmp_path: Path) -> None:
    """A live stream that lost its video track is up, and the sound is still measured."""
    sound = write_clip(tmp_path / "a.ts", 4.0, video=False)
    with servers.stalling(sound.read_bytes(), rate=60e3) as port:
        items = watch(once(f"tcp://127.0.0.1:{port}"), seconds=1.5)

    assert not frames(items)
    assert any(t.audio for t in traffic(items))
    assert sum(t.seconds for t in traffic(items)) > 1


def test_video_that_appears_late_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that sends sound first: the stream is opened without pictures."""
    monkeypatch.setattr(playing, "PICTURELESS_SECONDS", 2.0)
    sound = write_clip(tmp_path / "a.ts", 6.0, video=False).read_bytes()
    both = write_clip(tmp_path / "b.ts", 8.0, first=150).read_bytes()

    def talk(connection: Any) -> None:
        if not talked:
            talked.append(True)
            servers.send_paced(connection, sound, len(sound) / 4)
        servers.send_paced(connection, both, len(both) / 8)

    talked: list[bool] = []
    with servers.accepting(talk) as port:
        items = watch(stubborn(f"tcp://127.0.0.1:{port}"), until=lambda i: len(frames(i)) > 5)

    assert len(frames(items)) > 5
    assert not frames(items[: items.index(events(items)[0]) + 3])
    assert frames(items)[0].position > 2


def test_a_slow_consumer_loses_pictures_and_never_falls_behind(clip: Path) -> None:
    """Nothing queues: late pictures are left out, and counted."""
    with udp(clip, clip.parent) as (url, _):
        source = once(url)
        items: list[Media] = []
        began = None
        with source.open() as media:
            for item in media:
                items.append(item)
                began = began or time.monotonic()
                if isinstance(item, Frame):
                    time.sleep(0.12)  # three times too slow for 25 pictures a second
                if item.position > 5:
                    break
        lag = (time.monotonic() - (began or 0.0)) - items[-1].position

    told = traffic(items)
    assert sum(t.late_frames for t in told) > 20
    assert sum(t.corrupt_packets for t in told) == 0
    assert lag < 3.0
    assert sum(frame.skipped for frame in frames(items)) > 20


@pytest.mark.slow
def test_a_slow_encoder_makes_nobody_late(clip: Path) -> None:
    """At 0.8 of real time media falls behind the clock by itself; that is `underfed`."""
    data = clip.read_bytes()
    with servers.stalling(data * 2, rate=len(data) / 4.0 * 0.7) as port:
        items = watch(once(f"tcp://127.0.0.1:{port}"), seconds=4)

    told = traffic(items)
    assert sum(t.late_frames for t in told) == 0
    assert sum(t.seconds for t in told) < 0.85 * sum(t.wall_seconds for t in told)


def test_every_reason_given_is_in_the_closed_set() -> None:
    """Alerts and metrics name reasons; an unknown one would break them."""
    for url in ("tcp://127.0.0.1:1", "rtsp://nosuchhost.invalid/x", "http://127.0.0.1:1/x"):
        with pytest.raises(SourceError) as caught:
            watch(once(url, **QUICK))
        assert caught.value.reason in DOWN_REASONS
