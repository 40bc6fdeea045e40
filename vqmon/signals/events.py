"""What happened to the stream as a whole: jumps, format changes, outages. All are instants.

A segment closes before the event that ends it is told, and the next one begins after the
outage: an event belongs to the first segment that closes after it was told, wherever its
position lies, so that none is lost between two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vqmon.domain import Event, Finding, Format
from vqmon.signals.limits import SCALES

EVENTS_KEPT = 64
JUMPS_JOIN_SECONDS = 2.0

SMALLER = (0.9, 0.5, 0.2)
SLOWER = (0.8, 0.5, 0.25)
"""Share of the pixels, or of the frame rate, below which a change is of severity 2, 3, 4."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event; `before` is the format until then; counted at `position` or later."""

    event: Event
    before: Format | None
    position: float

    @property
    def changed(self) -> bool:
        form = self.event.format
        return form is not None and self.before is not None and differs(self.before, form)


class Events:
    """The last events and the format as it is now."""

    def __init__(self) -> None:
        self.format: Format | None = None
        self._told: deque[Told] = deque(maxlen=EVENTS_KEPT)
        self._closed_until = float("-inf")

    def event(self, event: Event) -> bool:
        """Remember it; True when the format is another than before."""
        told = Told(event, self.format, max(event.position, self._closed_until))
        self._told.append(told)
        self.format = event.format or self.format
        return told.changed

    def close(self, end: float) -> None:
        """A segment that ends at `end` is being reported: forget what the last one told."""
        while self._told and self._told[0].position < self._closed_until:
            self._told.popleft()
        self._closed_until = max(self._closed_until, end)

    def findings(self, start: float, end: float) -> Iterator[Finding]:
        told = self._until(end)
        jumps = [t.event for t in told if t.event.kind == "timestamp_jump"]
        for group in _close_together(jumps):
            yield _jumped(group, start)
        for change in told:
            if change.changed:
                yield _changed(change, max(start, change.event.position))

    def facts(self, end: float) -> dict[str, Any]:
        """Counts; `lost` (reasons) and `format_changes` only when there are any."""
        told = self._until(end)
        kinds = [t.event.kind for t in told]
        lost = [t.event.reason or "unknown" for t in told if t.event.kind == "lost"]
        changes = [_words(t) for t in told if t.changed]
        return {
            "timestamp_jumps": kinds.count("timestamp_jump"),
            "reconnects": kinds.count("reconnected"),
            **({"lost": lost} if lost else {}),
            **({"format_changes": changes} if changes else {}),
            **format_facts(self.format),
        }

    def _until(self, end: float) -> list[Told]:
        return [t for t in self._told if t.position < end]


def format_facts(form: Format | None) -> dict[str, Any]:
    """What the stream says of itself; what it leaves open is left out."""
    if form is None:
        return {}
    said = {
        "codec": form.codec,
        "width": form.width,
        "height": form.height,
        "pixel_format": form.pixel_format,
        "container": form.container,
        "nominal_frame_rate": round(form.frame_rate, 3),
        "audio_codec": form.audio_codec,
        "audio_rate": form.audio_rate,
    }
    return {name: value for name, value in said.items() if value}


def differs(before: Format, after: Format) -> bool:
    """Whether a viewer or a decoder would notice."""
    return bool(_differences(before, after))


def _close_together(jumps: list[Event]) -> list[list[Event]]:
    """A clock that keeps jumping is one fault."""
    groups: list[list[Event]] = []
    for jump in jumps:
        if groups and jump.position - groups[-1][-1].position <= JUMPS_JOIN_SECONDS:
            groups[-1].append(jump)
        else:
            groups.append([jump])
    return groups


def _jumped(group: list[Event], earliest: float) -> Finding:
    """From the first jump of a group to the last; the value is the largest, with its sign."""
    worst = max((jump.seconds for jump in group), key=abs)
    first, last = (max(earliest, jump.position) for jump in (group[0], group[-1]))
    scale = SCALES["timestamp_jump"]
    limit = 0.0 if worst < 0 else scale.limit  # a clock must not go back at all
    return Finding(
        "timestamp_jump",
        scale.severity(abs(worst)),
        1.0,
        round(worst, 3),
        limit,
        scale.unit,
        start=first,
        seconds=last - first,
    )


def _changed(told: Told, position: float) -> Finding:
    """The gravest of what changed gives severity and figures: now, before."""
    assert told.before is not None
    assert told.event.format is not None
    severity, value, limit, unit = max(_differences(told.before, told.event.format))
    return Finding("format_changed", severity, 1.0, value, limit, unit, start=position)


def _differences(before: Format, after: Format) -> list[tuple[int, float, float, str]]:
    """(severity, value now, value before, unit) of everything that changed."""
    changed: list[tuple[int, float, float, str]] = []
    if (before.width, before.height) != (after.width, after.height):
        left = (after.width * after.height) / max(1, before.width * before.height)
        severity = 1 + sum(left < step for step in SMALLER)
        changed.append((severity, float(after.height), float(before.height), "lines"))
    if before.frame_rate and after.frame_rate:
        left = after.frame_rate / before.frame_rate
        if not 0.98 < left < 1.02:
            severity = 1 + sum(left < step for step in SLOWER)
            rates = round(after.frame_rate, 2), round(before.frame_rate, 2)
            changed.append((severity, *rates, "frames a second"))
    if before.codec != after.codec:
        changed.append((2, 1.0, 0.0, "changes of codec"))
    if before.pixel_format != after.pixel_format:
        changed.append((1, 1.0, 0.0, "changes of pixel format"))
    if before.audio_codec and after.audio_codec is None:
        changed.append((3, 0.0, 1.0, "sound tracks"))
    elif before.audio_codec != after.audio_codec:
        changed.append((1, 1.0, 0.0, "changes of sound"))
    return changed


def _words(told: Told) -> str:
    assert told.before is not None
    assert told.event.format is not None
    return f"{_describe(told.before)} → {_describe(told.event.format)}"


def _describe(form: Format) -> str:
    rate = f" at {form.frame_rate:g} fps" if form.frame_rate else ""
    sound = form.audio_codec or "no sound"
    return f"{form.codec} {form.width}x{form.height} {form.pixel_format}{rate}, {sound}"
