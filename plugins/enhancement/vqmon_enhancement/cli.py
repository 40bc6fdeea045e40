"""``vqmon-enhance``, which ``vqmon enhance`` runs: files in, better files out, or the reason why not.

Exit codes: 0 done, also when nothing was better; 1 a file could not be done; 2 wrong usage;
130 after Ctrl-C.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click

from vqmon import VqmonError
from vqmon_enhancement import __version__

DONE, FAILED, INTERRUPTED = 0, 1, 130
EXAMINED_EVERY = 1.0


class _Duration(click.ParamType[float]):
    """``60s``, ``5m``; a bare number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from vqmon import parse_duration

        if isinstance(value, float):
            return value
        try:
            bare = value.replace(".", "", 1).isdecimal()
            seconds = float(value) if bare else parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if not 0 < seconds <= 86400:
            self.fail(f"{value!r} must be above 0 and at most 24h", param, ctx)
        return seconds


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The enhanced file (.mp4 or .mkv), or a folder for it; else FILE.enhanced.mp4 beside it.",
)
@click.option(
    "--budget",
    type=_Duration(),
    default=60.0,
    show_default="60s",
    help="Time to search for the best filters of a file; the first is always tried.",
)
@click.option(
    "--steps",
    type=click.IntRange(1, 200),
    help="Try so many recipes whatever the time: the same result on every machine.",
)
@click.option(
    "--certainty",
    type=click.FloatRange(0.5, 0.999),
    default=0.8,
    show_default=True,
    help="How certain the model must be that the enhanced one is better.",
)
@click.option(
    "--min-gain",
    type=click.FloatRange(0, 50),
    default=1.0,
    show_default=True,
    help="Points of quality that the enhanced one must win.",
)
@click.option(
    "--min-severity",
    type=click.IntRange(1, 5),
    default=2,
    show_default=True,
    help="Findings less grave than this are left alone.",
)
@click.option("--keep-all", is_flag=True, help="Keep the best attempt even if it is not better.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file (NDJSON).")
@click.option("--model", metavar="FOLDER", help="Model folder instead of the shipped one.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True)
@click.version_option(__version__, prog_name="vqmon-enhance")
def program(
    *,
    files: tuple[Path, ...],
    output: Path | None,
    budget: float,
    steps: int | None,
    certainty: float,
    min_gain: float,
    min_severity: int,
    keep_all: bool,
    as_json: bool,
    model: str | None,
    device: str,
    threads: int,
) -> int:
    """Make better renditions of bad clips; keep what the model prefers, with its reason.

    What is wrong with a file decides which filters are tried. The enhanced file is judged against
    the original picture by picture; the original is never changed. The decision with its numbers
    is written beside the enhanced file (or where it would be) as JSON.
    """
    from vqmon import load_scorer
    from vqmon_enhancement.enhancing import Wish
    from vqmon_enhancement.filejudge import FileJudge
    from vqmon_enhancement.judging import Bar
    from vqmon_enhancement.searching import MOST_STEPS, Budget

    _check_output(files, output)
    judge = FileJudge(load_scorer(model, device=device, threads=threads))
    wish = Wish(
        bar=Bar(certainty=certainty, gain=min_gain),
        budget=Budget(None, steps) if steps else Budget(budget, MOST_STEPS),
        keep_all=keep_all,
    )
    code = DONE
    for file in files:
        try:
            told = _one(file, output, judge, wish, min_severity)
        except VqmonError as error:
            code = FAILED
            _print_failure(file, str(error), as_json=as_json)
        else:
            _print(told, as_json=as_json)
    return code


def main() -> None:
    """The program; only VQMON_DEBUG=1 lets a traceback out."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    # What FFmpeg complains about in a damaged file is told as findings.
    logging.getLogger("vqmon").addHandler(logging.NullHandler())
    try:
        code = program.main(list(argv), prog_name="vqmon-enhance", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("VQMON_DEBUG"):
            raise
        ours = isinstance(error, VqmonError)
        click.echo(
            f"error: {'' if ours else f'unexpected {type(error).__name__}: '}{error}", err=True
        )
        return FAILED
    return code if isinstance(code, int) else DONE


def _check_output(files: Sequence[Path], output: Path | None) -> None:
    if output is None or output.is_dir():
        return
    if len(files) > 1:
        raise click.UsageError(f"--output {output} must be a folder that exists for several files")
    if output.suffix not in (".mp4", ".mkv"):
        raise click.UsageError(f"--output {output} must end with .mp4 or .mkv, or be a folder")
    if not output.parent.is_dir():
        raise click.UsageError(f"--output {output}: there is no folder {output.parent}")
    if output.exists() and files[0].exists() and output.samefile(files[0]):
        raise click.UsageError(f"--output {output} is the original; it is never changed")


def _one(
    file: Path, output: Path | None, judge: Any, wish: Any, min_severity: int
) -> dict[str, Any]:
    """Enhance a file; returns the decision as JSON, which also lies beside the rendition."""
    from dataclasses import replace

    from vqmon_enhancement.clip import examine
    from vqmon_enhancement.enhancing import as_json, enhance, write_decision

    examine(file)  # the reasons of this program, before the model's
    with _progress(file.name) as progress:
        progress.told("looking for what is wrong")
        _, findings = judge.seen(file, every=EXAMINED_EVERY)
        wish = replace(wish, told=progress.told, watched=progress.watched)
        grave = [it for it in findings if it.severity >= min_severity]
        outcome = enhance(file, lambda suffix: _target(file, output, suffix), grave, judge, wish)
    beside = outcome.kept or _target(file, output, ".mp4")
    write_decision(outcome, beside.with_suffix(".json"))
    return as_json(outcome)


def _target(file: Path, output: Path | None, suffix: str) -> Path:
    if output is not None and not output.is_dir():
        return output
    return (output or file.parent) / f"{file.stem}.enhanced{suffix}"


def _print(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told))
        return
    click.echo(f"{told['source']}: {told['reason']}")
    if told["kept"]:
        click.echo(f"  written: {told['kept']}")
    if told["dropped"]:
        click.echo(f"  not copied: {', '.join(told['dropped'])}")


def _print_failure(file: Path, message: str, *, as_json: bool) -> None:
    click.echo(f"error: {message}", err=True)
    if as_json:
        click.echo(json.dumps({"source": str(file), "error": message}))


class _Progress(Protocol):
    def told(self, text: str) -> None: ...
    def watched(self, done: float, whole: float) -> None: ...


@contextmanager
def _progress(name: str) -> Iterator[_Progress]:
    """A line on standard error while it is a terminal, else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = TextColumn(name), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)

        class Shown:
            def told(self, text: str) -> None:
                bar.update(task, description=text, total=None, completed=0)

            def watched(self, done: float, whole: float) -> None:
                bar.update(task, completed=done, total=whole or None)

        yield Shown()


if __name__ == "__main__":
    main()
