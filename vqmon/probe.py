"""A short look at one source, with no configuration and no database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vqmon.domain import Depth, Media, Segment, Stream, Traffic
from vqmon.errors import SourceError
from vqmon.files import FileResult, summed_up
from vqmon.pipeline import monitor
from vqmon.ports import Evidence, Scorer, Source, everything

SAMPLE = "synthetic:?seconds=30&faults=noise@6-14:4,freeze@21-26:4"
"""What `vqmon probe` looks at when no URL is given: generated, with two faults."""

OPEN_SECONDS = 8.0
READ_SECONDS = 8.0
SAMPLE_EVERY = 1.0
SEGMENT_SECONDS = 10.0

_LONG_GOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Probe:
    """result: as for a file. warnings: what to know about the look itself."""

    result: FileResult
    warnings: tuple[str, ...] = ()


def probe(
    url: str,
    scorer: Scorer,
    *,
    duration: float = 30.0,
    options: Mapping[str, str] | None = None,
    watched: Callable[[float], None] = lambda _position: None,
    evidence: Evidence | None = None,
) -> Probe:
    """Watch `url` for `duration` seconds of media, at most a little longer of wall time.

    watched: called with the position about once a second.
    evidence: is offered every scored picture.
    A source that gives nothing is a result without a score. Raises ConfigError for a wrong
    scheme or option.
    """
    from vqmon.sources import open_source, redact

    stream = Stream(
        name="probe",
        url=url,
        sampling="every",
        sample_every=SAMPLE_EVERY,
        segment_seconds=min(SEGMENT_SECONDS, duration),
        options=_short_limits(url) | dict(options or {}),
    )
    source = _Limited(open_source(stream, live_retry=False), duration, watched)
    segments: list[Segment] = []
    failure = None
    patience = duration + OPEN_SECONDS + 2 * READ_SECONDS
    with _stopped_after(source, patience) as overdue:
        try:
            segments.extend(monitor(stream, source, scorer, evidence=evidence))
        except SourceError as error:
            failure = error
    result = summed_up(redact(url), segments, failure=failure, gap=SAMPLE_EVERY)
    warnings = list(_warnings(result))
    if overdue():
        warnings.append(f"media came so slowly that the look ended after {patience:.0f} s")
    return Probe(result, tuple(warnings))


def as_json(probe: Probe) -> dict[str, Any]:
    """What `vqmon probe --json` prints: a file's object, and what a stream adds to it."""
    from vqmon import files

    return files.as_json(probe.result) | {
        "sentence": probe.result.sentence,
        "facts": dict(probe.result.facts),
        "warnings": list(probe.warnings),
    }


def _warnings(result: FileResult) -> Iterator[str]:
    facts = result.facts
    unscored = [it for it in result.segments if not it.scored]
    if result.message and result.segments:
        yield f"it ended early: {result.message}"
    if unscored and result.scored:
        seconds = sum(it.seconds for it in unscored)
        reasons = dict.fromkeys(str(it.no_score_reason) for it in unscored)
        yield f"{seconds:.0f} s have no score: {', '.join(reasons)}"
    if facts.get("late_frames"):
        yield f"this machine was too slow for {facts['late_frames']} pictures; they were left out"
    if facts.get("gop_seconds", 0) > _LONG_GOP_SECONDS:
        yield (
            f"keyframes are {facts['gop_seconds']:.0f} s apart: `vqmon run` scores that seldom, "
            "unless `sampling.mode` is `every`"
        )
    if facts and "audio_codec" not in facts and "audio_rms_dbfs" not in facts:
        yield "there is no sound track"


class _Limited:
    """A source that ends after some seconds of media."""

    def __init__(self, source: Source, seconds: float, watched: Callable[[float], None]) -> None:
        self._source = source
        self._seconds = seconds
        self._watched = watched

    @property
    def live(self) -> bool:
        return self._source.live

    @contextmanager
    def open(self, depth: Callable[[], Depth] = everything) -> Iterator[Iterator[Media]]:
        with self._source.open(depth) as media:
            yield self._until_then(media)

    def stop(self) -> None:
        self._source.stop()

    def _until_then(self, media: Iterator[Media]) -> Iterator[Media]:
        """Traffic comes at the end of its second, so the last of it is waited for."""
        for item in media:
            if isinstance(item, Traffic):
                self._watched(min(item.position, self._seconds))
                yield item
            elif item.position < self._seconds:
                yield item
            if item.position >= self._seconds + (0 if isinstance(item, Traffic) else 2):
                return


@contextmanager
def _stopped_after(source: Source, seconds: float) -> Iterator[Callable[[], bool]]:
    """For sources whose media time does not get on: the wall clock ends the look.

    Yields what tells whether it did.
    """
    fired = threading.Event()

    def stop() -> None:
        fired.set()
        source.stop()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield fired.is_set
    finally:
        timer.cancel()


def _short_limits(url: str) -> dict[str, str]:
    """Somebody is waiting: give up earlier than the daemon does, where the scheme allows."""
    from vqmon.sources import SCHEMES

    known = SCHEMES.get(url.partition(":")[0].lower())
    limits = {"open_timeout": str(OPEN_SECONDS), "read_timeout": str(READ_SECONDS)}
    return {name: value for name, value in limits.items() if known and name in known.options}
