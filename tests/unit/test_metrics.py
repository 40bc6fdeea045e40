"""What is told to Prometheus, from what the daemon knows: by reading the text that it would read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from vqmon import __version__
from vqmon.daemon.counting import Counts
from vqmon.domain import DEGRADATIONS, FAULTS, Finding, Segment
from vqmon.metrics import FAMILIES, Exposition, Lives, Metrics, Now, PluginNow, Timed
from vqmon.settings import Settings

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UP = Now(states={"news": "up", "sports": "up"}, scorer=True)
STATS = {
    "process": 17,
    "queue_length": 2,
    "pictures": 5,
    "expired": 1,
    "latency_seconds": 0.5,
    "batch_sizes": {"1": 1, "4": 1},
    "latencies": [["0.1", 3], ["1.0", 2], ["inf", 0]],
}


class Scraped:
    """A daemon's metrics whose clocks stand until they are told to go on, and their text."""

    def __init__(self, **settings: Any) -> None:
        self.clock = 1000.0
        self.wall = 5000.0
        self.metrics = Metrics(
            configured(**settings), clock=lambda: self.clock, now=lambda: self.wall
        )
        self.exposition = Exposition()
        self.exposition.show(self.metrics)

    def __call__(self, name: str, **labels: str) -> float | None:
        """One number; None when it is absent."""
        found = [
            it.value
            for family in plain(self.exposition.text()[1].decode())
            for it in family.samples
            if it.name == f"vqmon_{name}" and labels.items() <= it.labels.items()
        ]
        assert len(found) <= 1, f"{name} {labels} is told more than once"
        return found[0] if found else None

    def labels(self, name: str, label: str) -> set[str]:
        """What a label is, over all samples of a name."""
        families = plain(self.exposition.text()[1].decode())
        samples = [it for family in families for it in family.samples]
        return {it.labels[label] for it in samples if it.name == f"vqmon_{name}"}


def configured(streams: Iterable[str] = ("news", "sports"), **settings: Any) -> Settings:
    urls = {name: {"url": "rtsp://u:secret@camera.example/x"} for name in streams}
    return Settings.model_validate({"streams": urls, **settings})


def segment(stream: str = "news", quality: float | None = 62.5, **fields: Any) -> Segment:
    given: dict[str, Any] = {"no_score_reason": None if quality is not None else "timeout_read"}
    return Segment(stream, NOON, 0.0, 10.0, quality=quality, **given | fields)


def fault(name: str, seconds: float = 4.0, severity: int = 3) -> Finding:
    return Finding(name, severity, 1.0, 1.0, 0.5, seconds=seconds)


@pytest.fixture
def told() -> Scraped:
    scraped = Scraped()
    scraped.metrics.stands(UP)
    return scraped


# Quality, degradations, faults


def test_a_fresh_score_is_told(told: Scraped) -> None:
    told.metrics.add(segment(quality=62.5))

    assert told("stream_quality_score", stream="news") == 62.5
    assert told("stream_quality_score", stream="sports") is None


def test_a_score_that_has_become_stale_is_absent_and_never_zero(told: Scraped) -> None:
    """Zero would be an alarm, and yesterday's number a lie."""
    told.metrics.add(segment())

    told.clock += 29.0
    assert told("stream_quality_score", stream="news") == 62.5
    told.clock += 2.0

    assert told("stream_quality_score", stream="news") is None
    assert told("stream_degradation", stream="news", type="blur") is None
    assert told("stream_fault_active", stream="news", type="black") is None


def test_a_segment_without_a_score_takes_the_score_away(told: Scraped) -> None:
    """Its row says why there is none; the number before it is about another time."""
    told.metrics.add(segment())
    told.metrics.add(segment(quality=None, findings=(fault("no_signal"),)))

    assert told("stream_quality_score", stream="news") is None
    assert told("stream_fault_active", stream="news", type="no_signal") == 1
    assert told("stream_fault_active", stream="news", type="black") == 0


@pytest.mark.parametrize("state", ["down", "connecting", "ended"])
def test_a_stream_that_is_not_up_has_no_score(told: Scraped, state: str) -> None:
    """It is known to be down some seconds before its first row says so."""
    told.metrics.add(segment())

    told.metrics.stands(replace(UP, states={"news": state}))

    assert told("stream_up", stream="news") == 0
    assert told("stream_quality_score", stream="news") is None


def test_the_score_of_a_visited_stream_is_fresh_for_two_periods() -> None:
    """Between visits it is neither up nor down, but as it was."""
    visits = {"url": "x.mp4", "schedule": {"every": "5m", "for": "30s"}}
    told = Scraped()
    told.metrics.configure(Settings.model_validate({"streams": {"news": visits}}))
    assert told("stream_up", stream="news") is None

    told.metrics.add(segment())
    told.clock += 599.0

    assert told("stream_up", stream="news") == 1
    assert told("stream_quality_score", stream="news") == 62.5
    told.metrics.add(segment(quality=None, no_score_reason="visit_missed"))
    assert told("stream_up", stream="news") == 0
    assert told("stream_visits_missed_total", stream="news") == 1


def test_degradations_are_told_with_their_severity(told: Scraped) -> None:
    """All of them, so that a graph falls to zero when one is gone."""
    told.metrics.add(segment(findings=(fault("blur", severity=2), fault("blur", severity=4))))

    assert told("stream_degradation", stream="news", type="blur") == 4
    assert told("stream_degradation", stream="news", type="noise") == 0
    assert told.labels("stream_degradation", "type") == set(DEGRADATIONS)


def test_counters_begin_at_zero(told: Scraped) -> None:
    """A counter that appears with its first fault hides that fault from `increase()`."""
    for name in FAULTS:
        assert told("stream_fault_seconds_total", stream="news", type=name) == 0
    for reason in ("refused", "timeout_read", "process_restarted"):
        assert told("stream_reconnects_total", stream="news", reason=reason) == 0
    for name in ("corrupt_packets", "timestamp_discontinuities", "bytes"):
        assert told(f"stream_{name}_total", stream="news") == 0
    assert told("config_reload_failures_total") == 0
    assert told("process_restarts_total", process="ingest") == 0


def test_fault_seconds_add_up_over_segments(told: Scraped) -> None:
    told.metrics.add(segment(findings=(fault("black", 4.0), fault("black", 1.5))))
    told.metrics.add(segment(findings=(fault("black", 10.0), fault("blur", 10.0))))

    assert told("stream_fault_seconds_total", stream="news", type="black") == 15.5
    assert told.labels("stream_fault_seconds_total", "type") >= set(FAULTS)
    assert "blur" not in told.labels("stream_fault_seconds_total", "type")


def test_what_the_stream_says_of_itself_stays_while_it_is_down(told: Scraped) -> None:
    told.metrics.add(segment(facts={"codec": "h264", "width": 1920, "height": 1080}))
    told.metrics.add(segment(quality=None))

    told_of = {"codec": "h264", "width": "1920", "height": "1080"}
    assert told("stream_info", stream="news", **told_of) == 1


# Streams come and go


def test_a_removed_stream_disappears_with_all_its_labels(told: Scraped) -> None:
    """Series that nobody feeds any more would stand in dashboards for ever."""
    told.metrics.add(segment("sports", findings=(fault("black"),)))
    told.metrics.counted("sports", 1, Counts(bytes=100, late_frames=3))
    told.metrics.add(segment("news", findings=(fault("black"),)))

    told.metrics.configure(configured(["news", "films"]))
    told.metrics.add(segment("sports"))
    told.metrics.counted("sports", 1, Counts(bytes=200))

    text = told.exposition.text()[1].decode()
    assert "sports" not in text
    assert told("stream_fault_seconds_total", stream="news", type="black") == 4
    assert told("stream_fault_seconds_total", stream="films", type="black") == 0
    assert told("frames_dropped_total", stage="decode") == 3, "no stream's name, so it goes on"


def test_addresses_and_errors_are_never_told(told: Scraped) -> None:
    """They carry passwords, and make labels without end."""
    told.metrics.add(segment(quality=None, facts={"detail": "rtsp://u:secret@camera.example"}))

    text = told.exposition.text()[1].decode()

    assert "secret" not in text
    assert "camera.example" not in text


# What is counted in other processes


def test_counters_go_on_when_a_watch_begins_anew(told: Scraped) -> None:
    """An ingest process that is replaced counts from zero; the counter must not."""
    told.metrics.counted("news", 1, Counts(bytes=700, corrupt_packets=3, timestamp_jumps=1))
    told.metrics.counted("news", 1, Counts(bytes=900, corrupt_packets=3, timestamp_jumps=2))
    told.metrics.interrupted("news")

    told.metrics.counted("news", 2, Counts(bytes=50, reconnects={"timeout_read": 2}))

    assert told("stream_bytes_total", stream="news") == 950
    assert told("stream_corrupt_packets_total", stream="news") == 3
    assert told("stream_timestamp_discontinuities_total", stream="news") == 2
    assert told("stream_reconnects_total", stream="news", reason="timeout_read") == 2
    assert told("stream_reconnects_total", stream="news", reason="process_restarted") == 1


def test_late_words_of_an_earlier_life_count_once() -> None:
    """A changed stream is left and begun anew in one process: the old watch ends later."""
    lives = Lives()

    for life, count in ((1, 90), (2, 5), (1, 100), (2, 7), (1, 100)):
        lives.heard(life, {"bytes": count})

    assert lives.total["bytes"] == 107


def test_the_last_picture_is_never_older_than_before(told: Scraped) -> None:
    told.metrics.counted("news", 1, Counts(last_frame_at=4000.5))
    told.metrics.counted("news", 2, Counts())

    assert told("stream_last_frame_timestamp_seconds", stream="news") == 4000.5
    assert told("stream_last_frame_timestamp_seconds", stream="sports") is None


def test_scoring_is_told_in_histograms_that_outlive_its_process(told: Scraped) -> None:
    told.metrics.scored(STATS)
    told.metrics.scored(None)
    told.metrics.stands(replace(UP, scorer=False))
    assert told("scorer_up") == 0
    assert told("scorer_queue_length") is None, "nobody knows"

    told.metrics.scored(STATS | {"process": 18})
    told.metrics.stands(replace(UP, model="lite@1"))

    assert (told("scorer_up"), told("scorer_queue_length")) == (1, 2)
    assert told("scorer_batch_size_bucket", le="1.0") == 2
    assert told("scorer_batch_size_bucket", le="4.0") == 4
    assert told("scorer_batch_size_sum") == 10
    assert told("scorer_latency_seconds_bucket", le="0.1") == 6
    assert told("scorer_latency_seconds_count") == 10
    assert told("scorer_latency_seconds_sum") == 1
    assert told("frames_dropped_total", stage="score") == 2
    assert told("scorer_info", model="lite@1") == 1


def test_deliveries_are_counted_over_restarts_of_their_process() -> None:
    notifiers = {"log": {"type": "log"}}
    told = Scraped(notifiers=notifiers)
    first, second = object(), object()

    told.metrics.sent(first, {("log", "delivered"): 3, ("log", "failed"): 1})
    told.metrics.sent(second, {("log", "delivered"): 1, ("gone", "delivered"): 9})

    assert told("webhook_deliveries_total", target="log", outcome="delivered") == 4
    assert told("webhook_deliveries_total", target="log", outcome="failed") == 1
    assert told("webhook_deliveries_total", target="log", outcome="given_up") == 0
    assert told.labels("webhook_deliveries_total", "target") == {"log"}


def test_what_waits_for_a_target_is_absent_while_nobody_can_count_it() -> None:
    told = Scraped(notifiers={"log": {"type": "log"}})
    assert told("webhook_dead_letters", target="log") is None

    told.metrics.backlog({("log", "dead"): 2})
    assert told("webhook_dead_letters", target="log") == 2
    assert told("webhook_waiting", target="log") == 0

    told.metrics.backlog(None)
    assert told("webhook_waiting", target="log") is None


# The daemon itself


def test_alerts_are_told_by_severity_once_they_are_known(told: Scraped) -> None:
    assert told("alerts_active", severity="critical") is None

    told.metrics.stands(replace(UP, alerts={"critical": 2}))

    assert told("alerts_active", severity="critical") == 2
    assert told("alerts_active", severity="info") == 0


def test_a_parked_plugin_is_told_until_it_is_gone(told: Scraped) -> None:
    told.metrics.stands(replace(UP, plugins={"clipper": PluginNow(True, 3, "one")}))
    told.metrics.stands(replace(UP, plugins={"clipper": PluginNow(False, 2, "two")}))

    assert told("plugin_parked", plugin="clipper") == 0
    assert told("plugin_calls_dropped_total", plugin="clipper") == 5
    told.metrics.stands(UP)
    assert told("plugin_parked", plugin="clipper") is None


def test_a_refused_configuration_is_told_and_the_time_of_the_good_one_stays(told: Scraped) -> None:
    assert told("config_last_reload_success_timestamp_seconds") == 5000
    told.wall += 60.0

    told.metrics.reloaded(good=False)

    assert told("config_last_reload_successful") == 0
    assert told("config_reload_failures_total") == 1
    assert told("config_last_reload_success_timestamp_seconds") == 5000
    told.metrics.reloaded(good=True)
    assert told("config_last_reload_successful") == 1
    assert told("config_last_reload_success_timestamp_seconds") == 5060


def test_writing_is_timed_and_its_failures_are_counted(told: Scraped) -> None:
    class Keeper:
        fails = False

        def add(self, some: Iterable[Segment], /) -> None:
            if self.fails:
                raise ValueError("no")

    keeper = Keeper()
    timed = Timed(keeper, told.metrics)
    timed.add([segment()])
    keeper.fails = True
    with pytest.raises(ValueError, match="no"):
        timed.add([segment()])

    assert told("db_write_seconds_count") == 1
    assert told("db_write_failures_total") == 1


def test_the_writer_is_told_only_where_there_is_one(told: Scraped) -> None:
    assert told("writer_up") is None

    told.metrics.stands(replace(UP, writer=False))

    assert told("writer_up") == 0


# The text


@pytest.mark.parametrize(
    ("accept", "parse"),
    [("", plain), ("application/openmetrics-text; version=1.0.0", openmetrics)],
)
def test_both_formats_can_be_read_and_have_a_meaning_for_every_name(
    told: Scraped, accept: str, parse: Callable[[str], Iterable[Any]]
) -> None:
    """Prometheus refuses a whole scrape for one bad line."""
    told.metrics.add(segment(facts={"codec": "h264", "width": 64, "height": 64}))
    told.metrics.scored(STATS)

    content_type, body = told.exposition.text(accept)

    assert content_type.startswith(accept.partition(";")[0] or "text/plain")
    families = {it.name: it for it in parse(body.decode())}
    ours = {name: it for name, it in families.items() if name.startswith("vqmon_")}
    assert len(ours) == len(FAMILIES)
    assert all(it.documentation for it in ours.values())
    assert told("build_info", version=__version__) == 1
    assert "process_resident_memory_bytes" in families
    for family in ours.values():
        for sample in family.samples:
            assert math.isfinite(sample.value), sample


def test_names_follow_the_conventions_of_prometheus() -> None:
    """As `promtool check metrics` would say: base units, `_total` on counters alone."""
    kinds: Mapping[str, str] = {it.name: it.kind.__name__ for it in FAMILIES}

    assert len(kinds) == len(FAMILIES)
    for name, kind in kinds.items():
        assert name.startswith("vqmon_")
        assert name.endswith("_total") is kind.startswith("Counter"), name
        assert name.endswith("_info") is kind.startswith("Info"), name
        assert not name.endswith(("_ms", "_kbps", "_percent", "_count", "_sum", "_bucket"))


def test_a_scrape_of_a_hundred_streams_is_quick() -> None:
    """It shares the interpreter with the supervisor, which beats for a watchdog."""
    names = [f"camera-{number}" for number in range(100)]
    told = Scraped(streams=names)
    for name in names:
        told.metrics.add(segment(name))

    began = datetime.now(UTC)
    _, body = told.exposition.text()

    assert (datetime.now(UTC) - began).total_seconds() < 2
    assert body.count(b"\n") > 4000
