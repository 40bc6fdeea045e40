"""``vqmon adaptive-encoding replay|encoder``: what would be asked for, and an encoder to ask.

Exit codes are those of vqmon: 0 done, 1 could not be done, 2 wrong usage or configuration.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqmon import ConfigError, VqmonError

if TYPE_CHECKING:
    from datetime import datetime

    from vqmon.domain import Decision, Segment
    from vqmon.ports import SegmentStore
    from vqmon.settings import Settings
    from vqmon_adaptive_encoding.settings import AdaptiveEncodingSettings

DONE, FAILED, MISUSED = 0, 1, 2
NAME = "adaptive_encoding"
SYSTEM_PYTHON = "/usr/bin/python3"
PAGE = timedelta(hours=6)


def main() -> None:
    """The program ``vqmon-adaptive-encoding``."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        code = program.main(list(argv), prog_name="vqmon adaptive-encoding", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except VqmonError as error:
        click.echo(f"error: {error}", err=True)
        return MISUSED if isinstance(error, ConfigError) else FAILED
    return code if isinstance(code, int) else DONE


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def program() -> None:
    """Ask encoders for more quality, look, and keep it or take it back."""


@program.command()
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("vqmon.yaml"),
    show_default=True,
    help="Configuration with `plugins: adaptive_encoding:`.",
)
@click.option("--since", default="7d", show_default=True, help="From so long ago on.")
@click.option("--stream", "only", help="Only this stream.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per decision.")
def replay(*, path: Path, since: str, only: str | None, as_json: bool) -> int:
    """Say what would have been asked for on the stored segments. Nothing is asked or changed.

    The streams stay on their lowest rung, since nobody knows how the encoders would have answered.
    """
    configured = _configured(path)
    own = _own(configured)
    names = _names(own, only)
    start = _ago(since)
    decided, hours = _replayed(configured, own, names, start)
    if as_json:
        for decision in decided:
            print(json.dumps(_as_json(decision)))
    else:
        _print(decided, hours)
    return DONE


@program.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def encoder(arguments: Sequence[str]) -> int:
    """Run a GStreamer encoder whose bitrate changes while it plays (`encoder --help`)."""
    from vqmon_adaptive_encoding import gst_encoder

    if not Path(SYSTEM_PYTHON).exists():
        raise VqmonError(f"{SYSTEM_PYTHON} is missing; GStreamer's bindings belong to it")
    sys.stdout.flush()
    os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, gst_encoder.__file__, *arguments])  # noqa: S606


def _configured(path: Path) -> Settings:
    from vqmon import load_config

    return load_config(path, os.environ, plugins=True)


def _own(configured: Settings) -> AdaptiveEncodingSettings:
    """This plugin's settings, also while it is not enabled."""
    from pydantic import ValidationError

    from vqmon_adaptive_encoding.settings import AdaptiveEncodingSettings

    section = configured.plugins.get(NAME)
    if section is None:
        raise ConfigError(f"plugins: has no {NAME}; see the README of vqmon-adaptive-encoding")
    try:
        return AdaptiveEncodingSettings.model_validate(section.own)
    except ValidationError as error:
        raise ConfigError(f"plugins.{NAME}: {error}") from error


def _names(own: AdaptiveEncodingSettings, only: str | None) -> list[str]:
    if only is not None and only not in own.streams:
        known = ", ".join(own.streams) or "none"
        raise ConfigError(f"plugins.{NAME}.streams has no {only!r}; it has: {known}")
    if not own.streams:
        raise ConfigError(f"plugins.{NAME}.streams names no stream")
    return [only] if only is not None else list(own.streams)


def _ago(since: str) -> datetime:
    from datetime import UTC, datetime

    from vqmon import parse_duration

    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(since))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{since!r}: {error}", param_hint="--since") from error


def _replayed(
    configured: Settings, own: AdaptiveEncodingSettings, names: Sequence[str], since: datetime
) -> tuple[list[Decision], float]:
    """The decisions about these streams, oldest first, and the hours that were watched."""
    from vqmon import open_store
    from vqmon_adaptive_encoding.plugin import case_of
    from vqmon_adaptive_encoding.replay import replayed

    decided: list[Decision] = []
    watched = 0.0

    def counted(segments: Iterable[Segment]) -> Iterator[Segment]:
        nonlocal watched
        for segment in segments:
            watched += segment.seconds
            yield segment

    with open_store(configured.database, migrate=False) as store:
        for name in names:
            decided += replayed(case_of(own, name), counted(_stored(store, name, since)))
    return sorted(decided, key=lambda it: it.at), watched / 3600


def _stored(store: SegmentStore, stream: str, since: datetime) -> Iterator[Segment]:
    """Some hours at a time: a week of many streams is more than fits into memory at once."""
    from datetime import UTC, datetime

    end = datetime.now(UTC)
    while since < end:
        until = min(since + PAGE, end)
        yield from store.segments(stream, since, until)
        since = until


def _as_json(decision: Decision) -> dict[str, Any]:
    return {
        "at": decision.at.isoformat(),
        "stream": decision.stream,
        "kind": decision.kind,
        "reason": decision.reason,
        **decision.data,
    }


def _print(decided: Sequence[Decision], hours: float) -> None:
    """One line each, as wide as it is: the reason comes last."""
    widest = max((len(it.stream) for it in decided), default=0)
    for it in decided:
        print(f"{it.at:%Y-%m-%d %H:%M:%S}  {it.stream:<{widest}}  {it.kind:<7}  {it.reason}")
    asked = sum(it.kind == "observe" for it in decided)
    print(f"{asked} requests would have been made in {hours:.1f} watched hours")
