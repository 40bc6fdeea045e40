"""An HLS playlist, read before FFmpeg opens it: how often it brings something new, and whether
it is one that FFmpeg would read without end.

FFmpeg wants its limit at opening, and a stream of 30 s segments is silent for 30 s at a time.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from urllib.parse import urljoin

import av

from vqmon.errors import SourceRejected, SourceUnavailable
from vqmon.sources.addresses import Opening
from vqmon.sources.complaints import Complaints
from vqmon.sources.failures import failure, rejected

SEGMENTS = 3
"""So many segments may be missed before a stream counts as stalled."""

LONGEST_SEGMENT = 60.0
"""Seconds; who claims more is not believed, or a mistake would switch the limit off."""

_LIMIT_BYTES = 16 << 20
_TARGET = re.compile(r"^#EXT-X-TARGETDURATION:\s*([\d.]+)", re.MULTILINE)


def examined(opening: Opening, complaints: Complaints) -> Opening:
    """The opening; where it is `adaptive`, with a read limit of at least three segments.

    Raises SourceError when the playlist cannot be fetched, as opening it would, or is endless.
    """
    text = _fetch(opening, opening.url, complaints)
    if "#EXT-X-STREAM-INF" in text and (variant := _first_address(text)):
        text = _fetch_variant(opening, variant, complaints)
        if "#EXT-X-STREAM-INF" in text:
            raise rejected(opening, "invalid_data", "its playlists lead only to other playlists")
    target = _TARGET.search(text)
    if target is None or not opening.adaptive:
        return opening
    seconds = min(float(target.group(1)), LONGEST_SEGMENT)
    return replace(opening, read_timeout=max(opening.read_timeout, SEGMENTS * seconds))


def _fetch_variant(opening: Opening, variant: str, complaints: Complaints) -> str:
    """Its text; none when it cannot be had: after a redirect only FFmpeg knows where it is."""
    try:
        return _fetch(opening, urljoin(opening.url, variant), complaints)
    except SourceUnavailable:
        return ""
    except SourceRejected as error:
        if error.reason == "invalid_data":
            raise
        return ""


def _fetch(opening: Opening, url: str, complaints: Complaints) -> str:
    """The text behind an address, through FFmpeg: same credentials, certificates and limits."""
    began = time.monotonic()
    complaints.begin()
    try:
        with complaints:
            return _read(opening, url)
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        elapsed = time.monotonic() - began
        said = complaints.recent()
        raise failure(opening, error, elapsed=elapsed, opened=False, said=said) from error


def _read(opening: Opening, url: str) -> str:
    limits = (opening.open_timeout, opening.open_timeout)
    until = time.monotonic() + opening.open_timeout
    data = bytearray()
    with av.open(url, "r", format="data", options=dict(opening.options), timeout=limits) as source:
        for packet in source.demux():
            data += bytes(packet)
            if len(data) > _LIMIT_BYTES:
                size = f"{_LIMIT_BYTES >> 20} MiB"
                raise rejected(opening, "invalid_data", f"its playlist is longer than {size}")
            if time.monotonic() > until:
                raise TimeoutError("the playlist does not end")
    return data.decode(errors="replace")


def _first_address(text: str) -> str | None:
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), None)
