"""Where media comes from. A table maps the scheme of a URL to what is known about it.

    open_source(stream) -> Source      check_options(url, options)      redact(url)

FFmpeg ignores an option that it does not know, and each protocol has its own name for a
timeout (for RTMP, `timeout` even means "become a server"). So vqmon owns the few option names
that it accepts per scheme, refuses others when the configuration is read, and sets FFmpeg's
itself. `protocol_whitelist` keeps every network source from reaching local files.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vqmon.domain import Stream
from vqmon.errors import ConfigError, SourceRejected
from vqmon.ports import Source
from vqmon.sources.addresses import Opening, check_address, redact, scheme_of
from vqmon.sources.pipes import is_pipe
from vqmon.sources.retry import SourceStatus

__all__ = ["OPTIONS", "SCHEMES", "SourceStatus", "check_options", "open_source", "redact"]

PICTURE_LIMIT_PIXELS = 144_000_000
"""Larger pictures are refused before they are decoded (decompression bombs)."""

OPTIONS = {
    "open_timeout": "seconds to connect and recognise the format (default 10)",
    "read_timeout": "seconds without data after which the source counts as lost (default 10; HLS 20 or three segments)",
    "transport": "tcp or udp: how RTSP carries media (default tcp)",
    "local_address": "address of the network interface to receive multicast on",
    "buffer_size": "socket buffer in bytes (default 8 MiB)",
    "tls_verify": "yes or no: check the server's certificate (default yes)",
    "ca_file": "PEM file with the certificates to trust instead of the system's",
    "user_agent": "what to tell an HTTP server",
    "headers": "further HTTP request headers, as `Name: value`, one per line",
    "live": "yes, no or auto: whether an HTTP source is a live stream (default auto)",
    "latency": "SRT receive latency in milliseconds (default 200)",
    "passphrase": "SRT passphrase, 10 to 79 characters",
    "stream_id": "SRT stream id",
}
"""Every source option, in words."""

AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
)

_CHOICES = {
    "transport": ("tcp", "udp"),
    "tls_verify": ("yes", "no"),
    "live": ("yes", "no", "auto"),
}
_TIMES = frozenset({"open_timeout", "read_timeout"})
_TLS = frozenset({"tls_verify", "ca_file"})
_WEB = _TIMES | {"user_agent", "headers", "live"}
_PROBE = {"analyzeduration": "5000000", "probesize": "5000000"}
_WEB_PROTOCOLS = "http,https,tcp,tls,crypto,httpproxy"


@dataclass(frozen=True, slots=True)
class Scheme:
    """What vqmon knows of a scheme.

    live: as in `Opening`; options: names that a stream may set; prepare: from URL, options and
    what both gave so far to FFmpeg's options and other fields of `Opening`.
    """

    live: bool | None
    options: frozenset[str]
    prepare: Callable[[str, Mapping[str, str]], dict[str, Any]]


def open_source(
    stream: Stream,
    *,
    live_retry: bool = True,
    tee: Callable[[Any, Any], None] | None = None,
) -> Source:
    """The source of a stream, not yet opened.

    live_retry: False raises when a network source cannot be opened or is lost, instead of
        trying again for ever. Local files are never tried again.
    tee: called as tee(packet, container) with every sound and video packet before it is
        decoded, and as tee(None, None) where packets before and after do not belong together.

    Raises ConfigError for an unknown scheme or option.
    """
    check_options(stream.url, stream.options)
    if scheme_of(stream.url) == "synthetic":
        from vqmon.sources.synthetic import SyntheticSource

        return SyntheticSource(stream.url, stream.name)
    from vqmon.sources.pyav import PyAVSource

    opening = plan(stream.url, stream.options, live_retry=live_retry)
    return PyAVSource(opening, name=stream.name, tee=tee)


def check_options(url: str, options: Mapping[str, str]) -> None:
    """Raise ConfigError for a scheme or option that vqmon does not know, naming the nearest, and
    for an address that lacks host or port or a synthetic one that cannot be read.
    """
    scheme = _scheme(url)
    check_address(url)
    if scheme_of(url) == "synthetic":
        _check_recipe(url)
    for name, value in options.items():
        if name not in scheme.options:
            raise ConfigError(_unknown("option", name, scheme.options, f" of {scheme_of(url)}"))
        _check_value(name, str(value))


def _check_recipe(url: str) -> None:
    from vqmon.sources.recipe import parse

    try:
        parse(url)
    except SourceRejected as error:
        raise ConfigError(error.message) from error


def plan(url: str, options: Mapping[str, str], *, live_retry: bool = True) -> Opening:
    """How to open a URL that `check_options` has accepted."""
    scheme = _scheme(url)
    fields = {"live": scheme.live, "paced": scheme.live is True} | scheme.prepare(url, options)
    for limit in _TIMES & options.keys():
        fields[limit] = float(options[limit])
    ffmpeg = {"max_pixels": str(PICTURE_LIMIT_PIXELS)} | fields.pop("options", {})
    return Opening(
        url=fields.pop("url", url),
        shown=redact(url),
        scheme=scheme_of(url),
        retried=live_retry and scheme_of(url) != "file",
        options=_timed(ffmpeg, fields),
        secrets=tuple(sorted(_secrets(options), key=len, reverse=True)),
        **fields,
    )


def _secrets(options: Mapping[str, str]) -> set[str]:
    """Values of options that must never be shown, header by header."""
    headers = options.get("headers", "").splitlines()
    found = {line.partition(":")[2].strip() for line in headers}
    found |= {options.get("passphrase", ""), options.get("stream_id", "")}
    return {value for value in found if value}


def _timed(ffmpeg: dict[str, str], fields: Mapping[str, Any]) -> dict[str, str]:
    """FFmpeg's options with the read limit filled in, in microseconds."""
    micros = str(int(float(fields.get("read_timeout", 10.0)) * 1e6))
    return {name: micros if value == "READ_TIMEOUT" else value for name, value in ffmpeg.items()}


def _scheme(url: str) -> Scheme:
    name = scheme_of(url)
    if name not in SCHEMES:
        raise ConfigError(_unknown("scheme", name, SCHEMES, f" in {redact(url)}"))
    return SCHEMES[name]


def _unknown(kind: str, name: str, known: Any, where: str) -> str:
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    listed = ", ".join(sorted(known)) or "none"
    return f"unknown {kind} {name!r}{where}; {hint}known: {listed}"


def _check_value(name: str, value: str) -> None:
    wanted = _complaint(name, value)
    if wanted:
        raise ConfigError(f"option {name!r} is {_safe(name, value)!r}; {wanted}")


def _safe(name: str, value: str) -> str:
    return "***" if name in {"passphrase", "headers"} else value


def _complaint(name: str, value: str) -> str | None:
    """What the value should have been, None when it is right."""
    if name in _TIMES | {"latency", "buffer_size"}:
        return None if _positive(value) else "it must be a number above 0"
    if choices := _CHOICES.get(name):
        return None if value in choices else f"it must be one of: {', '.join(choices)}"
    if name == "ca_file":
        return None if Path(value).is_file() else "there is no such file"
    if name == "passphrase":
        return None if 10 <= len(value) <= 79 else "it must have 10 to 79 characters"
    if name == "headers":
        lines = [line for line in value.splitlines() if line.strip()]
        return None if all(":" in line for line in lines) else "each line must be `Name: value`"
    return None if value.strip() else "it must not be empty"


def _positive(value: str) -> bool:
    try:
        return 0 < float(value) < math.inf
    except ValueError:
        return False


def _local(url: str, options: Mapping[str, str]) -> dict[str, Any]:
    # Absolute, since FFmpeg would take the beginning of `c:x.mp4` for a protocol.
    path = str(Path(url.removeprefix("file://").removeprefix("file:")).absolute())
    if path.lower().endswith(".sdp"):
        return {"url": path, "live": True, "paced": True} | _sdp(options)
    if is_pipe(path):
        return {"url": path, "live": True}
    ffmpeg = {"protocol_whitelist": "file,crypto"}
    if path.lower().endswith((".m3u8", ".m3u")):
        ffmpeg["m3u8_hold_counters"] = "4"  # a playlist that grows no more is not waited for long
    return {"url": path, "options": ffmpeg}


def _sdp(options: Mapping[str, str]) -> dict[str, Any]:
    ffmpeg = _PROBE | {"protocol_whitelist": "file,rtp,udp", "buffer_size": _buffer(options)}
    return {"options": ffmpeg}


def _web(url: str, options: Mapping[str, str]) -> dict[str, Any]:
    ffmpeg = {"protocol_whitelist": _WEB_PROTOCOLS, "rw_timeout": "READ_TIMEOUT"} | _tls(options)
    ffmpeg |= {name: options[name] for name in ("user_agent",) if name in options}
    if "headers" in options:
        lines = (line.strip() for line in options["headers"].splitlines())
        ffmpeg["headers"] = "".join(f"{line}\r\n" for line in lines if line)
    live = {"yes": True, "no": False}.get(options.get("live", "auto"))
    fields: dict[str, Any] = {"live": live, "options": ffmpeg, "late_after": 3.0}
    if urlsplit(url).path.lower().endswith((".m3u8", ".m3u")):
        # What stopped growing is for `read_timeout` to find, so FFmpeg itself never gives up.
        ffmpeg |= {"m3u8_hold_counters": "100000", "max_reload": "5", "extension_picky": "0"}
        fields |= {"read_timeout": 20.0, "late_after": 8.0, "container": "hls"}
        fields["adaptive"] = "read_timeout" not in options
    return fields


def _rtsp(_: str, options: Mapping[str, str]) -> dict[str, Any]:
    transport = options.get("transport", "tcp")
    ffmpeg = {
        "protocol_whitelist": "rtsp,rtsps,rtp,udp,tcp,tls,http,https",
        "rtsp_transport": transport,
        "timeout": "READ_TIMEOUT",
        "buffer_size": _buffer(options),
    }
    return {"options": _PROBE | ffmpeg | _tls(options)}


def _rtmp(_: str, options: Mapping[str, str]) -> dict[str, Any]:
    ffmpeg = {
        "protocol_whitelist": "rtmp,rtmps,rtmpt,rtmpts,tcp,tls,http,https",
        "rw_timeout": "READ_TIMEOUT",
        "analyzeduration": "1500000",
        "probesize": "1000000",
    }
    return {"options": ffmpeg | _tls(options)}


def _datagrams(_: str, options: Mapping[str, str]) -> dict[str, Any]:
    ffmpeg = {
        "protocol_whitelist": "udp,rtp",
        "fifo_size": "32768",  # packets of 188 bytes: 6 MiB
        "overrun_nonfatal": "1",
        "buffer_size": _buffer(options),
        "merge_pmt_versions": "1",
    }
    if "local_address" in options:
        ffmpeg["localaddr"] = options["local_address"]
    return {"options": _PROBE | ffmpeg}


def _tcp(url: str, _: Mapping[str, str]) -> dict[str, Any]:
    listening = "listen" in parse_qs(urlsplit(url).query, keep_blank_values=True)
    if listening:
        raise ConfigError(f"{redact(url)}: vqmon connects and does not listen; drop `listen`")
    ffmpeg = {"protocol_whitelist": "tcp", "rw_timeout": "READ_TIMEOUT", "merge_pmt_versions": "1"}
    return {"options": _PROBE | ffmpeg}


def _srt(_: str, options: Mapping[str, str]) -> dict[str, Any]:
    names = {"latency": "latency", "passphrase": "passphrase", "stream_id": "streamid"}
    bridge = {theirs: options[ours] for ours, theirs in names.items() if ours in options}
    ffmpeg = _PROBE | {"merge_pmt_versions": "1"}
    return {"bridge": bridge, "container": "mpegts", "options": ffmpeg}


def _generated(*_: object) -> dict[str, Any]:
    return {}


def _tls(options: Mapping[str, str]) -> dict[str, str]:
    ffmpeg = {"tls_verify": "0" if options.get("tls_verify") == "no" else "1"}
    trusted = options.get("ca_file") or system_authorities()
    return ffmpeg | ({"ca_file": trusted} if trusted else {})


def system_authorities() -> str | None:
    """The system's file of trusted certificates: PyAV's wheel looks in one place, where only
    Red Hat has it, and on Debian would trust nobody.
    """
    places = (os.environ.get("SSL_CERT_FILE", ""), *AUTHORITIES)
    return next((place for place in places if place and Path(place).is_file()), None)


def _buffer(options: Mapping[str, str]) -> str:
    return str(int(float(options.get("buffer_size", 8 << 20))))


_DATAGRAM_OPTIONS = _TIMES | {"local_address", "buffer_size"}

SCHEMES: Mapping[str, Scheme] = {
    "file": Scheme(False, frozenset(), _local),
    "http": Scheme(None, _WEB, _web),
    "https": Scheme(None, _WEB | _TLS, _web),
    "rtsp": Scheme(True, _TIMES | {"transport", "buffer_size"}, _rtsp),
    "rtsps": Scheme(True, _TIMES | _TLS | {"buffer_size"}, _rtsp),
    "rtmp": Scheme(True, _TIMES, _rtmp),
    "rtmps": Scheme(True, _TIMES | _TLS, _rtmp),
    "udp": Scheme(True, _DATAGRAM_OPTIONS, _datagrams),
    "rtp": Scheme(True, _DATAGRAM_OPTIONS, _datagrams),
    "tcp": Scheme(True, _TIMES, _tcp),
    "srt": Scheme(True, _TIMES | {"latency", "passphrase", "stream_id"}, _srt),
    "synthetic": Scheme(True, frozenset(), _generated),
}
"""What can be opened; the scheme of a plain path is `file`."""
