"""One HTTP POST under one deadline, to an address that was checked, whatever comes back.

The deadline covers everything: looking the name up, connecting, TLS, sending, every redirect and
an answer that comes a byte at a time. The answer is read only as far as it is shown to people.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpcore
import httpx

from vqmon import __version__
from vqmon.domain import Receipt
from vqmon.errors import DeliveryFailed, TargetGone
from vqmon.notifiers.addresses import Reach, allowed, resolve

SHOWN_BYTES = 2000
"""So much of an answer is read and shown."""

ANSWER_SECONDS = 1.0
"""After the status has come, so long is waited for the text."""

LONGEST_PAUSE = 24 * 3600.0
PIECE = 16_384

REDIRECTS = (301, 302, 307, 308)
"""Answers that are followed with the same POST; 303 asks for a GET, which would tell nothing."""

AWAY = (502, 503, 504)
"""Said by what stands before a receiver that is away."""


@dataclass(frozen=True, slots=True)
class Call:
    """How to post. own_headers: kept from other servers when a redirect leads there."""

    reach: Reach
    tls: ssl.SSLContext
    seconds: float
    redirects: int = 0
    own_headers: Mapping[str, str] | None = None


def post(url: str, body: bytes, headers: Mapping[str, str], call: Call) -> Receipt:
    """Post JSON; return what came back when it is 2xx.

    Raises DeliveryFailed; TargetGone for 410.
    """
    begun = time.monotonic()
    deadline = Deadline(call.seconds)
    where = httpx.URL(url)
    for _ in range(call.redirects + 1):
        own = call.own_headers or {} if _origin(where) == _origin(httpx.URL(url)) else {}
        status, answered, text = _post_once(where, body, {**headers, **own}, call, deadline)
        if status not in REDIRECTS or "location" not in answered:
            return _judged(status, answered, text, time.monotonic() - begun)
        where = _following(where, answered["location"])
    shown = f"{where.scheme}://{where.host}{where.path}"
    if not call.redirects:
        raise DeliveryFailed(
            f"{_status(status)} leads to {shown}: name that address, or allow `redirects`",
            status=status,
        )
    raise DeliveryFailed(f"more than {call.redirects} redirects, the last to {shown}")


def trust(ca_file: Path | None = None) -> ssl.SSLContext:
    """Verifies servers by this machine's authorities, the usual ones, and those of a file."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class Deadline:
    """A moment after which nothing is waited for."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, more than 0. Raises DeliveryFailed when it has passed."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise _late(self.seconds)
        return left

    def at_most(self, seconds: float) -> None:
        """Come nearer."""
        self._until = min(self._until, time.monotonic() + seconds)


def _post_once(
    where: httpx.URL, body: bytes, headers: Mapping[str, str], call: Call, deadline: Deadline
) -> tuple[int, httpx.Headers, str]:
    usual = {
        "content-type": "application/json",
        "user-agent": f"vqmon/{__version__}",
        "accept-encoding": "identity",
        "connection": "close",
    }
    wire = _Wire(_Dialler(call.reach, deadline), call.tls)
    with _translated(deadline), httpx.Client(transport=wire, trust_env=False) as client:
        request = client.build_request("POST", where, content=body, headers={**usual, **headers})
        answer = client.send(request, stream=True)
        try:
            text = _beginning(answer, deadline)
        finally:
            answer.close()
    return answer.status_code, answer.headers, text


def _beginning(answer: httpx.Response, deadline: Deadline) -> str:
    """What the answer says, as far as it can be had: its status alone decides."""
    deadline.at_most(ANSWER_SECONDS)
    got = b""
    with (
        contextlib.suppress(httpcore.NetworkError, httpcore.TimeoutException),
        contextlib.suppress(httpcore.ProtocolError, DeliveryFailed),
    ):
        for piece in answer.iter_raw():
            got += piece
            if len(got) >= SHOWN_BYTES:
                break
    text = got[:SHOWN_BYTES].decode("utf-8", "replace")
    return " ".join("".join(it if it.isprintable() else " " for it in text).split())


def _judged(status: int, answered: httpx.Headers, text: str, seconds: float) -> Receipt:
    if 200 <= status < 300:
        return Receipt(status, text, seconds)
    said = f"{_status(status)}: {text[:200]}" if text else _status(status)
    if status == HTTPStatus.GONE:
        raise TargetGone(said, status=status)
    pause = None
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        pause = retry_after(answered.get("retry-after", ""), datetime.now(UTC))
    raise DeliveryFailed(said, status=status, retry_after=pause, unreachable=status in AWAY)


def retry_after(text: str, now: datetime) -> float | None:
    """Seconds from now, as a number or a date says; None for what is neither, a day at most."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), LONGEST_PAUSE)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), LONGEST_PAUSE)


def _following(where: httpx.URL, location: str) -> httpx.URL:
    try:
        there = where.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise DeliveryFailed("redirected to what is no address") from error
    if there.scheme not in ("http", "https") or not there.host:
        raise DeliveryFailed(f"redirected to {there.scheme or 'no scheme'}:, which is not followed")
    if where.scheme == "https" and there.scheme == "http":
        raise DeliveryFailed("redirected from https to http, which is not followed")
    return there


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _status(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _late(seconds: float) -> DeliveryFailed:
    return DeliveryFailed(f"no answer within {seconds:g} s", unreachable=True)


@contextlib.contextmanager
def _translated(deadline: Deadline) -> Iterator[None]:
    try:
        yield
    except (httpcore.TimeoutException, httpx.TimeoutException) as error:
        raise _late(deadline.seconds) from error
    except (httpcore.NetworkError, httpx.NetworkError, OSError) as error:
        raise DeliveryFailed(_reason(error), unreachable=True) from error
    except (httpcore.ProtocolError, httpx.HTTPError, httpx.InvalidURL) as error:
        raise DeliveryFailed(f"the answer is no HTTP: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


class _Wire(httpx.BaseTransport):
    """httpx over connections that our dialler makes."""

    def __init__(self, dialler: httpcore.NetworkBackend, tls: ssl.SSLContext) -> None:
        self._pool = httpcore.ConnectionPool(ssl_context=tls, network_backend=dialler)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        where = request.url
        target = httpcore.URL(
            scheme=where.raw_scheme,
            host=where.raw_host,
            port=where.port,
            target=where.raw_path,
        )
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method, target, headers=request.headers.raw, content=request.read()
            )
        )
        assert isinstance(answer.stream, Iterable)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer.stream))

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        if hasattr(self._stream, "close"):
            self._stream.close()


class _Dialler(httpcore.NetworkBackend):
    """Connects to checked addresses only, and hands out streams that keep the deadline."""

    def __init__(self, reach: Reach, deadline: Deadline) -> None:
        self._reach = reach
        self._deadline = deadline
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002  the deadline counts
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        found = allowed(host, resolve(host, port, self._deadline.left()), self._reach)
        for place, address in enumerate(found, start=1):
            # The last one may take all that is left, those before it their share.
            patience = self._deadline.left() / (len(found) - place + 1)
            try:
                stream = self._plain.connect_tcp(
                    address, port, patience, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if place == len(found):
                    raise
            else:
                return _Timed(stream, self._deadline)
        raise AssertionError("there is always an address")


class _Timed(httpcore.NetworkStream):
    """A stream on which every step may take only what is left of the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        for begin in range(0, len(buffer), PIECE):
            self._stream.write(buffer[begin : begin + PIECE], self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left())
        return _Timed(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
