"""Which addresses may be reached, before and after name resolution."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from vqmon.errors import DeliveryFailed
from vqmon.notifiers.addresses import Reach, allowed, check_entry, check_url, resolve

OUTSIDE_ONLY = Reach(private=False)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
    ],
)
def test_what_is_inside_is_refused_where_that_is_forbidden(address: str) -> None:
    """Cloud metadata, neighbours and ourselves, however they are written."""
    complaint = OUTSIDE_ONLY.complaint("somewhere.example", address)

    assert complaint
    assert "private: no" in complaint
    assert Reach().complaint("somewhere.example", address) is None


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_what_is_outside_may_be_reached(address: str) -> None:
    """Else nobody could be told."""
    assert OUTSIDE_ONLY.complaint("somewhere.example", address) is None


@pytest.mark.parametrize(
    ("host", "address", "good"),
    [
        ("x", "10.20.3.4", True),
        ("x", "10.21.3.4", False),
        ("x", "::ffff:10.20.3.4", True),
        ("encoder.example", "192.168.7.7", True),
        ("ENCODER.example.", "192.168.7.7", True),
        ("notencoder.example", "192.168.7.7", False),
        ("a.b.example.net", "192.168.7.7", True),
        ("example.net", "192.168.7.7", False),
        ("evilexample.net", "192.168.7.7", False),
        ("x", "fd00::5", True),
        ("x", "93.184.216.34", False),
    ],
)
def test_an_allow_list_lets_through_what_it_names_and_nothing_else(
    host: str, address: str, good: bool
) -> None:
    """By network after resolution, or by name; it counts more than `private`."""
    reach = Reach(False, ("10.20.0.0/16", "encoder.example", "*.example.net", "fd00::/64"))

    assert (reach.complaint(host, address) is None) is good


def test_a_name_with_a_good_and_a_bad_address_gives_the_good_one() -> None:
    """Some names mean both; only what was checked is dialled."""
    assert allowed("x", ["10.0.0.1", "93.184.216.34"], OUTSIDE_ONLY) == ["93.184.216.34"]
    with pytest.raises(DeliveryFailed, match=r"x \(10.0.0.1\) is inside"):
        allowed("x", ["10.0.0.1"], OUTSIDE_ONLY)


def test_an_address_needs_no_resolver() -> None:
    """Encoders are often configured by number, where there is no DNS."""
    assert resolve("10.0.0.1", 80, 0.0) == ["10.0.0.1"]
    assert resolve("::1", 80, 0.0) == ["::1"]


def test_an_unknown_name_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most frequent mistake of all."""

    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    with pytest.raises(DeliveryFailed, match=r"no address for nowhere.invalid: Name or service"):
        resolve("nowhere.invalid", 80, 5.0)


def test_a_resolver_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name resolution counts against the deadline, though it cannot be cancelled."""
    answered = threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        answered.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    begun = time.monotonic()
    with pytest.raises(DeliveryFailed, match="in time"):
        resolve("slow.example", 80, 0.05)

    assert time.monotonic() - begun < 10
    answered.set()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "http://",
        "host/path",
        "http://host:99999/",
        "http://host:0/",
        "http://ho st/",
        "file:///etc/passwd",
    ],
)
def test_a_url_that_cannot_be_posted_to_is_refused(url: str) -> None:
    """When the configuration is read."""
    with pytest.raises(ValueError, match=r"write http|a space"):
        check_url(url, Reach())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://[::1]:8080/x", "https://localhost/", "http://10.1.1.1/"]
)
def test_a_url_inside_is_refused_at_once_where_it_is_forbidden(url: str) -> None:
    """No look-up is needed to know."""
    check_url(url, Reach())
    with pytest.raises(ValueError, match="inside"):
        check_url(url, OUTSIDE_ONLY)


def test_entries_of_an_allow_list_are_networks_or_names() -> None:
    """A misspelt network would let nothing through, silently."""
    for good in ("10.0.0.0/8", "::1", "10.1.2.3/8", "host", "*.example.net"):
        check_entry(good)
    for bad in ("", "*", "http://host", "10.0.0.0/99", "a b"):
        with pytest.raises(ValueError, match="write a network"):
            check_entry(bad)
