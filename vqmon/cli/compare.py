"""``vqmon compare A B``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vqmon import arguments
from vqmon.cli import DONE, _print_json, _settings, _store


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@arguments.config
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--duration",
    type=arguments.DURATION,
    default=10.0,
    show_default="10s",
    help="How long to watch a URL.",
)
@click.option(
    "--every",
    type=arguments.DURATION,
    default=1.0,
    show_default="1s",
    help="Time between scored frames of a file.",
)
@arguments.model
def compare(
    *,
    a: str,
    b: str,
    path: Path | None,
    as_json: bool,
    duration: float,
    every: float,
    **model: Any,
) -> int:
    """Say which of A and B is better, by how much, with what certainty and why.

    A and B are files, URLs or ids of stored segments; the beginning of an id is enough. With a
    segment or -c, files and URLs are scored by the configured model unless --model names another.
    """
    from vqmon import comparing, terminal
    from vqmon.scorers import load_scorer

    stored = "segment" in {comparing.kind(a), comparing.kind(b)}
    settings = _settings(path if path or stored else None)
    spec = model["model"] or settings.scorer.model
    with terminal.comparing() as watched:
        compared = comparing.compare(
            a,
            b,
            comparing.Means(
                scorer=lambda: load_scorer(spec, device=model["device"], threads=model["threads"]),
                store=lambda: _store(settings),
                evidence_dir=settings.evidence_dir,
                duration=duration,
                every=every,
                watched=watched,
            ),
        )
    if as_json:
        _print_json(comparing.as_json(compared))
    else:
        terminal.print_comparison(compared)
    return DONE
