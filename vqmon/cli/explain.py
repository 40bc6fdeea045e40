"""``vqmon explain``: what the scorer says of a segment, and what the writer says of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vqmon import arguments
from vqmon.cli import DONE, FAILED, _existing, _print_json, _settings, _store
from vqmon.errors import VqmonError

if TYPE_CHECKING:
    from vqmon.cascade import Policy
    from vqmon.domain import Asked, Segment
    from vqmon.settings import Settings
    from vqmon.store import SqlStore

POLL_SECONDS = 0.5
NO_WRITER = "no writer is configured: set `writer.model` to ask one"
BUDGET = "The budget of {per_hour} an hour is used up; it is asked when there is room again."


@click.command()
@click.argument("segment")
@arguments.config
@click.option("--wait", is_flag=True, help="Wait for the writer's answer.")
@click.option(
    "--now", is_flag=True, help="Ask from here instead of leaving it to the running daemon."
)
@click.option("--again", is_flag=True, help="Ask even if the writer has answered already.")
@click.option("--no-ask", is_flag=True, help="Only say what is known.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(
    *,
    segment: str,
    path: Path | None,
    wait: bool,
    now: bool,
    again: bool,
    no_ask: bool,
    as_json: bool,
) -> int:
    """Say what is known of a segment, and have the large model look at it, too.

    SEGMENT is an id or its beginning, as in a report. The question waits in the database for the
    running daemon, which asks within its budget.
    """
    if no_ask and (wait or now or again):
        raise click.UsageError("--no-ask goes with none of --wait, --now and --again")
    settings = _settings(_existing(path))
    with _store(settings) as store:
        found = store.segment(segment)
        if found is None:
            raise VqmonError(f"no segment {segment!r}; `vqmon report` names some")
        policy = settings.writer.policy(settings.instance)
        asked = store.question(found.id)
        if policy and not no_ask and "demand" in policy.causes:
            asked = _asked(store, settings, policy, found, again=again, now=now, wait=wait)
        _tell(found, asked, policy, as_json=as_json)
    wanted = (wait or now) and not (asked and asked.state == "answered")
    return FAILED if wanted else DONE


def _asked(
    store: SqlStore,
    settings: Settings,
    policy: Policy,
    segment: Segment,
    *,
    again: bool,
    now: bool,
    wait: bool,
) -> Asked | None:
    """The question about it, new or as it stands."""
    from vqmon.cascade import on_demand

    asked = store.ask(on_demand(policy, segment, datetime.now(UTC)), again=again)
    if asked is None or asked.state == "answered":
        return asked
    if now:
        _ask_here(store, settings, segment.id)
    if wait:
        _await(store, segment.id)
    return store.question(segment.id)


def _ask_here(store: SqlStore, settings: Settings, segment: str) -> None:
    """One attempt of our own, within the budget."""
    from vqmon.asking import LEASE_SECONDS, Asker, plan_of

    plan = plan_of(settings)
    assert plan
    used = store.budget_used(plan.instance, datetime.now(UTC))
    if used >= plan.per_hour:
        click.echo(BUDGET.format(per_hour=plan.per_hour), err=True)
        return
    asker = Asker(store, plan)
    if asker.turn(segment) is None and asker.trouble:
        click.echo(asker.trouble, err=True)
    until = time.monotonic() + plan.timeout + LEASE_SECONDS
    while _under_way(store, plan.instance, segment) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)


def _under_way(store: SqlStore, instance: str, segment: str) -> bool:
    """Whether the daemon was quicker and asks the same."""
    return any(it.question.segment == segment for it in store.claimed_questions(instance))


def _await(store: SqlStore, segment: str) -> None:
    """Until the writer has answered, or will not; says on standard error what it waits for."""
    told = None
    while (asked := store.question(segment)) is not None and asked.state == "waiting":
        if asked.question.expires_at <= datetime.now(UTC):
            return
        if asked.reason and asked.reason != told:
            told = asked.reason
            click.echo(f"waiting: {told}", err=True)
        time.sleep(POLL_SECONDS)


def _tell(segment: Segment, asked: Asked | None, policy: Policy | None, *, as_json: bool) -> None:
    from vqmon.report import opinions, plain, words

    if as_json:
        said = opinions.as_json(asked) if asked else None
        about = {"stream": segment.stream} | plain.segment_json(segment)
        _print_json(about | {"writer": said})
        return
    when = f"{words.moment(segment.started_at)} UTC, {words.lasting(segment.seconds)}"
    click.echo(f"{plain.printable(segment.stream)}, {when}, segment {segment.id}\n")
    _paragraph(opinions.scorer_said(segment), segment.explanation)
    if asked is None:
        click.echo(f"The writer was not asked{'' if policy else f'; {NO_WRITER}'}.")
        return
    opinion = asked.opinion
    _paragraph(opinions.writer_said(asked), opinion.explanation if opinion else "")
    if asked.disagreement:
        click.echo(plain.printable(asked.disagreement.sentence))


def _paragraph(heading: str, text: str) -> None:
    from vqmon.report import plain

    click.echo(plain.printable(heading))
    for line in text.splitlines():
        click.echo(f"  {plain.printable(line)}".rstrip())
    click.echo()
