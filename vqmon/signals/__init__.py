"""What is measured over time: packets, pictures and sound become findings and facts.

    Traffic ─▶ transport · bitrate · activity · sound ─┐
    Event ───▶ events                                  ├▶ findings(start, end), facts(start, end)
    Frame ───▶ picture (black, damage), stillness      │
               (freeze, holds), slate, degradations ───┘▶ suspicion

Each fault keeps a `Track` of the stretches in which it was there; a segment cuts its share out
of them, so durations add up over segment borders. `limits.py` holds every limit and severity.
Everything is bounded: rings for baselines, and what the segment in progress needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from vqmon.domain import Event, Finding, Frame, Traffic
from vqmon.measures import Glance
from vqmon.signals.activity import Activity
from vqmon.signals.bitrate import Bitrate
from vqmon.signals.degradations import Degradations
from vqmon.signals.doubts import Doubts
from vqmon.signals.events import Events
from vqmon.signals.facts import facts as ledger_facts
from vqmon.signals.ledger import Ledger
from vqmon.signals.limits import SCALES, Scale
from vqmon.signals.picture import Pictures
from vqmon.signals.sound import Sound
from vqmon.signals.transport import Transport

__all__ = ["SCALES", "Scale", "Signals"]

DENSE_SECONDS = 0.3
DENSE_DISTANCES = 1.6
"""A picture follows densely when it comes within DENSE_SECONDS of the last one, or within that
many packet distances (streams of a few frames a second)."""

POOR = frozenset({"compression", "blur", "upscaled"})


class Signals:
    """Watches one stream; not thread-safe.

    expect: content declared legitimate: `still_pictures` silences freeze and slate, `no_audio`
        all that is wrong with sound.
    sampling: as in `domain.Stream`; suspicion is raised only where not everything is decoded.
    """

    def __init__(
        self,
        expect: frozenset[str] = frozenset(),
        sampling: Literal["keyframes", "every"] = "keyframes",
    ) -> None:
        still = "still_pictures" in expect
        self._sampling = sampling
        self._still_pictures = still
        self._ledger = Ledger()
        self._activity = Activity()
        self._events = Events()
        self._transport = Transport(self._ledger)
        self._bitrate = Bitrate()
        self._pictures = Pictures(self._ledger, self._activity, still_pictures=still)
        self._sound = Sound(self._ledger, expected="no_audio" not in expect)
        self._degradations = Degradations()
        self._doubts = Doubts()
        self._last_picture: float | None = None
        self._segment = (float("-inf"), float("-inf"))

    @property
    def suspicion(self) -> str | None:
        """Why denser decoding would help just now; None when all is settled."""
        return self._doubts.reason

    def traffic(self, traffic: Traffic) -> None:
        """What arrived during about a second."""
        self._ledger.traffic(traffic)
        self._transport.traffic(traffic)
        self._activity.traffic(traffic)
        self._bitrate.traffic(traffic, self._transport.keyframes.usual())
        self._sound.traffic(traffic)
        self._weigh(traffic.position)

    def event(self, event: Event) -> None:
        """Something happened to the stream as a whole."""
        changed = self._events.event(event)
        self._transport.event(event)
        if event.format is not None:
            self._sound.announced = event.format.audio_codec is not None
        if changed or event.kind in ("lost", "reconnected"):
            self._bitrate.restart(event.position)
            self._activity.restart()
        if event.kind == "lost":
            self._pictures.restart(event.position)
            self._sound.restart(event.position)
            self._last_picture = None
        if event.kind in ("opened", "reconnected"):
            self._pictures.joined(event.position)

    def glance(self, frame: Frame, glance: Glance) -> None:
        """Every decoded picture, in order."""
        last, self._last_picture = self._last_picture, frame.position
        gap = 0.0 if last is None else max(0.0, frame.position - last)
        dense = last is not None and self._is_dense(gap)
        self._ledger.picture(frame, glance.mean)
        self._transport.decoded()
        motion = self._pictures.picture(frame, black=glance.black, dense=dense)
        if frame.key:
            self._bitrate.key(frame, motion)
        if dense:
            self._doubts.looked(frame.position, gap)
        if frame.key:
            self._weigh(frame.position)

    def picture(self, frame: Frame, found: Sequence[Finding]) -> None:
        """A sampled picture and what is wrong with it, as the model or its measures say."""
        self._degradations.picture(frame.position, found)
        self._bitrate.sampled(frame.position, poor=any(f.name in POOR for f in found))

    def findings(self, start: float, end: float) -> tuple[Finding, ...]:
        """What was wrong in [start, end), by start; earlier segments are forgotten."""
        self._turn_to(start, end)
        return tuple(sorted(self._findings(start, end), key=lambda f: (f.start, f.name)))

    def facts(self, start: float, end: float) -> dict[str, Any]:
        """What was measured in [start, end); JSON values only, nothing that is None."""
        self._turn_to(start, end)
        found = list(self._findings(start, end))
        lasting = {
            f"{name}_seconds": round(sum((f.seconds for f in found if f.name == name), 0.0), 3)
            for name in ("black", "freeze")
        }
        return {
            "sampling": self._sampling,
            **self._events.facts(end),
            **ledger_facts(self._ledger, self._transport, start, end),
            **self._sound.facts(start, end),
            **self._bitrate.facts(),
            **lasting,
        }

    def _findings(self, start: float, end: float) -> Iterator[Finding]:
        yield from self._events.findings(start, end)
        yield from self._transport.findings(start, end)
        yield from self._bitrate.findings(start, end)
        yield from self._pictures.findings(start, end)
        yield from self._sound.findings(start, end)
        yield from self._degradations.findings(start, end)

    def _turn_to(self, start: float, end: float) -> None:
        """Forget what only the segments before this one needed."""
        if self._segment == (start, end):
            return
        self._segment = (start, end)
        self._events.close(end)
        self._transport.forget(start, end)
        self._ledger.close(start, end)
        for part in (self._bitrate.track, self._pictures, self._sound, self._degradations):
            part.forget(start)

    def _is_dense(self, gap: float) -> bool:
        return gap <= max(DENSE_SECONDS, DENSE_DISTANCES * self._transport.gaps.usual)

    def _weigh(self, position: float) -> None:
        """Say what is unclear as long as pictures are left out."""
        if self._sampling == "every":
            return
        doubts, pictures = self._doubts, self._pictures
        still = pictures.stopped and not self._still_pictures
        low = self._bitrate.low and not (pictures.stopped or pictures.stands)
        doubts.weigh("black keyframe", position, unclear=pictures.black.on)
        doubts.weigh("motion that seems to have stopped", position, unclear=still)
        doubts.weigh("damaged packets", position, unclear=self._transport.loss.lately(position))
        doubts.weigh(
            "gaps between packets", position, unclear=self._transport.gaps.lately(position)
        )
        doubts.weigh("a bitrate far below usual", position, unclear=low)
