"""The report as one HTML file: no scripts, nothing loaded, both themes, fit for printing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vqmon import __version__
from vqmon.domain import SELF_FAULTS, Segment
from vqmon.report import opinions, plots, words
from vqmon.report.album import Album
from vqmon.report.contents import Report, StreamReport
from vqmon.report.episodes import Episode

OPEN_STREAMS = 6
"""So many streams are shown at full length; the others unfold when asked."""

EPISODES_SHOWN = 12
ALERTS_SHOWN = DECISIONS_SHOWN = DISAGREEMENTS_SHOWN = 20

PICTURES_BYTES = 12_000_000
"""So much of a page may be pictures: it should still fit into a mail."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Something worth a picture: a segment or an episode, and its picture as a data URI."""

    it: Segment | Episode
    picture: str | None
    alt: str


def to_html(report: Report, *, pictures_bytes: int = PICTURES_BYTES) -> str:
    """One self-contained page with at most `pictures_bytes` of embedded pictures.

    Names, explanations and facts may be hostile; all are escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vqmon", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    album = Album(report.evidence_folder, pictures_bytes)
    worst = {s.name: _worst(s, album) for s in report.streams}
    listed = {s.name: _episodes(s, album) for s in report.streams}
    return environment.get_template("page.html.jinja").render(
        report=report,
        worst=worst,
        episodes=listed,
        headline=headline(report),
        open_streams=OPEN_STREAMS,
        alerts_shown=ALERTS_SHOWN,
        decisions_shown=DECISIONS_SHOWN,
        disagreements_shown=DISAGREEMENTS_SHOWN,
        pictures_left_out=album.left_out,
        plots=plots,
        words=words,
        opinions=opinions,
        version=__version__,
    )


def headline(report: Report) -> str:
    """The report in a sentence or two."""
    if not report.streams:
        return "Nothing was watched in this period."
    count = len(report.streams)
    parts = [
        f"{count} stream{'s' if count > 1 else ''}",
        f"{words.share(report.totals.up_seconds, report.totals.watched_seconds)} available",
    ]
    if report.quality:
        mean = report.quality.mean
        parts.append(f"mean quality {mean:.0f} of 100 ({words.grade(mean)})")
    return ", ".join(parts) + ". " + _trouble(report.streams)


def _trouble(streams: Sequence[StreamReport]) -> str:
    worst = streams[0]
    faults = [fault for fault in worst.faults if fault.name not in SELF_FAULTS]
    serious = [fault for fault in faults if (fault.severity or 3) >= 2][:3]
    who = f"Worst is {worst.name}" if len(streams) > 1 else "Found"
    if not serious:
        return "No fault worth naming was found." if len(streams) == 1 else f"{who}."
    found = ", ".join(f"{words.named(f.name)} for {words.lasting(f.seconds)}" for f in serious)
    return f"{who}: {found}."


def _worst(stream: StreamReport, album: Album) -> list[Shown]:
    return [
        Shown(s, album.show(s), f"Frame at {words.moment(s.started_at)} UTC, {_about(s)}")
        for s in stream.worst
    ]


def _about(segment: Segment) -> str:
    names = [words.named(f.name) for f in segment.findings]
    found = ", ".join(dict.fromkeys(names)) or "nothing found"
    score = "no score" if segment.quality is None else f"quality {segment.quality:.0f} of 100"
    return f"{score}: {found}"


def _episodes(stream: StreamReport, album: Album) -> list[Shown]:
    """The gravest, in the order of time."""
    gravest = sorted(stream.episodes, key=lambda e: (-e.severity, -e.seconds))[:EPISODES_SHOWN]
    return [
        Shown(
            episode,
            album.show(episode.segment, width=320),
            f"Frame with {words.named(episode.name)} at {words.moment(episode.starts_at)} UTC",
        )
        for episode in sorted(gravest, key=lambda e: e.starts_at)
    ]
