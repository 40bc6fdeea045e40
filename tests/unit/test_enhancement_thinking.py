"""What enhancement decides, without a picture: remedies, search, verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vqmon.domain import DEGRADATIONS, FINDING_NAMES, Assessment, Comparison, Finding
from vqmon.errors import VqmonError
from vqmon.scorers.comparison import compare
from vqmon_enhancement.judging import Bar, Measured, Pair, Verdict, outside, paired, verdict
from vqmon_enhancement.remedies import (
    MENDS,
    REMEDIES,
    UNMENDABLE,
    Diagnosis,
    Recipe,
    Step,
    diagnosed,
    neighbours,
    recipe,
    singles,
)
from vqmon_enhancement.searching import Budget, Trial, search


def finding(name: str, severity: int = 3) -> Finding:
    return Finding(name, severity, 0.9, None, None)


class Judge:
    """Compares by scores, as every scorer does."""

    def score(self, path: Path, *, every: float = 1.0) -> list[Assessment]:
        raise NotImplementedError

    def compare(
        self, a: Sequence[Assessment], b: Sequence[Assessment], *, same_content: bool = False
    ) -> Comparison:
        return compare(a, b, shared=0.9 if same_content else 0.0)


def said(quality: float, position: float, *findings: Finding, doubt: float = 8.0) -> Assessment:
    return Assessment(position, quality, doubt, findings, model="fake@1")


def pairs(before: Sequence[float], after: Sequence[float], *findings: Finding) -> list[Pair]:
    return [
        (said(a, float(i)), said(b, float(i), *findings))
        for i, (a, b) in enumerate(zip(before, after, strict=True))
    ]


def judged(before: Sequence[float], after: Sequence[float], *findings: Finding) -> Verdict:
    return verdict(pairs(before, after, *findings), Judge(), Bar(), Measured())


# -- remedies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINDING_NAMES)
def test_every_finding_has_a_remedy_or_a_reason(name: str) -> None:
    """An operator must never read that nothing was done without reading why."""
    assert (name in MENDS) != (name in UNMENDABLE)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_what_no_filter_mends_says_why(name: str) -> None:
    diagnosis = diagnosed([finding(name, 5)])

    assert len(diagnosis.mendable) + len(diagnosis.beyond) == 1
    assert all(diagnosis.beyond.values())


def test_the_gravest_finding_is_treated_first_and_as_hard_as_it_is_grave() -> None:
    groups = singles(diagnosed([finding("banding", 1), finding("noise", 4)]))

    assert [name for name, _ in groups] == ["noise", "banding"]
    assert groups[0][1][0] == Recipe((Step("nlmeans", 4),))


def test_fields_are_joined_before_anything_else() -> None:
    """Every other filter would smear the two moments into each other."""
    [(_, joined), (_, against_noise)] = singles(diagnosed([finding("noise", 2)], interlaced=True))

    assert joined[0].steps[0].remedy == "bwdif"
    assert all(it.steps[0].remedy == "bwdif" for it in against_noise)
    assert "parity=tff" in joined[0].filters("tff")[0][1]


def test_sharpening_comes_last_whatever_the_order_of_asking() -> None:
    mixed = recipe([Step("cas", 1), Step("nlmeans", 2), Step("deblock", 3), Step("nlmeans", 1)])

    assert str(mixed) == "deblock 3 + nlmeans 2 + cas 1"


def test_neighbours_of_a_recipe_stay_within_the_strengths() -> None:
    for remedy in REMEDIES:
        for strength in (1, 5):
            around = neighbours(recipe([Step(remedy, strength)]), Diagnosis())
            assert all(1 <= step.strength <= 5 for it in around for step in it.steps)


def test_damage_is_smoothed_before_anything_is_sharpened_and_then_gently() -> None:
    """Sharpened blocks once scored 48 points more than the blocks, and looked worse."""
    diagnosis = Diagnosis({"blur": 4, "compression": 4})

    found = search(diagnosis, lambda it: Trial(it, float(len(str(it)))), Budget(None, 40))

    sharpened = [it.recipe for it in found.trials if "cas" in str(it.recipe)]
    assert sharpened
    for one in sharpened:
        assert one.steps[0].remedy in {"deblock", "dering", "atadenoise"}
        assert one.steps[-1].strength <= 2


# -- search ------------------------------------------------------------------------------------


def tried(
    gain: Callable[[Recipe], float], clock: list[float] | None = None
) -> Callable[[Recipe], Trial]:
    def attempt(one: Recipe) -> Trial:
        if clock is not None:
            clock[0] += 1.0
        return Trial(one, gain(one))

    return attempt


def test_the_search_climbs_to_the_best_strength() -> None:
    def gain(one: Recipe) -> float:
        return 5.0 - sum(abs(it.strength - 4) + 2 * (it.remedy != "nlmeans") for it in one.steps)

    done = search(Diagnosis({"noise": 2}), tried(gain), Budget(None))

    assert done.best is not None
    assert str(done.best.recipe) == "nlmeans 4"
    assert done.exhausted


def test_the_same_steps_give_the_same_search() -> None:
    """A result that an operator cannot repeat cannot be argued about."""

    def gain(one: Recipe) -> float:
        return float(sum(len(it.remedy) * it.strength for it in one.steps) % 7)

    diagnosis = Diagnosis({"noise": 3, "banding": 2})

    first = search(diagnosis, tried(gain), Budget(None, 8))
    again = search(diagnosis, tried(gain), Budget(None, 8))

    assert first.trials == again.trials
    assert len(first.trials) == 8
    assert len({it.recipe for it in first.trials}) == 8


def test_a_budget_in_seconds_is_obeyed() -> None:
    """What would end too late is not begun."""
    clock = [0.0]

    done = search(
        Diagnosis({"noise": 3}),
        tried(lambda _: 1.0, clock),
        Budget(3.5),
        clock=lambda: clock[0],
    )

    assert len(done.trials) == 3
    assert not done.exhausted


def test_one_recipe_is_tried_however_small_the_budget() -> None:
    clock = [0.0]

    done = search(
        Diagnosis({"noise": 3}),
        tried(lambda _: 1.0, clock),
        Budget(0.001),
        clock=lambda: clock[0],
    )

    assert len(done.trials) == 1


def test_nothing_is_best_when_nothing_gains() -> None:
    """Milder recipes are tried before giving up."""
    done = search(Diagnosis({"noise": 3}), tried(lambda _: -1.0), Budget(None))

    assert done.best is None
    assert "nlmeans 1" in {str(it.recipe) for it in done.trials}


# -- verdict -----------------------------------------------------------------------------------


def test_a_clear_gain_is_preferred_and_says_its_numbers() -> None:
    found = judged([40, 42, 41, 43, 40, 44], [52, 53, 53, 55, 51, 56])

    assert found.preferred
    assert found.gain == pytest.approx(11.67, abs=0.01)
    assert "+11.7" in found.reason


def test_scores_of_one_clip_are_surer_of_their_order_than_of_themselves() -> None:
    """What is misjudged about the scene is misjudged on both sides and cancels."""
    found = judged([40] * 6, [46] * 6)

    assert found.from_model == pytest.approx(8 * (2 - 1.8) ** 0.5)
    assert found.from_model < 8


def test_a_gain_on_half_of_the_pictures_is_none() -> None:
    found = judged([50] * 8, [70, 45] * 4)

    assert not found.preferred
    assert "only 50 % of the pictures" in found.reason


def test_a_gain_that_the_model_may_have_imagined_is_refused() -> None:
    found = judged([50] * 6, [51.5] * 6)

    assert not found.preferred
    assert "certain" in found.reason


def test_a_gain_too_small_to_see_is_refused() -> None:
    assert not judged([50] * 6, [50.4] * 6).preferred


def test_a_damage_that_the_filters_brought_in_outweighs_the_score() -> None:
    """Sharpening may please a model with noise."""
    found = judged([40] * 6, [60] * 6, finding("noise", 2))

    assert not found.preferred
    assert "brings in noise" in found.reason


def test_other_pictures_than_before_are_refused_whatever_they_score() -> None:
    found = verdict(pairs([40] * 6, [60] * 6), Judge(), Bar(), Measured(likeness=0.3))

    assert not found.preferred
    assert "no longer show the same" in found.reason


def test_blocks_that_stand_out_more_are_refused_whatever_they_score() -> None:
    """A model may take the edges of blocks for detail; this is measured without it."""
    measured = Measured(grid_before=0.8, grid_after=1.5)

    found = verdict(pairs([40] * 6, [60] * 6), Judge(), Bar(), measured)

    assert not found.preferred
    assert "coding blocks stand out more" in found.reason


def test_neighbours_that_resemble_each_other_count_as_fewer() -> None:
    """Twenty pictures of one second are no twenty opinions."""
    mixed = judged([50] * 8, [55, 65, 55, 65, 55, 65, 55, 65])
    sorted_ = judged([50] * 8, [55, 55, 55, 55, 65, 65, 65, 65])

    assert sorted_.from_pictures > mixed.from_pictures


def test_pictures_are_paired_by_their_time() -> None:
    """A black picture has no score, so that lists may differ in length."""
    before = [said(50, it) for it in (0.0, 0.5, 1.0)]
    after = [said(60, it) for it in (0.0, 1.02)]

    assert [(a.position, b.position) for a, b in paired(before, after)] == [(0.0, 0.0), (1.0, 1.02)]


def test_pictures_that_chose_the_recipe_do_not_judge_it() -> None:
    """The luckiest of many candidates must not be lucky twice."""
    all_ = pairs([50] * 8, [60] * 8)

    left, apart = outside(all_, [(1.5, 3.5)])
    few, together = outside(all_, [(0.0, 7.0)])

    assert apart
    assert [it.position for it, _ in left] == [0, 1, 4, 5, 6, 7]
    assert not together
    assert few == all_


def test_too_few_pictures_are_no_ground_for_a_verdict() -> None:
    with pytest.raises(VqmonError, match="only 2 pictures"):
        judged([50, 50], [60, 60])
