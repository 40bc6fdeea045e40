"""How an encoder obeys signed webhooks: what to check, in which order, and what to answer.

    POST ─▶ size ─▶ signature ─▶ age ─▶ heard before? ─▶ meaning ─▶ do it ─▶ 2xx

To be read by whoever writes the other end of `target: {type: webhook}` of vqmon's adaptive
encoding. The signature is that of Standard Webhooks: HMAC-SHA256 over "id.timestamp.body". It
is checked before the body is looked at; the timestamp keeps a message that was overheard from
being sent again later, and the id keeps one that came twice from being done twice.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from vqmon.notifiers import signing

LARGEST_BODY = 256 * 1024
WINDOW_SECONDS = 300.0
"""A message that is older, or newer by a wrong clock, is refused, as Standard Webhooks advises."""

REMEMBERED = 10_000
"""Ids of messages that were done; more than can come within the window."""

PATIENCE_SECONDS = 10.0
"""A sender that takes longer for its request is cut off."""

TYPE, VERSION = "vqmon.adaptive_encoding", 1
QUALITIES = (1.0, 10.0)
CAPS_KBPS = (50, 500_000)


class Refused(Exception):
    """What the sender is told: a status of HTTP and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Command:
    """Run at this level from now on.

    decision: its id at vqmon. action: raise, lower or roll_back. quality: 1 to 10.
    """

    decision: str
    stream: str
    action: str
    quality: float
    cap_kbps: int
    reason: str = ""


class Commands:
    """Takes messages and has each valid one done once. Thread-safe."""

    def __init__(
        self,
        secret: str,
        stream: str,
        obey: Callable[[Command], None],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """secret: as in vqmon's configuration. stream: the only one that is encoded here.

        Raises ValueError when the secret is none.
        """
        self._key = signing.key(secret)
        self._stream = stream
        self._obey = obey
        self._now = now
        self._done: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, headers: Mapping[str, str], body: bytes) -> str:
        """Do what it says; what was done, in words. headers: names in any case.

        Raises Refused.
        """
        given = {name.lower(): value for name, value in headers.items()}
        id_ = verified(given, body, self._key, self._now())
        with self._lock:
            if id_ in self._done:
                return "done already"
            command = meant(body, self._stream)
            if command is not None:
                self._obey(command)
            self._remember(id_)
        return "nothing to do" if command is None else f"{command.action} to be done"

    def _remember(self, id_: str) -> None:
        self._done[id_] = None
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)


def verified(headers: Mapping[str, str], body: bytes, key: bytes, now: float) -> str:
    """The id of a message that whoever has the key has signed within the window.

    headers: names in lower case. now: seconds since 1970. Raises Refused.
    """
    id_, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    signatures = headers.get("webhook-signature", "")
    if not (id_ and stamp and signatures):
        raise Refused(401, "webhook-id, webhook-timestamp and webhook-signature are needed")
    if not stamp.isascii() or not stamp.isdecimal():
        raise Refused(401, "webhook-timestamp must be seconds since 1970")
    if not _signed(f"{id_}.{stamp}.".encode() + body, signatures, key):
        raise Refused(401, "no signature fits; sender and receiver must have the same secret")
    if abs(now - int(stamp)) > WINDOW_SECONDS:
        raise Refused(401, "too old or too new; are both clocks right?")
    return id_


def _signed(content: bytes, signatures: str, key: bytes) -> bool:
    """Whether one of several signatures fits: while a secret is changed there are two."""
    digest = hmac.new(key, content, hashlib.sha256).digest()
    right = b"v1," + base64.b64encode(digest)
    # All are compared, each in constant time, so that the time taken tells nothing.
    fits = [hmac.compare_digest(right, it.encode()) for it in signatures.split(" ")]
    return any(fits)


def meant(body: bytes, stream: str) -> Command | None:
    """What a message asks for; None when it asks for nothing (an alert, a test, a proposal).

    Raises Refused when it cannot be understood.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is no JSON") from error
    if not isinstance(said, dict) or said.get("type") != TYPE or said.get("action") == "propose":
        return None
    if said.get("version") != VERSION:
        raise Refused(422, f"version {VERSION} is understood here")
    if said.get("stream") != stream:
        raise Refused(422, f"only the stream {stream!r} is encoded here")
    return Command(
        decision=str(said.get("decision", "")),
        stream=stream,
        action=str(said.get("action", "")),
        quality=_between("quality", said.get("quality"), *QUALITIES),
        cap_kbps=round(_between("cap_kbps", said.get("cap_kbps"), *CAPS_KBPS)),
        reason=str(said.get("reason", "")),
    )


def _between(name: str, value: object, low: float, high: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]  # nan is neither
        raise Refused(422, f"{name} must be a number from {low:g} to {high:g}")
    return float(value)  # type: ignore[arg-type]


def answering(
    commands: Commands, state: Callable[[], Mapping[str, Any]]
) -> type[BaseHTTPRequestHandler]:
    """POST is for commands; GET says how the encoder runs, as JSON."""

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE_SECONDS

        def do_GET(self) -> None:
            self._answer(200, state())

        def do_POST(self) -> None:
            try:
                done = commands.take(dict(self.headers.items()), self._body())
            except Refused as refused:
                self._answer(refused.status, {"error": str(refused)})
            else:
                self._answer(200, {"done": done})

        def _body(self) -> bytes:
            length = self.headers.get("content-length", "")
            if not length.isascii() or not length.isdecimal():
                raise Refused(411, "say content-length")
            if len(length) > 9 or int(length) > LARGEST_BODY:
                raise Refused(413, f"more than {LARGEST_BODY} bytes")
            return self.rfile.read(int(length))

        def _answer(self, status: int, content: Mapping[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Say nothing: standard error is for failures."""

    return Handler
