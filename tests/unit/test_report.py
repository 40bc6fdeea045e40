"""The report: right sums, one episode per fault, safe and self-contained pages."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from vqmon import report
from vqmon.domain import (
    FINDING_NAMES,
    NO_SCORE_REASONS,
    Acting,
    Alert,
    Decision,
    Disagreement,
    Finding,
    Opinion,
    Question,
    Segment,
)
from vqmon.report import words
from vqmon.report.episodes import episodes
from vqmon.report.plain import CSV_COLUMNS
from vqmon.report.plots import _ticks
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def segment(number: int, **given: Any) -> Segment:
    """The number-th segment of ten seconds after noon."""
    fields: dict[str, Any] = {
        "stream": "news",
        "started_at": NOON + timedelta(seconds=10 * number),
        "start": 10.0 * number,
        "seconds": 10.0,
        "frames_scored": 5,
        "quality": 70.0,
        "quality_worst": 65.0,
        "uncertainty": 5.0,
        "model": "signals@1",
        "id": f"{given.get('stream', 'news')}-{number:04d}",
    }
    return Segment(**fields | given)


def fault(name: str, start: float, seconds: float, severity: int = 3, **given: Any) -> Finding:
    fields: dict[str, Any] = {"confidence": 0.9, "value": 4.5, "limit": 2.0, "unit": "s"}
    return Finding(name, severity, start=start, seconds=seconds, **fields | given)


def built(segments: Iterable[Segment], **given: Any) -> report.Report:
    store = MemoryStore()
    store.add(segments)
    since = given.pop("since", NOON)
    until = given.pop("until", NOON + timedelta(hours=1))
    return report.build(store, since, until, **given)


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_sums_are_those_of_the_segments() -> None:
    """An operator will compare the report with the rows."""
    down = {"quality": None, "quality_worst": None, "no_score_reason": "timeout_read"}
    black = {"quality": None, "quality_worst": None, "no_score_reason": "black"}
    rows = [segment(0, quality=80.0), segment(1, quality=40.0, quality_worst=12.0)]

    [stream] = built([*rows, segment(2, **down), segment(3, **black)]).streams

    assert stream.totals.watched_seconds == 40
    assert stream.totals.availability == 0.75
    assert stream.totals.scored_seconds == 20
    assert stream.quality is not None
    assert stream.quality.mean == 60
    assert stream.quality.worst == 12
    assert stream.quality.histogram[8] == stream.quality.histogram[4] == 10
    assert stream.no_score == {"timeout_read": 10.0, "black": 10.0}
    assert stream.models == ("signals@1",)


def test_percentiles_weigh_segments_by_their_length() -> None:
    """A one-second segment must not count like a minute."""
    rows = [segment(0, quality=10.0, seconds=1.0), *(segment(n, quality=90.0) for n in (1, 2, 3))]

    quality = built(rows).quality

    assert quality is not None
    assert quality.median == 90
    assert quality.p5 == 90


def test_findings_of_neighbouring_segments_are_one_episode() -> None:
    """A freeze of 22 s is one freeze, not three."""
    rows = [
        segment(0, findings=(fault("freeze", 6.0, 4.0, 2),)),
        segment(1, findings=(fault("freeze", 10.0, 10.0, 4, value=14.0),)),
        segment(2, findings=(fault("freeze", 20.0, 8.0, 3), fault("blur", 20.0, 10.0))),
        segment(9, findings=(fault("freeze", 90.0, 2.0, 1),)),
    ]

    found = episodes(reversed(rows))

    freeze, blur, again = found
    assert (freeze.name, blur.name, again.name) == ("freeze", "blur", "freeze")
    assert freeze.starts_at == NOON + timedelta(seconds=6)
    assert freeze.ends_at == NOON + timedelta(seconds=28)
    assert freeze.seconds == 22
    assert freeze.severity == 4
    assert freeze.finding.value == 14.0
    assert freeze.segment is rows[1]
    assert freeze.segments == 3
    assert again.seconds == 2


def test_overlapping_findings_count_their_seconds_once() -> None:
    """Loud and quiet are both `audio_loudness`; together they cannot last longer than the time."""
    rows = [segment(0, findings=(fault("noise", 0.0, 8.0), fault("noise", 5.0, 5.0)))]

    [episode] = episodes(rows)
    [stream] = built(rows).streams

    assert episode.seconds == 10
    assert stream.faults[0].seconds == 10


def test_faults_are_summed_up_gravest_first() -> None:
    """The first row of the table is the one to act on."""
    rows = [
        segment(0, findings=(fault("blur", 0.0, 10.0, 2), fault("black", 8.0, 2.0, 5))),
        segment(5, findings=(fault("blur", 50.0, 5.0, 1),)),
    ]

    [stream] = built(rows).streams

    assert [(f.name, f.seconds, f.episodes, f.severity, f.longest) for f in stream.faults] == [
        ("black", 2.0, 1, 5, 2.0),
        ("blur", 15.0, 2, 2, 10.0),
    ]


def test_streams_come_worst_first_and_downtime_counts_as_zero() -> None:
    """A stream that is down all day must not hide behind its one good minute."""
    down = {"quality": None, "quality_worst": None, "no_score_reason": "refused"}
    rows = [
        segment(0, stream="mostly-down", quality=95.0),
        *(segment(n, stream="mostly-down", **down) for n in range(1, 10)),
        segment(0, stream="good", quality=85.0),
        segment(0, stream="poor", quality=35.0),
    ]

    streams = built(rows).streams

    assert [s.name for s in streams] == ["mostly-down", "poor", "good"]


def test_worst_moments_do_not_repeat_one_bad_stretch() -> None:
    """Six pictures of the same blur tell no more than one."""
    rows = [segment(n, quality=20.0 + n if n < 12 else 70.0) for n in range(60)]

    [stream] = built(rows, until=NOON + timedelta(minutes=10)).streams

    assert [s.quality for s in stream.worst] == [20.0, 22.0, 24.0, 26.0, 28.0, 30.0]


def test_ordinary_moments_do_not_fill_the_page() -> None:
    """A good stream has few worst moments; more of them would only look like trouble."""
    clean = [segment(n, quality=70.0 - n / 100) for n in range(60)]
    faulty = segment(70, quality=70.0, findings=(fault("freeze", 700.0, 5.0),))

    [stream] = built([*clean, faulty]).streams

    assert [s.id for s in stream.worst] == ["news-0059", "news-0055", "news-0051", "news-0070"]


def test_the_period_is_half_open_and_other_streams_can_be_left_out() -> None:
    """Adjacent reports never count a segment twice."""
    rows = [segment(0), segment(1), segment(0, stream="other")]

    first = built(rows, until=NOON + timedelta(seconds=10), stream="news")
    second = built(rows, since=NOON + timedelta(seconds=10), stream="news")

    assert [s.totals.segments for s in first.streams] == [1]
    assert [s.totals.segments for s in second.streams] == [1]
    assert first.known_streams == ("news", "other")


def test_a_long_period_is_read_from_rollups_and_says_so() -> None:
    """A month must not read a month of rows; the sums must agree with the short way."""
    rows = [
        segment(n, quality=50.0 + n % 40, findings=(fault("blur", 10.0 * n, 10.0),) * (n % 90 == 0))
        for n in range(720)
    ]
    store = MemoryStore()
    store.add(rows)
    period = (NOON, NOON + timedelta(hours=2))

    whole = report.build(store, *period)
    summary = report.build(store, *period, segments_read=100)

    assert whole.by_segment
    assert not summary.by_segment
    assert summary.totals == whole.totals
    [long], [short] = summary.streams, whole.streams
    assert long.quality is not None
    assert short.quality is not None
    assert long.quality.mean == pytest.approx(short.quality.mean)
    assert long.quality.median == pytest.approx(short.quality.median, abs=5)
    assert long.quality.p5 == pytest.approx(short.quality.p5, abs=5)
    assert [(f.name, f.seconds, f.episodes, f.complete) for f in long.faults] == [
        ("blur", 80.0, 8, True)
    ]
    assert long.worst
    assert any("hourly" in note for note in summary.notes)


def test_counts_are_marked_when_segments_of_a_fault_are_gone() -> None:
    """Raw rows are kept for days, roll-ups for months: a count of what is left is a lower bound."""
    store = MemoryStore()
    store.add(segment(n, findings=(fault("blur", 10.0 * n, 10.0),)) for n in (0, 100, 200))
    store.prune(NOON + timedelta(minutes=1))

    summary = report.build(store, NOON, NOON + timedelta(hours=1), segments_read=1)

    [blur] = summary.streams[0].faults
    assert (blur.seconds, blur.episodes, blur.complete) == (30.0, 2, False)
    assert "2+" in Page(report.to_html(summary)).text
    assert "2+ times" in report.to_text(summary)


def test_a_wrong_period_is_refused() -> None:
    """Times without a zone would silently shift the report by hours."""
    with pytest.raises(ValueError, match="time zone"):
        built([], since=datetime(2026, 3, 1))  # noqa: DTZ001 - the mistake under test
    with pytest.raises(ValueError, match="before it begins"):
        built([], since=NOON, until=NOON)


@pytest.mark.parametrize("stored", [False, True])
def test_an_empty_report_says_what_to_do(stored: bool) -> None:
    """Nothing found is an answer, with a next step."""
    rows = [segment(0)] if stored else []
    empty = built(rows, since=NOON - timedelta(hours=2), until=NOON - timedelta(hours=1))

    page, text = Page(report.to_html(empty)).text, report.to_text(empty)

    for told in (page, text):
        assert "Nothing was watched in this period" in told
        assert ("--since" if stored else "vqmon run") in told
        assert ("news" in told) == stored
    assert json.loads(report.to_json(empty))["streams"] == []
    assert report.to_csv(empty).count("\n") == 1


def full_report(folder: Path | None = None) -> report.Report:
    """Everything that can appear, from two streams, one of them hostile."""
    rows = [
        segment(
            n,
            stream=stream,
            quality=30.0 + 10 * n,
            findings=(fault("blur", 10.0 * n, 6.0, 1 + n, unit=HOSTILE, region=("left",)),),
            explanation=f"1. {HOSTILE}",
            facts={"width": HOSTILE, "height": 2, "codec": HOSTILE},
            model=HOSTILE,
            thumbnail="news/thumb.jpg",
            evidence=("news/1.jpg", "news/worst.jpg"),
        )
        for stream in ("news", HOSTILE)
        for n in range(5)
    ]
    down = {"quality": None, "quality_worst": None, "no_score_reason": HOSTILE}
    return built([*rows, segment(6, **down)], evidence_folder=folder)


def test_hostile_names_and_texts_stay_text() -> None:
    """Names, explanations and facts come from outside; the page is opened in a browser."""
    page = Page(report.to_html(full_report()))

    assert not [
        tag for tag, _ in page.tags if tag in {"script", "iframe", "object", "link", "base"}
    ]
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert not [attrs for tag, attrs in page.tags if tag == "img" and attrs["src"] == "x"]
    assert page.text.count(HOSTILE) > 5
    labels = [attrs["aria-label"] or "" for tag, attrs in page.tags if "aria-label" in attrs]
    assert any(HOSTILE in label for label in labels)


def test_a_terminal_is_not_given_control_characters() -> None:
    """A stream called ESC]0;... must not set the window's title."""
    rows = [segment(0, stream="a\x1b]0;owned\x07", explanation="\x1b[31mred")]

    text = report.to_text(built(rows))

    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_spreadsheet_is_not_given_formulas() -> None:
    """Cells that begin with = are run by spreadsheets."""
    [_, row] = csv.reader(io.StringIO(report.to_csv(built([segment(0, stream="=1+1")]))))

    assert row[0] == "'=1+1"


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    """It is mailed, archived and opened offline; no address in it may be fetched."""
    keep_pictures(tmp_path)

    html = report.to_html(full_report(tmp_path))

    page = Page(html)
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:image/jpeg;base64,")), (tag, name, value)
    assert "url(" not in html
    assert "@import" not in html
    policy = [
        a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def keep_pictures(folder: Path) -> None:
    (folder / "news").mkdir()
    Image.new("RGB", (320, 180), (200, 30, 30)).save(folder / "news" / "thumb.jpg")
    for name in ("1.jpg", "worst.jpg"):
        Image.new("RGB", (1920, 1080), (30, 30, 200)).save(folder / "news" / name)


def test_evidence_is_embedded_small_and_described(tmp_path: Path) -> None:
    """Pictures are the proof; without alternative text some readers have none."""
    keep_pictures(tmp_path)

    page = Page(report.to_html(full_report(tmp_path)))

    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 6
    assert all(attrs["alt"] and "Frame" in attrs["alt"] for attrs in images)
    assert all(len(attrs["src"] or "") < 40_000 for attrs in images)
    for attrs in images:
        jpeg = base64.b64decode((attrs["src"] or "").partition(",")[2])
        red, _, blue = Image.open(io.BytesIO(jpeg)).convert("RGB").getpixel((10, 10))  # type: ignore[misc]
        assert blue > red, "the worst moment is shown, not the thumbnail"


def test_what_is_wrong_with_vqmon_itself_is_no_headline() -> None:
    """A busy machine is not the stream's fault; the table still tells it."""
    row = segment(0, findings=(fault("overload", 0.0, 10.0, 5), fault("blur", 0.0, 4.0, 2)))

    text = report.to_text(built([row]))

    assert "Found: blur for 4 s." in text
    assert "overload 10 s" in text


def test_pictures_never_come_from_outside_the_evidence_folder(tmp_path: Path) -> None:
    """A path in the database must not be able to publish any file of the machine."""
    (tmp_path / "evidence").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "secret.jpg")
    (tmp_path / "evidence" / "text.jpg").write_text("no picture at all")
    rows = [
        segment(0, thumbnail="../secret.jpg"),
        segment(5, thumbnail=str(tmp_path / "secret.jpg")),
        segment(10, thumbnail="text.jpg", evidence=("gone.jpg",)),
    ]

    page = Page(report.to_html(built(rows, evidence_folder=tmp_path / "evidence")))

    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert page.text.count("no picture kept") == 3


def test_a_page_stops_growing_and_says_so(tmp_path: Path) -> None:
    """A fleet's report must still fit into a mail."""
    keep_pictures(tmp_path)

    html = report.to_html(full_report(tmp_path), pictures_bytes=100)

    assert "<img" not in html
    assert "pictures were left out" in html


def test_plots_are_valid_and_told_in_words() -> None:
    """Screen readers get the label, mice the titles; malformed SVG shows nothing."""
    html = report.to_html(full_report())

    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)

    assert len(drawings) >= 8
    for drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        for element in root.iter():
            numbers = [element.get(k) for k in ("x", "y", "width", "height") if element.get(k)]
            assert all(float(number or 0) >= 0 for number in numbers)


def test_the_line_breaks_where_there_is_no_score() -> None:
    """A line drawn across an outage would invent quality."""
    down = {"quality": None, "quality_worst": None, "no_score_reason": "refused"}
    rows = [segment(n, **(down if 3 <= n < 6 else {})) for n in range(10)]

    html = report.to_html(built(rows))

    timeline = re.findall(r'<svg class="timeline".*?</svg>', html, re.DOTALL)[0]
    assert timeline.count('class="quality"') == 2
    assert timeline.count('class="down"') == 1
    assert "nothing arrived: 01 Mar 12:00:30 UTC, 30 s" in timeline


@pytest.mark.parametrize("seconds", [1, 60, 3600, 86_400, 30 * 86_400, 900 * 86_400])
def test_ticks_are_few_and_round(seconds: int) -> None:
    """From a minute to years, an axis has a handful of labels within the period."""
    until = NOON + timedelta(seconds=seconds)

    ticks = list(_ticks(NOON, until))

    assert len(ticks) <= 10
    assert all(NOON <= at <= until for at, _ in ticks)
    assert seconds < 10 or len(ticks) >= 2


def test_json_holds_what_its_description_promises() -> None:
    """Programs rely on the shape in the docstring."""
    document = json.loads(report.to_json(full_report()))

    stream = document["streams"][0]
    described = report.to_json.__doc__ or ""
    for name in (*document, *stream, *stream["faults"][0], *stream["episodes"][0]):
        assert name in described, name
    assert document["since"] == "2026-03-01T12:00:00.000Z"
    assert stream["faults"][0]["name"] == "blur"
    assert stream["worst"][0]["findings"][0]["region"] == ["left"]
    assert stream["timeline"][0].keys() == {"starts_at", "seconds", "quality", "worst", "up"}


def test_csv_has_a_row_per_stream() -> None:
    """One line each, so that it can be joined and sorted."""
    rows = [segment(0), segment(0, stream="other", quality=None, no_score_reason="auth")]

    table = list(csv.DictReader(io.StringIO(report.to_csv(built(rows)))))

    assert [tuple(row) for row in table] == [CSV_COLUMNS, CSV_COLUMNS]
    by_name = {row["stream"]: row for row in table}
    assert by_name["news"]["quality_mean"] == "70.0"
    assert by_name["other"]["availability"] == "0.0"
    assert by_name["other"]["quality_mean"] == ""
    assert by_name["other"]["no_score_reason"] == "auth"


def test_text_fits_a_terminal_and_tells_the_worst() -> None:
    """`vqmon report` alone must be worth reading."""
    rows = [
        segment(n, quality=80.0 - n, findings=(fault("black", 30.0, 2.0, 4),) * (n == 3))
        for n in range(30)
    ]

    text = report.to_text(built(rows), width=80)

    assert "black 2 s (once, serious)" in text
    assert "available 100 % of 5 min watched" in text
    assert "worst frame 65" in text
    assert max(len(line) for line in text.splitlines() if "▆" in line or "▇" in line) <= 80


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.44, "0.4 s"), (9, "9 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3599.7, "1 h"),
     (7500, "2 h 5 min"), (86_400, "24 h"), (273_600, "3 d 4 h"), (2_592_000, "30 d")],
)  # fmt: skip
def test_durations_are_told_in_two_units(seconds: float, told: str) -> None:
    """`1 h 60 min` has been seen in other programs."""
    assert words.lasting(seconds) == told


def test_shares_never_round_to_all_or_nothing() -> None:
    """99.97 % available is not 100 %."""
    assert words.share(99_970, 100_000) == "99.97 %"
    assert words.share(999_999, 1_000_000) == "> 99.99 %"
    assert words.share(1, 100_000) == "< 0.1 %"
    assert words.share(5, 5) == "100 %"
    assert words.share(0, 5) == "0 %"


def test_every_reason_and_finding_has_words() -> None:
    """Codes are for programs."""
    assert words.REASONS.keys() >= set(NO_SCORE_REASONS)
    assert all("_" not in words.named(name) for name in FINDING_NAMES)
    assert [words.grade(q) for q in (0, 20, 40, 60, 80, 100)] == [
        "bad", "poor", "fair", "good", "excellent", "excellent",
    ]  # fmt: skip


def test_alerts_stand_with_their_stream_in_every_form() -> None:
    """What was told at night is explained in the morning."""
    old = Alert("news", "freeze", "info", NOON - timedelta(days=1), "old", closed_at=NOON)
    over = Alert(
        "news",
        "black",
        "critical",
        NOON + timedelta(seconds=40),
        f"Black {HOSTILE}",
        closed_at=NOON + timedelta(seconds=65),
        cleared="No black picture for 10 s.",
        acknowledged_by="ada",
    )
    other = Alert("sports", "freeze", "info", NOON, "Frozen.")
    store = MemoryStore()
    store.add([segment(0)], Acting("vqmon", (replace(old, closed_at=old.opened_at), over, other)))

    found = report.build(store, NOON, NOON + timedelta(hours=1))

    [stream] = found.streams
    assert stream.alerts == (over,)
    told = json.loads(report.to_json(found))["streams"][0]["alerts"][0]
    assert (told["rule"], told["closed_at"]) == ("black", "2026-03-01T12:01:05.000Z")
    assert "01 Mar 12:00:40 UTC for 25 s, critical: Black" in report.to_text(found)
    page = Page(report.to_html(found))
    assert "No black picture for 10 s." in page.text
    assert "Taken on by ada." in page.text
    assert not [tag for tag, _ in page.tags if tag == "script"]


def test_decisions_of_plugins_stand_with_their_stream_in_every_form() -> None:
    """An alert that went away by itself and one that was mended look alike without them."""
    store = MemoryStore()
    store.add([segment(0)])
    asked = Decision(
        "adaptive_encoding", "news", "raise", f"asks {HOSTILE}", NOON + timedelta(seconds=4)
    )
    undone = Decision(
        "adaptive_encoding", "news", "roll_back", "goes back", NOON + timedelta(seconds=9)
    )
    for one in (
        asked,
        undone,
        replace(asked, id="early", at=NOON - timedelta(seconds=1)),
        replace(asked, id="late", at=NOON + timedelta(hours=1)),
        replace(asked, id="other", stream="sports"),
    ):
        store.record(one)

    found = report.build(store, NOON, NOON + timedelta(hours=1))

    [stream] = found.streams
    assert stream.decisions == (asked, undone)
    told = json.loads(report.to_json(found))["streams"][0]["decisions"]
    assert [(it["kind"], it["at"]) for it in told] == [
        ("raise", "2026-03-01T12:00:04.000Z"),
        ("roll_back", "2026-03-01T12:00:09.000Z"),
    ]
    assert "UTC roll back: goes back" in report.to_text(found)
    page = Page(report.to_html(found))
    assert "roll back" in page.text
    assert sum(given.get("class") == "decision" for _, given in page.tags) == 2
    assert not [tag for tag, _ in page.tags if tag == "script"]


def with_an_answer(text: str) -> report.Report:
    """A bad segment that the writer has looked at, and one that it could not look at."""
    store = MemoryStore()
    rows = [segment(0, quality=20.0), segment(100, quality=30.0), segment(200)]
    until = NOON + timedelta(hours=6)
    questions = [Question(it.id, "news", "here", "alert", NOON, until) for it in rows[:2]]
    store.add(rows, Acting(questions=tuple(questions)))
    opinion = Opinion("big@7", NOON, 75.0, 4.0, (), text, ("news/a-worst.jpg",), 9.5)
    for id_ in (rows[0].id, rows[1].id):
        one = store.claim_question("here", "me", NOON, seconds=9, per_hour=9, segment=id_)
        assert one
        if id_ == rows[0].id:
            apart = Disagreement(True, 55.0, (), (), "The writer finds it 55 points better.")
            store.answer(one, "me", opinion, apart)
        else:
            store.put_off(one, "me", "CUDA out of memory", due_at=None)
    return report.build(store, NOON, NOON + timedelta(hours=1))


def test_the_worst_moments_show_what_the_writer_says_and_why_it_says_nothing() -> None:
    """Beside the scorer's words, with the model's name."""
    built_report = with_an_answer("Everything is smeared.")

    for shown in (Page(report.to_html(built_report)).text, report.to_text(built_report)):
        assert "big@7: 75 of 100 (good), give or take 4" in shown
        assert "Everything is smeared." in shown
        assert "The writer finds it 55 points better." in shown
    assert "CUDA out of memory" in Page(report.to_html(built_report)).text
    [stream] = json.loads(report.to_json(built_report))["streams"]
    first, second, *_ = stream["worst"]
    assert first["writer"]["opinion"]["quality"] == 75.0
    assert first["writer"]["disagreement"]["differs"] is True
    assert (second["writer"]["state"], second["writer"]["opinion"]) == ("unanswered", None)
    assert [it["segment"] for it in stream["disagreements"]] == ["news-0000"]


def test_what_a_writer_writes_is_text_and_nothing_else() -> None:
    """A model repeats what it reads in a picture."""
    page = Page(report.to_html(with_an_answer(HOSTILE)))

    assert HOSTILE in page.text
    assert not [name for name, _ in page.tags if name == "script"]
