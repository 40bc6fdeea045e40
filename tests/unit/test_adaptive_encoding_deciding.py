"""The safety rules of adaptive encoding, as tables of segments and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from vqmon.domain import FINDING_NAMES, Comparison, Decision, Finding, Segment
from vqmon.testing import EPOCH
from vqmon_adaptive_encoding.case import Case, Evidence
from vqmon_adaptive_encoding.deciding import next_decision
from vqmon_adaptive_encoding.ladder import Level, above, below
from vqmon_adaptive_encoding.memory import Memory, remember
from vqmon_adaptive_encoding.replay import replayed
from vqmon_adaptive_encoding.settings import Rules
from vqmon_adaptive_encoding.watching import MENDABLE, Watched, end

LADDER = (Level(5, 1500), Level(6, 2500), Level(7, 4000), Level(8, 6000))
CASE = Case("news", LADDER, LADDER[0], 7000, Rules(), "act", live=True, target="webhook")


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def segment(
    start: float,
    *,
    quality: float | None = 60.0,
    finding: str | None = None,
    severity: int = 3,
    confidence: float = 0.9,
    kbps: float = 1400.0,
) -> Segment:
    """Ten seconds from `start` on, id by its beginning."""
    findings: tuple[Finding, ...] = ()
    if finding:
        findings = (Finding(finding, severity, confidence, 14.0, 10.0, "%", start=start),)
    return Segment(
        "news",
        at(start),
        start,
        10.0,
        frames_scored=5 if quality is not None else 0,
        quality=quality,
        findings=findings,
        facts={"bitrate_kbps": kbps},
        no_score_reason=None if quality is not None else "black",
        id=f"s{start:g}",
    )


def bad(start: float, **kwargs: object) -> Segment:
    return segment(start, **({"quality": 40.0, "finding": "compression"} | kwargs))  # type: ignore[arg-type]


def by_quality(before: Segment, after: Segment) -> Comparison:
    margin = (before.quality or 0) - (after.quality or 0)
    better = "similar" if abs(margin) < 2 else "a" if margin > 0 else "b"
    return Comparison(better, margin, 0.5 + max(-0.5, min(0.5, margin / 40)), "as scored")  # type: ignore[arg-type]


def decide(
    segments: Sequence[Segment],
    decisions: Sequence[Decision] = (),
    *,
    case: Case = CASE,
    now: float | None = None,
    known: Sequence[Segment] = (),
) -> Decision | None:
    watched = Watched()
    for one in segments:
        watched = watched.seen(one, case.rules)
    stored = {s.id: s for s in (*known, *segments)}
    moment = end(segments[-1]) if now is None else at(now)
    return next_decision(
        case, remember(decisions), watched, moment, Evidence(stored.get, by_quality)
    )


def raised(when: float = 30.0, *, origin: Level = LADDER[0], goal: Level = LADDER[1]) -> Decision:
    data = {
        "from": origin.as_json(),
        "to": goal.as_json(),
        "before": ["s0", "s10", "s20"],
        "finding": "compression",
    }
    return Decision("adaptive_encoding", "news", "raise", "because", at(when), data, id="r1")


def about(kind: str, when: float, of: str = "r1", **data: object) -> Decision:
    return Decision(
        "adaptive_encoding", "news", kind, "so", at(when), {"of": of, **data}, id=f"{kind}{when:g}"
    )


BEFORE = [bad(0), bad(10), bad(20)]
ASKED = [raised(), about("asked", 30)]


def test_a_sustained_fault_asks_for_the_next_rung() -> None:
    decision = decide(BEFORE)

    assert decision is not None
    assert decision.kind == "raise"
    assert decision.data["to"] == {"quality": 6, "cap_kbps": 2500}
    assert decision.data["from"] == {"quality": 5, "cap_kbps": 1500}
    assert decision.data["before"] == ["s0", "s10", "s20"]


def test_the_reason_has_words_and_numbers() -> None:
    """An operator reads it at night and must not need the source."""
    decision = decide(BEFORE)

    assert decision is not None
    assert decision.reason == (
        "obvious compression (14 against a limit of 10 %) for 30 s: "
        "asks for quality 6 under 2500 kb/s instead of quality 5 under 1500 kb/s"
    )


def test_a_severe_fault_climbs_two_rungs() -> None:
    decision = decide([bad(0, severity=4), bad(10), bad(20)])

    assert decision is not None
    assert decision.data["to"]["cap_kbps"] == 4000


@pytest.mark.parametrize(
    ("segments", "why"),
    [
        ([bad(0), bad(10)], "too short"),
        ([bad(0), segment(10), bad(20), bad(30)], "interrupted"),
        ([bad(0, severity=1), bad(10, severity=1), bad(20, severity=1)], "slight"),
        ([bad(0, confidence=0.3), bad(10, confidence=0.3), bad(20, confidence=0.3)], "doubtful"),
        ([bad(0), bad(10), bad(20), segment(30)], "over"),
    ],
)
def test_less_than_a_sustained_fault_does_nothing(segments: list[Segment], why: str) -> None:
    assert decide(segments) is None, why


@pytest.mark.parametrize("name", sorted(set(FINDING_NAMES) - MENDABLE))
def test_what_bitrate_cannot_mend_does_nothing(name: str) -> None:
    """A blurred camera stays blurred at any bitrate."""
    assert decide([bad(n, finding=name) for n in (0, 10, 20, 30)]) is None


@pytest.mark.parametrize("name", sorted(MENDABLE))
def test_what_bitrate_can_mend_acts(name: str) -> None:
    decision = decide([bad(n, finding=name) for n in (0, 10, 20)])

    assert decision is not None
    assert decision.kind == "raise"


@pytest.mark.parametrize("jam", ["underfed", "packet_loss"])
def test_a_congested_way_gets_no_more_bits(jam: str) -> None:
    """More bitrate would make exactly that worse."""
    both = [replace(s, findings=(*s.findings, Finding(jam, 2, 1.0, 1.0, 0.5, "%"))) for s in BEFORE]

    decision = decide(both)

    assert decision is not None
    assert (decision.kind, decision.data["code"]) == ("wait", "congested")


def test_observing_is_the_default_and_says_what_it_would_do() -> None:
    decision = decide(BEFORE, case=replace(CASE, mode="observe"))

    assert decision is not None
    assert decision.kind == "observe"
    assert "would ask for quality 6" in decision.reason


def test_an_encoder_that_must_stop_gets_a_proposal() -> None:
    decision = decide(BEFORE, case=replace(CASE, live=False))

    assert decision is not None
    assert decision.kind == "propose"


def test_the_top_of_the_ladder_is_said_once() -> None:
    """Ten seconds later the same sentence would only be noise."""
    kept = [raised(0, goal=LADDER[-1]), about("asked", 0), about("keep", 60)]
    late = [bad(n) for n in (4000, 4010, 4020)]

    first = decide(late, kept)
    assert first is not None
    again = decide([*late, bad(4030)], [*kept, first])

    assert (first.kind, first.data["code"]) == ("wait", "top")
    assert again is None


def test_a_stream_at_its_cap_gets_no_more() -> None:
    decision = decide([bad(n, kbps=7100) for n in (0, 10, 20)])

    assert decision is not None
    assert (decision.kind, decision.data["code"]) == ("wait", "cap")


@pytest.mark.parametrize(
    ("start", "kind", "code"),
    [(400, "wait", "cooldown"), (700, "raise", None)],
)
def test_after_a_change_there_is_a_cooldown(start: float, kind: str, code: str | None) -> None:
    kept = [*ASKED, about("keep", 90)]

    decision = decide([bad(start), bad(start + 10), bad(start + 20)], kept)

    assert decision is not None
    assert (decision.kind, decision.data.get("code")) == (kind, code)


def test_a_third_change_within_the_hour_waits() -> None:
    two = [
        *ASKED,
        about("keep", 90),
        replace(raised(800, origin=LADDER[1], goal=LADDER[2]), id="r2"),
        about("asked", 800, "r2"),
        about("keep", 900, "r2"),
    ]

    early = decide([bad(n) for n in (1600, 1610, 1620)], two)
    late = decide([bad(n) for n in (3700, 3710, 3720)], two)

    assert early is not None
    assert early.data.get("code") == "budget"
    assert late is not None
    assert late.kind == "raise"


def test_failures_in_vain_make_the_cooldown_longer() -> None:
    """An encoder that does not listen is not asked twice an hour for ever."""
    vain = [*ASKED, about("roll_back", 90), about("restored", 90, "roll_back90")]

    decision = decide([bad(n) for n in (1000, 1010, 1020)], vain)

    assert decision is not None
    assert decision.data.get("code") == "cooldown"
    assert "1200 s after 1 in vain" in decision.reason


def test_a_change_that_helped_is_kept() -> None:
    after = [segment(n, quality=62, kbps=2400) for n in (50, 60, 70)]

    decision = decide(after, ASKED, known=BEFORE)

    assert decision is not None
    assert decision.kind == "keep"
    assert "quality 40.0 became 62.0, +22.0 points" in decision.reason
    assert "1400 kb/s became 2400" in decision.reason
    assert remember([*ASKED, decision]).level == LADDER[1]


def test_nothing_is_judged_before_the_change_has_settled() -> None:
    """The first segments after a request still show the old encoding."""
    assert decide([segment(n, quality=62) for n in (30, 40, 50, 60)], ASKED, known=BEFORE) is None


def test_a_change_that_did_nothing_is_taken_back() -> None:
    after = [bad(n, quality=40.5) for n in (50, 60, 70)]

    decision = decide(after, ASKED, known=BEFORE)

    assert decision is not None
    assert decision.kind == "roll_back"
    assert "nothing improved" in decision.reason
    assert "the encoder did not follow" in decision.reason
    assert decision.data["to"] == LADDER[0].as_json()


def test_a_bitrate_that_fell_although_more_was_asked_did_not_follow() -> None:
    after = [segment(n, quality=40, kbps=900) for n in (50, 60, 70)]

    decision = decide(after, ASKED, known=BEFORE)

    assert decision is not None
    assert "1400 kb/s became 900: the encoder did not follow" in decision.reason


def test_a_fault_that_went_away_counts_even_when_the_score_hardly_moved() -> None:
    after = [segment(n, quality=41) for n in (50, 60, 70)]

    decision = decide(after, ASKED, known=BEFORE)

    assert decision is not None
    assert decision.kind == "keep"


def test_a_worse_picture_is_taken_back_even_without_the_fault() -> None:
    after = [segment(n, quality=30) for n in (50, 60, 70)]

    decision = decide(after, ASKED, known=BEFORE)

    assert decision is not None
    assert decision.kind == "roll_back"


def test_reaching_the_cap_is_taken_back_however_good_it_looks() -> None:
    after = [segment(50, quality=90, kbps=7000)]

    decision = decide(after, ASKED, known=BEFORE)

    assert decision is not None
    assert decision.kind == "roll_back"
    assert "the cap was hit: 7000 of 7000 kb/s" in decision.reason


def test_congestion_after_a_raise_is_taken_back_at_once() -> None:
    decision = decide([segment(50, quality=90, finding="underfed")], ASKED, known=BEFORE)

    assert decision is not None
    assert decision.kind == "roll_back"
    assert "there is underfed since" in decision.reason


def test_what_cannot_be_judged_in_time_is_taken_back() -> None:
    """A stream that is down, or a scorer that is away, must not leave a bitrate raised."""
    silent = [segment(n, quality=None) for n in (50, 60, 620)]

    decision = decide(silent, ASKED, known=BEFORE)

    assert decision is not None
    assert decision.kind == "roll_back"
    assert "0 of 3 segments have a score" in decision.reason


def test_what_lost_its_before_is_taken_back() -> None:
    """Retention may have deleted the segments to compare with."""
    decision = decide([segment(n) for n in (50, 60, 70)], ASKED, now=700)

    assert decision is not None
    assert decision.kind == "roll_back"


def test_a_request_of_unknown_fate_is_taken_back() -> None:
    """vqmon was killed between deciding and asking: nobody knows whether the encoder heard."""
    decision = decide([segment(50)], [raised()], known=BEFORE)

    assert decision is not None
    assert decision.kind == "roll_back"
    assert "nobody knows" in decision.reason


def test_nothing_new_is_decided_until_the_encoder_is_back() -> None:
    undone = [*ASKED, about("roll_back", 90)]

    assert decide([bad(n) for n in (9000, 9010, 9020)], undone) is None
    assert remember(undone).change is not None


def test_a_raise_is_called_recovered_after_180_clean_seconds() -> None:
    kept = [*ASKED, about("keep", 80)]
    clean = [segment(80 + 10 * n) for n in range(18)]

    assert decide(clean[:17], kept) is None
    decision = decide(clean, kept)

    assert decision is not None
    assert decision.kind == "recovered"
    assert "180 s" in decision.reason


def test_time_without_a_score_does_not_count_as_clean() -> None:
    kept = [*ASKED, about("keep", 80)]

    assert decide([segment(80 + 10 * n, quality=None) for n in range(40)], kept) is None


HELD = [*ASKED, about("keep", 80), about("recovered", 300)]


def test_a_raised_level_is_lowered_after_a_long_clean_time() -> None:
    """Easy content needs no expensive level; a raised one is never left standing for good."""
    clean = [segment(80 + 10 * n) for n in range(180)]

    decision = decide(clean, HELD)

    assert decision is not None
    assert decision.kind == "lower"
    assert decision.data["to"] == LADDER[0].as_json()
    assert decision.data["before"] == [s.id for s in clean[-3:]]


@pytest.mark.parametrize(
    ("quality", "finding", "kind"),
    [
        (60, None, "keep"),
        (58.5, None, "keep"),
        (45, None, "roll_back"),
        (60, "banding", "roll_back"),
    ],
)
def test_a_lowering_is_judged_too(quality: float, finding: str | None, kind: str) -> None:
    known = [segment(n, quality=60) for n in (0, 10, 20)]
    lowered = [replace(raised(30, origin=LADDER[1], goal=LADDER[0]), kind="lower")]
    asked = [*lowered, about("asked", 30)]

    decision = decide(
        [segment(n, quality=quality, finding=finding) for n in (50, 60, 70)], asked, known=known
    )

    assert decision is not None
    assert decision.kind == kind


def test_a_lowering_that_cannot_be_judged_stays() -> None:
    """Down is where the operator put the encoder."""
    lowered = replace(raised(30, origin=LADDER[1], goal=LADDER[0]), kind="lower")

    decision = decide([segment(700, quality=None)], [lowered, about("asked", 30)])

    assert decision is not None
    assert decision.kind == "keep"


def test_each_undone_lowering_doubles_the_wait_for_the_next() -> None:
    undone = [
        *HELD,
        replace(raised(2000, origin=LADDER[1], goal=LADDER[0]), kind="lower", id="l1"),
        about("asked", 2000, "l1"),
        about("roll_back", 2100, "l1"),
        about("restored", 2100, "roll_back2100"),
    ]
    clean = [segment(2100 + 10 * n) for n in range(360)]

    assert remember(undone).level == LADDER[1]
    assert decide(clean[:359], undone) is None
    decision = decide(clean, undone)

    assert decision is not None
    assert decision.kind == "lower"


def test_switching_to_observe_hands_the_encoder_back() -> None:
    decision = decide([segment(4000)], HELD, case=replace(CASE, mode="observe"))

    assert decision is not None
    assert decision.kind == "lower"
    assert decision.data["to"] == LADDER[0].as_json()


def test_a_change_under_way_is_finished_in_observe_mode_too() -> None:
    after = [bad(n) for n in (50, 60, 70)]

    decision = decide(after, ASKED, known=BEFORE, case=replace(CASE, mode="observe"))

    assert decision is not None
    assert decision.kind == "roll_back"


def test_what_stands_is_repeated_daily_so_that_pruning_forgets_nothing() -> None:
    """vqmon deletes old decisions; a raised bitrate may be older than those it keeps."""
    day_later = segment(300 + 86_400)

    decision = decide([day_later], HELD)

    assert decision is not None
    assert decision.kind == "holds"
    assert remember([decision]).level == LADDER[1]
    assert remember([decision]).recovered


def test_a_roll_back_that_waits_is_repeated_daily_too() -> None:
    undone = [*ASKED, about("roll_back", 90, to=LADDER[0].as_json())]

    decision = decide([segment(90 + 86_400)], undone)

    assert decision is not None
    change = remember([decision]).change
    assert change is not None
    assert (change.origin, change.undone_by) == (LADDER[0], "roll_back90")
    assert remember([decision, about("restored", 90_000, "roll_back90")]).change is None


def test_nothing_decided_yet_is_an_empty_memory() -> None:
    assert remember([]) == Memory()


def test_a_dry_run_obeys_cooldown_and_budget() -> None:
    """Two hours of compression: what would have been asked is what the rules allow."""
    decided = replayed(CASE, [bad(10.0 * n) for n in range(720)])

    observed = [d.at for d in decided if d.kind == "observe"]

    assert [round((when - EPOCH).total_seconds()) for when in observed] == [30, 630, 3630, 4230]
    assert {d.kind for d in decided} == {"observe", "wait"}


def test_ladders_are_climbed_and_descended_rung_by_rung() -> None:
    assert above(LADDER, LADDER[0], 3) == LADDER[1]
    assert above(LADDER, LADDER[2], 5) == LADDER[3]
    assert above(LADDER, LADDER[3], 3) is None
    assert above(LADDER, Level(5.5, 2000), 3) == LADDER[1]
    assert below(LADDER, LADDER[2], LADDER[0]) == LADDER[1]
    assert below(LADDER, LADDER[1], LADDER[1]) is None
