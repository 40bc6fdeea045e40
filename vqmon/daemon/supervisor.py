"""The loop that everything in the daemon is told to, and that tells everything what to do.

    ingest processes ─▶ inbox ─▶ supervisor ─▶ journal ─▶ writer thread ─▶ database
    scoring process  ─▶   ▲
    calendar, signals ────┘

Each process's pipe is read by a thread of its own. Nothing in the loop waits: not for a process,
not for the database, not for a disk.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vqmon.alerting.own import Trouble
from vqmon.asking import plan_of
from vqmon.config import changed_streams, restart_needed
from vqmon.daemon.alerts import LOOK_SECONDS, Alerts
from vqmon.daemon.asking import Asking
from vqmon.daemon.containment import contained
from vqmon.daemon.delivering import Delivering, DeliveryPlan
from vqmon.daemon.housekeeping import Housekeeping, Storage
from vqmon.daemon.ingest import IngestPlan
from vqmon.daemon.journal import Journal, Writer
from vqmon.daemon.listening import STARTING, STOPPING, Site
from vqmon.daemon.messages import Alive, Failed, Gone, Said, Sent, Troubled
from vqmon.daemon.plugins import Plugins
from vqmon.daemon.processes import Inbox
from vqmon.daemon.reloading import ConfigurationFile
from vqmon.daemon.roster import Roster
from vqmon.daemon.scoring import Scoring, ScoringPlan
from vqmon.daemon.systemd import ServiceManager
from vqmon.daemon.visits import Calendar, Visit, VisitQueue
from vqmon.daemon.watches import pictures_of
from vqmon.domain import AlertEvent, Segment, Stream
from vqmon.errors import AlreadyRunning, ScorerError, StoreError
from vqmon.metrics import Metrics, Now, Timed
from vqmon.settings import Settings
from vqmon.store import InstanceLock, SqlStore

log = logging.getLogger("vqmon.daemon")

TURN_SECONDS = 0.5
READY_SECONDS = 60.0
"""Ready is said after so long even if a process is slow to begin."""

FINISH_SECONDS = 4.5
STORE_SECONDS = 2.0
SUPERSEDED = (
    "another vqmon has taken over this database and instance, so this one has stopped: leave the "
    "lock file beside the database alone, and give each daemon an `instance` name of its own"
)
LONGEST_FOLDER = 50
BACKLOG_SECONDS = 10.0
"""How often the messages that wait are counted."""

STANDSTILL_SECONDS = 5.0
"""A turn that took longer was interrupted: a paused machine, a debugger, swapping."""

WRITER_SILENT_SECONDS = 120.0
"""A writer that hangs for so long is a reason for the service manager to start anew."""


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal to the daemon."""

    number: int


@dataclass(frozen=True, slots=True)
class Due:
    """The calendar says that a visit is due, or that it was missed."""

    visit: Visit
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Happened:
    """Alerts were opened or resolved, or are told again; it is stored."""

    events: tuple[AlertEvent, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """These segments are in the database now."""

    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Reread:
    """The configuration was read again; None when it cannot be used."""

    settings: Settings | None


@dataclass(frozen=True, slots=True)
class Superseded:
    """Another daemon holds the lock."""


class Supervisor:
    """One run of the daemon, from the first process to the last row."""

    def __init__(
        self,
        settings: Settings,
        store: SqlStore,
        lock: InstanceLock,
        journal: Journal,
        *,
        site: Site,
        config_path: Path | None = None,
        data_dir: Path | None = None,
        duration: float | None = None,
        on_segment: Callable[[Segment], None] | None = None,
        on_event: Callable[[AlertEvent], None] | None = None,
    ) -> None:
        self._settings = self._fixed = settings
        self._store = store
        self._site = site
        self.metrics = Metrics(settings)
        self._file = ConfigurationFile(config_path, settings, data_dir)
        self._inbox: Inbox = queue.SimpleQueue()
        self._manager = ServiceManager()
        self._on_segment = on_segment
        self._on_event = on_event
        scheduled = any(it.schedule for it in settings.streams.values())
        self._foreseeable = config_path is None and not scheduled
        self._end_at = time.monotonic() + duration if duration else float("inf")
        self._stop = self._is_ready = self._asked_to_stop = False
        self._reading = self._to_read_again = False
        self._failure: Exception | None = None
        self._storage = Storage()
        self._told = ""
        self._watchdog_at = 0.0
        self._house = Housekeeping(settings, store, self._post)
        self._journal = journal
        self._alerts = Alerts(store, settings, lambda some: self._post(Happened(tuple(some))))
        self._writer = Writer(
            Timed(self._alerts, self.metrics),
            self._journal,
            still_active=lambda: _still_active(lock),
            superseded=lambda: self._post(Superseded()),
            stored=lambda some: self._post(Stored(tuple(some))),
        )
        self._stack = ExitStack()
        folder = _socket_folder(settings, self._stack)
        scorer, address = settings.scorer, folder / f"scoring-{settings.instance[:20]}.sock"
        level = logging.getLogger("vqmon").getEffectiveLevel()
        plan = ScoringPlan(scorer.model, scorer.device, scorer.threads, address, level)
        self._scoring = Scoring(plan, self._inbox, self.metrics.scored)
        self._delivering = Delivering(
            DeliveryPlan(settings.database, settings.instance, tuple(settings.targets()), level),
            self._inbox,
        )
        self._asking = Asking(plan_of(settings), settings.database, level, self._inbox)
        self._writer_trouble = ""
        self._plugins = Plugins(store, address, level)
        self._parked: frozenset[str] = frozenset()
        visits = settings.schedule
        self._visits = VisitQueue(visits.max_concurrent_visits, visits.misfire_grace)
        self._roster = Roster(
            settings.ingest,
            IngestPlan(
                settings.evidence_dir,
                settings.packets_dir,
                address,
                settings.ingest.burst_cpu,
                level,
                uncertain=_uncertain(settings),
            ),
            self._inbox,
            keep=self._keep,
            visit_over=self._visits.over,
            counted=self.metrics.counted,
            interrupted=self.metrics.interrupted,
        )
        self._calendar = Calendar(
            due=lambda visit: self._post(Due(visit)),
            missed=lambda visit: self._post(Due(visit, missed=True)),
            grace=visits.misfire_grace,
        )

    def run(self) -> int:
        """Watch until a signal, the end of the duration or a failure.

        Returns the exit code 0. Raises ScorerError when the model cannot be loaded at the
        start, and AlreadyRunning when another daemon has taken over.
        """
        with self._signals():
            try:
                self._begin()
                while not self._ending():
                    self._turn(TURN_SECONDS)
            finally:
                self._finish()
        if self._failure:
            raise self._failure
        return 0

    # -- the loop

    def _begin(self) -> None:
        self._begun = time.monotonic()
        self._writer.start()
        self._scoring.look(self._begun)
        self._watch(list(self._settings.streams))
        with contained("start plugins"):
            self._plugins.take(self._settings)
        self._house.tidy_packets(self._settings)
        self._house.enter_into(self._calendar)
        self._calendar.every(LOOK_SECONDS, self._look_at_alerts, first=LOOK_SECONDS)
        self._calendar.every(BACKLOG_SECONDS, self._count_backlog, first=0.0)
        self._calendar.start()

    def _turn(self, patience: float) -> None:
        """Wait for something to happen, react to all that did, then look around."""
        until = time.monotonic() + patience
        while (left := until - time.monotonic()) > 0 and not self._stop:
            try:
                who, what = self._inbox.get(timeout=left)
            except queue.Empty:
                break
            with contained("react to message", type(what).__name__):
                self._react(who, what)
        clock = time.monotonic()
        if clock - until > STANDSTILL_SECONDS:
            log.warning("supervisor_stood_still", extra={"seconds": round(clock - until, 1)})
            self._roster.excuse(clock)
            self._scoring.excuse(clock)
            self._delivering.excuse(clock)
            self._asking.excuse(clock)
        self._scoring.look(clock)
        self._delivering.look(clock)
        self._asking.look(clock)
        self._look_at_writer()
        self._look_at_plugins()
        self._roster.look(clock)
        self._begin_visits()
        if not self._reading and self._file.changed(clock):
            self._reload()
        self._tell_manager(clock)
        with contained("say how vqmon stands"):
            self._tell_site(clock)

    def _react(self, who: object, what: Any) -> None:
        match what:
            case Signalled(number=signal.SIGHUP):
                self._reload()
            case Signalled():
                log.info("stopping", extra={"signal": signal.Signals(what.number).name})
                self._stop = True
            case Due():
                self._due(what)
            case Reread():
                self._reread(what.settings)
            case Stored():
                self._plugins.stored(what.segments)
            case Happened():
                self._happened(what.events)
            case Storage():
                self._room(what)
            case Superseded():
                self._give_up(AlreadyRunning(SUPERSEDED))
            case Failed():
                self._scoring_failed(what.text)
            case Gone() if self._scoring.owns(who):
                self._scoring.gone(time.monotonic())
            case Alive() if self._delivering.owns(who):
                self._delivering.alive(time.monotonic())
            case Sent() if self._delivering.owns(who):
                self.metrics.sent(who, what.counts)
            case Gone() if self._delivering.owns(who):
                self._delivering.gone(time.monotonic())
            case Alive() if self._asking.owns(who):
                self._asking.alive(time.monotonic())
            case Troubled() if self._asking.owns(who):
                self._asking.troubled(what.text)
            case Gone() if self._asking.owns(who):
                self._asking.gone(time.monotonic())
            case _:
                if isinstance(what, Said):
                    _log_again(what.record)
                self._roster.heard(who, what)

    def _ending(self) -> bool:
        if self._foreseeable and self._roster.all_ended:
            log.info("all_streams_ended")
            return True
        return self._stop or time.monotonic() >= self._end_at

    def _give_up(self, error: Exception) -> None:
        self._failure, self._stop = error, True

    # -- rows

    def _keep(self, segment: Segment) -> None:
        """Every row goes this way, in the order in which it was finished."""
        segment = self._storage.told(segment)
        self._journal.append(segment)
        self.metrics.add(segment)
        if self._on_segment:
            with contained("tell about segment", segment.stream):
                self._on_segment(segment)

    def _happened(self, events: Sequence[AlertEvent]) -> None:
        self._plugins.happened(events)
        for event in events:
            if self._on_event:
                with contained("tell about alert", event.alert.stream):
                    self._on_event(event)

    def _look_at_plugins(self) -> None:
        """One that was parked, or runs again, is worth an alert."""
        parked = self._plugins.parked
        for name in sorted(parked ^ self._parked):
            self._alerts.about_us(_about_plugin(name, parked=name in parked))
        self._parked = parked

    def _look_at_writer(self) -> None:
        """That it cannot be asked is worth an alert; the segments themselves are watched."""
        trouble = self._asking.trouble
        if bool(trouble) != bool(self._writer_trouble):
            self._alerts.about_us(_about_writer(trouble))
        self._writer_trouble = trouble

    def _look_at_alerts(self) -> None:
        """In the calendar's thread; while the database is away the writer says so."""
        with suppress(StoreError):
            self._alerts.look()

    def _count_backlog(self) -> None:
        """In the calendar's thread."""
        try:
            self.metrics.backlog(self._store.backlog())
        except StoreError:
            self.metrics.backlog(None)

    # -- streams and visits

    def _watch(self, names: list[str]) -> None:
        """Begin with these streams: all the time, or when the calendar says."""
        settings = self._settings
        always = []
        for name in names:
            stream = settings.stream(name)
            if stream.schedule:
                self._calendar.visit(name, stream.schedule)
            else:
                always.append(
                    (stream, pictures_of(settings.streams[name], settings.rules_of(name).values()))
                )
        self._roster.watch(always)

    def _unwatch(self, names: Iterable[str]) -> None:
        for name in names:
            self._calendar.forget(name)
            self._visits.forget(name)
            self._roster.leave(name)

    def _due(self, due: Due) -> None:
        stream = self._scheduled(due.visit.name)
        if stream is None:
            return
        if due.missed:
            self._roster.missed(due.visit, stream)
        else:
            self._visits.due(due.visit)

    def _begin_visits(self) -> None:
        now = datetime.now(UTC)
        for visit in self._visits.missed(now):
            if stream := self._scheduled(visit.name):
                self._roster.missed(visit, stream)
        for visit in self._visits.begin():
            if stream := self._scheduled(visit.name):
                rules = self._settings.rules_of(visit.name).values()
                pictures = pictures_of(self._settings.streams[visit.name], rules)
                self._roster.visit(visit, stream, pictures)

    def _scheduled(self, name: str) -> Stream | None:
        """The stream, if it is (still) one that is visited."""
        if name not in self._settings.streams:
            return None
        stream = self._settings.stream(name)
        return stream if stream.schedule else None

    # -- the configuration

    def _reload(self) -> None:
        """Read the file in another thread: plugins that check their settings take their time."""
        if self._reading:
            self._to_read_again = True
            return
        self._reading = True
        self._manager.reloading()
        threading.Thread(target=self._read, name="reads configuration", daemon=True).start()

    def _read(self) -> None:
        new = None
        with contained("read configuration"):
            new = self._file.read()
        self._post(Reread(new))

    def _reread(self, new: Settings | None) -> None:
        self._reading = False
        self._alerts.about_us(_about_file(self._file.refused))
        if new is not None or self._file.refused:
            self.metrics.reloaded(good=new is not None)
        if new is not None:
            self._take(new)
        self._told = ""
        self._manager.say("READY=1")
        if self._to_read_again:
            self._to_read_again = False
            self._reload()

    def _take(self, new: Settings) -> None:
        """Restart what changed; all other streams go on undisturbed."""
        old, changes = self._settings, changed_streams(self._settings, new)
        for section in restart_needed(old, new):
            log.warning("restart_needed", extra={"section": section})
        self._settings = new
        self._alerts.configure(new)
        self.metrics.configure(new)
        moved = [n for n in changes.changed if old.streams[n].schedule or new.streams[n].schedule]
        self._unwatch([*changes.removed, *moved])
        self._watch([*changes.added, *changes.changed])
        if not any(it.schedule for it in new.streams.values()):
            self._roster.expect_no_visits()
        self._delivering.take(tuple(new.targets()))
        self._asking.take(plan_of(new))
        with contained("start plugins"):
            self._plugins.take(new)
        self._house.keep(new.retention)
        self._house.tidy_packets(new)
        log.info("reloaded", extra={name: list(getattr(changes, name)) for name in _CHANGES})

    def _room(self, storage: Storage) -> None:
        """How much room the disk has now."""
        if storage.evidence != self._storage.evidence:
            self._roster.allow(evidence=storage.evidence)
        self._journal.frozen = self._writer.paused = not storage.rows
        if (storage.finding is None) != (self._storage.finding is None):
            self._alerts.about_us(_about_disk(storage))
        self._storage = storage

    # -- scoring, the service manager, signals

    def _scoring_failed(self, text: str) -> None:
        log.error("scoring_failed", extra={"error": text})
        if not self._scoring.model:
            self._give_up(ScorerError(text))

    def _tell_manager(self, clock: float) -> None:
        if not self._is_ready and self._everything_runs(clock):
            self._is_ready = True
            self._manager.say("READY=1")
            log.info("vqmon_ready", extra=self._about())
        status = self._status()
        if status != self._told:
            self._told = status
            self._manager.say(f"STATUS={status}")
        period = self._manager.watchdog_seconds
        alive = clock - self._writer.beat < WRITER_SILENT_SECONDS
        if period and alive and clock >= self._watchdog_at:
            self._watchdog_at = clock + period
            self._manager.say("WATCHDOG=1")

    def _tell_site(self, clock: float) -> None:
        self.metrics.stands(self._now())
        self._site.say(*self._unready(clock))
        self._site.turned()

    def _unready(self, clock: float) -> Iterator[str]:
        """Why vqmon is not ready. How its streams are does not count."""
        if not self._is_ready:
            yield STARTING
        if self._writer.away:
            yield "The database does not take segments; they wait."
        elif clock - self._writer.beat > WRITER_SILENT_SECONDS:
            yield "The database does not answer."
        if not self._scoring.here:
            yield "The scoring process does not answer."

    def _now(self) -> Now:
        return Now(
            states=self._roster.states(),
            alerts=self._alerts.active(),
            plugins=self._plugins.standings(),
            scorer=self._scoring.here,
            writer=self._asking.asks,
            model=self._scoring.model,
            database=not self._writer.away,
            queue_bytes=self._journal.waiting_bytes,
            lost=self._journal.lost,
            restarts={
                "ingest": self._roster.replaced,
                "scoring": self._scoring.ended,
                "delivery": self._delivering.ended,
                "writer": self._asking.ended,
            },
            resident=self._roster.resident_bytes(),
        )

    def _everything_runs(self, clock: float) -> bool:
        runs = self._roster.ready and self._scoring.answers
        return runs or clock - self._begun > READY_SECONDS

    def _status(self) -> str:
        """For `systemctl status`: ``42 up, 1 down``."""
        counts = self._roster.counts()
        parts = [f"{counts[it]} {it}" for it in ("up", "down")]
        parts += [f"{counts[it]} {it}" for it in ("connecting", "ended") if counts[it]]
        return ", ".join(parts + ["database away"] * self._writer.away)

    def _about(self) -> dict[str, Any]:
        settings = self._fixed
        scheduled = sum(it.schedule is not None for it in settings.streams.values())
        return {
            "instance": settings.instance,
            "database": self._store.name,
            "evidence": str(settings.evidence_dir),
            "http": self._site.url or "off",
            "streams": len(settings.streams),
            "visited": scheduled,
            "model": self._scoring.model,
        }

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop, a second one at once; SIGHUP reloads."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._asked_to_stop and number != signal.SIGHUP:
            os._exit(128 + number)  # processes and bridges die with us
        self._asked_to_stop = number != signal.SIGHUP
        self._post(Signalled(number))

    def _post(self, message: object) -> None:
        self._inbox.put((None, message))

    # -- the end

    def _finish(self) -> None:
        """In order, and within ten seconds: streams, plugins, scoring, rows, deliveries."""
        self._manager.say("STOPPING=1", "STATUS=stopping")
        self._site.say(STOPPING)
        for step in (
            self._calendar.stop,
            self._leave_streams,
            self._plugins.finish,
            self._roster.close,
            self._scoring.stop,
            self._stack.close,
            self._delivering.finish,
            self._asking.finish,
            self._store_rest,
            self._delivering.stop,
            self._asking.stop,
            self._plugins.join,
        ):
            with contained("stop", step.__qualname__):
                step()
        log.info("vqmon_stopped")

    def _leave_streams(self) -> None:
        """Take what the streams still give."""
        self._roster.finish(FINISH_SECONDS)
        until = time.monotonic() + FINISH_SECONDS + 1.0
        while not self._roster.finished and time.monotonic() < until:
            with suppress(queue.Empty):
                who, what = self._inbox.get(timeout=0.1)
                with contained("react to message", type(what).__name__):
                    self._react(who, what)

    def _store_rest(self) -> None:
        if self._writer.is_alive() and not self._writer.stop(STORE_SECONDS):
            kept = {"file": str(self._journal.path)}
            log.warning("rows_wait_for_the_next_start", extra=kept)


_CHANGES = ("added", "removed", "changed")


def _about_file(refused: str) -> Trouble:
    """The configuration file was read again."""
    if not refused:
        return Trouble("configuration", "configuration", "warning", False, "The file is good.")
    first, *others = refused.splitlines()
    more = f" (and {len(others)} more)" if others else ""
    sentence = f"The configuration has mistakes, so the old one stays: {first}{more}"
    return Trouble("configuration", "configuration", "warning", True, sentence)


def _about_plugin(name: str, *, parked: bool) -> Trouble:
    """A plugin failed again and again, or is tried once more."""
    sentence = (
        f"The plugin {name} failed again and again and is parked; `vqmon plugins` says why."
        if parked
        else f"The plugin {name} is no longer parked."
    )
    return Trouble(f"plugin {name}", "plugin_parked", "warning", parked, sentence)


def _uncertain(settings: Settings) -> float | None:
    """Points from which segments need pictures for the writer; None when it does not ask."""
    policy = settings.writer.policy(settings.instance)
    return policy.uncertainty if policy and "low_confidence" in policy.causes else None


def _about_writer(trouble: str) -> Trouble:
    """The large model cannot be asked, or can be asked again."""
    sentence = trouble or "The writer can be asked again."
    return Trouble("writer", "writer_away", "warning", bool(trouble), sentence)


def _about_disk(storage: Storage) -> Trouble:
    """The disk got full, or has room again."""
    found = storage.finding
    if found is None:
        return Trouble("storage", "storage_low", "critical", False, "There is room again.")
    stopped = "pictures" if storage.rows else "pictures and rows"
    sentence = (
        f"The disk is nearly full ({found.value:.3g} {found.unit}, limit {found.limit:.3g} {found.unit}): "
        f"no {stopped} are written."
    )
    return Trouble("storage", "storage_low", "critical", True, sentence)


def _still_active(lock: InstanceLock) -> bool:
    """Whether this is the active daemon, if need be again. Raises StoreError."""
    if lock.held():
        return True
    lock.release()
    try:
        return lock.acquire()
    except AlreadyRunning:
        return False


def _socket_folder(settings: Settings, stack: ExitStack) -> Path:
    """Where the scoring process listens: a socket's path has at most some 100 bytes."""
    if len(os.fsencode(settings.data_dir)) < LONGEST_FOLDER:
        return settings.data_dir
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vqmon-")))


def _log_again(record: logging.LogRecord) -> None:
    """A line of a child, as if said here."""
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
