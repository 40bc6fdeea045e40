"""What the daemon knows in numbers, in Prometheus' formats; the only file that knows its library.

    supervisor, its threads ─▶ Metrics ─▶ one registry ─▶ Exposition: text or OpenMetrics

Nothing is measured here: the daemon hands in what it knows anyway, and reading costs it nothing.
`FAMILIES` is every name with its kind, labels and meaning; `docs/reference.md` lists the same.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from vqmon import __version__
from vqmon.daemon.counting import Counts
from vqmon.daemon.journal import Keeper
from vqmon.domain import (
    ALERT_SEVERITIES,
    DEGRADATIONS,
    DOWN_REASONS,
    FAULTS,
    SELF_FAULTS,
    Segment,
)
from vqmon.settings import Settings, StreamSettings
from vqmon.summing import NOT_UP

TROUBLES = FAULTS + SELF_FAULTS
RECONNECT_REASONS = (*DOWN_REASONS, "process_restarted")
OUTCOMES = ("delivered", "failed", "given_up")
PROCESSES = ("ingest", "scoring", "delivery", "writer")
FRESH_SEGMENTS = 3.0
"""A score is fresh for so many segment lengths after it came, or, for a stream that is visited,
for two periods."""

FRESH_PERIODS = 2.0
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
WRITE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LIVES_REMEMBERED = 4

Kind = type[GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily | InfoMetricFamily]
GAUGE, COUNTER, HISTOGRAM, INFO = (
    GaugeMetricFamily,
    CounterMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. name: as it is scraped, `_total` and `_info` included."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str

    def empty(self) -> Any:
        plain = self.name.removesuffix("_info") if self.kind is INFO else self.name
        return self.kind(plain, self.text, labels=self._own_labels())

    def _own_labels(self) -> tuple[str, ...]:
        """Of an info only the stream tells samples apart; its other labels are what it says."""
        apart = ("stream",) if "stream" in self.labels else ()
        return apart if self.kind is INFO else self.labels


FAMILIES = (
    Family("vqmon_build_info", INFO, ("version",), "This vqmon."),
    Family("vqmon_stream_up", GAUGE, ("stream",), "1 while media arrives, else 0; between visits as in the last one."),
    Family("vqmon_stream_info", INFO, ("stream", "codec", "width", "height"), "What the stream says of itself, as it was last seen."),
    Family("vqmon_stream_quality_score", GAUGE, ("stream",), "Quality of the newest segment, 0 to 100; absent without a fresh score."),
    Family("vqmon_stream_degradation", GAUGE, ("stream", "type"), "Severity of a degradation in the newest segment, 1 to 5, 0 when it is not there; absent without a fresh score."),
    Family("vqmon_stream_fault_active", GAUGE, ("stream", "type"), "1 when the newest segment has the fault, else 0; absent when there is no fresh segment."),
    Family("vqmon_stream_fault_seconds_total", COUNTER, ("stream", "type"), "Seconds with the fault."),
    Family("vqmon_stream_reconnects_total", COUNTER, ("stream", "reason"), "Connections after the first, by the reason for which the one before was lost."),
    Family("vqmon_stream_corrupt_packets_total", COUNTER, ("stream",), "Damaged packets received."),
    Family("vqmon_stream_timestamp_discontinuities_total", COUNTER, ("stream",), "Jumps of the stream's time stamps."),
    Family("vqmon_stream_bytes_total", COUNTER, ("stream",), "Bytes received, sound and data included."),
    Family("vqmon_stream_last_frame_timestamp_seconds", GAUGE, ("stream",), "When the last picture was decoded, seconds since 1970."),
    Family("vqmon_stream_visits_missed_total", COUNTER, ("stream",), "Visits of a schedule that did not take place."),
    Family("vqmon_frames_dropped_total", COUNTER, ("stage",), "Pictures left out because vqmon was behind: `decode` before decoding, `score` before scoring."),
    Family("vqmon_scorer_info", INFO, ("model",), "The model that scores."),
    Family("vqmon_scorer_up", GAUGE, (), "1 while the scoring process answers, else 0."),
    Family("vqmon_scorer_batch_size", HISTOGRAM, (), "Pictures scored at once."),
    Family("vqmon_scorer_latency_seconds", HISTOGRAM, (), "From the arrival of a picture at the scoring process to its score."),
    Family("vqmon_scorer_queue_length", GAUGE, (), "Pictures that wait to be scored; absent while the scoring process does not answer."),
    Family("vqmon_alerts_active", GAUGE, ("severity",), "Alerts that fire, those about vqmon itself included."),
    Family("vqmon_webhook_deliveries_total", COUNTER, ("target", "outcome"), "Attempts to deliver: `delivered`, `failed` (tried again later) or `given_up` (a dead letter)."),
    Family("vqmon_webhook_waiting", GAUGE, ("target",), "Messages that wait for a target."),
    Family("vqmon_webhook_dead_letters", GAUGE, ("target",), "Messages that were given up and are still kept; `vqmon webhooks retry` sends them."),
    Family("vqmon_plugin_parked", GAUGE, ("plugin",), "1 while a plugin rests because it failed again and again, else 0."),
    Family("vqmon_plugin_calls_dropped_total", COUNTER, ("plugin",), "Segments and alerts that a plugin was not told of because it was too slow."),
    Family("vqmon_writer_up", GAUGE, (), "1 while the large model can be asked, else 0; absent without one."),
    Family("vqmon_config_last_reload_successful", GAUGE, (), "1 when the configuration that was read last is in force, 0 when it has mistakes."),
    Family("vqmon_config_last_reload_success_timestamp_seconds", GAUGE, (), "When the configuration in force was read, seconds since 1970."),
    Family("vqmon_config_reload_failures_total", COUNTER, (), "Changed configurations that were refused."),
    Family("vqmon_db_up", GAUGE, (), "1 while the database takes segments, else 0."),
    Family("vqmon_db_write_seconds", HISTOGRAM, (), "Transactions that store segments and what follows from them."),
    Family("vqmon_db_write_failures_total", COUNTER, (), "Such transactions that failed; they are tried again."),
    Family("vqmon_db_queue_bytes", GAUGE, (), "Segments on disk that the database has not taken yet."),
    Family("vqmon_segments_lost_total", COUNTER, (), "Segments given up because neither database nor disk took them."),
    Family("vqmon_process_restarts_total", COUNTER, ("process",), "Processes that ended or were replaced: `ingest`, `scoring`, `delivery`, `writer`."),
    Family("vqmon_ingest_resident_memory_bytes", GAUGE, ("process",), "Memory of an ingest process."),
)  # fmt: skip
"""In the order in which they are told."""


@dataclass(frozen=True, slots=True)
class PluginNow:
    """life: tells one process of the plugin from the next, as counts begin anew with each."""

    parked: bool
    dropped: int
    life: Hashable


@dataclass(frozen=True, slots=True)
class Now:
    """How the daemon stands at this moment, as its supervisor sees it.

    states: up, down, connecting or ended, of each stream that is being watched. alerts: how many
    fire by severity, None while that is not known. scorer: whether it answers. writer: whether
    the large model can be asked, None without one. restarts: by process, since the start.
    resident: bytes by ingest process.
    """

    states: Mapping[str, str] = field(default_factory=dict)
    alerts: Mapping[str, int] | None = None
    plugins: Mapping[str, PluginNow] = field(default_factory=dict)
    scorer: bool = False
    writer: bool | None = None
    model: str = ""
    database: bool = True
    queue_bytes: int = 0
    lost: int = 0
    restarts: Mapping[str, int] = field(default_factory=dict)
    resident: Mapping[str, int] = field(default_factory=dict)


class Lives:
    """Sums that go on growing although those who count die and begin anew."""

    def __init__(self) -> None:
        self.total: Counter[Hashable] = Counter()
        self._last: dict[Hashable, Mapping[Any, float]] = {}

    def heard(self, life: Hashable, counts: Mapping[Any, float]) -> None:
        """What one life has counted since it began; late words of an earlier one count, too."""
        last = self._last.pop(life, {})
        for key, value in counts.items():
            self.total[key] += max(0, value - last.get(key, 0))  # type: ignore[assignment]  # floats
        self._last[life] = dict(counts)
        while len(self._last) > LIVES_REMEMBERED:
            del self._last[next(iter(self._last))]


class Durations:
    """A histogram of seconds."""

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class _StreamNumbers:
    """One stream: sums since the start of the daemon, and its newest segment."""

    def __init__(self, settings: StreamSettings) -> None:
        self.take(settings)
        self.faults: Counter[str] = Counter()
        self.passed = Lives()
        self.interruptions = self.visits_missed = 0
        self.last_frame_at: float | None = None
        self.format: dict[str, str] = {}
        self.row: Segment | None = None
        self.row_at = 0.0

    def take(self, settings: StreamSettings) -> None:
        """Other settings from now on; sums go on."""
        visits = settings.schedule
        self.visited = visits is not None
        self.fresh_seconds = (
            FRESH_PERIODS * visits.every if visits else FRESH_SEGMENTS * settings.segment
        )

    def add(self, row: Segment, clock: float) -> None:
        self.row, self.row_at = row, clock
        self.visits_missed += row.no_score_reason == "visit_missed"
        for finding in row.findings:
            if finding.name in TROUBLES:
                self.faults[finding.name] += finding.seconds  # type: ignore[assignment]  # floats
        if "codec" in row.facts:
            known = {name: row.facts.get(name, "") for name in ("codec", "width", "height")}
            self.format = {name: str(value) for name, value in known.items()}

    def count(self, generation: int, counts: Counts) -> None:
        reconnects = {("reconnects", reason): n for reason, n in counts.reconnects.items()}
        plain = ("bytes", "corrupt_packets", "timestamp_jumps", "late_frames")
        self.passed.heard(generation, {it: getattr(counts, it) for it in plain} | reconnects)
        if counts.last_frame_at is not None:
            self.last_frame_at = max(counts.last_frame_at, self.last_frame_at or 0.0)

    def fresh(self, clock: float) -> Segment | None:
        """The newest segment, unless it is too old to say anything about now."""
        return self.row if self.row and clock - self.row_at <= self.fresh_seconds else None

    def up(self, state: str | None, clock: float) -> bool | None:
        """None between visits when nothing is known."""
        if not self.visited or state in ("up", "down"):
            return state == "up"
        row = self.fresh(clock)
        return None if row is None else row.no_score_reason not in NOT_UP


class Metrics(Collector):
    """All numbers of one daemon. Every method may be called from any thread and returns at once."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._wall = clock, now
        self._lock = threading.Lock()
        self._streams: dict[str, _StreamNumbers] = {}
        self._targets: tuple[str, ...] = ()
        self._now = Now()
        self._gone_late = 0.0
        self._writes, self._writes_failed = Durations(WRITE_SECONDS), 0
        self._reloads_failed, self._reload_good, self._reloaded_at = 0, True, now()
        self._scorer: Mapping[str, Any] | None = None
        self._scored, self._sent, self._dropped = Lives(), Lives(), Lives()
        self._latency_bounds: tuple[float, ...] = ()
        self._backlog: Mapping[tuple[str, str], int] | None = None
        self.configure(settings)

    # -- what is told

    def configure(self, settings: Settings) -> None:
        """From now on these streams and targets; what is told of others is forgotten."""
        with self._lock:
            before, self._streams = self._streams, {}
            for name, it in settings.streams.items():
                self._streams[name] = before.get(name) or _StreamNumbers(it)
                self._streams[name].take(it)
            gone = [it for name, it in before.items() if name not in self._streams]
            self._gone_late += sum(it.passed.total["late_frames"] for it in gone)
            self._targets = tuple(settings.notifiers)

    def reloaded(self, *, good: bool) -> None:
        """The configuration was read again."""
        with self._lock:
            self._reload_good = good
            self._reloads_failed += not good
            if good:
                self._reloaded_at = self._wall()

    def add(self, row: Segment) -> None:
        """A finished segment, scored or not."""
        with self._lock:
            if stream := self._streams.get(row.stream):
                stream.add(row, self._clock())

    def counted(self, name: str, generation: int, counts: Counts) -> None:
        """What has passed of a stream since one watch of it began."""
        with self._lock:
            if stream := self._streams.get(name):
                stream.count(generation, counts)

    def interrupted(self, name: str) -> None:
        """A stream has to begin anew because its process was replaced."""
        with self._lock:
            if stream := self._streams.get(name):
                stream.interruptions += 1

    def scored(self, stats: Mapping[str, Any] | None) -> None:
        """As in `vqmon.scorers.shared.SharedScorer.stats`; None while nobody answers."""
        with self._lock:
            self._scorer = stats
            if stats is None:
                return
            self._latency_bounds = tuple(float(bound) for bound, _ in stats["latencies"])
            batches = {("batch", int(size)): n for size, n in stats["batch_sizes"].items()}
            latencies = {("latency", float(bound)): n for bound, n in stats["latencies"]}
            plain = {it: stats[it] for it in ("pictures", "expired", "latency_seconds")}
            self._scored.heard(stats["process"], plain | batches | latencies)

    def sent(self, life: Hashable, counts: Mapping[tuple[str, str], int]) -> None:
        """What became of messages, by (target, outcome), since one delivery process began."""
        with self._lock:
            self._sent.heard(life, counts)

    def backlog(self, counts: Mapping[tuple[str, str], int] | None) -> None:
        """Messages in the database by (target, state); None while it cannot be asked."""
        with self._lock:
            self._backlog = counts

    def written(self, seconds: float) -> None:
        """A transaction with segments took so long."""
        with self._lock:
            self._writes.observe(seconds)

    def not_written(self) -> None:
        """Such a transaction failed."""
        with self._lock:
            self._writes_failed += 1

    def stands(self, now: Now) -> None:
        """How everything stands; told twice a second."""
        with self._lock:
            self._now = now
            for name, plugin in now.plugins.items():
                self._dropped.heard((name, plugin.life), {name: plugin.dropped})

    # -- what is read

    def collect(self) -> Iterator[Any]:
        """All families, in order. The lock is held for one stream at a time only."""
        families = {it.name: it.empty() for it in FAMILIES}

        def add(name: str, value: float | Mapping[str, str], *labels: str) -> None:
            families[f"vqmon_{name}"].add_metric(labels, value)

        for name, stream in list(self._streams.items()):
            with self._lock:
                _tell_stream(add, name, stream, self._now.states.get(name), self._clock())
        with self._lock:
            self._tell_daemon(add)
            self._tell_delivery(add)
            self._tell_scorer(add, families)
            _tell_histogram(
                families["vqmon_db_write_seconds"],
                self._writes.bounds,
                self._writes.counts,
                self._writes.seconds,
            )
        yield from families.values()

    def _tell_daemon(self, add: Callable[..., None]) -> None:
        now = self._now
        add("build_info", {"version": __version__})
        add("config_last_reload_successful", self._reload_good)
        add("config_last_reload_success_timestamp_seconds", self._reloaded_at)
        add("config_reload_failures_total", self._reloads_failed)
        add("db_up", now.database)
        add("db_write_failures_total", self._writes_failed)
        add("db_queue_bytes", now.queue_bytes)
        add("segments_lost_total", now.lost)
        if now.writer is not None:
            add("writer_up", now.writer)
        for severity in ALERT_SEVERITIES if now.alerts is not None else ():
            add("alerts_active", (now.alerts or {}).get(severity, 0), severity)
        for name, plugin in now.plugins.items():
            add("plugin_parked", plugin.parked, name)
            add("plugin_calls_dropped_total", self._dropped.total[name], name)
        for process in PROCESSES:
            add("process_restarts_total", now.restarts.get(process, 0), process)
        for process, size in now.resident.items():
            add("ingest_resident_memory_bytes", size, process)

    def _tell_delivery(self, add: Callable[..., None]) -> None:
        for target in self._targets:
            for outcome in OUTCOMES:
                add("webhook_deliveries_total", self._sent.total[target, outcome], target, outcome)
            if self._backlog is not None:
                add("webhook_waiting", self._backlog.get((target, "waiting"), 0), target)
                add("webhook_dead_letters", self._backlog.get((target, "dead"), 0), target)

    def _tell_scorer(self, add: Callable[..., None], families: Mapping[str, Any]) -> None:
        total = self._scored.total
        late = sum(it.passed.total["late_frames"] for it in self._streams.values())
        add("frames_dropped_total", self._gone_late + late, "decode")
        add("frames_dropped_total", total["expired"], "score")
        add("scorer_up", self._now.scorer)
        if self._now.model:
            add("scorer_info", {"model": self._now.model})
        if self._scorer is not None and self._now.scorer:
            add("scorer_queue_length", self._scorer["queue_length"])
        sizes = [0] * (len(BATCH_SIZES) + 1)
        for key, batches in total.items():
            if isinstance(key, tuple) and key[0] == "batch":
                sizes[bisect_left(BATCH_SIZES, key[1])] += batches
        _tell_histogram(families["vqmon_scorer_batch_size"], BATCH_SIZES, sizes, total["pictures"])
        bounds = self._latency_bounds
        _tell_histogram(
            families["vqmon_scorer_latency_seconds"],
            [it for it in bounds if it != float("inf")],
            [total["latency", bound] for bound in bounds],
            total["latency_seconds"],
        )


def _tell_stream(
    add: Callable[..., None],
    name: str,
    stream: _StreamNumbers,
    state: str | None,
    clock: float,
) -> None:
    up, row, passed = stream.up(state, clock), stream.fresh(clock), stream.passed.total
    if up is not None:
        add("stream_up", up, name)
    if stream.format:
        add("stream_info", stream.format, name)
    if row and row.quality is not None and up:
        add("stream_quality_score", row.quality, name)
        for kind, severity in _severities(row, DEGRADATIONS):
            add("stream_degradation", severity, name, kind)
    for kind, severity in _severities(row, TROUBLES) if row else ():
        add("stream_fault_active", severity > 0, name, kind)
    for kind in TROUBLES:
        add("stream_fault_seconds_total", stream.faults[kind], name, kind)
    for reason in RECONNECT_REASONS:
        ours = stream.interruptions if reason == "process_restarted" else 0
        add("stream_reconnects_total", passed["reconnects", reason] + ours, name, reason)
    add("stream_corrupt_packets_total", passed["corrupt_packets"], name)
    add("stream_timestamp_discontinuities_total", passed["timestamp_jumps"], name)
    add("stream_bytes_total", passed["bytes"], name)
    if stream.last_frame_at is not None:
        add("stream_last_frame_timestamp_seconds", stream.last_frame_at, name)
    if stream.visited:
        add("stream_visits_missed_total", stream.visits_missed, name)


def _severities(row: Segment, names: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each name with the gravest finding of it, 0 where there is none."""
    worst: dict[str, int] = {}
    for finding in row.findings:
        worst[finding.name] = max(finding.severity, worst.get(finding.name, 0))
    for name in names:
        yield name, worst.get(name, 0)


def _tell_histogram(
    family: Any, bounds: Iterable[float], counts: Iterable[float], total: float
) -> None:
    """counts: in each bucket alone, the last one without a bound."""
    ends = [*map(floatToGoString, bounds), "+Inf"]
    grown = list(accumulate(counts)) or [0] * len(ends)
    family.add_metric([], list(zip(ends, grown, strict=True)), total)


class Timed:
    """Where segments are kept; how long that takes is told to the metrics."""

    def __init__(self, keeper: Keeper, metrics: Metrics) -> None:
        self._keeper = keeper
        self._metrics = metrics

    def add(self, some: Iterable[Segment], /) -> None:
        """As the keeper does."""
        began = time.monotonic()
        try:
            self._keeper.add(some)
        except BaseException:
            self._metrics.not_written()
            raise
        self._metrics.written(time.monotonic() - began)


class Exposition:
    """The text that is scraped: this process's own numbers, and soon the daemon's."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._one_at_a_time = threading.Lock()
        ProcessCollector(registry=self._registry)

    def show(self, metrics: Metrics) -> None:
        """These too, from now on."""
        self._registry.register(metrics)

    def text(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body: OpenMetrics where `accept` (the HTTP header) asks for it."""
        encoder, content_type = choose_encoder(accept)
        with self._one_at_a_time:
            return content_type, encoder(self._registry)
