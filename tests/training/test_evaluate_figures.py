"""Figures of the evaluation, against values worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

from trainer.evaluation import contests, footnote, ours
from trainer.evaluation.classes import FIVE, NINE, OTHER, UNKNOWN, Answers, answers, level, rungs
from trainer.evaluation.clean import differences
from trainer.evaluation.judging import CLEAN, Verdicts, strongest
from trainer.evaluation.moving import JUDGED, ORIGINAL, RATES
from trainer.evaluation.opinions import mean_within, pair_shares
from trainer.evaluation.rates import Ladder, ladders
from vqmon.domain import DEGRADATIONS


def verdicts(
    facts: list[dict[str, Any]],
    quality: list[float] | None = None,
    said: list[dict[str, int]] | None = None,
    numbers: np.ndarray | None = None,
) -> Verdicts:
    """said: severity by degradation of each picture."""
    n = len(facts)
    severity = np.zeros((n, len(DEGRADATIONS)), np.int8)
    for row, found in enumerate(said or []):
        for name, said_level in found.items():
            severity[row, DEGRADATIONS.index(name)] = said_level
    sure = np.where(severity > 0, 0.9, 0.0)
    points = np.array(quality or [50.0] * n)
    return Verdicts(
        facts,
        points,
        np.full(n, 10.0),
        severity,
        sure,
        sure,
        strongest(severity, sure),
        np.zeros((n, 14)) if numbers is None else numbers,
    )


def test_the_severest_finding_speaks_and_of_these_the_surest() -> None:
    """The order in which the product shows findings; nothing found is clean."""
    severity = np.zeros((3, len(DEGRADATIONS)), np.int8)
    confidence = np.zeros(severity.shape)
    blur, noise = DEGRADATIONS.index("blur"), DEGRADATIONS.index("noise")
    severity[0, [blur, noise]], confidence[0, [blur, noise]] = (2, 3), (0.99, 0.6)
    severity[1, [blur, noise]], confidence[1, [blur, noise]] = (3, 3), (0.9, 0.6)

    assert strongest(severity, confidence).tolist() == ["noise", "blur", CLEAN]


def test_a_finding_that_the_test_does_not_have_counts_as_wrong() -> None:
    """Calling a dark picture upscaled is no better than calling it blurred."""
    kinds = ["noise", "jpeg", "darken", "clean"]
    levels = [3, 4, 2, 0]
    facts = [{"kind": kind, "photograph": "a"} for kind in kinds]
    said = [{"noise": 3}, {"compression": 5}, {"upscaled": 2}, {}]

    given = answers(verdicts(facts, said=said), FIVE, np.array(levels))

    assert given.said.tolist() == ["noise", "jpeg", OTHER, "clean"]
    assert given.mean_recall() == pytest.approx(3 / 4)
    assert given.exact() == pytest.approx(1 / 3)
    assert given.within(1) == pytest.approx(2 / 3)
    assert given.confusion(["noise", "jpeg", "darken", "clean"]).tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 1, 0],
    ]


def test_every_class_weighs_the_same_in_the_mean_recall() -> None:
    """Nine in ten pictures are noise: finding only these is a fifth, not nine tenths."""
    true = np.array(["noise"] * 9 + ["clean"])
    given = Answers(
        true, np.array(["noise"] * 10), np.ones(10, int), np.ones(10, int), np.array(["a"] * 10)
    )

    assert given.mean_recall() == pytest.approx(0.5)


def test_a_codecs_ladder_begins_with_its_own_clip() -> None:
    """The whole photograph and a moving piece of it are not the same picture."""
    facts = [_ours("clean", "clean", 0), _ours("clean", ours.OWN_CLIP, 0)]
    quality = [90.0, 70.0]
    for rung in ours.LEVELS:
        facts += [_ours("blur", "blur", rung), _ours("compression", "h264", rung)]
        quality += [90.0 - rung, 70.0 - rung]
    facts.append(_ours("corrupted", ours.LOST_PACKETS, 1))

    found = rungs(verdicts(facts, [*quality, 10.0]), "kind")

    assert found["blur"].tolist() == [[90, 89, 88, 87, 86, 85]]
    assert found["compression"].tolist() == [[70, 69, 68, 67, 66, 65]]
    assert set(found) == {"blur", "compression"}


def test_levels_are_what_can_be_seen() -> None:
    """Damage that leaves nothing to see is left out; codecs count by what they cost."""
    lost = np.zeros(14)
    assert level(_ours("blur", "blur", 3), lost) == UNKNOWN
    assert level(_ours("clean", "clean", 0), lost) == 0
    lost[:12] = 0.05
    assert level(_ours("blur", "blur", 3), lost) == 3
    lost[:12] = 1.0
    assert level(_ours("compression", "vp9", 1), lost) == 5
    lost[13] = 0.13
    assert level(_ours("corrupted", ours.LOST_PACKETS, 1), lost) == 3


def test_pairs_are_told_apart_by_their_distance() -> None:
    """Of three pictures two are near and in the wrong order; both far pairs are right."""
    opinion, predicted = np.array([10.0, 12, 60]), np.array([12.0, 10, 60])

    near, _, near_count = pair_shares(predicted, opinion, 0, 5, 20)
    far, interval, far_count = pair_shares(predicted, opinion, 5, np.inf, 20)

    assert (near, near_count) == (0.0, 1)
    assert (far, far_count) == (1.0, 2)
    assert interval == (1.0, 1.0)


def test_telling_the_subset_alone_earns_nothing_within() -> None:
    """Most of the overall correlation is which subset a picture is from."""
    rng = np.random.default_rng(0)
    subset = np.repeat(["ss01", "ss02", "ss03"], 100)
    opinion = np.repeat([20.0, 50.0, 80.0], 100) + rng.normal(0, 5, 300)
    predicted = np.repeat([20.0, 50.0, 80.0], 100) + rng.normal(0, 5, 300)

    value, (low, high) = mean_within(predicted, opinion, subset, 50)

    assert np.corrcoef(predicted, opinion)[0, 1] > 0.9
    assert abs(value) < 0.2
    assert low < value < high


def test_sizes_of_one_photograph_are_compared_with_each_other_alone() -> None:
    """A photograph that comes in one size says nothing."""
    facts = [
        {"photograph": name, "corpus": corpus, "size": size}
        for name, corpus, size in (
            ("a", "clic2025 final-test", 0),
            ("a", "clic2025 final-test", 1024),
            ("a", "clic2025 final-test", 512),
            ("b", "kodak", 0),
        )
    ]

    assert differences(verdicts(facts, [80.0, 82.0, 77.0, 10.0]), "clic2025").tolist() == [5.0]


def test_only_rungs_that_differ_visibly_have_an_order() -> None:
    """Half a point apart is no difference that anybody could see."""
    ladder = Ladder(
        "clip",
        "h264",
        quality=np.array([90.0, 91, 80, 85]),
        index=np.array([90.0, 89.5, 70, 40]),
        key_offset=np.zeros(4),
    )

    assert ladder.steps().tolist() == [True, False]


def test_keyframes_are_compared_with_the_original_taken_off() -> None:
    """What differs between frames before coding is not the codec's."""
    own = np.linspace(60, 67, len(JUDGED))
    key = [i % 12 == 0 for i in JUDGED]
    facts = [_rate(ORIGINAL, 0, False) for _ in JUDGED]
    quality = own.tolist()
    for codec, rates in RATES.items():
        for rung in range(len(rates)):
            facts += [_rate(codec, rung, one) for one in key]
            quality += (own - 5 * rung + np.where(key, 2.0, 0.0)).tolist()

    found = ladders(verdicts(facts, quality, numbers=np.zeros((len(facts), 12))))

    assert len(found) == len(RATES)
    assert found[0].key_offset == pytest.approx([2.0] * len(RATES["h264"]))
    assert np.diff(found[0].quality) == pytest.approx([-5.0] * 6)


def test_the_better_way_is_told_from_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paired on the same pictures: two like ways do not differ, a worse one does."""
    monkeypatch.setattr(contests, "RESAMPLES", 100)
    rng = np.random.default_rng(0)
    opinion = rng.normal(size=300)
    good = opinion + rng.normal(0, 0.5, (3, 300))
    alike = good + rng.normal(0, 0.01, (3, 300))
    bad = opinion + rng.normal(0, 1.5, (3, 300))

    same, better = (
        contests.difference(good, alike, opinion),
        contests.difference(good, bad, opinion),
    )

    assert abs(same.value) < 0.01
    assert same.low < 0.002
    assert better.low > 0.1
    assert len(better.by_seed) == 3


def test_predictions_of_other_pictures_are_refused() -> None:
    """Paired figures need the same pictures on both sides."""
    with pytest.raises(ValueError, match="of 9 pictures"):
        contests.difference(np.zeros((3, 9)), np.zeros((3, 5)), np.zeros(9))


def test_training_without_a_subset_is_judged_on_that_subset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a model says of the subsets that it was trained on does not count."""
    monkeypatch.setattr(contests, "RESAMPLES", 100)
    rng = np.random.default_rng(1)
    subset = np.repeat(["ss01", "ss02"], 60)
    opinion = rng.normal(size=120)
    blind = {name: np.where(subset == name, opinion, -opinion)[None] for name in ("ss01", "ss02")}
    noisy = {name: row + rng.normal(0, 1, row.shape) for name, row in blind.items()}

    table = contests.leave_out_table(blind, opinion, subset, noisy, ("ours", "theirs"))

    figures = {row.figure: row.value for row in table.rows}
    assert figures["mean of the subsets left out"] == pytest.approx(1.0)
    assert figures["mean, ours minus theirs, lower end of 95 %"] > 0


def test_the_five_class_test_is_as_published() -> None:
    """Four noises, three blurs, JPEG and two ways to darken, at their published amounts."""
    kinds = [variant.kind for variant in footnote.VARIANTS.values()]

    assert [kinds.count(it) for it in ("noise", "blur", "jpeg", "darken")] == [4, 3, 1, 2]
    assert set(FIVE.values()) == {*kinds, "clean"}
    amounts = {name: list(variant.amounts) for name, variant in footnote.VARIANTS.items()}
    assert amounts["jpeg"] == [25, 18, 12, 8, 5]
    assert amounts["value shift"] == [-0.1, -0.2, -0.3, -0.4, -0.5]
    assert amounts["disk blur"] == [2, 3, 4, 6, 8]
    assert set(NINE) == {*DEGRADATIONS, CLEAN}


@pytest.mark.parametrize("name", list(footnote.VARIANTS))
def test_more_of_a_damage_changes_more(name: str) -> None:
    """The same damage, only more of it, at every level."""
    variant = footnote.VARIANTS[name]
    ramp = np.linspace(60, 200, 96, dtype=np.float32)
    texture = np.random.default_rng(3).normal(0, 12, (96, 96, 3))
    picture = np.clip(ramp[:, None, None] + texture, 0, 255).astype(np.uint8)
    clean = variant.damage(picture, 95, np.random.default_rng(1)) if name == "jpeg" else None
    luma = clean.planes[0] if clean else footnote._frame(picture.astype(np.float32)).planes[0]

    changes = [
        float(
            np.square(
                variant.damage(picture, amount, np.random.default_rng(1)).planes[0].astype(float)
                - luma
            ).mean()
        )
        for amount in variant.amounts
    ]

    assert changes[0] > 1
    assert all(a < b for a, b in pairwise(changes))


def _ours(kind: str, variant: str, rung: int) -> dict[str, Any]:
    return {"photograph": "a.png", "kind": kind, "variant": variant, "rung": rung}


def _rate(codec: str, rung: int, key: bool) -> dict[str, Any]:
    return {"sequence": "clip", "codec": codec, "rung": rung, "rate": 1, "key": key}
