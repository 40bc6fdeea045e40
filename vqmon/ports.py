"""What vqmon needs from the outside, as small protocols. Fakes for all are in `vqmon.testing`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from vqmon.domain import (
    Acting,
    Alert,
    Asked,
    Assessment,
    Comparison,
    Decision,
    Delivery,
    Depth,
    Disabled,
    Disagreement,
    Frame,
    Media,
    Opinion,
    Question,
    Queued,
    Receipt,
    Rollup,
    Segment,
    Silence,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from vqmon.preprocess import Prepared


def everything() -> Depth:
    """Decode every frame."""
    return Depth.ALL


class Source(Protocol):
    """Where media comes from: a file, a live stream, a generator."""

    @property
    def live(self) -> bool:
        """True when media arrives in real time and waits for nobody."""
        ...

    def open(
        self, depth: Callable[[], Depth] = everything
    ) -> AbstractContextManager[Iterator[Media]]:
        """Yield frames, traffic and events until the end, in order, positions never going back.

        `depth` is asked at every video packet how much to decode. A live source reconnects
        by itself and says so in events. Raises SourceRejected or SourceUnavailable when a
        file, or the first opening of a source that must not retry, fails.
        """
        ...

    def stop(self) -> None:
        """End the iteration soon; may be called from another thread."""
        ...


class Scorer(Protocol):
    """A quality model. Thread-safe; order is kept; an empty batch gives an empty list."""

    @property
    def model(self) -> str:
        """What scored, as name@version."""
        ...

    def assess(self, pictures: Sequence[Prepared]) -> list[Assessment]: ...

    def compare(
        self,
        a: Sequence[Assessment],
        b: Sequence[Assessment],
        *,
        same_content: bool = False,
    ) -> Comparison:
        """From what `assess` said of both: nothing is scored twice.

        same_content: both show the same scene, coded or processed differently; what the model
        misjudges about the scene it misjudges on both sides, so that it is surer of the order.
        """
        ...


class Evidence(Protocol):
    """Keeps the pictures that show what a segment says. One keeper per stream."""

    def offer(self, frame: Frame, quality: float | None) -> None:
        """A scored frame of the segment in progress; kept or dropped, cheaply."""
        ...

    def close(self, segment: Segment) -> Segment:
        """Write what the segment deserves; return it with `thumbnail` and `evidence` set."""
        ...


class SegmentStore(Protocol):
    """Segments and their roll-ups. Times are UTC; `since` is inclusive, `until` exclusive."""

    def add(self, segments: Iterable[Segment], acting: Acting | None = None) -> None:
        """Store all in one transaction, roll-ups and what follows from the segments (alerts,
        what the rules remember, deliveries) included; a known id is left alone.
        """
        ...

    def missing(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids under which no segment is stored."""
        ...

    def segments(
        self,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        worst_first: bool = False,
        limit: int | None = None,
        finding: str | None = None,
    ) -> list[Segment]:
        """By started_at, oldest first; or by quality, worst first (unscored left out).

        finding: only segments with a finding of this name.
        """
        ...

    def segment(self, segment_id: str) -> Segment | None:
        """By id, or by an unambiguous beginning of it."""
        ...

    def streams(self) -> list[str]:
        """Names that have rows, sorted."""
        ...

    def last(self, stream: str) -> Segment | None:
        """The newest segment of a stream."""
        ...

    def rollups(
        self,
        period: int,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Rollup]:
        """period: 60 or 3600. Oldest first, then by stream."""
        ...

    def prune(self, before: datetime, *, limit: int = 500) -> list[str]:
        """Delete at most `limit` of the oldest segments started before; return the paths of
        their pictures (evidence folder relative) so that the files can go too.
        """
        ...

    def forget_pictures(self, before: datetime, *, limit: int = 500) -> list[str]:
        """Take the pictures off at most `limit` of the oldest segments started before that have
        any; return their paths. The segments stay.
        """
        ...

    def known_pictures(self, paths: Iterable[str]) -> set[str]:
        """Those of the paths that a segment names: the other files are orphans."""
        ...

    def prune_rollups(self, before: datetime) -> int:
        """Delete roll-ups that start before; return how many."""
        ...

    def size_bytes(self) -> int:
        """What the database takes on disk, 0 when it has no disk."""
        ...


class AlertStore(Protocol):
    """Alerts, acknowledgements, silences, and what the rules remember. Times are UTC.

    Alerts and states are written by `SegmentStore.add`, with the segments that they follow from.
    """

    def alerts(
        self,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        firing: bool | None = None,
        limit: int | None = None,
    ) -> list[Alert]:
        """That fired at some time within [since, until), the newest first.

        firing: True for those that still do, False for those that are resolved.
        """
        ...

    def alert(self, alert_id: str) -> Alert | None:
        """By id, or by an unambiguous beginning of it; StoreError when it is ambiguous."""
        ...

    def acknowledge(self, alert_id: str, by: str, at: datetime, note: str = "") -> Alert | None:
        """Note that somebody has taken an alert on; None when there is none of this id."""
        ...

    def silence(self, silence: Silence) -> None:
        """From now on, until it ends, alerts that match are told to nobody."""
        ...

    def silences(self, now: datetime | None = None) -> list[Silence]:
        """Those that have not ended by now (or all), the first to end in front."""
        ...

    def unsilence(self, silence_id: str, at: datetime) -> Silence | None:
        """End a silence; by id, or by an unambiguous beginning of it. None: there is none."""
        ...

    def alert_states(self, instance: str) -> dict[str, dict[str, Any]]:
        """What the rules of this daemon remember, by stream."""
        ...

    def prune_alerts(self, before: datetime, *, limit: int = 500) -> int:
        """Delete at most `limit` alerts resolved before, and silences ended before."""
        ...


class Notifier(Protocol):
    """One target, spoken to in its own way. For one thread at a time."""

    def send(self, delivery: Delivery, at: datetime) -> Receipt:
        """Hand it over, within the target's deadline; `at`: now.

        Raises DeliveryFailed, or TargetGone when nothing should be sent any more.
        """
        ...


class Outbox(Protocol):
    """Deliveries that wait, per target, until they have arrived or are given up. Times are UTC.

    Deliveries of one topic reach a target in the order in which they were enqueued.
    """

    def enqueue(self, deliveries: Iterable[Delivery]) -> None:
        """Add in one transaction; one that is known (id and target) is left alone."""
        ...

    def renew(self, delivery: Delivery) -> bool:
        """Try a dead letter (of this id and target) anew, until this delivery's expiry; whether
        there is one. What was meant for a target that is gone for good stays dead.
        """
        ...

    def standing(self, delivery_id: str, target: str) -> Queued | None:
        """How one delivery stands; None when it is unknown or no longer kept."""
        ...

    def claim(self, target: str, by: str, now: datetime, *, seconds: float) -> Queued | None:
        """The oldest that is due and that nobody else is sending; nobody else gets it for so
        long, unless it is settled or released before.
        """
        ...

    def delivered(self, one: Queued, at: datetime, *, again_at: datetime | None = None) -> None:
        """It arrived. again_at: when it must be sent again, for a target that keeps state."""
        ...

    def failed(self, one: Queued, by: str, error: str, *, due_at: datetime | None) -> None:
        """An attempt of this claimant failed; it is due again then, or given up (None)."""
        ...

    def hasten(self, target: str, now: datetime) -> None:
        """What waits after a failure is due at once: the target is back."""
        ...

    def release(self, by: str) -> None:
        """Give up the claims of someone who is known to send nothing any more; the attempts that
        were cut off do not count.
        """
        ...

    def due(self, now: datetime) -> list[str]:
        """Targets that something is due for, sorted."""
        ...

    def backlog(self) -> dict[tuple[str, str], int]:
        """How many wait and how many are dead letters, by (target, state); what is none is left
        out.
        """
        ...

    def queued(
        self, target: str | None = None, states: Sequence[str] = (), *, limit: int | None = None
    ) -> list[Queued]:
        """The newest first. states: some of `Queued.state`; empty for all."""
        ...

    def retry(
        self, now: datetime, *, delivery_id: str | None = None, target: str | None = None
    ) -> list[Queued]:
        """Make what is dead, or waits after a failure, due at once; return it. Its targets are
        enabled again. delivery_id: of one, or the beginning of it.
        """
        ...

    def disable(self, one: Disabled) -> None:
        """Note that a target is gone, and give up all that waits for it."""
        ...

    def enable(self, target: str) -> None:
        """Forget that a target was gone."""
        ...

    def disabled(self) -> list[Disabled]:
        """By name of the target."""
        ...

    def prune_deliveries(self, before: datetime, *, limit: int = 500) -> int:
        """Delete some of the settled ones made before, and of those nobody took for as long."""
        ...


class Decisions(Protocol):
    """What plugins decided, and why. Times are UTC; `since` is inclusive."""

    def record(self, decision: Decision) -> None:
        """Keep it; when this returns, it survives the end of the process. A known id is left
        alone.
        """
        ...

    def decisions(
        self,
        plugin: str | None = None,
        stream: str | None = None,
        since: datetime | None = None,
        *,
        newest: int | None = None,
    ) -> list[Decision]:
        """Oldest first, those of one moment as they were recorded. newest: only the last so many."""
        ...

    def prune_decisions(self, before: datetime, *, limit: int = 500) -> int:
        """Delete at most `limit` of the oldest made before; return how many."""
        ...


class Questions(Protocol):
    """What the writer shall be asked, and what it answered. Times are UTC.

    Questions that follow from segments are written by `SegmentStore.add`, with them, and go when
    their segments go.
    """

    def ask(self, question: Question, *, again: bool = False) -> Asked | None:
        """Ask as soon as possible, anew when it was given up; how the question stands then. None:
        there is no such segment. An answered one is left alone unless it shall be asked `again`;
        its answer then stays until there is another.
        """
        ...

    def question(self, segment_id: str) -> Asked | None:
        """About this segment; None when nothing was asked."""
        ...

    def questions(
        self,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        states: Sequence[str] = (),
        differing: bool = False,
        limit: int | None = None,
    ) -> list[Asked]:
        """Those asked within [since, until), the newest first.

        states: some of `Asked.state`, empty for all. differing: answers that differ only.
        """
        ...

    def opinions(self, segment_ids: Iterable[str]) -> dict[str, Asked]:
        """What was asked about these segments, by segment."""
        ...

    def question_due(self, instance: str, now: datetime, *, segment: str | None = None) -> bool:
        """Whether something waits to be asked, the budget aside. segment: about this one."""
        ...

    def claim_question(
        self,
        instance: str,
        by: str,
        now: datetime,
        *,
        seconds: float,
        per_hour: int,
        segment: str | None = None,
    ) -> Asked | None:
        """The most urgent question that is due and that nobody else asks; nobody else gets it for
        so long. Counts as asked; None also when `per_hour` have been asked in the last hour, or
        all but those that `vqmon.cascade.for_machines` keeps for questions on demand.
        """
        ...

    def answer(self, one: Asked, by: str, opinion: Opinion, disagreement: Disagreement) -> bool:
        """Keep what the writer said; False, and nothing is kept, when the claim is no longer of
        this claimant.
        """
        ...

    def put_off(self, one: Asked, by: str, reason: str, *, due_at: datetime | None) -> bool:
        """There is no answer: it is due again then, or given up (None) for this reason. False as
        in `answer`.
        """
        ...

    def hold_up(self, instance: str, reason: str) -> None:
        """Nothing can be asked at present; all that wait say why."""
        ...

    def release_questions(self, instance: str) -> None:
        """Give up the claims of someone who is known to ask nothing any more; the attempts that
        were cut off do not count.
        """
        ...

    def claimed_questions(self, instance: str) -> list[Asked]:
        """Those that somebody claims."""
        ...

    def last_asked(self, instance: str, cause: str) -> dict[str, datetime]:
        """When a question of this cause was last asked, by stream."""
        ...

    def budget_used(self, instance: str, now: datetime) -> int:
        """How often the writer was asked in the hour before now."""
        ...

    def expire_questions(self, now: datetime) -> int:
        """Give up those that were not asked in time, of all instances; return how many."""
        ...

    def prune_askings(self, before: datetime) -> int:
        """Forget how often was asked before; the budget needs an hour."""
        ...


class ActingStore(SegmentStore, AlertStore, Outbox, Questions, Protocol):
    """Segments, alerts, what tells of them and what is asked about them, in one database."""


class AskingStore(SegmentStore, Questions, Protocol):
    """Segments and what is asked about them, in one database."""


class ReportStore(SegmentStore, AlertStore, Decisions, Questions, Protocol):
    """What happened, what was done about it and what was said of it, in one database."""


class PluginContext(Protocol):
    """What vqmon gives a plugin. All of it may be used from any thread of the plugin.

    Methods raise VqmonError (its text is for people) when the database, the scoring process or
    the disk is away.
    """

    @property
    def plugin(self) -> str:
        """The plugin's name, as in the configuration."""
        ...

    @property
    def data_dir(self) -> Path:
        """A folder of the plugin's own; it exists, and nobody else writes or tidies it."""
        ...

    def segments(
        self, stream: str | None, since: datetime | None = None, until: datetime | None = None
    ) -> list[Segment]:
        """Stored segments, oldest first; of all streams with None. `until` is exclusive."""
        ...

    def segment(self, segment_id: str) -> Segment | None:
        """One stored segment, None when it is unknown or no longer kept."""
        ...

    def frames(self, segment: Segment) -> list[Path]:
        """The evidence pictures (JPEG) of a segment that are still there, absolute paths."""
        ...

    def clip(self, segment: Segment) -> Path | None:
        """The segment as media: a Matroska file in `data_dir`, as received, which the plugin
        deletes. It begins at the keyframe before the segment. None when the packets are not kept
        (`packet_ring` of the stream) or no longer there.
        """
        ...

    def compare(
        self,
        a: Segment | Sequence[Assessment],
        b: Segment | Sequence[Assessment],
        *,
        same_content: bool = False,
    ) -> Comparison:
        """Which is better, from their scores. same_content: as in `Scorer.compare`.

        Raises ScorerError when one side has no score, or both were scored by different models.
        """
        ...

    def score(self, path: Path, *, every: float = 1.0) -> list[Assessment]:
        """What the model says of the pictures of a video or picture file, one every so many
        seconds. Takes its time. Raises VqmonError when the file cannot be scored.
        """
        ...

    def record(self, decision: Decision) -> None:
        """Keep a decision of this plugin; once this returns it survives everything. Record first,
        then act: a plugin that is started again knows from its decisions what it has done.
        """
        ...

    def decisions(self, stream: str | None = None, since: datetime | None = None) -> list[Decision]:
        """The decisions of this plugin, oldest first."""
        ...

    def notify(
        self,
        target: str,
        payload: Mapping[str, Any],
        *,
        event_id: str | None = None,
        stream: str | None = None,
        within: float | None = None,
    ) -> str:
        """Send JSON to a target of `notifiers:`, signed and tried again until it is delivered;
        return the id of the event, which the receiver sees as `webhook-id`.

        event_id: an id of the plugin's own, at most 64 characters; the same one is sent once,
        however often it is given, and tried anew when it had been given up. stream: what it is
        about; what a plugin sends about one stream reaches a target in order. within: seconds
        after which it is not worth sending any more; None tries for as long as the outbox does.
        Raises VqmonError when there is no such target.
        """
        ...

    def delivery(self, target: str, event_id: str) -> Queued | None:
        """How a message stands that `notify` sent: its `state` is waiting, delivered or dead
        (given up; `error` says why). None when it is unknown or no longer kept.
        """
        ...


class Plugin:
    """Acts on what was seen. Override what you need; every method may be left as it is.

    A plugin runs in a process of its own. Its methods are called one after the other, never at
    the same time, each within a time limit (`timeout:` of the plugin); one that raises, takes
    longer or grows beyond `memory:` ends the process, which is then started again. A call is made
    once: what it should have led to is found again through `context`.
    """

    Settings: ClassVar[type[BaseModel] | None] = None
    """A pydantic model of the plugin's settings; None takes no settings."""

    def __init__(self, context: PluginContext, settings: Any) -> None:
        """settings: an instance of `Settings`, None where there is no such model."""
        self.context = context
        self.settings = settings

    def segment_closed(self, segment: Segment) -> None:
        """A segment is finished and stored, with or without a score. Of every stream."""

    def alert_opened(self, alert: Alert) -> None:
        """An alert begins to fire."""

    def alert_closed(self, alert: Alert) -> None:
        """An alert is resolved."""

    def stopping(self) -> None:
        """The daemon ends, or the plugin is given other settings. There are two seconds."""
