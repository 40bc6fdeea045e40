"""START HERE. The main path: a stream's media become explained segments.

    source ─▶ frames, traffic, events ─▶ sampling ─▶ scorer ─▶ segmenting ─▶ Segment
                                     └─▶ signals ──────────────┘

Files scored by `vqmon score` and live streams watched by `vqmon run` take this same path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from vqmon import measures, segmenting
from vqmon.domain import Assessment, Event, Finding, Frame, Media, Segment, Stream, Traffic
from vqmon.errors import PictureUnsupported, SourceError
from vqmon.explain import explain
from vqmon.ports import Evidence, Scorer, Source
from vqmon.preprocess import Prepared, prepare, wants_picture
from vqmon.sampling import BurstBudget, Sampler
from vqmon.segmenting import Window
from vqmon.signals import Signals


def monitor(
    stream: Stream,
    source: Source,
    scorer: Scorer,
    *,
    evidence: Evidence | None = None,
    budget: BurstBudget | None = None,
    batch: int = 1,
) -> Iterator[Segment]:
    """Watch one stream until it ends, yielding each segment as soon as it is complete.

    batch: frames scored in one call; 1 for live streams, more for files.
    What was measured before a source fails is yielded before its SourceError is raised.
    """
    watch = _Watch(stream, scorer, Sampler(stream, live=source.live, budget=budget), batch)
    watch.evidence = evidence
    with _member(budget), source.open(watch.sampler.depth) as media:
        try:
            for item in media:
                if watch.window.over(item):
                    yield watch.close(item)
                watch.see(item)
        except SourceError:
            yield from watch.rest()
            raise
    yield from watch.rest()


class _Watch:
    """What is known of the segment in progress."""

    evidence: Evidence | None = None

    def __init__(self, stream: Stream, scorer: Scorer, sampler: Sampler, batch: int) -> None:
        self.sampler = sampler
        self.window = Window(stream)
        self.signals = Signals(stream.expect, stream.sampling)
        self._scorer = scorer
        self._pictures = wants_picture(scorer)
        self._batch = batch
        self._waiting: list[tuple[Frame, Prepared]] = []

    def see(self, item: Media) -> None:
        self.window.see(item)
        match item:
            case Frame():
                self._look(item)
            case Traffic():
                self.signals.traffic(item)
            case Event():
                self.signals.event(item)
        self.sampler.heed(item, self.signals.suspicion)

    def close(self, upcoming: Media | None) -> Segment:
        """The segment in progress, finished because `upcoming` is no longer part of it."""
        self._score()
        window, end = self.window, self.window.end(upcoming)
        assert window.start is not None
        findings = self.signals.findings(window.start, end)
        facts = self.signals.facts(window.start, end) | self.sampler.facts()
        facts |= _words(window.scored)
        segment = segmenting.close(window, end, findings, facts, model=self._scorer.model)
        segment = replace(segment, explanation=explain(segment))
        window.next(upcoming)
        return self.evidence.close(segment) if self.evidence else segment

    def rest(self) -> Iterator[Segment]:
        """The last, shorter segment, when anything was seen of it."""
        if not self.window.empty:
            yield self.close(None)

    def _look(self, frame: Frame) -> None:
        glance = measures.glance(frame)
        self.signals.glance(frame, glance)
        if not self.sampler.wants(frame):
            return
        if glance.black:
            # A black picture says nothing about quality; the finding says that it is black.
            self.window.black_frames += 1
            return
        try:
            prepared = prepare(frame, picture=self._pictures)
        except PictureUnsupported:
            self._note(frame, _unsupported(frame), ())
            return
        self._waiting.append((frame, prepared))
        if len(self._waiting) >= self._batch:
            self._score()

    def _score(self) -> None:
        waiting, self._waiting = self._waiting, []
        assessed = self._scorer.assess([prepared for _, prepared in waiting])
        for (frame, prepared), assessment in zip(waiting, assessed, strict=True):
            # A model that names degradations knows better than limits on measures; one that
            # only scores, or has failed, leaves the naming to them.
            named = assessment.names_degradations
            found = assessment.findings if named else measures.findings(frame, prepared.measures)
            self._note(frame, assessment, found)

    def _note(self, frame: Frame, assessment: Assessment, found: Sequence[Finding]) -> None:
        self.signals.picture(frame, found)
        self.window.scored.append(assessment)
        self.window.scored_keys += frame.key
        if self.evidence:
            self.evidence.offer(frame, assessment.quality)


def _words(scored: Sequence[Assessment]) -> dict[str, list[str]]:
    """What a model that writes says of its worst picture, as a fact; else none."""
    said = [it for it in scored if it.explanation]
    if not said:
        return {}
    worst = min(said, key=lambda it: -1.0 if it.quality is None else it.quality)
    return {"words": [worst.explanation]}


def _unsupported(frame: Frame) -> Assessment:
    return Assessment(
        frame.position, quality=None, uncertainty=None, no_score_reason="unsupported_picture"
    )


@contextmanager
def _member(budget: BurstBudget | None) -> Iterator[None]:
    if budget is None:
        yield
        return
    budget.join()
    try:
        yield
    finally:
        budget.leave()
