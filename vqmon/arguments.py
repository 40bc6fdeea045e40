"""What the arguments of the command line may be, and the options that commands share."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from datetime import datetime


class _Duration(click.ParamType[float]):
    """``10s``, ``5m``, ``24h``; a bare number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from vqmon.quantities import parse_duration

        if isinstance(value, float):
            return value
        try:
            seconds = float(value) if _is_number(value) else parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if not 0 < seconds <= 10 * 365 * 86400:
            self.fail(f"{value!r} must be above 0 and at most 3650d", param, ctx)
        return seconds


class _Moment(click.ParamType["datetime"]):
    """A time: ``24h`` ago, or ``2026-03-01T08:00`` (local unless it says a zone)."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        from datetime import UTC, datetime, timedelta

        from vqmon.quantities import parse_duration

        if isinstance(value, datetime):
            return value
        with suppress(ValueError, OverflowError):
            return datetime.now(UTC) - timedelta(seconds=parse_duration(value))
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r}: write 24h (that long ago) or 2026-03-01T08:00", param, ctx)


def _is_number(value: str) -> bool:
    return value.replace(".", "", 1).isdecimal()


DURATION, MOMENT = _Duration(), _Moment()


def _findings(_ctx: Any, _param: Any, names: Sequence[str]) -> Sequence[str]:
    from vqmon.domain import FINDING_NAMES

    for name in names:
        if name not in FINDING_NAMES:
            near = difflib.get_close_matches(name, FINDING_NAMES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise click.BadParameter(f"{name!r}; {hint}known: {', '.join(FINDING_NAMES)}")
    return names


def limits(command: Callable[..., int]) -> Callable[..., int]:
    """Options that turn a poor result into exit code 1."""
    quality = click.option(
        "--min-quality",
        type=click.FloatRange(0, 100),
        help="Exit with 1 when the quality is lower, or there is none.",
    )
    findings = click.option(
        "--fail-on",
        multiple=True,
        metavar="NAME",
        callback=_findings,
        help="Exit with 1 when this is found (black, freeze, ...); may be repeated.",
    )
    return quality(findings(command))


def config(command: Callable[..., int]) -> Callable[..., int]:
    """The option that names the configuration; it arrives as `path`."""
    option = click.option(
        "-c",
        "--config",
        "path",
        type=click.Path(path_type=Path),
        envvar="VQMON_CONFIG",
        help="Configuration; without it $VQMON_CONFIG, else vqmon.yaml if there is one.",
    )
    return option(command)


def model(command: Callable[..., int]) -> Callable[..., int]:
    """Options that choose what scores."""
    for option in (
        click.option(
            "--threads",
            type=click.IntRange(1, 64),
            default=1,
            show_default=True,
            help="Processor threads for the model.",
        ),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N."),
        click.option("--model", metavar="FOLDER", help="Model folder instead of the shipped one."),
    ):
        command = option(command)
    return command
