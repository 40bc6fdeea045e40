"""The plugin: a bad segment is taken from the packet ring and mended by a thread of its own.

`segment_closed` only decides, cuts the clip while the ring still has it, and returns: the work
takes longer than a call may. One clip is worked on and one waits; others are passed by.

Decisions: `begin` before any work (so that what a crash interrupted still counts in the hour),
then `keep`, `reject` or `fail`; `unmendable` at most once an hour for a stream and finding.
"""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from vqmon import Decision, Finding, Plugin, PluginContext, Segment, VqmonError
from vqmon_enhancement.enhancing import Outcome, Wish, as_json, enhance, write_decision
from vqmon_enhancement.judging import Bar
from vqmon_enhancement.remedies import diagnosed
from vqmon_enhancement.rendering import Cancelled
from vqmon_enhancement.searching import Budget
from vqmon_enhancement.settings import EnhancementSettings
from vqmon_enhancement.shelf import Shelf

log = logging.getLogger("vqmon_enhancement")

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Work:
    segment: Segment
    clip: Path


class Enhancement(Plugin):
    """Makes better renditions of bad segments and keeps those that the model prefers."""

    Settings: ClassVar[type[EnhancementSettings]] = EnhancementSettings

    def __init__(self, context: PluginContext, settings: EnhancementSettings) -> None:
        super().__init__(context, settings)
        self._shelf = Shelf(context.data_dir / "kept", settings.keep)
        self._waiting: queue.Queue[_Work | None] = queue.Queue(maxsize=1)
        self._ending = threading.Event()
        for left in context.data_dir.glob("*.mkv"):  # clips that nobody finished
            left.unlink(missing_ok=True)
        self._worker = threading.Thread(target=self._work, name="enhancement", daemon=True)
        self._worker.start()

    def segment_closed(self, segment: Segment) -> None:
        """Take it on when it is bad enough, can be mended, and there is time for it."""
        bad = self._bad(segment)
        if not bad:
            return
        beyond = diagnosed(bad).beyond
        if len(beyond) == len({it.name for it in bad}):
            self._say_unmendable(segment, beyond)
            return
        if self._waiting.full() or self._used_up():
            return
        clip = self.context.clip(segment)
        if clip is None:
            log.info("no_packets_to_enhance", extra={"stream": segment.stream})
            return
        self._record(segment, "begin", _named(bad), {})
        try:
            self._waiting.put_nowait(_Work(segment, clip))
        except queue.Full:
            clip.unlink(missing_ok=True)

    def stopping(self) -> None:
        """Give up what is in progress; its clip is deleted at the next start at the latest."""
        self._ending.set()
        self._worker.join(1.5)

    def settled(self, seconds: float) -> bool:
        """Wait until nothing is in progress; whether that came about."""
        with self._waiting.all_tasks_done:
            return self._waiting.all_tasks_done.wait_for(
                lambda: self._waiting.unfinished_tasks == 0, seconds
            )

    def _bad(self, segment: Segment) -> list[Finding]:
        settings: EnhancementSettings = self.settings
        if settings.streams and segment.stream not in settings.streams:
            return []
        return [
            it
            for it in segment.findings
            if it.name in settings.findings
            and it.severity >= settings.min_severity
            and it.confidence >= settings.min_confidence
            and it.seconds >= min(settings.min_seconds, segment.seconds)
        ]

    def _used_up(self) -> bool:
        since = datetime.now(UTC) - HOUR
        begun = [it for it in self.context.decisions(since=since) if it.kind == "begin"]
        return bool(len(begun) >= self.settings.per_hour)

    def _say_unmendable(self, segment: Segment, beyond: dict[str, str]) -> None:
        told = self.context.decisions(segment.stream, datetime.now(UTC) - HOUR)
        known = {name for it in told if it.kind == "unmendable" for name in it.data["findings"]}
        if not beyond.keys() <= known:
            why = "; ".join(f"{name}: {reason}" for name, reason in sorted(beyond.items()))
            self._record(segment, "unmendable", why, {"findings": sorted(beyond)})

    def _work(self) -> None:
        while not self._ending.is_set():
            try:
                work = self._waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            try:
                self._contained(work)
            finally:
                self._waiting.task_done()

    def _contained(self, work: _Work | None) -> None:
        """One failure must not end the thread, which nobody would notice."""
        if work is None:
            return
        try:
            self._enhance(work)
        except Cancelled:
            log.info("enhancement_given_up", extra={"segment": work.segment.id})
        except Exception as error:
            self._shelf.discard(work.segment.id)
            if not isinstance(error, VqmonError):
                log.exception("enhancement_failed")
            self._record_failure(work.segment, error)
        finally:
            work.clip.unlink(missing_ok=True)

    def _enhance(self, work: _Work) -> None:
        segment, settings = work.segment, self.settings
        wish = Wish(
            bar=Bar(certainty=settings.certainty, gain=settings.min_gain),
            budget=Budget(settings.budget),
            slowest=settings.slowest,
            cancelled=self._ending.is_set,
        )
        outcome = enhance(
            work.clip,
            lambda suffix: self._shelf.place(segment.id, f"enhanced{suffix}"),
            segment.findings,
            self.context,
            wish,
        )
        if outcome.kept is not None:
            self._keep(work, outcome)
        numbers = as_json(outcome)
        kind = "keep" if outcome.kept else "reject"
        self._record(segment, kind, outcome.reason, numbers)
        self._shelf.make_room()

    def _keep(self, work: _Work, outcome: Outcome) -> None:
        """The original moves beside it: the ring forgets within a minute."""
        work.clip.replace(self._shelf.place(work.segment.id, "original.mkv"))
        write_decision(outcome, self._shelf.place(work.segment.id, "json"))

    def _record_failure(self, segment: Segment, error: Exception) -> None:
        try:
            self._record(segment, "fail", str(error), {"error": type(error).__name__})
        except VqmonError as again:
            log.warning("decision_not_kept", extra={"error": str(again)})

    def _record(self, segment: Segment, kind: str, reason: str, data: dict[str, Any]) -> None:
        self.context.record(
            Decision(
                plugin=self.context.plugin,
                stream=segment.stream,
                kind=kind,
                reason=reason,
                at=datetime.now(UTC),
                data=data,
                segment=segment.id,
            )
        )


def _named(bad: list[Finding]) -> str:
    return ", ".join(f"{it.severity_word} {it.name}" for it in bad)
