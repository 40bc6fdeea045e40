"""What `vqmon demo` shows while it watches: a table that grows, or plain lines without a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from vqmon.demo.stage import Act, on_air
from vqmon.domain import Segment
from vqmon.report import words

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

COLOURS = {"excellent": "green", "good": "green", "fair": "yellow", "poor": "red", "bad": "red"}
BAR_WIDTH = 12
COLUMNS = {"Time": 9, "Quality": BAR_WIDTH + 4, "Worst": 5, "On air": 8, "Found": 16}
"""Least widths; they keep the table from jumping while it grows, and fit 80 columns."""


class Screen(Protocol):
    def show(self, segment: Segment) -> None:
        """One more segment was measured."""
        ...


@contextmanager
def screen(acts: Sequence[Act]) -> Iterator[Screen]:
    """A live table on a terminal, lines elsewhere."""
    if not sys.stdout.isatty():
        yield _Lines(acts)
        return
    from rich.live import Live

    rows: list[Segment] = []
    with Live(table(rows, acts), refresh_per_second=4, vertical_overflow="visible") as live:
        yield _Rows(live, rows, acts)


class _Rows:
    def __init__(self, live: object, rows: list[Segment], acts: Sequence[Act]) -> None:
        self._live, self._rows, self._acts = live, rows, acts

    def show(self, segment: Segment) -> None:
        self._rows.append(segment)
        self._live.update(table(self._rows, self._acts))  # type: ignore[attr-defined]


class _Lines:
    def __init__(self, acts: Sequence[Act]) -> None:
        self._acts = acts

    def show(self, segment: Segment) -> None:
        print(line(segment, self._acts), flush=True)


def line(segment: Segment, acts: Sequence[Act]) -> str:
    """A segment on one line, for logs and pipes."""
    quality = "  -" if segment.quality is None else f"{segment.quality:3.0f}"
    worst = "  -" if segment.quality_worst is None else f"{segment.quality_worst:3.0f}"
    return (
        f"{_when(segment)}  quality {quality}  worst {worst}  "
        f"on air: {_on_air(segment, acts) or 'clean'}  found: {_found(segment) or 'nothing'}"
    )


def table(segments: Sequence[Segment], acts: Sequence[Act]) -> Table:
    """The segments so far."""
    from rich.table import Table
    from rich.text import Text

    grown = Table(title="Watching the demonstration channel", title_justify="left")
    for name, width in COLUMNS.items():
        grown.add_column(name, min_width=width, no_wrap=name in {"Time", "Quality"})
    for segment in segments:
        worst = "-" if segment.quality_worst is None else f"{segment.quality_worst:.0f}"
        grown.add_row(
            _when(segment),
            _bar(segment.quality),
            Text(worst, justify="right"),
            Text(_on_air(segment, acts) or "clean", style="" if _on_air(segment, acts) else "dim"),
            Text(_found(segment) or "nothing", style=_style(segment)),
        )
    return grown


def _bar(quality: float | None) -> Text:
    from rich.text import Text

    if quality is None:
        return Text("no score".ljust(BAR_WIDTH + 4), style="dim")
    full = round(quality / 100 * BAR_WIDTH)
    bar = Text("█" * full, style=COLOURS[words.grade(quality)])
    return bar.append("░" * (BAR_WIDTH - full), style="dim").append(
        f" {quality:3.0f}", style="bold"
    )


def _when(segment: Segment) -> str:
    return f"{segment.start:3.0f}-{segment.start + segment.seconds:.0f} s".ljust(9)


def _on_air(segment: Segment, acts: Sequence[Act]) -> str:
    staged = on_air(acts, segment.start, segment.start + segment.seconds)
    return ", ".join(words.named(act.name) for act in staged)


def _found(segment: Segment) -> str:
    """Gravest first; a fault that was found twice is named once."""
    gravest: dict[str, int] = {}
    for finding in sorted(segment.findings, key=lambda f: -f.severity):
        gravest.setdefault(finding.name, finding.severity)
    return ", ".join(f"{words.named(n)} ({words.severity(s)})" for n, s in gravest.items())


def _style(segment: Segment) -> str:
    worst = max((finding.severity for finding in segment.findings), default=0)
    return "dim" if not worst else "red" if worst >= 4 else "yellow" if worst >= 2 else ""
