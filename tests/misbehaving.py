"""Servers that do what no server should: what each says to a connection, for `servers.accepting`.

A talk is called as talk(connection) with a fresh TCP connection, on a thread of its own.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count

Talk = Callable[[socket.socket], None]

SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:s0\r\n"
)


def hangs_up(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.close()


def babbles(connection: socket.socket) -> None:
    """Answers, but in no language."""
    connection.recv(4096)
    connection.sendall(bytes(range(256)) * 80)
    connection.close()


def sends(pieces: Callable[[], Iterator[bytes]]) -> Talk:
    """Bytes without being asked, then the end."""

    def talk(connection: socket.socket) -> None:
        for piece in pieces():
            connection.sendall(piece)
        connection.close()

    return talk


# -- HTTP --------------------------------------------------------------------------------------


def answers(status: str = "200 OK", body: bytes = b"", **headers: str) -> Talk:
    """One answer, then the end."""

    def talk(connection: socket.socket) -> None:
        _request(connection)
        rows = {"Content-Length": str(len(body)), "Connection": "close"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        connection.sendall(_head(f"HTTP/1.1 {status}", rows) + body)
        connection.close()

    return talk


def streams(pieces: Callable[[], Iterator[bytes]]) -> Talk:
    """An answer without a length, piece by piece."""

    def talk(connection: socket.socket) -> None:
        _request(connection)
        connection.sendall(_head("HTTP/1.1 200 OK", {"Content-Type": "video/mp2t"}))
        for piece in pieces():
            connection.sendall(piece)

    return talk


def site(pages: Mapping[str, bytes | Talk]) -> Talk:
    """A page by path, else 404."""

    def talk(connection: socket.socket) -> None:
        path = _request(connection).split()[1].decode().partition("?")[0]
        page = pages.get(path)
        if callable(page):
            page(connection)
            return
        status = "404 Not Found" if page is None else "200 OK"
        rows = {"Content-Length": str(len(page or b"")), "Connection": "close"}
        connection.sendall(_head(f"HTTP/1.1 {status}", rows) + (page or b""))
        connection.close()

    return talk


def circles(connection: socket.socket) -> None:
    """Redirects to itself."""
    _request(connection)
    port = connection.getsockname()[1]
    rows = {"Location": f"http://127.0.0.1:{port}/again", "Content-Length": "0"}
    connection.sendall(_head("HTTP/1.1 302 Found", rows | {"Connection": "close"}))
    connection.close()


def never_stops_its_headers(connection: socket.socket) -> None:
    _request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for index in count():
        connection.sendall(b"X-%d: more\r\n" % index)
        time.sleep(0.001)


def never_stops_its_playlist(connection: socket.socket) -> None:
    """To be a page of a `site`."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n#EXTM3U\n")
    while True:
        connection.sendall(b"#EXTINF:1,\nsegment.ts\n" * 2000)


def drips() -> Iterator[bytes]:
    while True:
        yield b"G"
        time.sleep(0.1)


def nothing() -> Iterator[bytes]:
    """Stays connected."""
    yield b""
    time.sleep(60)


def endless(piece: bytes, pause: float = 0.001) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        while True:
            yield piece
            time.sleep(pause)

    return pieces


def _head(first: str, rows: Mapping[str, str]) -> bytes:
    return "".join(
        f"{row}\r\n" for row in (first, *(f"{k}: {v}" for k, v in rows.items()), "")
    ).encode()


def _request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError
        request += piece
    return request


# -- RTSP --------------------------------------------------------------------------------------


def rtsp(**wrong: str) -> Talk:
    """A server that is right but for some methods: METHOD="status line" + headers + blank + body."""
    right = {
        "OPTIONS": "200 OK\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN",
        "DESCRIBE": f"200 OK\nContent-Type: application/sdp\n\n{SDP}",
        "SETUP": "200 OK\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\nSession: 1",
        "PLAY": "200 OK\nSession: 1",
    }

    def talk(connection: socket.socket) -> None:
        while True:
            request = _request(connection).decode().splitlines()
            method = request[0].split()[0]
            number = next(it for it in request if it.lower().startswith("cseq"))
            head, _, body = (right | wrong).get(method, "200 OK").partition("\n\n")
            status, *rows = head.splitlines()
            lines = [f"RTSP/1.0 {status}", number, *rows, f"Content-Length: {len(body)}", "", body]
            connection.sendall("\r\n".join(lines).encode())

    return talk
