"""Which addresses may be reached: looked up, checked, and then dialled by their number.

A name may mean another machine at every look-up. So it is looked up once for a connection, what it
means is checked, and the connection is made to that very address.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from vqmon.errors import DeliveryFailed

Address = IPv4Address | IPv6Address

TRANSLATED = IPv6Network("64:ff9b::/96")
"""IPv6 addresses that a gateway turns into the IPv4 address in their last 32 bits (NAT64)."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a target may be. private: inside too (loopback, private networks, link-local).

    allow: where given, the only networks and host names (``*.example.net`` for all below).
    """

    private: bool = True
    allow: tuple[str, ...] = ()

    def complaint(self, host: str, address: str) -> str | None:
        """Why this address of this host may not be reached; None when it may."""
        found = _outermost(ip_address(address.partition("%")[0]))
        if self.allow:
            if any(_covers(entry, host, found) for entry in self.allow):
                return None
            return f"{_named(host, address)} is not in `allow`"
        if not self.private and not _outside(found):
            return f"{_named(host, address)} is inside, which `private: no` forbids"
        return None


def check_url(url: str, reach: Reach) -> None:
    """Raise ValueError, with the remedy, for a URL that can never be posted to."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("host or port is not written right; write https://HOST/PATH") from error
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("write http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH")
    if any(it.isspace() or ord(it) < 0x20 for it in url):
        raise ValueError("a space is written %20")
    address = "127.0.0.1" if host == "localhost" else host
    if _is_address(address) and (why := reach.complaint(host, address)):
        raise ValueError(f"{why}; name another address or change that setting")


def check_entry(entry: str) -> None:
    """Raise ValueError for what is neither a network, an address nor a host name."""
    name = entry.removeprefix("*.")
    if _is_network(entry) or (name and all(it.isalnum() or it in "-._" for it in name)):
        return
    raise ValueError(
        "write a network (10.20.0.0/16), an address, a host name or *.example.net for all below it"
    )


def resolve(host: str, port: int, seconds: float) -> list[str]:
    """The addresses of a host, in the order in which they should be tried.

    Raises DeliveryFailed when there are none within so many seconds.
    """
    if _is_address(host):
        return [host]
    answer: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()
    # A look-up cannot be cancelled; it is left behind, and ends by the resolver's own timeout.
    looking = threading.Thread(target=_look_up, args=(host, port, answer), daemon=True)
    looking.start()
    try:
        found = answer.get(timeout=max(0.0, seconds))
    except queue.Empty:
        raise DeliveryFailed(f"no address for {host} in time", unreachable=True) from None
    if isinstance(found, Exception):
        raise DeliveryFailed(f"no address for {host}: {_said(found)}", unreachable=True) from found
    return found


def allowed(host: str, addresses: Sequence[str], reach: Reach) -> list[str]:
    """Those that may be reached. Raises DeliveryFailed when there are none."""
    complaints = {it: reach.complaint(host, it) for it in addresses}
    good = [it for it, complaint in complaints.items() if complaint is None]
    if not good:
        reasons = [it for it in complaints.values() if it]
        raise DeliveryFailed(reasons[0] if reasons else f"no address for {host}")
    return good


def _look_up(host: str, port: int, answer: queue.SimpleQueue[list[str] | OSError]) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        answer.put(error)  # type: ignore[arg-type]
        return
    answer.put(list(dict.fromkeys(str(it[4][0]) for it in found)))


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _outermost(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, IPv6Address):
        if address in TRANSLATED:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _outside(address: Address) -> bool:
    return address.is_global and not address.is_multicast


def _covers(entry: str, host: str, address: Address) -> bool:
    if _is_network(entry):
        return address in ip_network(entry, strict=False)
    name = host.lower().rstrip(".")
    wanted = entry.lower().rstrip(".")
    if wanted.startswith("*."):
        return name.endswith(wanted[1:])
    return name == wanted


def _named(host: str, address: str) -> str:
    return address if host == address else f"{host} ({address})"


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
