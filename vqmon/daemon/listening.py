"""Health and metrics over HTTP, from threads of their own that monitoring never waits for.

    Listener ─▶ a thread for each request ─▶ Site.answer ─▶ /livez · /readyz · /metrics

The standard library's server is enough for three short answers, and costs the supervisor next to
nothing. What is answered (`Site`) knows nothing of how it is served.
"""

from __future__ import annotations

import errno
import gzip
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Protocol

log = logging.getLogger("vqmon.daemon")

STANDSTILL_SECONDS = 30.0
"""A supervisor that has not turned for so long is not alive; it turns twice a second."""

RETRY_SECONDS = 10.0
"""A listen address that is taken is tried again so often."""

REQUEST_SECONDS = 20.0
"""A request that takes longer, from connecting to the last byte, is cut off."""

SILENT_SECONDS = 5.0
MOST_REQUESTS = 32
"""Under way at once; who comes then is hung up on."""

GZIP_BYTES = 2000
TEXT = "text/plain; charset=utf-8"
PATHS = ("/livez", "/readyz", "/metrics")
STARTING = "vqmon is starting."
STANDING_BY = "vqmon stands by until another one ends."
STOPPING = "vqmon is stopping."


class Exposed(Protocol):
    """Where the numbers come from."""

    def text(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """To one request. body: as it is, not compressed."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT


class Site:
    """What is answered to whom. Any thread may ask and tell."""

    def __init__(self, numbers: Exposed, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._numbers = numbers
        self._clock = clock
        self._unready: tuple[str, ...] = (STARTING,)
        self._turned_at: float | None = None
        self.url = ""
        """Where it can be reached; empty while it cannot."""

    def say(self, *unready: str) -> None:
        """Why vqmon is not ready, a sentence each; nothing when it is."""
        self._unready = unready

    def turned(self) -> None:
        """The supervisor's loop goes round."""
        self._turned_at = self._clock()

    def answer(self, path: str, accept: str = "") -> Answer:
        """To a GET of `path`; accept: as in the HTTP header."""
        match path.partition("?")[0]:
            case "/livez":
                return self._alive()
            case "/readyz":
                return self._ready()
            case "/metrics":
                content_type, body = self._numbers.text(accept)
                return Answer(HTTPStatus.OK, body, content_type)
        return _plain(HTTPStatus.NOT_FOUND, f"Here are {', '.join(PATHS)}.")

    def _alive(self) -> Answer:
        silent = 0.0 if self._turned_at is None else self._clock() - self._turned_at
        if silent > STANDSTILL_SECONDS:
            sentence = f"The supervisor has stood still for {silent:.0f} s."
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
        return _plain(HTTPStatus.OK, "alive")

    def _ready(self) -> Answer:
        if self._unready:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, *self._unready)
        return _plain(HTTPStatus.OK, "ready")


def _plain(status: HTTPStatus, *lines: str) -> Answer:
    return Answer(status, "".join(f"{line}\n" for line in lines).encode())


@contextmanager
def listening(address: tuple[str, int] | None, site: Site) -> Iterator[None]:
    """Serve the site while the block runs; None serves nothing.

    An address that cannot be had costs a warning, and is tried again until it can.
    """
    if address is None:
        yield
        return
    listener = Listener(*address, site)
    listener.start()
    try:
        yield
    finally:
        listener.close()


class Listener(threading.Thread):
    """Keeps one address served."""

    def __init__(self, host: str, port: int, site: Site, *, retry: float = RETRY_SECONDS) -> None:
        """Listens at once where it can; `start` begins to answer."""
        super().__init__(name="http", daemon=True)
        self._address, self._site, self._retry = (host, port), site, retry
        self._stopping = threading.Event()
        self._server = self._opened(log.warning)

    def run(self) -> None:
        while self._server is None:
            if self._stopping.wait(self._retry):
                return
            self._server = self._opened(log.debug)
        if not self._stopping.is_set():
            self._server.serve_forever()

    def close(self) -> None:
        """At once: requests under way are left to themselves."""
        self._stopping.set()
        self._site.url = ""
        if self._server:
            if self.is_alive():
                self._server.shutdown()
            self._server.server_close()

    def _opened(self, complain: Callable[..., None]) -> _Server | None:
        host, port = self._address
        try:
            server = _Server(host, port, self._site.answer)
        except OSError as error:
            told = {"address": _written(host, port), "error": remedy(error, host, port)}
            complain("http_not_listening", extra={**told, "again_in": self._retry})
            return None
        self._site.url = f"http://{_written(host, server.server_port)}"
        log.info("http_listening", extra={"url": self._site.url})
        return server


def remedy(error: OSError, host: str, port: int) -> str:
    """Why an address cannot be had, and what to do."""
    address = _written(host, port)
    if error.errno == errno.EADDRINUSE:
        said = (
            f"{address} is taken, perhaps by another vqmon: give each daemon on a machine an "
            f"`http.listen` of its own, as in {_written(host, port + 1 if port < 65535 else 0)} "
            "(port 0 takes any that is free)"
        )
    elif isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        said = f"this machine has no address {host}: correct `http.listen`"
    elif error.errno in (errno.EACCES, errno.EPERM):
        said = f"this user may not listen on {address}: take a port from 1024 on in `http.listen`"
    else:
        said = f"{address}: {error.strerror or error}: correct `http.listen`"
    return f"{said}, or write `http: off`; watching goes on without health and metrics"


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(ThreadingHTTPServer):
    """Bounded in connections and in their time."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, host: str, port: int, answer: Callable[[str, str], Answer]) -> None:
        """Raises OSError when nobody can listen there."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, address = found[0][0], str(found[0][4][0])
        self.answer = answer
        self._under_way: dict[socket.socket, float] = {}
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        """Without the look-up of our own name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.1)  # no descriptor is free: the next look would come at once
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        return len(self._under_way) < MOST_REQUESTS

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        self._under_way[request] = time.monotonic()
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._under_way.pop(request, None)

    def service_actions(self) -> None:
        """Twice a second: end what takes too long, be it one byte at a time."""
        late = time.monotonic() - REQUEST_SECONDS
        for request, began in list(self._under_way.items()):
            if began < late:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked went away; the library would print a traceback."""


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer, one connection."""

    server: _Server
    timeout = SILENT_SECONDS
    protocol_version = "HTTP/1.1"
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = TEXT

    def do_GET(self) -> None:
        answer = self._answer()
        body = answer.body
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        if len(body) > GZIP_BYTES and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  the library calls methods by these names

    def do_POST(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    do_PUT = do_DELETE = do_PATCH = do_POST  # noqa: N815

    def version_string(self) -> str:
        """Without the versions of everything, which are nobody's business."""
        return "vqmon"

    def _answer(self) -> Answer:
        try:
            return self.server.answer(self.path, self.headers.get("Accept", ""))
        except Exception:
            log.exception("http_failed", extra={"path": self.path.partition("?")[0][:50]})
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "This is a fault of vqmon.")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not logged: they come several times a minute."""
