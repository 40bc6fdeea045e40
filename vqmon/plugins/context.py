"""What a plugin's process gives to the plugin: the database, pictures, packets and the model.

The process opens the database itself. Reading elsewhere would make the supervisor a server, and
writing through it would need an answer before `record` may return: a plugin must know that a
decision is kept before it acts on it. Decisions and messages are single short transactions; only
segments have a single writer.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqmon.deciding import (
    Judged,
    checked_event_id,
    checked_payload,
    compared,
    no_such_target,
    owned,
)
from vqmon.domain import Assessment, Comparison, Decision, Delivery, Queued, Segment
from vqmon.errors import ScorerError, StoreError, VqmonError
from vqmon.plugins.finding import Found
from vqmon.ports import Scorer

if TYPE_CHECKING:
    from vqmon.store import SqlStore

log = logging.getLogger("vqmon.plugins")

SCORE_SECONDS = 30.0
"""How long one picture may wait for the scoring process, which watches streams besides."""

CLIP_SECONDS = 3.0
"""How long a clip waits for the last packets of its segment to reach the disk."""


@dataclass(frozen=True, slots=True)
class PluginPlan:
    """What a plugin's process is told when it starts; another plan is another process.

    settings: as in the file, without vqmon's own. folder: of the configuration. data_dir: the
    plugin's own. scoring: the socket of the scoring process.
    """

    found: Found
    settings: Mapping[str, Any]
    folder: Path
    memory: int
    timeout: float
    database: str
    data_dir: Path
    evidence: Path
    packets: Path
    scoring: Path
    log_level: int = logging.INFO

    @property
    def name(self) -> str:
        return self.found.name


class Context:
    """`vqmon.ports.PluginContext` in the plugin's process."""

    def __init__(self, plan: PluginPlan, targets: Sequence[str] = ()) -> None:
        self.targets = tuple(targets)
        """Names under `notifiers:`; they may change while the plugin runs."""
        self._plan = plan
        self._opening = threading.Lock()
        self._opened: SqlStore | None = None
        self._linked: Scorer | None = None

    @property
    def plugin(self) -> str:
        return self._plan.name

    @property
    def data_dir(self) -> Path:
        self._plan.data_dir.mkdir(parents=True, exist_ok=True)
        return self._plan.data_dir

    def segments(
        self, stream: str | None, since: datetime | None = None, until: datetime | None = None
    ) -> list[Segment]:
        return self._store.segments(stream, since, until)

    def segment(self, segment_id: str) -> Segment | None:
        return self._store.segment(segment_id)

    def frames(self, segment: Segment) -> list[Path]:
        paths = [self._plan.evidence / path for path in segment.evidence]
        return [path for path in paths if path.is_file()]

    def clip(self, segment: Segment) -> Path | None:
        from vqmon.evidence import PacketRing, folder_name

        ring = PacketRing(self._plan.packets / folder_name(segment.stream))
        path = self.data_dir / f"{segment.id}-{uuid.uuid4().hex[:8]}.mkv"
        begin = segment.started_at.timestamp()
        end = begin + segment.seconds
        deadline = time.monotonic() + CLIP_SECONDS
        while ring.files() and ring.newest() < end and time.monotonic() < deadline:
            time.sleep(0.2)
        try:
            return path if ring.cut(path, begin, end) else None
        except OSError as error:
            raise VqmonError(str(error)) from error

    def compare(self, a: Judged, b: Judged, *, same_content: bool = False) -> Comparison:
        return compared(self._scorer, a, b, same_content=same_content)

    def score(self, path: Path, *, every: float = 1.0) -> list[Assessment]:
        from vqmon.files import score_file
        from vqmon.scorers.recording import Recording

        recording = Recording(self._scorer)
        result = score_file(str(path), recording, sample_every=every)
        if not result.scored:
            raise ScorerError(f"{path} cannot be scored: {result.message}")
        return recording.said

    def record(self, decision: Decision) -> None:
        self._store.record(owned(decision, self.plugin))

    def decisions(self, stream: str | None = None, since: datetime | None = None) -> list[Decision]:
        return self._store.decisions(self.plugin, stream, since)

    def notify(
        self,
        target: str,
        payload: Mapping[str, Any],
        *,
        event_id: str | None = None,
        stream: str | None = None,
        within: float | None = None,
    ) -> str:
        if target not in self.targets:
            raise no_such_target(target, self.targets)
        now = datetime.now(UTC)
        delivery = Delivery(
            id=checked_event_id(event_id or uuid.uuid4().hex),
            target=target,
            kind="plugin",
            body=checked_payload(payload),
            created_at=now,
            stream=stream,
            topic=f"plugin {self.plugin} {stream or ''}".rstrip(),
            expires_at=None if within is None else now + timedelta(seconds=within),
        )
        self._store.enqueue([delivery])
        if event_id is not None:
            self._store.renew(delivery)
        return delivery.id

    def delivery(self, target: str, event_id: str) -> Queued | None:
        return self._store.standing(event_id, target)

    def close(self) -> None:
        """Give the database back."""
        if self._opened:
            with suppress(StoreError):
                self._opened.close()

    @property
    def _store(self) -> SqlStore:
        from vqmon.store import open_store

        with self._opening:
            if self._opened is None:
                self._opened = open_store(self._plan.database, migrate=False)
            return self._opened

    @property
    def _scorer(self) -> Scorer:
        from vqmon.scorers.shared import SharedScorer

        with self._opening:
            if self._linked is None:
                self._linked = SharedScorer(self._plan.scoring, deadline=SCORE_SECONDS)
            return self._linked
