"""``vqmon webhooks list|retry|test``: what is told to whom, and whether it arrives."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vqmon import arguments
from vqmon.cli import DONE, FAILED, _complain, _existing, _print_json, _settings, _store

if TYPE_CHECKING:
    from vqmon.domain import Queued
    from vqmon.settings import Settings
    from vqmon.webhooks import Standing, Trial


@click.group()
def webhooks() -> None:
    """See what is told to whom, send again what failed, and try targets out."""


@webhooks.command("list")
@arguments.config
@click.option("--target", help="Only this target.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["waiting", "delivered", "replaced", "dead"]),
    help="Only deliveries in this state; may be repeated.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    help="The newest so many.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, bodies included.")
def list_(
    *, path: Path | None, target: str | None, states: Sequence[str], limit: int, as_json: bool
) -> int:
    """Say how every target stands, and list the newest deliveries with what went wrong."""
    from vqmon import webhooks as hooks

    settings = _settings(_existing(path))
    with _store(settings) as store:
        standings = hooks.standings(store, settings.targets())
        _check_target(target, settings, [it.name for it in standings])
        queued = store.queued(target, states, limit=limit)
    standings = [it for it in standings if target in (None, it.name)]
    if as_json:
        told = [hooks.as_json(it) for it in standings]
        _print_json({"targets": told, "deliveries": [hooks.as_json(it) for it in queued]})
    else:
        _print_standings(standings)
        _print_queued(queued)
    return DONE


@webhooks.command()
@click.argument("delivery", required=False)
@arguments.config
@click.option("--target", help="All that failed for this target.")
@click.option("--all", "everything", is_flag=True, help="All that failed, for every target.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object a delivery.")
def retry(
    *,
    delivery: str | None,
    path: Path | None,
    target: str | None,
    everything: bool,
    as_json: bool,
) -> int:
    """Send again what was given up, and at once what waits after a failure.

    DELIVERY is an id or its beginning. The running daemon sends; targets that were disabled
    because they said to be gone are enabled again.
    """
    from datetime import UTC, datetime

    from vqmon import webhooks as hooks

    if not (delivery or target or everything):
        raise click.UsageError("give the id of a delivery, --target NAME or --all")
    settings = _settings(_existing(path))
    with _store(settings) as store:
        _check_target(target, settings, [it.delivery.target for it in store.queued()])
        again = store.retry(datetime.now(UTC), delivery_id=delivery, target=target)
    if as_json:
        _print_json([hooks.as_json(it) for it in again])
    else:
        count = f"{len(again)} deliver{'y' if len(again) == 1 else 'ies'}"
        click.echo(f"{count} due now; `vqmon webhooks list` shows what becomes of them")
    if delivery and not again:
        _complain(f"nothing that failed has an id beginning with {delivery!r}")
        return FAILED
    return DONE


@webhooks.command()
@click.argument("targets", nargs=-1, metavar="[TARGET...]")
@arguments.config
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object per target.")
def test(*, targets: Sequence[str], path: Path | None, as_json: bool) -> int:
    """Send a test message now, signed like any other, and print what came back.

    Without TARGET all are tried. Exit code 1 when one did not take it.
    """
    from vqmon import webhooks as hooks

    settings = _settings(_existing(path))
    if not settings.notifiers:
        raise click.UsageError("there is no target: name some under `notifiers:`")
    for name in targets:
        _check_target(name, settings, [])
    trials = [hooks.try_out(settings.target(name)) for name in targets or settings.notifiers]
    if as_json:
        _print_json([hooks.as_json(it) for it in trials])
    else:
        for it in trials:
            _print_trial(it)
    return FAILED if any(it.receipt is None for it in trials) else DONE


def _check_target(name: str | None, settings: Settings, others: Sequence[str]) -> None:
    known = sorted({*settings.notifiers, *others})
    if name is not None and name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise click.UsageError(f"no target {name!r}; {hint}known: {', '.join(known) or 'none'}")


def _print_standings(standings: Sequence[Standing]) -> None:
    from vqmon import terminal

    if not standings:
        click.echo("no targets: name some under `notifiers:`")
        return
    titles = ("target", "type", "state", "waiting", "dead", "last error")
    rows = [(it.name, it.type, it.state, it.waiting, it.dead, it.error) for it in standings]
    terminal.print_table(titles, rows, right=("waiting", "dead"))


def _print_queued(queued: Sequence[Queued]) -> None:
    from vqmon import terminal

    if not queued:
        return
    click.echo()
    titles = ("made at", "target", "kind", "stream", "state", "attempts", "id", "error")
    rows = [
        (
            it.delivery.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            it.delivery.target,
            it.delivery.kind,
            it.delivery.stream,
            it.state,
            it.attempts,
            it.delivery.id[:12],
            it.error,
        )
        for it in queued
    ]
    terminal.print_table(titles, rows, right=("attempts",))


def _print_trial(trial: Trial) -> None:
    from vqmon import terminal

    if trial.receipt is None:
        _complain(terminal.visible(f"{trial.target}: {trial.error}"))
        return
    status = f"HTTP {trial.status}" if trial.status else "taken"
    said = f": {trial.receipt.text}" if trial.receipt.text else ""
    took = f"in {1000 * trial.receipt.seconds:.0f} ms"
    click.echo(terminal.visible(f"{trial.target}: {status} {took}{said}"))
