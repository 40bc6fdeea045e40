"""The writer at work: from the queue to an answer beside the scorer's, or to the reason for none.

    Asker.turn ─▶ claim ─▶ pictures of the segment ─▶ writer ─▶ answer
                                                            └─▶ due again later · given up

One question at a time: a large model has room for no more. Whatever goes wrong, the segment keeps
what the scorer said, and its question says why there is nothing else.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vqmon.cascade import disagreement
from vqmon.domain import Asked, Assessment, Opinion, Segment
from vqmon.errors import PictureUnsupported, ScorerError, ScorerUnavailable, VqmonError
from vqmon.ports import AskingStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vqmon.settings import Settings

log = logging.getLogger("vqmon.asking")

RETRY_SECONDS = (30.0, 300.0, 1800.0)
"""From one attempt for a segment to the next."""

PAUSE_SECONDS = (10.0, 30.0, 60.0, 300.0, 600.0)
"""For which nobody is asked when the model cannot be loaded or its server not be reached."""

GRACE_SECONDS = 10.0
"""A writer keeps to its time by itself; one that does not is ended after so much more."""

LEASE_SECONDS = 30.0
"""A claim outlasts the time that an answer may take by so much."""

LONGEST_REASON = 500
"""Characters of an unreadable answer that are kept."""

NO_PICTURES = (
    "No full-size picture of this segment is kept: only segments with findings, with a score that "
    "breaks a rule or is uncertain, and one each hour have some, as long as the disk allows."
)


@dataclass(frozen=True, slots=True)
class AskingPlan:
    """Which writer, how often and for how long; see `vqmon.settings.WriterSettings`.

    evidence: the folder in which the paths of pictures begin.
    """

    instance: str
    model: str
    device: str
    threads: int
    evidence: Path
    per_hour: int
    timeout: float
    tries: int
    pictures: int
    token: str | None = field(default=None, repr=False)


def plan_of(settings: Settings) -> AskingPlan | None:
    """None when there is no writer."""
    writer = settings.writer
    if writer.model is None:
        return None
    return AskingPlan(
        instance=settings.instance,
        model=writer.model,
        device=writer.device,
        threads=writer.threads,
        evidence=settings.evidence_dir,
        per_hour=writer.per_hour,
        timeout=writer.timeout,
        tries=writer.tries,
        pictures=writer.pictures,
        token=writer.token,
    )


class Writer(Protocol):
    """A model that looks at pictures of one stretch of video and says what it sees."""

    def write(self, pictures: Sequence[NDArray[np.uint8]], position: float = 0.0) -> Assessment:
        """One assessment of all of them. Raises ScorerUnavailable when the model cannot answer
        now, ScorerError when it never will, PictureUnsupported for pictures that it cannot see.
        """
        ...


def loaded(plan: AskingPlan) -> Writer:
    """The writer of a plan. Raises ScorerError with the remedy."""
    from vqmon.scorers.writing import Limits

    kind, _, place = plan.model.partition(":")
    limits = Limits(seconds=plan.timeout)
    if kind == "remote":
        from vqmon.scorers.remote import RemoteScorer

        return RemoteScorer(place, token=plan.token, limits=limits)
    from vqmon.scorers.writer import WriterScorer

    return WriterScorer(place, device=plan.device, threads=plan.threads, limits=limits)


def _now() -> datetime:
    return datetime.now(UTC)


class Unreadable(ScorerError):
    """The writer wrote something that says nothing; it would write the same again."""


class Asker:
    """Asks what waits. `turn` is for one thread; the rest may be looked at from any.

    trouble: why nothing can be asked at present; empty while all is well, None before the first
        attempt.
    under_way: the question that the writer thinks about, since `begun` (`time.monotonic()`).
    """

    def __init__(
        self,
        store: AskingStore,
        plan: AskingPlan,
        *,
        by: str = "",
        opened: Callable[[AskingPlan], Writer] | None = None,
        now: Callable[[], datetime] = _now,
    ) -> None:
        """by: whose claims these are, a name that nobody else has."""
        self._store = store
        self._plan = plan
        self._by = by or f"{plan.instance} {uuid.uuid4().hex}"
        self._opened = opened or loaded
        self._now = now
        self._writer: Writer | None = None
        self._pause_until = datetime.min.replace(tzinfo=UTC)
        self._away = 0
        self.trouble: str | None = None
        self.under_way: Asked | None = None
        self.begun = 0.0

    def turn(self, segment: str | None = None) -> Asked | None:
        """Ask the most urgent question, or the one about this segment; how it stands then.

        None when nothing is due, or nothing may be asked now. Raises StoreError.
        """
        now = self._now()
        if now < self._pause_until:
            return None
        if not self._store.question_due(self._plan.instance, now, segment=segment):
            return None
        writer = self._ready()
        if writer is None:
            return None
        one = self._store.claim_question(
            self._plan.instance,
            self._by,
            now,
            seconds=self._plan.timeout + LEASE_SECONDS,
            per_hour=self._plan.per_hour,
            segment=segment,
        )
        if one is None:
            return None
        self.begun, self.under_way = time.monotonic(), one
        try:
            self._ask(one, writer)
        finally:
            self.under_way = None
        return self._store.question(one.question.segment)

    def overdue(self, clock: float) -> bool:
        """Whether the writer takes longer than it may."""
        return (
            self.under_way is not None and clock - self.begun > self._plan.timeout + GRACE_SECONDS
        )

    def give_up(self, one: Asked, reason: str) -> None:
        """Note that the writer is not waited for any more; from another thread."""
        self._failed(one, reason)

    def take_over(self, before: str, reason: str) -> None:
        """What an asker of this name had under way when it ended, for this reason, has failed."""
        for one in self._store.claimed_questions(self._plan.instance):
            self._put_off(one, before, reason, self._due_again(one))

    def _ready(self) -> Writer | None:
        if self._writer is None:
            try:
                self._writer = self._opened(self._plan)
            except ScorerError as error:
                self._hold_up(f"The writer cannot be loaded: {error}")
            except Exception as error:
                log.exception("writer_fault")
                self._hold_up(f"The writer cannot be loaded: {type(error).__name__}: {error}")
        return self._writer

    def _ask(self, one: Asked, writer: Writer) -> None:
        segment = self._store.segment(one.question.segment)
        if segment is None:
            return  # its question has gone with it
        paths = _kept(segment, self._plan.evidence)[: self._plan.pictures]
        if not paths:
            self._give_up(one, NO_PICTURES)
            return
        try:
            opinion = self._opinion(writer, segment, paths)
        except ScorerUnavailable as error:
            self._failed(one, str(error))
            self._hold_up(str(error))
        except (Unreadable, PictureUnsupported) as error:
            self._give_up(one, str(error))
        except VqmonError as error:
            self._failed(one, str(error))
        except Exception as error:
            log.exception("writer_fault")
            self._writer = None  # whatever it is in, such as a GPU without memory
            self._failed(one, f"unexpected {type(error).__name__}: {error}")
        else:
            self._answered(one, segment, opinion)

    def _opinion(self, writer: Writer, segment: Segment, paths: Sequence[str]) -> Opinion:
        begun = time.monotonic()
        pictures = [picture(self._plan.evidence / path) for path in paths]
        said = writer.write(pictures, segment.start)
        if said.quality is None:
            raise Unreadable(f"The writer gave no score: {_shortened(said.explanation)}")
        return Opinion(
            model=said.model or self._plan.model,
            at=self._now(),
            quality=said.quality,
            uncertainty=said.uncertainty,
            findings=tuple(replace(it, seconds=segment.seconds) for it in said.findings),
            explanation=said.explanation,
            pictures=tuple(paths),
            seconds=round(time.monotonic() - begun, 3),
            details={name: list(values) for name, values in said.outputs.items()},
        )

    def _answered(self, one: Asked, segment: Segment, opinion: Opinion) -> None:
        apart = disagreement(segment, opinion)
        self._away, self.trouble = 0, ""
        if not self._store.answer(one, self._by, opinion, apart):
            return  # somebody else was quicker
        about = {
            "stream": segment.stream,
            "segment": segment.id,
            "cause": one.question.cause,
            "model": opinion.model,
            "seconds": opinion.seconds,
        }
        log.info("writer_answered", extra=about)
        if apart.differs:
            log.info("writer_disagrees", extra={**about, "sentence": apart.sentence})

    def _failed(self, one: Asked, reason: str) -> None:
        self._put_off(one, self._by, reason, self._due_again(one))

    def _give_up(self, one: Asked, reason: str) -> None:
        """It would be the same again."""
        self._put_off(one, self._by, reason, None)

    def _put_off(self, one: Asked, by: str, reason: str, due_at: datetime | None) -> None:
        if not self._store.put_off(one, by, reason, due_at=due_at):
            return
        about = {"stream": one.question.stream, "segment": one.question.segment, "reason": reason}
        log.warning("writer_gave_no_answer", extra={**about, "final": due_at is None})

    def _due_again(self, one: Asked) -> datetime | None:
        """When to ask again; None when it was the last attempt, or it would be too late."""
        if one.attempts >= self._plan.tries:
            return None
        delay = RETRY_SECONDS[min(one.attempts, len(RETRY_SECONDS)) - 1]
        due_at = self._now() + timedelta(seconds=delay)
        return due_at if due_at < one.question.expires_at else None

    def _hold_up(self, reason: str) -> None:
        """Leave it alone for a while, the longer the more often it failed."""
        pause = PAUSE_SECONDS[min(self._away, len(PAUSE_SECONDS) - 1)]
        self._away += 1
        self._pause_until = self._now() + timedelta(seconds=pause)
        self.trouble = reason
        self._store.hold_up(self._plan.instance, reason)
        log.warning("writer_away", extra={"reason": reason, "again_in": pause})


def _kept(segment: Segment, folder: Path) -> list[str]:
    """Its full-size pictures that are still there, the worst moment first."""
    return [path for path in segment.evidence if (folder / path).is_file()]


def picture(path: Path) -> NDArray[np.uint8]:
    """A picture in a file, (h, w, 3) uint8 R'G'B'. Raises PictureUnsupported."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return np.asarray(opened.convert("RGB"), np.uint8)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise PictureUnsupported(f"{path.name} cannot be read: {error}") from error


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
