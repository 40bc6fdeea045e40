"""The explanation: every word and number in it comes from the segment."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scenes import EPOCH
from vqmon.domain import (
    CELLS,
    DEGRADATIONS,
    FAULTS,
    FINDING_NAMES,
    NO_SCORE_REASONS,
    SEVERITY_WORDS,
    Assessment,
    Finding,
    Segment,
)
from vqmon.explain import FINDINGS, REASONS, comparison, explain, score_word, sentence
from vqmon.explain.causes import RULES
from vqmon.explain.words import number, region_words, title
from vqmon.scorers.comparison import compare

FACTS: dict[str, Any] = {
    "codec": "h264",
    "width": 1920,
    "height": 1080,
    "frame_rate": 25.0,
    "bitrate_kbps": 4812.5,
    "video_bitrate_kbps": 4700.0,
    "frames_decoded": 250,
    "packets": 250,
    "corrupt_packets": 0,
    "decode_errors": 0,
    "gaps": 0,
}

SEGMENT = Segment(
    "news", EPOCH, 100.0, 10.0, 5, quality=86.0, quality_worst=80.5, uncertainty=5.0, facts=FACTS
)


def finding(name: str, severity: int = 3, **changes: Any) -> Finding:
    made = Finding(name, severity, 0.9, 7.25, 2.5, "units", start=102.0, seconds=6.5)
    return replace(made, **changes)


def with_findings(*findings: Finding, quality: float | None = 86.0, **facts: Any) -> Segment:
    return replace(SEGMENT, quality=quality, findings=findings, facts=FACTS | facts)


def unscored(reason: str, *findings: Finding) -> Segment:
    return Segment("news", EPOCH, 0.0, 10.0, findings=findings, no_score_reason=reason, facts=FACTS)


def steps(segment: Segment) -> list[str]:
    return explain(segment).split("\n")


# The vocabulary is closed ------------------------------------------------------------------------


def test_every_finding_has_words_and_no_other_has() -> None:
    assert FINDINGS.keys() == set(FINDING_NAMES)


def test_every_reason_has_words_and_a_remedy_and_no_other_has() -> None:
    assert REASONS.keys() == set(NO_SCORE_REASONS)


@pytest.mark.parametrize("name", FINDING_NAMES)
def test_each_finding_is_told_with_its_numbers(name: str) -> None:
    """An explanation without the measured value cannot be checked."""
    text = explain(with_findings(finding(name)))

    assert title(name).capitalize() in text
    assert FINDINGS[name].seen in text
    assert "obvious" in text
    assert "7.25 units" in text
    assert "2.5 units" in text
    assert "from 2 s to 8.5 s" in text
    assert "90 %" in text


@pytest.mark.parametrize("name", FINDING_NAMES)
def test_each_finding_has_a_cause_and_something_to_check(name: str) -> None:
    causes = [step for step in steps(with_findings(finding(name))) if "Likely cause" in step]

    assert len(causes) == 1
    assert len(causes[0]) > 40


@pytest.mark.parametrize("reason", NO_SCORE_REASONS)
def test_each_reason_is_told_with_its_remedy(reason: str) -> None:
    segment = unscored(reason)

    assert REASONS[reason].because in steps(segment)[-1]
    assert REASONS[reason].remedy in steps(segment)[-1]
    assert sentence(segment) == f"No score: {REASONS[reason].because}."


@pytest.mark.parametrize("name", FINDING_NAMES)
def test_a_cause_is_a_cause_and_not_only_something_to_check(name: str) -> None:
    """It is told as "Likely cause: ..."."""
    assert not FINDINGS[name].check.startswith("Check")


@pytest.mark.parametrize("text", [*FINDINGS.values(), *REASONS.values()], ids=str)
def test_words_fit_into_their_sentences(text: Any) -> None:
    """Clauses begin small and end open; sentences begin large and end with a stop."""
    clauses = [text.because] if hasattr(text, "because") else [text.seen, text.viewer]
    whole = text.remedy if hasattr(text, "remedy") else text.check

    for clause in clauses:
        assert not clause.endswith(".")
        assert clause == clause.strip()
    assert whole.endswith(".")
    assert whole[0].isupper() or whole[0] == "`"


@pytest.mark.parametrize(
    ("quality", "word"),
    [
        (100, "excellent"),
        (80, "excellent"),
        (79.9, "good"),
        (60, "good"),
        (59.9, "fair"),
        (40, "fair"),
        (39.9, "poor"),
        (20, "poor"),
        (19.9, "bad"),
        (0, "bad"),
    ],
)
def test_a_score_has_the_word_of_its_fifth(quality: float, word: str) -> None:
    """The five words of ITU-R BT.500."""
    assert score_word(quality) == word


# The chain ---------------------------------------------------------------------------------------


def test_steps_are_numbered_in_order() -> None:
    told = steps(with_findings(finding("blur"), finding("freeze"), quality=40.0))

    assert [int(step.split(".")[0]) for step in told] == list(range(1, len(told) + 1))
    assert told[0].startswith("1. Watched 10 s, h264 1920x1080 at 25 frames a second")
    assert "4812.5 kb/s: 250 pictures decoded, 5 scored" in told[0]
    assert "Conclusion" in told[-1]


def test_a_clean_segment_says_so() -> None:
    assert "No fault and no degradation was found." in explain(SEGMENT)
    assert "Likely cause" not in explain(SEGMENT)
    assert sentence(SEGMENT) == "Excellent, 86 of 100 (give or take 5): nothing wrong found."


def test_the_conclusion_gives_score_spread_and_the_worst_picture() -> None:
    last = steps(SEGMENT)[-1]

    assert "excellent, 86 of 100 (give or take 5)" in last
    assert "the worst picture has 80.5" in last


def test_the_gravest_comes_first() -> None:
    told = explain(with_findings(finding("blur", 2), finding("freeze", 5), finding("noise", 3)))

    assert told.index("Freeze") < told.index("Noise") < told.index("Blur")


def test_findings_of_one_name_are_one_step() -> None:
    """A file of an hour may have a hundred holds."""
    many = [finding("stutter", 2, start=100.0 + i, seconds=0.5) for i in range(6)]
    worst = finding("stutter", 4, value=1.75, start=107.0, seconds=0.5)

    told = [step for step in steps(with_findings(*many, worst)) if "Stutter" in step]

    assert len(told) == 1
    assert "7 times for 3.5 s in all, first at 0 s" in told[0]
    assert "serious" in told[0]
    assert "1.75" in told[0]


def test_a_fault_that_lasts_says_throughout() -> None:
    lasting = finding("black", 4, value=18.0, limit=0.5, unit="s", start=100.0, seconds=10.0)

    told = explain(with_findings(lasting))

    assert "throughout (10 s), having begun before" in told


def test_an_instant_has_a_place_and_no_length() -> None:
    told = explain(with_findings(finding("timestamp_jump", start=103.25, seconds=0.0)))

    assert "at 3.25 s" in told
    assert "for 0 s" not in told


def test_a_finding_without_figures_is_told_without() -> None:
    told = explain(with_findings(finding("blur", value=None, limit=None)))

    assert "None" not in told
    assert "measured" not in told.split("Likely")[0].split("\n")[1]


def test_what_a_model_judges_is_not_called_measured() -> None:
    """It places the damage on the scale of severities; there is no limit beyond its first level."""
    judged = finding("blur", value=3.24, limit=1.0, unit="of 5")

    assert "fine detail is missing (level 3.2 of 5), in" in explain(with_findings(judged))


def test_a_shares_limit_is_told_in_percent() -> None:
    lost = finding("packet_loss", value=2.5, limit=0.05, unit="% of packets")

    assert "(measured 2.5 % of packets, limit 0.05 %)" in explain(with_findings(lost))


# Where -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "words"),
    [
        (None, "in the whole picture"),
        (CELLS, "in the whole picture"),
        (("top-left",), "at top-left"),
        (("top-left", "centre"), "at top-left and centre"),
        (("top-left", "top", "top-right"), "in the top third"),
        (("left", "centre", "right"), "in the middle third"),
        (("top-right", "right", "bottom-right"), "in the right third"),
        (("top", "centre", "bottom-left"), "at top, centre and bottom-left"),
    ],
)
def test_a_region_is_told_as_a_place(region: tuple[str, ...] | None, words: str) -> None:
    assert region_words(region) == words
    assert words in explain(with_findings(finding("noise", region=region)))


def test_a_fault_of_the_stream_has_no_place_in_the_picture() -> None:
    assert "in the whole picture" not in explain(with_findings(finding("freeze")))


# What it does to the score ------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_degradation_is_blamed_only_for_a_low_score(name: str) -> None:
    low = explain(with_findings(finding(name), quality=35.0))
    high = explain(with_findings(finding(name), quality=90.0))
    none = explain(replace(unscored("scorer_unavailable"), findings=(finding(name),)))

    assert "likeliest to pull the score down" in low
    assert "pull the score down" not in high
    assert "hardly lowers the score" in high
    assert "no score that it could lower" in none


def test_only_the_gravest_degradation_is_the_likeliest() -> None:
    told = explain(
        with_findings(finding("freeze", 5), finding("blur", 4), finding("noise", 2), quality=30.0)
    )

    assert told.count("likeliest to pull") == 1
    [blamed] = [step for step in told.split("\n") if "likeliest to pull" in step]
    assert "Blur" in blamed


def test_a_slight_degradation_is_not_blamed_for_a_low_score() -> None:
    told = explain(with_findings(finding("blur", 1), quality=30.0))

    assert "likeliest" not in told
    assert "may add to the low score" in told


def test_a_stated_cost_is_told_in_points() -> None:
    """The model's own figure goes before any guess from the height of the score."""
    lasting = {"start": 100.0, "seconds": 10.0}
    told = steps(
        with_findings(
            finding("blur", 4, cost=13.6, **lasting),
            finding("noise", 2, cost=0.2, **lasting),
            finding("banding", 1, cost=1.2, **lasting),
            finding("freeze", 3),
            quality=70.0,
        )
    )

    assert told[1].endswith("It costs about 14 points.")
    assert told[2].endswith("this stands beside the score.")
    assert told[3].endswith("It costs less than a point.")
    assert told[4].endswith("It costs about 1 point.")
    assert told[-1].endswith(
        "Of the 30 points missing to 100, what was found costs about 15 points (blur 14 and "
        "banding 1); the other 15 lie in the picture as a whole."
    )


def test_a_cost_of_a_part_is_told_with_its_share_of_the_score() -> None:
    """Six and a half of ten seconds: two thirds of the cost are in the mean."""
    told = explain(with_findings(finding("blur", cost=20.0), quality=80.0))

    assert "It costs about 20 points while it lasts, about 13 points of this score." in told
    assert "what was found costs about 13 points (blur 13); the other 7 lie" in told


def test_costs_that_reach_all_that_is_missing_leave_no_rest() -> None:
    blur = finding("blur", cost=30.0, start=100.0, seconds=10.0)

    told = steps(with_findings(blur, quality=72.0))[-1]

    assert told.endswith("What was found accounts for all that is missing to 100 (blur 30).")


def test_where_the_model_states_costs_nothing_else_is_blamed() -> None:
    """A guess beside a figure would contradict it."""
    told = explain(
        with_findings(finding("compression", 5), finding("blur", 2, cost=9.0), quality=35.0)
    )

    assert "likeliest" not in told
    assert "The model states no cost for it." in told


def test_several_findings_of_one_name_cost_their_mean() -> None:
    """Two stretches of 2 s and 4 s at 12 and 6 points: 8 while they last, 5 of the segment."""
    some = [
        finding("blur", 4, cost=12.0, start=100.0, seconds=2.0),
        finding("blur", 2, cost=6.0, start=104.0, seconds=4.0),
    ]

    assert "about 8 points while it lasts, about 5 points of this score" in explain(
        with_findings(*some, quality=70.0)
    )


def test_without_a_score_a_cost_lowers_nothing() -> None:
    told = explain(replace(unscored("black"), findings=(finding("blur", cost=9.0),)))

    assert "There is no score that it could lower." in told


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_stands_beside_the_score(name: str) -> None:
    """Freeze and black are measured, never learned: they do not move the number."""
    told = explain(with_findings(finding(name), quality=35.0))

    assert "beside the score" in told
    assert "pull the score down" not in told
    assert FINDINGS[name].viewer in told


def test_a_low_score_without_findings_is_left_to_the_model() -> None:
    told = explain(with_findings(quality=25.0))

    assert "the model judges the picture as a whole" in told
    assert "No fault and no degradation" not in told


@pytest.mark.parametrize("name", ["overload", "storage_low"])
def test_faults_of_our_own_are_told_as_such(name: str) -> None:
    assert "about vqmon itself, not about the stream" in explain(with_findings(finding(name)))


# Causes ------------------------------------------------------------------------------------------


def causes(segment: Segment) -> str:
    return "\n".join(step for step in steps(segment) if "Likely cause" in step)


def test_compression_with_few_bits_is_a_starved_encoder() -> None:
    told = causes(with_findings(finding("compression"), qp=41.0, bitrate_percent_of_usual=28.0))

    assert "starved of bits" in told
    assert "41 of 51" in told
    assert "28 % of the usual bitrate" in told


def test_compression_with_enough_bits_is_not() -> None:
    told = causes(with_findings(finding("compression"), qp=22.0, bitrate_percent_of_usual=100.0))

    assert "starved" not in told


def test_loss_with_damage_is_the_network() -> None:
    told = causes(with_findings(finding("packet_loss"), finding("corrupted"), corrupt_packets=9))

    assert "network" in told
    assert told.count("Likely cause") == 1


def test_damage_without_loss_came_from_before() -> None:
    assert "before the last hop" in causes(with_findings(finding("corrupted")))


def test_a_freeze_with_packets_flowing_is_the_encoders_input() -> None:
    told = causes(with_findings(finding("freeze")))

    assert "250 packets arrived" in told
    assert "encoder's input" in told


def test_stutter_is_told_apart_by_missing_packets() -> None:
    missing = causes(with_findings(finding("stutter"), gaps=4))
    repeated = causes(with_findings(finding("stutter"), gaps=0))

    assert "4 times packets were missing" in missing
    assert "No packet is missing" in repeated


def test_not_every_cause_is_told() -> None:
    """Ten causes are none."""
    every = [finding(name, 1 + i % 5) for i, name in enumerate(FINDING_NAMES)]

    assert causes(with_findings(*every)).count("Likely cause") == 3


def test_rules_speak_of_known_findings_and_are_all_reached() -> None:
    """A rule behind a more general one would never be told."""
    facts: list[dict[str, Any]] = [
        {},
        {"packets": 0},
        {"gaps": 3},
        {"gaps": 0, "qp": 45.0},
        {"corrupt_packets": 5},
    ]
    for rule in RULES:
        assert rule.names <= set(FINDING_NAMES)
        alone = [
            rule.says(FACTS | some) in causes(with_findings(*map(finding, rule.names), **some))
            for some in facts
            if rule.when(FACTS | some)
        ]
        assert any(alone), rule.names


# How it was watched ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"keyframes_only": True}, "Only keyframes were looked at."),
        ({"burst_reason": "damaged packets"}, "Looked closer because of damaged packets."),
        ({"coarser_by": 4}, "4 times coarser"),
        ({"lost": ["timeout_read"]}, "lost once (data stopped coming)"),
        ({"lost": ["eof", "eof", "refused"]}, "lost 3 times"),
    ],
)
def test_how_closely_it_was_watched_is_told(facts: dict[str, Any], words: str) -> None:
    assert words in steps(with_findings(**facts))[0]


def test_a_file_of_keyframes_alone_was_still_looked_at_whole() -> None:
    """Every scored picture of it is a keyframe, but none was passed over for being no keyframe."""
    assert "Only keyframes" not in explain(with_findings(keyframes_only=True, sampling="every"))


def test_an_explanation_needs_no_facts() -> None:
    """Rows of the supervisor have hardly any."""
    bare = Segment("news", EPOCH, 0.0, 10.0, no_score_reason="refused")

    assert explain(bare).startswith("1. Watched 10 s: 0 scored.")


# In one line -------------------------------------------------------------------------------------


def test_the_sentence_names_the_gravest_three() -> None:
    findings = [finding(n, s) for n, s in zip(FAULTS[:5], (5, 4, 3, 2, 1), strict=True)]

    told = sentence(with_findings(*findings, quality=52.0))

    assert told.startswith("Fair, 52 of 100 (give or take 5): catastrophic black picture")
    assert told.endswith("and 2 more.")
    assert "\n" not in told


def test_the_sentence_of_an_unscored_segment_has_both() -> None:
    told = sentence(unscored("black", finding("black", 4)))

    assert told.startswith("No score: every picture that was looked at is black")
    assert "serious black picture for 6.5 s" in told


# Always ------------------------------------------------------------------------------------------

values = st.one_of(st.none(), st.floats(-500, 500), st.floats(0, 0.001))


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    start = draw(st.floats(0, 1e5).map(lambda x: round(x, 3)))
    made = [
        Finding(
            draw(st.sampled_from(FINDING_NAMES)),
            draw(st.integers(1, 5)),
            draw(st.floats(0, 1)),
            draw(values),
            draw(values),
            draw(st.sampled_from(["", "s", "% of packets", "LUFS"])),
            draw(st.none() | st.lists(st.sampled_from(CELLS), unique=True).map(tuple)),
            start + draw(st.floats(0, 9)),
            draw(st.floats(0, 1)),
            draw(st.none() | st.floats(0, 100)),
        )
        for _ in range(draw(st.integers(0, 6)))
    ]
    quality = draw(st.none() | st.floats(0, 100))
    return Segment(
        "news",
        EPOCH,
        start,
        10.0,
        quality=quality,
        quality_worst=quality,
        uncertainty=draw(st.none() | st.floats(0, 30)) if quality is not None else None,
        findings=tuple(made),
        facts=draw(st.sampled_from([{}, FACTS])),
        no_score_reason=draw(st.sampled_from(NO_SCORE_REASONS)) if quality is None else None,
    )


@given(segments())
def test_whatever_was_measured_it_is_told_without_contradiction(segment: Segment) -> None:
    told, short = explain(segment), sentence(segment)

    assert "None" not in told + short
    assert "nan" not in told + short
    assert not re.search(r"\d[eE][-+]?\d", told), "no exponents for people"
    assert "  " not in told
    assert ".." not in told
    assert short.count("\n") == 0
    if segment.quality is None:
        assert "there is no score" in told
        assert not any(w in told for w in ("excellent", "Conclusion: quality"))
    else:
        assert score_word(segment.quality) in told
        assert "no score" not in told
    if segment.findings:
        assert "No fault" not in told
        assert "nothing wrong" not in short
    for each in {f.name for f in segment.findings}:
        assert FINDINGS[each].seen in told
    worst = max((f.severity for f in segment.findings), default=None)
    if worst:
        assert SEVERITY_WORDS[worst - 1] in told


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (8.0, "8"),
        (8.0601, "8.06"),
        (-23.0, "-23"),
        (1234567.0, "1234567"),
        (0.05, "0.05"),
        (0.00123, "0.0012"),
        (0.0000123, "0.000012"),
    ],
)
def test_numbers_are_told_as_people_write_them(value: float, text: str) -> None:
    assert number(value) == text


@given(segments(), segments(), st.sampled_from([None, (0, 1), (3, 4)]), st.sampled_from([0.0, 0.9]))
def test_whatever_is_compared_is_told_without_contradiction(
    a: Segment, b: Segment, alike: tuple[int, int] | None, shared: float
) -> None:
    """Both sides are scored, as a comparison demands."""
    a, b = (replace(it, quality=it.quality or 50.0, no_score_reason=None) for it in (a, b))
    sides = ([Assessment(0.0, it.quality, it.uncertainty)] for it in (a, b))

    found = compare(*sides, shared=shared)
    told = comparison(a, b, found, alike=alike).split("\n")

    assert [int(step.split(".")[0]) for step in told] == list(range(1, len(told) + 1))
    assert told[-1].split(". ", 1)[1].startswith("Conclusion: ")
    assert ("similar" in told[-1]) is (found.better == "similar")
    for step in told:
        assert "None" not in step
        assert "nan" not in step
        assert "  " not in step
        assert ".." not in step
        assert not re.search(r"\d[eE][-+]?\d", step)
