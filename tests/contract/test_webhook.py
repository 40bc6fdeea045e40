"""Webhooks against real receivers on loopback: good ones, and all that a network can do to us."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as OfficialWebhook

from tests.contract.servers import accepting, free_port
from tests.receivers import SECRET, Answer, Received, Receiver, receiving
from vqmon.domain import Alert, AlertEvent, Delivery, Receipt
from vqmon.errors import ConfigError, DeliveryFailed, TargetGone
from vqmon.notifiers import open_notifier
from vqmon.notifiers.posting import retry_after
from vqmon.notifying import Target, deliveries, trial

NOW = datetime.now(UTC)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def send(url: str, delivery: Delivery | None = None, **fields: Any) -> Receipt:
    target = Target("encoder", url=url, secrets=(SECRET,), timeout=10.0)
    target = replace(target, **fields)
    sent = delivery or trial(target, NOW, "msg-1")
    return open_notifier(target).send(sent, datetime.now(UTC))


def failure(url: str, **fields: Any) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as caught:
        send(url, **fields)
    return caught.value


# What arrives


def test_an_alert_arrives_signed_and_whole(receiver: Receiver) -> None:
    """As the official library of the receiver's side sees it."""
    alert = Alert("news", "black", "critical", NOW, "black for 31 s; Öffentlich 📺")
    event = AlertEvent("firing", alert, NOW)
    [delivery] = deliveries([event], [Target("encoder")])

    receipt = send(receiver.url, delivery)

    [got] = receiver.received
    assert OfficialWebhook(SECRET).verify(got.body, got.headers) == delivery.body
    assert got.id == event.id
    assert (got.path, got.headers["content-type"]) == ("/hook", "application/json")
    assert got.headers["user-agent"].startswith("vqmon/")
    assert (receipt.status, receipt.text) == (200, "ok")
    assert 0 < receipt.seconds < 10


def test_while_keys_change_both_verify(receiver: Receiver) -> None:
    """The receiver may not know the new one yet."""
    other = "whsec_" + "A" * 43 + "="

    send(receiver.url, secrets=(other, SECRET))

    [got] = receiver.received
    for key in (SECRET, other):
        OfficialWebhook(key).verify(got.body, got.headers)


def test_configured_headers_and_a_login_in_the_url_are_sent(receiver: Receiver) -> None:
    """Many receivers ask for a token of their own."""
    send(receiver.url, headers={"X-Token": "t"})
    send(receiver.url.replace("http://", "http://joe:secret@"))

    first, second = receiver.received
    assert first.headers["x-token"] == "t"
    assert second.headers["authorization"] == "Basic am9lOnNlY3JldA=="
    assert second.headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_done(receiver: Receiver, status: int) -> None:
    """A receiver owes us no more than that."""
    receiver.answer = lambda _: Answer(status, body=b"")

    assert send(receiver.url).status == status


def test_proxies_of_the_environment_are_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would look names up anew, past our check."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    assert send(receiver.url).status == 200


def test_a_large_body_arrives(receiver: Receiver) -> None:
    """More than fits into the buffers between us."""
    big = Delivery("msg-1", "encoder", "plugin", {"text": "x" * 3_000_000}, NOW)

    send(receiver.url, big)

    assert receiver.received[0].json == big.body


# What is refused


@pytest.mark.parametrize(
    ("status", "unreachable"),
    [
        (400, False),
        (404, False),
        (418, False),
        (500, False),
        (502, True),
        (503, True),
        (599, False),
    ],
)
def test_a_refusal_says_what_the_receiver_said(
    receiver: Receiver, status: int, unreachable: bool
) -> None:
    """The operator must see why, without a packet capture."""
    receiver.answer = lambda _: Answer(status, body=b"no\n  such\x1b[31m thing")

    error = failure(receiver.url)

    assert (error.status, error.unreachable, error.retry_after) == (status, unreachable, None)
    assert str(error).startswith(f"HTTP {status}")
    assert str(error).endswith(": no such [31m thing")


def test_410_means_that_nothing_more_is_wanted(receiver: Receiver) -> None:
    """The only refusal that ends more than one message."""
    receiver.answer = lambda _: Answer(410)

    with pytest.raises(TargetGone, match="410 Gone"):
        send(receiver.url)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_heard(receiver: Receiver, status: int) -> None:
    """Whoever asks for less gets less."""
    receiver.answer = lambda _: Answer(status, {"Retry-After": "17"})

    assert failure(receiver.url).retry_after == 17


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        pytest.param(format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0, id="date"),
        pytest.param(format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0, id="past"),
        ("9" * 400, 86_400.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("1e9", None),
        ("Wed, 99 Foo 2026", None),
        ("²", None),
    ],
)
def test_retry_after_is_a_number_or_a_date_or_ignored(text: str, seconds: float | None) -> None:
    """Garbage must neither raise nor stop a target for a century."""
    found = retry_after(text, NOW.replace(microsecond=0))

    assert found == seconds if seconds is None else found == pytest.approx(seconds)


# Redirects


def hop(location: str, status: int = 307) -> Callable[[Received], Answer]:
    return lambda it: Answer() if it.path == "/there" else Answer(status, {"Location": location})


def test_a_redirect_is_not_followed_unless_allowed(receiver: Receiver) -> None:
    """It would carry what we say to a place nobody configured."""
    receiver.answer = hop("/there")

    error = failure(receiver.url)

    assert "name that address, or allow `redirects`" in str(error)
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_an_allowed_redirect_is_followed_with_the_same_message(
    receiver: Receiver, status: int
) -> None:
    """Still a POST, with the same body and signature."""
    receiver.answer = hop("/there", status)

    assert send(receiver.url, redirects=1).status == 200

    first, second = receiver.received
    assert (second.path, second.body, second.id) == ("/there", first.body, first.id)


def test_more_redirects_than_allowed_are_not_followed(receiver: Receiver) -> None:
    """A circle ends."""
    receiver.answer = hop("/elsewhere")

    assert "more than 3 redirects" in str(failure(receiver.url, redirects=3))
    assert len(receiver.received) == 4


def test_a_redirect_to_another_server_carries_no_token(receiver: Receiver) -> None:
    """What logs in here must not be shown there."""
    with receiving() as other:
        receiver.answer = hop(f"http://127.0.0.1:{other.port}/there")

        send(receiver.url.replace("//", "//u:p@"), redirects=1, headers={"X-Token": "t"})

        assert receiver.received[0].headers["x-token"] == "t"
        assert other.received[0].headers.keys() & {"x-token", "authorization"} == set()


@pytest.mark.parametrize(
    "location", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://", "http://[", "\x80\xff"]
)
def test_a_redirect_to_nowhere_is_a_failure_like_any_other(
    receiver: Receiver, location: str
) -> None:
    """Whatever stands there."""
    receiver.answer = hop(location)

    assert failure(receiver.url, redirects=5).status in (None, 307)


# Addresses


def test_an_address_inside_is_not_dialled_where_it_is_forbidden(receiver: Receiver) -> None:
    """Not even a connection is made."""
    url = f"http://localhost:{receiver.port}/hook"

    error = failure(url, private=False)

    assert "inside, which `private: no` forbids" in str(error)
    assert receiver.received == []
    assert send(url, allow=("localhost",)).status == 200
    assert send(url, private=False, allow=("127.0.0.0/8", "::1")).status == 200
    assert "not in `allow`" in str(failure(url, allow=("10.0.0.0/8",)))


def resolving(monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> list[str]:
    """Names mean these addresses, one look-up after the other; returns what was looked up."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *rest: Any, **named: Any) -> list[Any]:
        if host[0].isdigit():
            return list(real(host, port, *rest, **named))
        asked.append(host)
        address = names[host.partition(".")[0]]
        found = address.pop(0) if len(address) > 1 else address[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_a_name_that_changes_its_mind_gains_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: good when it is checked, inside when it is dialled. It is asked only once,
    and the very address that was checked is dialled.
    """
    dialled: list[Any] = []

    def refuse(address: Any, *_: Any, **__: Any) -> None:
        dialled.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    asked = resolving(monkeypatch, rebinding=["93.184.216.34", "127.0.0.1"])
    monkeypatch.setattr(socket, "create_connection", refuse)

    failure(f"http://rebinding.example:{receiver.port}/hook", private=False)

    assert asked == ["rebinding.example"]
    assert dialled == [("93.184.216.34", receiver.port)]


def test_every_redirect_is_checked_after_its_own_look_up(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good receiver that leads inside, by name or by number."""
    resolving(monkeypatch, good=["127.0.0.1"], bad=["169.254.169.254"])
    url = f"http://good.example:{receiver.port}/hook"

    for location in ("http://bad.example/there", "http://169.254.169.254/there"):
        receiver.answer = hop(location)
        error = failure(url, allow=("good.example",), redirects=2)

        assert "169.254.169.254" in str(error)
        assert "not in `allow`" in str(error)


def test_the_next_address_is_tried_when_one_does_not_answer(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """localhost often means ::1 first, where nobody listens."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, receiver.port))
        for address in ("127.0.0.99", "127.0.0.1")
    ]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *it, **_: found if it[0] == "both.example" else real(*it)
    )

    assert send(f"http://both.example:{receiver.port}/hook").status == 200


# Receivers that misbehave


def test_nobody_there() -> None:
    """The receiver's machine is up, the receiver is not."""
    error = failure(f"http://127.0.0.1:{free_port()}/hook")

    assert error.unreachable
    assert "refused" in str(error)


def talk_drop(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)
        connection.close()

    return talk


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff\x00\xff" * 50,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc def\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 300_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: minus\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"<html>200 OK</html>",
    ],
    ids=range(10),
)
def test_garbage_instead_of_an_answer_is_a_failure(answer: bytes) -> None:
    """Never an exception that nobody expected, never taken for success."""
    with accepting(saying(answer)) as port:
        error = failure(f"http://127.0.0.1:{port}/hook", timeout=5.0)

    assert type(error) is DeliveryFailed


@pytest.mark.parametrize(
    "rest",
    [
        b"content-length: 1000\r\n\r\nshort",
        b"transfer-encoding: chunked\r\n\r\nzz\r\ngarbage",
        b"transfer-encoding: chunked\r\n\r\nffffffff\r\n",
        b"content-encoding: gzip\r\n\r\nno gzip at all",
        b"content-encoding: br\r\ncontent-length: 3\r\n\r\n\xff\xff\xff",
        b"\r\n" + b"endless " * 500_000,
    ],
    ids=range(6),
)
def test_a_2xx_counts_whatever_follows_it(rest: bytes) -> None:
    """It was taken; sending it again would only make a double."""
    with accepting(saying(b"HTTP/1.1 200 OK\r\n" + rest)) as port:
        receipt = send(f"http://127.0.0.1:{port}/hook")

    assert receipt.status == 200
    assert len(receipt.text) <= 2000


def test_a_dropped_connection_is_a_failure() -> None:
    """The receiver died while it was told."""
    with accepting(talk_drop) as port:
        error = failure(f"http://127.0.0.1:{port}/hook")

    assert type(error) is DeliveryFailed


def dripping(connection: socket.socket) -> None:
    """A byte of headers every 50 ms, for ever."""
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def continuing(connection: socket.socket) -> None:
    connection.recv(65_536)
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.05)


def deaf(connection: socket.socket) -> None:
    """Never reads."""
    time.sleep(30)


@pytest.mark.parametrize("talk", [dripping, continuing, deaf], ids=lambda it: it.__name__)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_deadline_holds_whatever_the_receiver_does(
    talk: Callable[[socket.socket], None], scheme: str
) -> None:
    """Timeouts of single steps would let a slow drip keep a worker for hours."""
    with accepting(talk) as port:
        begun = time.monotonic()
        big = Delivery("msg-1", "encoder", "plugin", {"text": "x" * 20_000_000}, NOW)
        error = failure(
            f"{scheme}://127.0.0.1:{port}/hook",
            timeout=0.6,
            **({"delivery": big} if talk is deaf else {}),
        )

    assert time.monotonic() - begun < 5
    if scheme == "http":
        assert "no answer within 0.6 s" in str(error)
        assert error.unreachable


def test_after_a_2xx_a_slow_text_is_not_waited_for() -> None:
    """The status decides; the text is for people."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 202 Accepted\r\n\r\nyes")
        time.sleep(30)

    with accepting(talk) as port:
        receipt = send(f"http://127.0.0.1:{port}/hook", timeout=30.0)

    assert (receipt.status, receipt.text) == (202, "yes")
    assert receipt.seconds < 10


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for encoder.example, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2"]
    command += ["-subj", "/CN=encoder.example", "-addext", "subjectAltName=DNS:encoder.example"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@contextlib.contextmanager
def tls_server(certificate: tuple[Path, Path]) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            _read_request(secured)
            secured.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with accepting(talk) as port:
        yield port


def _read_request(connection: socket.socket) -> None:
    """All of it: closing with something unread resets the connection, and the answer is lost."""
    with connection.makefile("rb") as lines:
        length = 0
        while (line := lines.readline()).strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        lines.read(length)


def test_a_certificate_is_checked_against_the_name(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the connection is made to a number, the name is what is verified."""
    resolving(monkeypatch, encoder=["127.0.0.1"], other=["127.0.0.1"])
    with tls_server(certificate) as port:
        assert send(f"https://encoder.example:{port}/x", ca_file=certificate[0]).text == "ok"

        unknown = failure(f"https://encoder.example:{port}/x")
        wrong = failure(f"https://other.example:{port}/x", ca_file=certificate[0])

    assert "certificate" in str(unknown).lower()
    assert "other.example" in str(wrong)


def test_certificates_that_cannot_be_read_are_said_to_be(tmp_path: Path) -> None:
    """With the key of the setting."""
    for file in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        if file.stem == "empty":
            file.touch()
        with pytest.raises(ConfigError, match=r"notifiers.encoder.ca_file.*PEM"):
            send("https://127.0.0.1/", ca_file=file)


def test_many_at_once_do_not_disturb_each_other(receiver: Receiver) -> None:
    """A worker for each target, all in one process."""
    threads = [threading.Thread(target=send, args=(receiver.url,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(receiver.received) == 20
