"""``vqmon replay``: what other alert rules would have raised, beside what happened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vqmon import arguments
from vqmon.cli import DONE, _existing, _known_stream, _print_json, _settings, _store

if TYPE_CHECKING:
    from datetime import datetime

    from vqmon.domain import Alert
    from vqmon.oncall import StreamReplay


@click.command()
@arguments.config
@click.option(
    "--rules",
    "rules",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the `rules` to try; those of the configuration without it.",
)
@click.option(
    "--since",
    type=arguments.MOMENT,
    default="7d",
    show_default=True,
    help="Begin: 24h (that long ago), or 2026-03-01T08:00.",
)
@click.option("--until", type=arguments.MOMENT, help="End, written like --since; now without it.")
@click.option("--stream", help="Only this stream.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay(
    *,
    path: Path | None,
    rules: Path | None,
    since: datetime,
    until: datetime | None,
    stream: str | None,
    as_json: bool,
) -> int:
    """Say which alerts rules would have raised on stored history, beside those that were raised.

    Nothing is changed, and nobody is told.
    """
    from datetime import UTC, datetime

    from vqmon import oncall
    from vqmon.config import rules_from

    until = until or datetime.now(UTC)
    if since >= until:
        raise click.UsageError("--since must be earlier than --until")
    settings = _settings(_existing(path))
    with _store(settings) as store:
        _known_stream(stream, settings, store)
        names = [stream] if stream else sorted({*settings.streams, *store.streams()})
        new = rules_from(rules, os.environ, names) if rules else settings
        found = list(oncall.replayed(store, settings, new, names, since=since, until=until))
    if as_json:
        told = [oncall.replay_json(it) for it in found]
        period = {"since": since.isoformat(), "until": until.isoformat()}
        _print_json(period | {"streams": told})
    else:
        _print_replays(found)
    return DONE


def _print_replays(found: Sequence[StreamReplay]) -> None:
    from vqmon import terminal

    rows = [
        (it.stream, _said(pair.would, it), _said(pair.did, None))
        for it in found
        for pair in it.pairs
    ]
    if rows:
        terminal.print_table(("stream", "these rules would have raised", "what happened"), rows)
        click.echo()
    would, did = (sum(len(getattr(it, side)) for it in found) for side in ("would", "did"))
    click.echo(f"{_alerts(would)} would have been raised, {_alerts(did)} {_were(did)}")


def _said(alert: Alert | None, of: StreamReplay | None) -> str:
    """Like `25 Nov 18:07:18 black (critical) for 7.8 s`."""
    from vqmon.report import words

    if alert is None:
        return "-"
    quiet = ", in maintenance" if of and alert.id not in of.told else ""
    return f"{words.moment(alert.opened_at)} {alert.rule} ({alert.severity}) {words.firing(alert)}{quiet}"


def _alerts(count: int) -> str:
    return "1 alert" if count == 1 else f"{count} alerts"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
