"""Health and metrics over real sockets on loopback."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from vqmon.daemon import listening as module
from vqmon.daemon.listening import Listener, Site, listening, remedy

SERVED = "vqmon_x 1\n" * 1000


class Numbers:
    """A text that is large enough to be compressed."""

    fails = False

    def text(self, accept: str = "") -> tuple[str, bytes]:
        if self.fails:
            raise ValueError("a fault")
        return ("application/openmetrics-text" if accept else "text/plain"), SERVED.encode()


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def site(clock: list[float]) -> Site:
    return Site(Numbers(), clock=lambda: clock[0])


@pytest.fixture
def get(site: Site) -> Iterator[Callable[..., httpx.Response]]:
    """Asks the site over HTTP."""
    with listening(("127.0.0.1", 0), site), httpx.Client(trust_env=False) as client:

        def ask(path: str, method: str = "GET", **headers: str) -> httpx.Response:
            given = {name.replace("_", "-"): it for name, it in headers.items()}
            return client.request(method, f"{site.url}{path}", headers=given)

        yield ask


def wait_for(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_daemon_that_begins_is_alive_but_not_ready(get: Callable[..., httpx.Response]) -> None:
    """Or it would be restarted while it upgrades its tables."""
    assert get("/livez").status_code == 200
    assert (get("/readyz").status_code, get("/readyz").text) == (503, f"{module.STARTING}\n")


def test_readiness_tells_every_reason_against_it(
    get: Callable[..., httpx.Response], site: Site
) -> None:
    site.say("The database is away.", "Nobody scores.")
    assert get("/readyz").status_code == 503
    assert get("/readyz").text == "The database is away.\nNobody scores.\n"

    site.say()

    assert (get("/readyz").status_code, get("/readyz").text) == (200, "ready\n")


def test_a_supervisor_that_stands_still_is_not_alive(
    get: Callable[..., httpx.Response], site: Site, clock: list[float]
) -> None:
    """The threads that answer go on, so they must look whether the loop does."""
    site.turned()
    clock[0] += 29.0
    assert get("/livez").status_code == 200

    clock[0] += 2.0

    assert get("/livez").status_code == 503
    assert "stood still for 31 s" in get("/livez").text


def test_metrics_are_served_as_they_are_asked_for(get: Callable[..., httpx.Response]) -> None:
    text = get("/metrics?name=x", Accept="", Accept_Encoding="identity")
    other = get("/metrics", Accept="application/openmetrics-text", Accept_Encoding="gzip")

    assert (text.text, text.headers["content-type"]) == (SERVED, "text/plain")
    assert other.headers["content-type"] == "application/openmetrics-text"
    assert (other.text, other.headers["content-encoding"]) == (SERVED, "gzip")
    assert int(other.headers["content-length"]) < len(SERVED) / 10
    head = get("/metrics", "HEAD", Accept="", Accept_Encoding="identity")
    assert (head.text, int(head.headers["content-length"])) == ("", len(SERVED))


def test_other_paths_and_methods_are_refused(get: Callable[..., httpx.Response]) -> None:
    assert get("/").status_code == 404
    assert "/metrics" in get("/").text
    assert get("/metrics", "POST").status_code == 405
    assert get("/metrics", "BREW").status_code == 501


def test_a_fault_of_ours_is_an_answer_and_a_log_line(
    get: Callable[..., httpx.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Numbers, "fails", True)

    assert get("/metrics").status_code == 500
    assert get("/livez").status_code == 200


def test_people_who_say_nothing_keep_nobody_from_being_answered(
    get: Callable[..., httpx.Response], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one byte at a time: connections are bounded, and so is their time."""
    monkeypatch.setattr(module, "REQUEST_SECONDS", 1.0)
    host, port = site.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for _ in range(module.MOST_REQUESTS):
            silent = stack.enter_context(socket.create_connection((host, int(port))))
            silent.sendall(b"GET /livez HT")

        def answered() -> bool:
            try:
                return get("/livez").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answered)


def test_a_taken_address_costs_a_warning_with_the_remedy_and_is_taken_later(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Two daemons on one machine must not keep each other from starting, and one that takes over
    from another takes its address, too.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        listener = Listener("127.0.0.1", port, site, retry=0.05)
        listener.start()
        [warning] = [it for it in caplog.records if it.levelno == logging.WARNING]
        assert warning.getMessage() == "http_not_listening"
        assert "`http: off`" in warning.__dict__["error"]
        assert f"127.0.0.1:{port} is taken" in warning.__dict__["error"]
        assert site.url == ""
    try:
        wait_for(lambda: site.url)
        assert httpx.get(f"{site.url}/livez", trust_env=False).status_code == 200
    finally:
        listener.close()

    assert len([it for it in caplog.records if it.levelno == logging.WARNING]) == 1


def test_an_address_that_this_machine_does_not_have_is_told_as_such(
    caplog: pytest.LogCaptureFixture, site: Site
) -> None:
    with listening(("192.0.2.1", 8477), site), listening(("nowhere.invalid", 8477), site):
        told = [it.__dict__["error"] for it in caplog.records if it.levelno == logging.WARNING]

    assert len(told) == 2
    assert all("has no address" in it for it in told)
    assert "from 1024 on" in remedy(PermissionError(13, "Permission denied"), "::1", 80)


def test_nothing_listens_when_it_is_off(site: Site) -> None:
    with listening(None, site):
        assert site.url == ""


def test_closing_takes_no_time_whoever_is_connected(site: Site) -> None:
    """The daemon has ten seconds for all of its end."""
    before = threading.active_count()
    with listening(("127.0.0.1", 0), site):
        host, port = site.url.removeprefix("http://").split(":")
        client = socket.create_connection((host, int(port)))
        began = time.monotonic()

    assert time.monotonic() - began < 3
    assert threading.active_count() <= before + 1
    client.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=2)


def test_ipv6_is_served_where_there_is_any(site: Site) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with listening(("::1", 0), site):
        if not site.url:
            pytest.skip("this machine has no IPv6 on loopback")
        assert site.url.startswith("http://[::1]:")
        assert httpx.get(f"{site.url}/livez", trust_env=False).text == "alive\n"
