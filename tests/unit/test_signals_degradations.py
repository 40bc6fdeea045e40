"""What single pictures show becomes what a segment shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vqmon.domain import Finding
from vqmon.signals.degradations import Degradations


def blur(severity: int = 3, region: tuple[str, ...] | None = None, value: float = 1.0) -> Finding:
    return Finding("blur", severity, 0.8, value, 0.5, "x", region)


def merged(*pictures: list[Finding], spacing: float = 2.0, end: float = 10.0) -> list[Finding]:
    degradations = Degradations()
    for index, findings in enumerate(pictures):
        degradations.picture(index * spacing, findings)
    return degradations.findings(0, end)


def test_one_picture_in_five_is_an_accident() -> None:
    assert not merged([], [blur()], [], [], [])


def test_a_third_of_the_pictures_is_the_segment() -> None:
    assert merged([blur()], [], [], [blur()], [])


def test_two_in_a_row_are_the_segment_however_many_there_are() -> None:
    pictures: list[list[Finding]] = [[] for _ in range(20)]
    pictures[7] = pictures[8] = [blur()]

    [finding] = merged(*pictures, spacing=0.5)

    assert (finding.start, finding.seconds) == (3.5, 1.0)


def test_a_single_picture_speaks_for_its_segment() -> None:
    """Still images are scored as videos of one frame."""
    [finding] = merged([blur()], end=0.04)

    assert (finding.start, finding.seconds) == (0, 0.04)


def test_severity_is_the_median_and_the_value_the_worst() -> None:
    pictures = [[blur(2, value=0.6)], [blur(2, value=0.7)], [blur(5, value=3.0)], [blur(3)], []]

    [finding] = merged(*pictures)

    assert finding.severity == 2
    assert finding.value == 3.0
    assert finding.confidence == 0.8


def test_it_costs_the_mean_of_the_pictures_that_state_it() -> None:
    """The segment's score is a mean too, so that points can be set against points."""
    costly = [[replace(blur(), cost=10.0)], [replace(blur(), cost=16.0)], [blur()], []]

    assert [f.cost for f in merged(*costly)] == [13.0]
    assert [f.cost for f in merged([blur()], [blur()])] == [None]


def test_it_lasts_from_the_first_picture_to_the_end_of_the_last() -> None:
    [finding] = merged([], [blur()], [blur()], [blur()], [])

    assert (finding.start, finding.seconds) == (2, 6)


def test_the_last_picture_stands_to_the_end_of_the_segment() -> None:
    [finding] = merged([], [], [], [blur()], [blur()])

    assert (finding.start, finding.seconds) == (6, 4)


def test_the_region_is_what_most_pictures_agree_on() -> None:
    corner, more = ("top-left",), ("top-left", "top")

    [finding] = merged([blur(region=corner)], [blur(region=more)], [blur(region=corner)])

    assert finding.region == ("top-left",)


def test_half_of_the_pictures_without_a_region_mean_the_whole_picture() -> None:
    [finding] = merged([blur(region=("top",))], [blur(region=None)])

    assert finding.region is None


def test_every_degradation_is_merged_by_itself() -> None:
    noise = Finding("noise", 2, 0.6, 5.0, 3.0)

    findings = merged([blur(), noise], [blur()], [noise, blur()], [], [])

    assert [f.name for f in findings] == ["blur", "noise"]


def test_pictures_of_other_segments_do_not_count() -> None:
    degradations = Degradations()
    for second in range(0, 20, 2):
        degradations.picture(float(second), [blur()] if second < 10 else [])

    assert degradations.findings(0, 10)
    assert not degradations.findings(10, 20)


def test_memory_is_bounded() -> None:
    degradations = Degradations()
    for index in range(5000):
        degradations.picture(float(index), [blur()])

    [finding] = degradations.findings(0, 5000)

    assert finding.seconds < 2000


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_a_steady_degradation_keeps_its_severity(severity: int) -> None:
    [finding] = merged(*[[blur(severity)]] * 5)

    assert finding.severity == severity
    assert (finding.start, finding.seconds) == (0, 10)
