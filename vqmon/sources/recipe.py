"""What a `synthetic:` URL asks for, read and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import parse_qsl, urlsplit

from vqmon.domain import DEGRADATIONS, FAULTS
from vqmon.errors import SourceRejected

STAGED = DEGRADATIONS + FAULTS
"""What `faults=` may name: everything that can be found in a stream."""

TEXT = {
    "size": "WxH, even, 64 to 4096 a side (640x360)",
    "fps": "pictures a second, 1 to 120 (25)",
    "seconds": "length; without it a live source never ends and others end after 60",
    "seed": "which landscape (1)",
    "live": "1: in real time; 0: as fast as it is read (0)",
    "gop": "seconds between keyframes, 0.1 to 60 (2)",
    "kbps": "bitrate of the packets pretended, 16 to 200000 (by size)",
    "audio": "1: sound levels are reported; 0: no sound (1)",
    "faults": "NAME@START-END[:LEVEL 1..5], separated by commas; NAME one of " + " ".join(STAGED),
}
"""The parameters of the URL, for messages and documentation."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Damage done on purpose in [start, end) seconds of media. level: 1 slight .. 5."""

    name: str
    start: float
    end: float
    level: int = 3


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a synthetic URL asks for. seconds: infinite when it never ends."""

    width: int = 640
    height: int = 360
    fps: float = 25.0
    seconds: float = 60.0
    seed: int = 1
    live: bool = False
    gop: float = 2.0
    kbps: float = 1500.0
    audio: bool = True
    faults: tuple[Staged, ...] = ()

    def staged(self, position: float) -> dict[str, Staged]:
        """What is wrong at a position, by name."""
        return {f.name: f for f in self.faults if f.start <= position + 1e-9 < f.end}


def parse(url: str) -> Recipe:
    """The recipe in a URL; raises SourceRejected with every parameter when it cannot be read."""
    try:
        return _recipe(_given(url))
    except ValueError as error:
        known = "; ".join(f"{name}: {text}" for name, text in TEXT.items())
        raise SourceRejected(url, "invalid_data", f"{error}. Parameters are {known}") from error


def _given(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.scheme != "synthetic" or parts.netloc or parts.path.strip("/"):
        raise ValueError("write synthetic:?NAME=VALUE&NAME=VALUE")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in given:
        if name not in TEXT:
            raise ValueError(f"unknown parameter {name!r}{_nearest(name, tuple(TEXT))}")
    return given


def _recipe(given: dict[str, str]) -> Recipe:
    width, height = _size(given.get("size", "640x360"))
    live = _flag(given, "live", default=False)
    return Recipe(
        width=width,
        height=height,
        fps=_number(given, "fps", 25.0, 1, 120),
        seconds=_number(given, "seconds", math.inf if live else 60.0, 0.04, math.inf),
        seed=int(_number(given, "seed", 1, 0, 2**31)),
        live=live,
        gop=_number(given, "gop", 2.0, 0.1, 60),
        kbps=_number(given, "kbps", max(200.0, width * height / 150), 16, 200_000),
        audio=_flag(given, "audio", default=True),
        faults=tuple(_staged(text) for text in given.get("faults", "").split(",") if text),
    )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"size={text} is not WIDTHxHEIGHT")
    size = int(width), int(height)
    if any(side % 2 or not 64 <= side <= 4096 for side in size):
        raise ValueError(f"size={text} is not even or not within 64 to 4096 a side")
    return size


def _number(given: dict[str, str], name: str, default: float, least: float, most: float) -> float:
    try:
        value = float(given.get(name, default))
    except ValueError:
        raise ValueError(f"{name}={given[name]} is not a number") from None
    if not least <= value <= most:
        raise ValueError(f"{name}={given[name]} is not within {least:g} to {most:g}")
    return value


def _flag(given: dict[str, str], name: str, *, default: bool) -> bool:
    value = given.get(name, "1" if default else "0")
    if value not in {"0", "1"}:
        raise ValueError(f"{name}={value} is neither 0 nor 1")
    return value == "1"


def _staged(text: str) -> Staged:
    name, _, when = text.partition("@")
    if name not in STAGED:
        raise ValueError(f"unknown fault {name!r}{_nearest(name, STAGED)}")
    span, _, level = when.partition(":")
    start, _, end = span.partition("-")
    try:
        staged = Staged(name, float(start), float(end), int(level or 3))
    except ValueError:
        raise ValueError(f"fault {text!r} is not NAME@START-END[:LEVEL]") from None
    if not (0 <= staged.start < staged.end < math.inf and 1 <= staged.level <= 5):
        raise ValueError(f"fault {text!r} must start at 0 or later, then end; level 1 to 5")
    return staged


def _nearest(name: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
