"""Real servers on loopback, for tests: started, waited for, and ended with the test.

Each is a context manager that gives the URL to read. Where a program is missing the test is
skipped and says which one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.server
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

RTMP_MODULES = (
    "/usr/lib/nginx/modules/ngx_rtmp_module.so",
    "/usr/share/nginx/modules/ngx_rtmp_module.so",
)
GST_CHECK = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
)
SYSTEM_PYTHON = "/usr/bin/python3"

alive: list[subprocess.Popen[bytes]] = []
"""Servers and senders that run now."""


def need(program: str) -> str:
    """The program's path, or a skip that names it."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program for as long as the block lasts."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(arguments, stdin=quiet, stdout=quiet, stderr=quiet)
    alive.append(process)
    try:
        yield process
    finally:
        alive.remove(process)
        process.kill()
        process.wait(10)


@contextlib.contextmanager
def sending(clip: Path, *target: str, paced: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """ffmpeg sends the clip, repeated for ever at its own speed, to its output arguments."""
    pace = ["-re"] if paced else []
    arguments = [need("ffmpeg"), "-v", "error", *pace, "-stream_loop", "-1", "-i", str(clip)]
    with running([*arguments, "-c", "copy", *target]) as process:
        yield process


def until_listening(port: int, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    pytest.fail(f"nothing listens on port {port} after {seconds} s")


# -- servers that misbehave --------------------------------------------------------------------


@contextlib.contextmanager
def accepting(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server that hands every connection to `talk`, on a thread each; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_sockets: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                open_sockets.append(connection)
                threading.Thread(target=_quietly, args=(talk, connection), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        for sock in (listener, *open_sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def _quietly(talk: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        talk(connection)


def silent() -> contextlib.AbstractContextManager[int]:
    """Accepts and says nothing."""
    return accepting(lambda connection: time.sleep(60))


def stalling(data: bytes, rate: float = 4e6) -> contextlib.AbstractContextManager[int]:
    """Sends the data at `rate` bytes a second and then nothing, without closing."""

    def talk(connection: socket.socket) -> None:
        send_paced(connection, data, rate)
        time.sleep(60)

    return accepting(talk)


def closing_after(data: bytes, rate: float = 4e6) -> contextlib.AbstractContextManager[int]:
    """Sends the data and closes, at every connection."""

    def talk(connection: socket.socket) -> None:
        send_paced(connection, data, rate)
        connection.close()

    return accepting(talk)


def send_paced(connection: socket.socket, data: bytes, rate: float) -> None:
    for start in range(0, len(data), 1316 * 20):
        chunk = data[start : start + 1316 * 20]
        connection.sendall(chunk)
        time.sleep(len(chunk) / rate)


# -- HTTP and HLS ------------------------------------------------------------------------------


@contextlib.contextmanager
def http_server(
    folder: Path,
    *,
    answer: int | None = None,
    user: str | None = None,
    seen: list[str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """Python's static HTTP server; gives its base URL.

    answer: a status that every request gets. user: Basic credentials, encoded, asked for.
    seen: gets the path of every request.
    """

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)

        def do_GET(self) -> None:
            if seen is not None:
                seen.append(self.path)
            wanted = user is None or self.headers.get("Authorization") == f"Basic {user}"
            if not wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="test"')
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif answer:
                self.send_error(answer)
            else:
                super().do_GET()

        def log_message(self, *args: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Readers that hang up are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def hls(clip: Path, folder: Path, *, target: float = 1.0, live: bool = True) -> Iterator[Path]:
    """ffmpeg writes HLS into the folder; gives the playlist once it can be read."""
    playlist = folder / "live.m3u8"
    flags = (
        ["-hls_flags", "delete_segments", "-hls_list_size", "5"]
        if live
        else ["-hls_list_size", "0"]
    )
    outputs = ["-f", "hls", "-hls_time", str(target), *flags, str(playlist)]
    if not live:
        command = [need("ffmpeg"), "-v", "error", "-i", str(clip), "-c", "copy", *outputs]
        subprocess.run(command, check=True)
        yield playlist
        return
    with sending(clip, *outputs):
        until(lambda: playlist.exists() and playlist.read_text().count("#EXTINF") >= 2)
        yield playlist


def until(met: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            pytest.fail(f"what was waited for did not happen within {seconds} s")
        time.sleep(0.05)


@functools.cache
def certificates() -> tuple[Path, ssl.SSLContext]:
    """An authority of our own, and a server context for 127.0.0.1 that it vouches for.

    Made once in a test run: keys take their time.
    """
    openssl, folder = need("openssl"), Path(tempfile.mkdtemp(prefix="vqmon-test-tls-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    authority, key = folder / "ca.pem", folder / "ca.key"
    cert, cert_key, request = folder / "s.pem", folder / "s.key", folder / "s.csr"
    extensions = folder / "s.ext"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    new = [openssl, "req", "-newkey", "rsa:2048", "-nodes", "-batch"]
    for command in (
        [*new, "-x509", "-days", "2", "-subj", "/CN=test authority",
         "-keyout", str(key), "-out", str(authority)],
        [*new, "-subj", "/CN=127.0.0.1", "-keyout", str(cert_key), "-out", str(request)],
        [openssl, "x509", "-req", "-days", "2", "-in", str(request), "-CA", str(authority),
         "-CAkey", str(key), "-CAcreateserial", "-extfile", str(extensions), "-out", str(cert)],
    ):  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, cert_key)
    return authority, context


# -- RTMP and RTSP -----------------------------------------------------------------------------


@contextlib.contextmanager
def rtmp(clip: Path, folder: Path) -> Iterator[str]:
    """nginx with its RTMP module, and ffmpeg publishing the clip to it."""
    nginx = need("nginx")
    module = next((m for m in RTMP_MODULES if Path(m).exists()), None)
    if module is None:
        pytest.skip("libnginx-mod-rtmp is not installed")
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"load_module {module};\ndaemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n"
        f"error_log {folder}/error.log;\nevents {{ worker_connections 64; }}\n"
        f"rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}\n"
    )
    with running([nginx, "-e", f"{folder}/start.log", "-c", str(configuration), "-p", str(folder)]):
        until_listening(port)
        url = f"rtmp://127.0.0.1:{port}/live/test"
        with sending(clip, "-f", "flv", url):
            time.sleep(1.0)
            yield url


@contextlib.contextmanager
def rtsp(*arguments: str) -> Iterator[str]:
    """GstRtspServer in a process of the system's Python, which has the GObject bindings."""
    if (
        not Path(SYSTEM_PYTHON).exists()
        or subprocess.run(
            [SYSTEM_PYTHON, "-c", GST_CHECK], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("gir1.2-gst-rtsp-server-1.0 and python3-gi are not installed")
    port = free_port()
    script = Path(__file__).with_name("rtsp_server.py")
    with running([SYSTEM_PYTHON, str(script), str(port), *arguments]):
        until_listening(port)
        yield f"rtsp://127.0.0.1:{port}/test"
