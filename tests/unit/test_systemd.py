"""What the service manager is told."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vqmon.daemon.systemd import ServiceManager


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(2)
        yield listening


def test_messages_arrive_as_one_datagram_each(listener: socket.socket) -> None:
    """The protocol of sd_notify(3): assignments, one a line."""
    manager = ServiceManager({"NOTIFY_SOCKET": listener.getsockname()})

    manager.say("READY=1", "STATUS=42 up, 1 down")

    assert listener.recv(1000) == b"READY=1\nSTATUS=42 up, 1 down"


def test_an_abstract_socket_is_understood() -> None:
    """Containers and systemd itself may use a name that is no file."""
    name = f"vqmon-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(2)

        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).say("READY=1")

        assert listening.recv(1000) == b"READY=1"


def test_reloading_carries_the_time_that_systemd_asks_for(listener: socket.socket) -> None:
    """Without it `Type=notify-reload` takes the READY of the start for that of the reload."""
    ServiceManager({"NOTIFY_SOCKET": listener.getsockname()}).reloading()

    first, second = listener.recv(1000).decode().splitlines()
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "relative"])
def test_nobody_listening_is_no_error(address: str) -> None:
    """Most daemons are started by hand or in a container."""
    ServiceManager({"NOTIFY_SOCKET": address}).say("READY=1")


def test_a_service_manager_that_does_not_read_never_blocks_the_daemon(
    listener: socket.socket,
) -> None:
    """A full socket is the service manager's loss."""
    manager = ServiceManager({"NOTIFY_SOCKET": listener.getsockname()})
    done = threading.Event()

    def talk() -> None:
        for number in range(2000):
            manager.say(f"STATUS={number}" + " " * 200)
        done.set()

    threading.Thread(target=talk, daemon=True).start()

    assert done.wait(5)


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_patience(
    environ: dict[str, str], seconds: float | None
) -> None:
    """As sd_watchdog_enabled(3) recommends, and only when it is us who are watched."""
    assert ServiceManager(environ).watchdog_seconds == seconds
