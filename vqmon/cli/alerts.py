"""``vqmon alerts list|ack|silence|unsilence|tune``: what fires, who has taken it on, and limits."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqmon import arguments
from vqmon.cli import DONE, _existing, _known_stream, _print_json, _settings, _store
from vqmon.errors import VqmonError

if TYPE_CHECKING:
    from datetime import datetime

    from vqmon.alerting.tuning import Proposal
    from vqmon.domain import Alert, Silence
    from vqmon.settings import Settings


@click.group(invoke_without_command=True)
@click.pass_context
def alerts(ctx: click.Context) -> Any:
    """See what fires, take it on, keep it quiet, and find limits that fit.

    Without a command: list.
    """
    return ctx.invoke(list_) if ctx.invoked_subcommand is None else DONE


def _author() -> str:
    """Who sits at this terminal."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _by(command: Callable[..., int]) -> Callable[..., int]:
    option = click.option(
        "--by", default=_author, show_default="the user of this terminal", help="Who says so."
    )
    return option(command)


@alerts.command("list")
@arguments.config
@click.option(
    "--since",
    type=arguments.MOMENT,
    default="24h",
    show_default=True,
    help="Those that have fired since then, and all that still do.",
)
@click.option("--firing", is_flag=True, help="Only those that still fire.")
@click.option("--stream", help="Only of this stream.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    help="The newest so many.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(
    *,
    path: Path | None,
    since: datetime,
    firing: bool,
    stream: str | None,
    limit: int,
    as_json: bool,
) -> int:
    """List alerts, the newest first, and the silences that hold."""
    from datetime import UTC, datetime

    from vqmon import oncall

    settings, now = _settings(_existing(path)), datetime.now(UTC)
    with _store(settings) as store:
        _known_stream(stream, settings, store)
        found = store.alerts(stream, since, firing=True if firing else None, limit=limit)
        silences = store.silences(now)
    states = {it.id: oncall.state(it, silences, settings, now) for it in found}
    if as_json:
        listed = [oncall.as_json(it) | {"state": states[it.id]} for it in found]
        _print_json({"alerts": listed, "silences": [oncall.as_json(it) for it in silences]})
    else:
        _print_alerts(found, states)
        _print_silences(silences)
    return DONE


@alerts.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@arguments.config
@click.option("--all", "everything", is_flag=True, help="All that fire now.")
@click.option("--stream", help="All that fire now of this stream.")
@_by
@click.option("--note", default="", help="What is being done about it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object an alert.")
def ack(
    *,
    ids: Sequence[str],
    path: Path | None,
    everything: bool,
    stream: str | None,
    by: str,
    note: str,
    as_json: bool,
) -> int:
    """Say that somebody has taken alerts on: nobody is reminded of them any more.

    ID is an alert's id or its beginning. That it is over is told all the same.
    """
    from datetime import UTC, datetime

    from vqmon import oncall

    if not (ids or everything or stream):
        raise click.UsageError("give the id of an alert, --stream NAME or --all")
    settings = _settings(_existing(path))
    with _store(settings) as store:
        _known_stream(stream, settings, store)
        if everything or stream:
            ids = [*ids, *(it.id for it in store.alerts(stream, firing=True))]
        taken = [store.acknowledge(it, by, datetime.now(UTC), note) for it in ids]
    known = [it for it in taken if it is not None]
    if as_json:
        _print_json([oncall.as_json(it) for it in known])
    else:
        for it in known:
            click.echo(f"{it.id[:8]} {it.stream}: {it.rule} acknowledged by {it.acknowledged_by}")
        if not ids:
            click.echo("nothing fires now")
    for wanted, found in zip(ids, taken, strict=True):
        if found is None:
            raise VqmonError(f"no alert has an id beginning with {wanted!r}; see vqmon alerts list")
    return DONE


@alerts.command()
@arguments.config
@click.option("--stream", default="", help="Alerts of this stream; `*` and `?` match parts.")
@click.option("--rule", default="", help="Alerts of this rule; `*` and `?` match parts.")
@click.option(
    "--severity",
    type=click.Choice(["info", "warning", "critical"]),
    help="Alerts of this severity.",
)
@click.option(
    "--for",
    "seconds",
    type=arguments.DURATION,
    default=3600.0,
    show_default="1h",
    help="How long.",
)
@click.option("--reason", required=True, help="Why; whoever finds it later wants to know.")
@_by
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def silence(
    *,
    path: Path | None,
    stream: str,
    rule: str,
    severity: str | None,
    seconds: float,
    reason: str,
    by: str,
    as_json: bool,
) -> int:
    """Keep alerts quiet for a while: they are recorded, but told to nobody.

    Without --stream, --rule and --severity it is all of them. What still fires when the silence
    ends is told then.
    """
    from datetime import UTC, datetime, timedelta

    from vqmon import oncall
    from vqmon.domain import Silence

    settings, now = _settings(_existing(path)), datetime.now(UTC)
    ends = now + timedelta(seconds=seconds)
    made = Silence(by, reason, now, ends, stream, rule, severity or "")
    with _store(settings) as store:
        _check_pattern("--stream", stream, [*settings.streams, *store.streams()])
        _check_pattern("--rule", rule, _rules(settings))
        store.silence(made)
    if as_json:
        _print_json(oncall.as_json(made))
    else:
        click.echo(f"{made.id[:8]} keeps {_matched(made)} quiet until {_moment(ends)} UTC")
    return DONE


@alerts.command()
@click.argument("id_", metavar="ID")
@arguments.config
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def unsilence(*, id_: str, path: Path | None, as_json: bool) -> int:
    """End a silence now. ID is that of the silence, or its beginning."""
    from datetime import UTC, datetime

    from vqmon import oncall

    settings = _settings(_existing(path))
    with _store(settings) as store:
        ended = store.unsilence(id_, datetime.now(UTC))
    if ended is None:
        raise VqmonError(f"no silence has an id beginning with {id_!r}; see vqmon alerts list")
    if as_json:
        _print_json(oncall.as_json(ended))
    else:
        click.echo(f"{ended.id[:8]} has ended: {_matched(ended)} are told again")
    return DONE


@alerts.command()
@click.argument("stream")
@arguments.config
@click.option(
    "--since",
    type=arguments.MOMENT,
    default="7d",
    show_default=True,
    help="Begin of the history, in which the stream was as it should be.",
)
@click.option("--until", type=arguments.MOMENT, help="Its end; now without it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object a rule.")
def tune(
    *,
    stream: str,
    path: Path | None,
    since: datetime,
    until: datetime | None,
    as_json: bool,
) -> int:
    """Propose limits for STREAM: as strict as they can be with at most one alert a day.

    They come from replaying rules over stored history; nothing is changed.
    """
    from datetime import UTC, datetime

    from vqmon import oncall

    until = until or datetime.now(UTC)
    if since >= until:
        raise click.UsageError("--since must be earlier than --until")
    settings = _settings(_existing(path))
    with _store(settings) as store:
        _known_stream(stream, settings, store)
        proposals = oncall.tuned(store, settings, stream, since, until)
    if as_json:
        _print_json([oncall.proposal_json(it) for it in proposals])
    else:
        _print_proposals(stream, proposals)
    return DONE


def _rules(settings: Settings) -> list[str]:
    names = dict.fromkeys(settings.rules_of(""))
    for stream in settings.streams:
        names |= dict.fromkeys(settings.rules_of(stream))
    return list(names)


def _check_pattern(option: str, pattern: str, known: Sequence[str]) -> None:
    """A silence that matches nothing would be found out too late."""
    from fnmatch import fnmatchcase

    if not pattern or any(fnmatchcase(it, pattern) for it in known):
        return
    near = difflib.get_close_matches(pattern, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(dict.fromkeys(known)) or "none"
    raise click.BadParameter(
        f"{pattern!r} matches nothing; {hint}known: {listed}", param_hint=option
    )


def _matched(silence: Silence) -> str:
    parts = [f"of {silence.severity} severity" if silence.severity else ""]
    parts += [f"on {silence.stream}" if silence.stream else ""]
    parts += [f"of rule {silence.rule}" if silence.rule else ""]
    told = " ".join(part for part in parts if part)
    return f"alerts {told}" if told else "all alerts"


def _moment(at: datetime) -> str:
    from vqmon.report import words

    return words.moment(at)


def _print_alerts(found: Sequence[Alert], states: dict[str, str]) -> None:
    from vqmon import terminal
    from vqmon.report import words

    if not found:
        click.echo("no alerts in this time")
        return
    rows = []
    for it in found:
        lasted = (
            words.lasting((it.closed_at - it.opened_at).total_seconds()) if it.closed_at else ""
        )
        by = f" by {it.acknowledged_by}" if it.acknowledged_by else ""
        state = f"{states[it.id]}{by if it.firing else ''}"
        rows.append(
            (
                it.id[:8],
                state,
                it.severity,
                it.stream,
                it.rule,
                _moment(it.opened_at),
                lasted,
                it.reason,
            )
        )
    titles = ("id", "state", "severity", "stream", "rule", "since (UTC)", "lasted", "reason")
    terminal.print_table(titles, rows)


def _print_silences(silences: Sequence[Silence]) -> None:
    from vqmon.terminal import visible

    for it in silences:
        about = f"{_matched(it)} until {_moment(it.expires_at)} UTC, by {it.author}: {it.reason}"
        click.echo(f"silence {it.id[:8]}: {visible(about)}")


def _print_proposals(stream: str, proposals: Sequence[Proposal]) -> None:
    from vqmon import oncall, terminal

    rows = [
        (it.present.name, it.raised, it.then, _settings_text(oncall.written(it)) or "stays")
        for it in proposals
    ]
    titles = ("rule", "alerts now", "then", "proposal")
    terminal.print_table(titles, rows, right=("alerts now", "then"))
    changed = [it for it in proposals if it.changed]
    if changed:
        click.echo(f"\nstreams:\n  {stream}:\n    rules:")
    for it in changed:
        click.echo(f"      {it.present.name}: {_settings_text(oncall.written(it))}")


def _settings_text(written: Any) -> str:
    if isinstance(written, str):
        return written
    inside = ", ".join(
        f"{k}: {v:g}" if isinstance(v, float) else f"{k}: {v}" for k, v in written.items()
    )
    return f"{{{inside}}}" if inside else ""
