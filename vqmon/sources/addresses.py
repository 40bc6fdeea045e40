"""Where a source is and how it is opened: scheme, limits, options; and URLs without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from vqmon.errors import ConfigError

HARMLESS_PARAMETERS = frozenset(
    {
        "buffer_size",
        "fifo_size",
        "latency",
        "listen",
        "localaddr",
        "localport",
        "mode",
        "pkt_size",
        "reuse",
        "seed",
        "seconds",
        "size",
        "rate",
        "faults",
        "sources",
        "timeout",
        "transport",
        "ttl",
    }
)
"""Query parameters whose values may be shown; every other value may be a token."""


def _userinfo(other: str) -> re.Pattern[str]:
    """`other`: what cannot stand in a URL that is looked for in a text."""
    authority = rf"[^/?#{other}]*"
    with_slash = rf"[^/:?#{other}]*:(?!\d+/)[^?#{other}]*"
    with_any = rf"[^/:?#@{other}]*:(?!\d+[/?#])[^{other}\0]*"
    return re.compile(f"(?<=://)(?:{authority}|{with_slash}|{with_any})@")


_USERINFO, _USERINFO_IN_TEXT = _userinfo(""), _userinfo(r"\s'\"")
"""User and password: up to the last @ of the authority; further when a password has a slash, a
question mark or a hash sign, as people write them although they must be encoded.
"""

_HIDDEN = "***"

_DATAGRAMS = frozenset({"udp", "rtp"})
_FORMS = {"udp": "HOST:PORT", "rtp": "HOST:PORT", "tcp": "HOST:PORT", "srt": "HOST:PORT"}
"""How an address is written where it has no usual port."""

_ENCODED = "# / ? @ as %23 %2F %3F %40"
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Opening:
    """All that is needed to open one URL.

    url: with credentials; never shown. shown: without them.
    live: True when media arrives in real time; None when only opening tells (http).
    retried: an unreachable source is tried again until it is stopped.
    paced: packets arrive as they are made, so their lag behind the wall clock means something.
    open_timeout, read_timeout: seconds.
    late_after: seconds behind the smallest lag seen after which decoding is skipped.
    container: FFmpeg's name of the format where it must be named, else None.
    adaptive: `read_timeout` may be raised to three of the stream's own intervals (HLS).
    options: FFmpeg's options. secrets: what these carry that must never be shown.
    bridge: parameters of a helper process, None when FFmpeg itself speaks the protocol.
    """

    url: str
    shown: str
    scheme: str
    live: bool | None
    retried: bool
    paced: bool = True
    open_timeout: float = 10.0
    read_timeout: float = 10.0
    late_after: float = 1.0
    container: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    bridge: Mapping[str, str] | None = None
    secrets: tuple[str, ...] = ()
    adaptive: bool = False

    def clean(self, text: str) -> str:
        """A foreign text without any credential."""
        for secret in self.secrets:
            text = text.replace(secret, _HIDDEN).replace(quote(secret), _HIDDEN)
        return scrub(text, self.url)


def scheme_of(url: str) -> str:
    """The scheme in small letters; "file" for a plain path."""
    match = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):", url)
    return match.group(1).lower() if match else "file"


def check_address(url: str) -> None:
    """Raise ConfigError for a network address that lacks host or port, or cannot be read."""
    scheme = scheme_of(url)
    if scheme in {"file", "synthetic"}:
        return
    if complaint := _complaint(scheme, url):
        form = f"{scheme}://{_FORMS.get(scheme, 'HOST[:PORT]/PATH')}"
        hint = f", with {_ENCODED} in user or password" if "@" in url else ""
        raise ConfigError(f"{redact(url)}: {complaint}; write {form}{hint}")


def _complaint(scheme: str, url: str) -> str | None:
    if _UNPRINTABLE.search(url):
        return "a space is written %20, and control characters have no place here"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "host or port is not written right"
    waits = scheme in _DATAGRAMS or "mode=listener" in parts.query
    if not host and not (waits and parts.netloc):
        return "there is no host"
    if port == 0 or (port is None and scheme in _FORMS):
        return "there is no port"
    return None


def redact(url: str) -> str:
    """The URL without credentials: no user, no password, no value of an unknown parameter."""
    if scheme_of(url) == "file":
        return url
    url = _USERINFO.sub(f"{_HIDDEN}@", url)
    head, mark, query = url.partition("?")
    if not mark:
        return url
    query, hash_mark, fragment = query.partition("#")
    return head + mark + "&".join(map(_hide, query.split("&"))) + hash_mark + fragment


def scrub(text: str, url: str) -> str:
    """A foreign text (an FFmpeg message) without any credential that `url` carries."""
    text = text.replace(url, redact(url))
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return _USERINFO_IN_TEXT.sub(f"{_HIDDEN}@", text)


def _hide(parameter: str) -> str:
    name, mark, value = parameter.partition("=")
    shown = not value or name.lower() in HARMLESS_PARAMETERS
    return parameter if shown else name + mark + _HIDDEN


def _secrets(url: str) -> set[str]:
    """Every credential in the URL, as written, decoded and encoded; long enough to be one."""
    if scheme_of(url) == "file":
        return set()
    parts = urlsplit(url)
    userinfo = parts.netloc.rpartition("@")[0]
    found = {userinfo, *userinfo.split(":")[1:]}
    found |= {v for name, v in parse_qsl(parts.query) if name.lower() not in HARMLESS_PARAMETERS}
    found |= {unquote(s) for s in found} | {quote(s, safe="") for s in found}
    return {secret for secret in found if len(secret) >= 3}
