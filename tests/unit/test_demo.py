"""The demonstration's own judgement: what was staged, what was found, what was not."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from vqmon import demo
from vqmon.demo.screen import line, table
from vqmon.demo.stage import PROGRAMME, on_air, programme, unstaged, verdicts
from vqmon.domain import FINDING_NAMES, Finding, Segment
from vqmon.errors import AlreadyRunning, VqmonError

BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def segment(start: float, *findings: Finding, **given: Any) -> Segment:
    fields: dict[str, Any] = {
        "stream": "demo",
        "started_at": BEGAN + timedelta(seconds=start),
        "start": start,
        "seconds": 5.0,
        "quality": 70.0,
        "quality_worst": 60.0,
        "findings": findings,
    }
    return Segment(**fields | given)


def finding(name: str, start: float, seconds: float = 3.0, severity: int = 3) -> Finding:
    return Finding(name, severity, 0.9, 1.0, 0.5, "s", None, start, seconds)


def minute(*findings: Finding) -> list[Segment]:
    """A watched minute with these findings, each in the segment where it begins."""
    return [
        segment(start, *(f for f in findings if start <= f.start < start + 5))
        for start in range(0, 60, 5)
    ]


def test_the_programme_stages_known_faults_apart_from_each_other() -> None:
    """Between faults there must be clean time, or nobody could tell what was found."""
    assert programme(60) == PROGRAMME
    assert all(act.proves <= set(FINDING_NAMES) for act in PROGRAMME)
    assert PROGRAMME[0].start >= 10
    for before, after in pairwise(PROGRAMME):
        assert after.start - before.end >= 3.5


def test_a_short_run_stages_only_what_it_can_finish() -> None:
    """A fault cut off by the end would be reported as missed."""
    assert [act.name for act in programme(40)] == ["bitrate_collapse", "blur", "freeze"]
    assert programme(15) == ()


def test_the_pictures_on_air_are_those_of_the_programme() -> None:
    """The table shows what is staged beside what is found."""
    assert [act.name for act in on_air(PROGRAMME, 30, 35)] == ["freeze"]
    assert on_air(PROGRAMME, 0, 12) == ()


def test_a_fault_is_found_by_a_finding_of_its_kind_at_its_time() -> None:
    """A freeze found while the picture was black would prove nothing."""
    segments = minute(finding("freeze", 33.5), finding("blur", 42.0), finding("corrupted", 50.0))

    found = {v.act.name: v.found for v in verdicts(PROGRAMME, segments)}

    assert found == {
        "bitrate_collapse": (),
        "blur": (),
        "freeze": ("freeze",),
        "black": (),
        "packet_loss": ("corrupted",),
    }


def test_what_was_missed_is_said() -> None:
    """A demonstration that only boasts convinces nobody."""
    told = demo.summary(PROGRAMME, minute(finding("freeze", 34.0), finding("black", 42.0)))

    assert told.splitlines()[0] == (
        "Found 2 of 5 staged faults: freeze, black; missed: bitrate collapse, blur, packet loss."
    )


def test_what_was_found_without_being_staged_is_said() -> None:
    """False alarms count; consequences of a fault that is on air do not."""
    segments = minute(finding("noise", 5.0, 4.0), finding("blur", 14.0), finding("blur", 25.0))

    assert unstaged(PROGRAMME, segments) == [("noise", 4.0)]
    assert "Also found, though not staged: noise (4 s)." in demo.summary(PROGRAMME, segments)


def test_a_machine_that_was_too_busy_is_said_to_be() -> None:
    """Whoever reads `missed` must learn that the detector is not to blame."""
    told = demo.summary(PROGRAMME, minute(finding("overload", 5.0, 3.0), finding("overload", 31.0)))

    assert "This machine was too busy to look closely for 6 s" in told
    assert "not staged" not in told


def test_faults_after_the_end_of_watching_are_neither_found_nor_missed() -> None:
    """Ctrl-C half-way is no failure of the monitor."""
    told = demo.summary(PROGRAMME, minute(finding("blur", 25.0))[:6])

    assert told.splitlines() == [
        "Found 1 of 2 staged faults: blur; missed: bitrate collapse.",
        "Not on air while watching: freeze, black, packet loss.",
    ]


def test_a_channel_that_could_not_be_watched_is_a_failure_with_its_reason() -> None:
    """Without one score there is nothing to show."""
    down = segment(0, quality=None, quality_worst=None, no_score_reason="refused")

    assert "the server refused the connection" in demo.summary(PROGRAMME, [down])
    assert "no segment arrived" in demo.summary(PROGRAMME, [])


def test_lines_and_table_show_quality_what_is_on_air_and_what_was_found() -> None:
    """People read the table, logs get the lines; both must tell the same."""
    from rich.console import Console

    seen = segment(33, finding("freeze", 34, severity=2), finding("blur", 34, severity=4))
    unscored = segment(42, quality=None, quality_worst=None, no_score_reason="black")
    console = Console(width=120, record=True, file=io.StringIO())

    console.print(table([seen, unscored], PROGRAMME))

    for told in (console.export_text(), line(seen, PROGRAMME)):
        assert "70" in told
        assert "freeze" in told
        assert "blur (serious), freeze (moderate)" in told
    assert "quality   -" in line(unscored, PROGRAMME)


def test_the_table_fits_an_ordinary_terminal() -> None:
    """Eighty columns, borders included, whatever is found."""
    from rich.console import Console

    seen = [segment(14, finding("bitrate_collapse", 14), finding("compression", 14, severity=5))]
    console = Console(width=80, file=io.StringIO(), force_terminal=True)

    rendered = console.render_lines(table(seen, PROGRAMME), pad=False)
    last = ["".join(part.text for part in line).rstrip()[-1] for line in rendered[1:]]

    assert set(last) <= set("┓┃┩│┘")


def test_a_folder_that_cannot_be_written_is_said_before_anything_starts(tmp_path: Any) -> None:
    """Not after a minute of watching."""
    (tmp_path / "file").write_text("")

    with pytest.raises(VqmonError, match="--folder"):
        demo.run(15, tmp_path / "file")


def test_two_demonstrations_in_one_folder_are_told_apart(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's own remedy (another instance name) would not help here."""

    def busy(*_: object, **__: object) -> int:
        raise AlreadyRunning("another vqmon is active")

    monkeypatch.setattr("vqmon.daemon.run", busy)

    with pytest.raises(VqmonError, match="--folder"):
        demo.watch("http://127.0.0.1:1/live.ts", tmp_path, 1.0, lambda _: None)
