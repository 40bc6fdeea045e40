"""What commands print for people: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from vqmon import files
from vqmon.comparing import Compared
from vqmon.doctor import Check
from vqmon.domain import DEGRADATIONS, Comparison, Finding, Segment
from vqmon.files import FileResult
from vqmon.probe import Probe
from vqmon.report import words
from vqmon.settings import Settings, StreamDefaults, StreamSettings
from vqmon.sources import redact

_COLOURS = {1: None, 2: None, 3: "yellow", 4: "red", 5: "red"}
_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}
_STALE_SEGMENTS = 3


@contextmanager
def watching(seconds: float) -> Iterator[Callable[[float], None]]:
    """A bar over the seconds watched; yields what to call with the position."""
    with _progress("{task.completed:.0f} of {task.total:.0f} s") as progress:
        task = progress.add_task("watching", total=seconds)
        yield lambda position: progress.update(task, completed=position)


@contextmanager
def scoring(
    count: int, form: str | None
) -> Iterator[tuple[Callable[[FileResult], None], Callable[[str], Callable[[Segment], None]]]]:
    """A bar over files; yields (what prints a result, what makes a watcher for a file).

    Results are printed as they come, and what was printed is whole whenever it ends: with
    "json" the array is closed even after Ctrl-C.
    """
    printer = _PRINTERS[form](count)
    with _progress("{task.completed:.0f} of {task.total:.0f} files") as progress:
        task = progress.add_task("", total=count)

        def printed(result: FileResult) -> None:
            progress.stop()
            printer.one(result)
            progress.update(task, advance=1)
            progress.start()

        def watched(path: str) -> Callable[[Segment], None]:
            name = visible(path)
            progress.update(task, description=name)
            return lambda it: progress.update(
                task, description=f"{name} {words.lasting(it.start + it.seconds)}"
            )

        try:
            printer.begin()
            yield printed, watched
        finally:
            progress.stop()
            printer.end()


class _Lines:
    """One line per file; the reasons too when there is only one."""

    def __init__(self, count: int) -> None:
        self._alone = count == 1

    def begin(self) -> None: ...

    def one(self, result: FileResult) -> None:
        click.echo(_headline(result))
        if self._alone and result.segments:
            _print_findings(result.findings)
            click.echo(f"\n{result.explanation}")

    def end(self) -> None: ...


class _Csv:
    def __init__(self, _count: int) -> None: ...

    def begin(self) -> None:
        click.echo(files.csv_line(files.CSV_COLUMNS))

    def one(self, result: FileResult) -> None:
        click.echo(files.as_csv_row(result), color=True)  # else click cuts escapes out of names

    def end(self) -> None: ...


class _Json:
    """An array written element by element."""

    def __init__(self, _count: int) -> None:
        self._before = "[\n"

    def begin(self) -> None: ...

    def one(self, result: FileResult) -> None:
        click.echo(self._before + as_json(files.as_json(result)), nl=False)
        self._before = ",\n"

    def end(self) -> None:
        click.echo("[]" if self._before == "[\n" else "\n]")


_PRINTERS: Mapping[str | None, Callable[[int], _Lines | _Csv | _Json]] = {
    None: _Lines,
    "csv": _Csv,
    "json": _Json,
}


def as_json(value: Any) -> str:
    """JSON as readable as the output can show it: all in ASCII where it lacks a letter, or where
    a file name is no text at all.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8", "strict")
    except UnicodeEncodeError:
        return json.dumps(value, indent=2, allow_nan=False)
    return text


def print_probe(found: Probe) -> None:
    """Quality and sentence first, then what was found, why, and the facts."""
    result = found.result
    click.echo(_headline(result))
    if result.segments:
        click.echo(result.sentence)
        _print_findings(result.findings)
        click.echo(f"\n{result.explanation}")
    facts = {name: it for name, it in result.facts.items() if name != "words"}  # shown as such
    if facts:
        lines = (f"{name:<26}{_fact(it)}" for name, it in facts.items())
        click.echo("\n" + "\n".join(lines))
    for warning in found.warnings:
        click.secho(f"warning: {warning}", fg="yellow")


@contextmanager
def comparing() -> Iterator[Callable[[str], None]]:
    """A spinner; yields what to call with the name of what is looked at."""
    with _progress("") as progress:
        task = progress.add_task("comparing", total=None)
        yield lambda name: progress.update(task, description=visible(name))


def print_comparison(compared: Compared) -> None:
    """The answer first, then both sides, then the reason step by step."""
    found = compared.found
    if found.better == "similar":
        click.echo(f"A and B are similar: {abs(found.margin):.1f} points apart, too little to tell")
    else:
        better = found.better.upper()
        sure = f"{words.chance(max(found.probability, 1 - found.probability))} sure"
        click.echo(f"{better} is better by {abs(found.margin):.1f} points of 100 ({sure})")
    for letter, side in (("A", compared.a), ("B", compared.b)):
        click.echo(f"{letter}  {_headline(side.result)}")
    click.echo(f"\n{found.reason}")
    if compared.looked is not None:
        click.echo(f"\n{_looked(compared.looked, compared.a.result.model)}")


def _looked(looked: Comparison, model: str | None) -> str:
    """What a model says that saw both at once."""
    sure = words.chance(max(looked.probability, 1 - looked.probability))
    verdict = "finds them similar"
    if looked.better != "similar":
        verdict = f"prefers {looked.better.upper()} ({sure} sure)"
    return f"Looking at both, {model} {verdict}.\n{looked.reason}".rstrip()


def stream_rows(settings: Settings, last: Mapping[str, Segment | None]) -> list[dict[str, Any]]:
    """What `vqmon streams --json` prints: configured streams first, then those only stored."""
    names = [*settings.streams, *sorted(last.keys() - settings.streams.keys())]
    return [_stream_row(name, settings, last.get(name)) for name in names]


def _stream_row(name: str, settings: Settings, segment: Segment | None) -> dict[str, Any]:
    known = settings.streams.get(name)
    unlisted = known is None and bool(settings.streams)
    return {
        "name": name,
        "url": redact(known.url) if known else None,
        "labels": dict(known.labels) if known else {},
        "sampling": known.sampling.mode if known else None,
        "state": "unconfigured" if unlisted else _state(known, segment),
        "quality": segment.quality if segment else None,
        "no_score_reason": segment.no_score_reason if segment else None,
        "findings": [it.name for it in segment.findings] if segment else [],
        "last_segment": segment.id if segment else None,
        "last_seen": _ended(segment).isoformat(timespec="seconds") if segment else None,
    }


def _state(known: StreamSettings | None, segment: Segment | None) -> str:
    """up, down, stale (nothing new for three segments or two visits) or never."""
    from vqmon.summing import up

    if segment is None:
        return "never"
    due = _STALE_SEGMENTS * (known or StreamDefaults()).segment
    if known and known.schedule:
        due = 2 * known.schedule.every
    if (datetime.now(UTC) - _ended(segment)).total_seconds() > due:
        return "stale"
    return "up" if up(segment) else "down"


def _ended(segment: Segment) -> datetime:
    return datetime.fromtimestamp(segment.started_at.timestamp() + segment.seconds, UTC)


def print_streams(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("stream", "state", "quality", "findings", "last seen", "url"):
        table.add_column(title, justify="right" if title == "quality" else "left")
    for row in rows:
        quality = "-" if row["quality"] is None else f"{row['quality']:.1f}"
        findings = ", ".join(row["findings"]) or row["no_score_reason"] or ""
        cells = (row["name"], row["state"], quality, findings, row["last_seen"], row["url"])
        table.add_row(*(_plain(cell) for cell in cells))
    _console().print(table)


def print_table(
    titles: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """Columns as wide as they need to be; `right`: those that hold numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left")
    for row in rows:
        table.add_row(*(_plain(visible(str(cell)) if cell is not None else "") for cell in row))
    _console().print(table)


def print_check(check: Check) -> None:
    mark, colour = _MARKS[check.status]
    click.secho(f"{mark:<5}", fg=colour, nl=False)
    click.echo(f"{check.name:<14}{check.found}")
    if check.remedy and check.status != "ok":
        click.echo(f"{'':<19}{check.remedy}")


def visible(name: str) -> str:
    """A name with its control characters written out: it neither colours nor moves anything."""
    return "".join(it if it.isprintable() else ascii(it)[1:-1] for it in name)


def _headline(result: FileResult) -> str:
    source = visible(result.source)
    if result.quality is None:
        return f"{source}: no score ({result.no_score_reason})"
    text = f"{source}: {result.quality:.1f} ± {result.uncertainty or 0:.1f} of 100"
    named: dict[str, str] = {}
    for it in sorted(result.findings, key=lambda it: (-it.severity, -it.seconds)):
        named.setdefault(it.name, f"{words.named(it.name)} ({it.severity_word})")
    found = f"; {', '.join(named.values())}" if named else ""
    return f"{text}, {words.grade(result.quality)}{found}"


def _print_findings(findings: Sequence[Finding]) -> None:
    if not findings:
        return
    click.echo()
    for it in findings:
        click.secho(f"{it.severity_word:<13}", fg=_COLOURS[it.severity], nl=False)
        when = f"at {words.lasting(it.start)} for {words.lasting(it.seconds)}"
        # Only what is wrong with pictures has a place in them.
        place = [words.where(it)] if it.name in DEGRADATIONS else []
        told = "; ".join(part for part in (*place, words.measured(it)) if part)
        click.echo(f"{words.named(it.name):<18}{when:<26}{told}")


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> Any:
    from rich.text import Text

    return Text("" if value is None else str(value))


def _console() -> Any:
    """As wide as needed when nobody looks: a table in a pipe is not cut."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 250)


def _progress(counted: str) -> Any:
    """A bar on standard error; nothing at all when that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(counted),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
        redirect_stdout=False,
        redirect_stderr=False,
    )
