"""Durations and sizes as people write them: ``10s``, ``5m``, ``24h``, ``7d``; ``10GB``, ``512MiB``."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES: dict[str, int] = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", start=1)},
    **{f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", start=1)},
}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B)", re.ASCII | re.IGNORECASE)

DURATION_PATTERN = r"^0$|^([0-9]+(\.[0-9]+)?\s*(ms|[smhdw])\s*)+$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?\s*([KMGTkmgt][Ii]?)?[Bb]$"


def parse_duration(text: str) -> float:
    """Seconds in ``10s``, ``1h30m``, ``500ms``; units ms s m h d w. Raises ValueError.

    A bare number is refused, because a reader cannot tell what it counts; 0 needs no unit.
    """
    text = text.strip()
    if text == "0":
        return 0.0
    parts = _DURATION_PART.findall(text)
    if not parts or _DURATION_PART.sub("", text).strip():
        raise ValueError("not a duration; write a number and a unit, as in 10s, 5m, 24h or 7d")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """The shortest exact writing in one unit: 90 is ``90s``, 300 is ``5m``, 0.5 is ``500ms``."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / _SECONDS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    if seconds >= 1 or seconds == 0:
        return f"{_short(seconds)}s"
    return f"{_short(seconds * 1000)}ms"


def _short(number: float) -> str:
    """Up to three decimals, no zeros at the end."""
    return f"{number:.3f}".rstrip("0").rstrip(".")


def parse_size(text: str) -> int:
    """Bytes in ``10GB`` (10^10) or ``10GiB`` (10 * 2^30). Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size; write a number and a unit, as in 500MB, 10GB or 2GiB")
    return round(float(match[1]) * _BYTES[match[2].upper()])


def format_size(count: int) -> str:
    """Bytes for people, exact where a decimal or binary unit divides them: ``10GB``, ``2GiB``."""
    for unit in ("TB", "GB", "MB", "KB", "TIB", "GIB", "MIB", "KIB"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit.replace('IB', 'iB')}"
    return f"{count}B"
