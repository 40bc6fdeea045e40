"""``vqmon plugins``: which there are, whether they can run, and what they decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vqmon import arguments
from vqmon.cli import DONE, FAILED, _nothing_stored, _print_json, _settings, _store

if TYPE_CHECKING:
    from vqmon.domain import Decision
    from vqmon.plugins.listing import Listed
    from vqmon.settings import Settings


@click.command()
@arguments.config
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, an object per plugin.")
def plugins(path: Path | None, as_json: bool) -> int:
    """List plugins: where from, whether they can run, and what they last decided.

    Exits with 1 when one that is enabled cannot run.
    """
    from vqmon.plugins import listing

    settings = _settings(path)
    with _decided(settings) as decided:
        found = listing.listed(settings, decided)
    if as_json:
        _print_json([listing.as_json(it) for it in found])
    else:
        _print(found)
    return FAILED if any(it.wrong for it in found) else DONE


@contextmanager
def _decided(settings: Settings) -> Iterator[Callable[[str, int], Sequence[Decision]]]:
    """The newest decisions of a plugin; none while nothing has been stored."""
    if _nothing_stored(settings):
        yield lambda _name, _count: ()
        return
    with _store(settings) as store:
        yield lambda name, count: store.decisions(name, newest=count)


def _print(found: Sequence[Listed]) -> None:
    from vqmon import terminal
    from vqmon.plugins.listing import problems

    if not found:
        click.echo("no plugins: install one, or name a folder with `plugins_dir`", err=True)
        return
    rows = [
        (it.name, it.state, it.found.where if it.found else "", it.checked.title) for it in found
    ]
    terminal.print_table(("plugin", "state", "from", "what it does"), rows)
    for it in found:
        for line in problems(it):
            click.echo(f"\n{it.name}: {terminal.visible(line)}")
    decisions = sorted((one for it in found for one in it.decisions), key=lambda one: one.at)
    if decisions:
        click.echo()
        told = [
            (f"{one.at:%Y-%m-%d %H:%M:%S}", one.plugin, one.stream, one.kind, one.reason)
            for one in decisions
        ]
        terminal.print_table(("decided at (UTC)", "plugin", "stream", "decision", "reason"), told)
