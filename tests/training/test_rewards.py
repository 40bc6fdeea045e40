"""Rewards: shape (B, G), within 0..1, nothing for an unreadable answer, no opinion without label."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from trainer import rewards
from trainer.grpo import Rollout
from trainer.rewards import REWARDS, for_heads, for_text
from vqmon.domain import CELLS, DEGRADATIONS

torch.set_num_threads(1)

B, G = 7, 4


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Two groups with opinions (3 and 2 pictures) and a ladder (2)."""
    rng = torch.Generator().manual_seed(seed)
    nan = math.nan
    return {
        "mos": torch.cat([100 * torch.rand(5, generator=rng), torch.full((2,), nan)]),
        "sigma": torch.tensor([nan, 10.0, 5.0, nan, 8.0, nan, nan]),
        "order": torch.tensor([nan] * 5 + [0.0, -3.0]),
        "group": torch.tensor([0, 0, 0, 1, 1, 2, 2]),
        "partner": torch.tensor([1, 1, -2, 1, -1, 1, -1]),
        "levels": torch.randint(0, 6, (B, 8), generator=rng),
        "regions": torch.randint(0, 2, (B, 9), generator=rng),
    }


def rollout(seed: int = 0) -> Rollout:
    rng = torch.Generator().manual_seed(seed)
    return Rollout(
        actions=torch.zeros(B, G, 1, dtype=torch.long),
        mask=torch.ones(B, G, 1, dtype=torch.bool),
        readable=torch.ones(B, G, dtype=torch.bool),
        quality=100 * torch.rand(B, G, generator=rng),
        levels=torch.randint(0, 6, (B, G, 8), generator=rng),
        regions=torch.randint(0, 2, (B, G, 9), generator=rng),
        preference=torch.randint(-1, 2, (B, G), generator=rng).float(),
    )


def unreadable(said: Rollout, picture: int, answer: int) -> Rollout:
    """The same, but for one answer that says nothing."""
    spoilt = {}
    for name, value in (
        ("readable", False),
        ("quality", math.nan),
        ("levels", -1),
        ("regions", -1),
        ("preference", math.nan),
    ):
        spoilt[name] = getattr(said, name).clone()
        spoilt[name][picture, answer] = value
    return replace(said, **spoilt)


def unlabelled(labels: dict[str, Tensor]) -> dict[str, Tensor]:
    nan = torch.full((B,), math.nan)
    return labels | {
        "mos": nan,
        "order": nan,
        "levels": torch.full((B, 8), -1),
        "regions": torch.full((B, 9), -1),
    }


JUDGING = [name for name in REWARDS if name != "format"]


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("seed", range(5))
def test_rewards_are_one_per_answer_and_bounded(name: str, seed: int) -> None:
    """Weights mean what they say only if all components span the same range."""
    earned = REWARDS[name](rollout(seed), batch(seed))

    known = earned[~earned.isnan()]
    assert earned.shape == (B, G)
    assert len(known) >= G
    assert known.min() >= 0
    assert known.max() <= 1


@pytest.mark.parametrize("name", REWARDS)
def test_an_unreadable_answer_earns_nothing(name: str) -> None:
    """Not a random score, as elsewhere: babble must never be a good guess."""
    labels = batch()
    labels["levels"][0, 0] = 3  # something is there, so that its level is judged
    said = rollout()

    earned = REWARDS[name](unreadable(said, 0, 2), labels)

    assert earned[0, 2] == 0
    assert earned[0, [0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("name", REWARDS)
def test_an_unreadable_answer_leaves_its_neighbours_judged(name: str) -> None:
    """One NaN must not spread through a group's mean."""
    labels = batch()

    earned = REWARDS[name](unreadable(rollout(), 0, 2), labels)
    before = REWARDS[name](rollout(), labels)

    assert torch.equal(earned[1:].isnan(), before[1:].isnan())


@pytest.mark.parametrize("name", JUDGING)
def test_without_a_label_there_is_no_opinion(name: str) -> None:
    """Masked, not negative: zero would say that all answers are wrong."""
    assert REWARDS[name](rollout(), unlabelled(batch())).isnan().all()


@pytest.mark.parametrize("name", JUDGING)
def test_asking_for_what_a_policy_never_says_is_an_error(name: str) -> None:
    """Otherwise its weight would silently do nothing."""
    silent = replace(rollout(), quality=None, levels=None, regions=None, preference=None)

    with pytest.raises(ValueError, match="the policy says no"):
        REWARDS[name](silent, batch())


# --- score ---


def test_closeness_is_a_bell_around_the_opinion() -> None:
    """1 at the opinion, exp(-1/2) at 10 points, the same on both sides."""
    said = replace(rollout(), quality=torch.tensor([[50.0, 60.0, 40.0, 100.0]]).repeat(B, 1))
    labels = batch() | {"mos": torch.full((B,), 50.0)}

    earned = rewards.closeness(said, labels)

    expected = [1, math.exp(-0.5), math.exp(-0.5), math.exp(-12.5)]
    assert earned[0].tolist() == pytest.approx(expected)


def phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def ordering_in_loops(said: Rollout, labels: dict[str, Tensor], gamma: float) -> list[list[float]]:
    """VisualQuality-R1's reward with soft preference, as a reader of the paper would write it."""
    assert said.quality is not None
    q, group = said.quality.tolist(), labels["group"].tolist()
    mos, sigma, order = (labels[name].tolist() for name in ("mos", "sigma", "order"))
    mean = [sum(row) / G for row in q]
    var = [sum((x - m) ** 2 for x in row) / (G - 1) for row, m in zip(q, mean, strict=True)]
    sigma = [4.0 if math.isnan(s) else s for s in sigma]
    table = []
    for i in range(B):
        row = []
        for k in range(G):
            worth = []
            for j in range(B):
                if j == i or group[j] != group[i]:
                    continue
                if not math.isnan(order[i]):
                    p = 1.0 if order[i] > order[j] else 0.0 if order[i] < order[j] else 0.5
                else:
                    p = phi((mos[i] - mos[j]) / math.hypot(sigma[i], sigma[j]))
                said_so = phi((q[i][k] - mean[j]) / math.sqrt(var[i] + var[j] + gamma))
                worth.append(math.sqrt(p * said_so) + math.sqrt((1 - p) * (1 - said_so)))
            row.append(sum(worth) / len(worth))
        table.append(row)
    return table


@pytest.mark.parametrize("seed", range(4))
def test_ordering_matches_the_published_formula(seed: int) -> None:
    """Fidelity of the answer's preference to that of viewers, mean over the group's others."""
    said, labels = rollout(seed), batch(seed)

    earned = rewards.ordering(said, labels)

    for ours, expected in zip(
        earned.tolist(), ordering_in_loops(said, labels, rewards.GAMMA), strict=True
    ):
        assert ours == pytest.approx(expected, abs=1e-6)


def test_ordering_only_looks_within_a_group() -> None:
    """MOS of different datasets are not comparable."""
    said, labels = rollout(), batch()
    other = labels | {"mos": torch.cat([labels["mos"][:3], 100 - labels["mos"][3:]])}

    assert torch.equal(rewards.ordering(said, labels)[:3], rewards.ordering(said, other)[:3])


def test_ordering_does_not_know_the_scale() -> None:
    """Shifting all scores keeps all orders: why a closeness anchor is in every recipe."""
    said = rollout()
    assert said.quality is not None
    moved = replace(said, quality=said.quality + 17)

    assert torch.allclose(
        rewards.ordering(said, batch()), rewards.ordering(moved, batch()), atol=1e-5
    )


@pytest.mark.parametrize("judge", [rewards.ordering, rewards.pair])
def test_a_ladder_needs_no_opinion(judge: Callable[..., Tensor]) -> None:
    """More damage is worse, exactly; no absolute target is made up from the strength."""
    quality = torch.full((B, G), 50.0)
    quality[5], quality[6] = 80.0, 20.0
    right = replace(rollout(), quality=quality, preference=None)
    wrong = replace(right, quality=100 - quality)

    assert judge(right, batch())[5:].min() > 0.99
    assert judge(wrong, batch())[5:].max() < 0.01
    assert rewards.closeness(right, batch())[5:].isnan().all()


def test_close_opinions_are_no_reason_to_punish_an_order() -> None:
    """Viewers who hardly agree cannot make one order right and the other wrong."""
    labels = batch() | {"mos": torch.full((B,), 50.0)}
    labels["mos"][3] = 50.5
    up, down = torch.full((B, G), 50.0), torch.full((B, G), 50.0)
    up[3], down[3] = 53.0, 47.0

    better = rewards.ordering(replace(rollout(), quality=up), labels)[3]
    worse = rewards.ordering(replace(rollout(), quality=down), labels)[3]

    assert (better - worse).max() < 0.1


def test_a_preference_earns_what_viewers_would_agree_to() -> None:
    """Better earns p, worse 1 - p; "similar" is right where viewers are divided."""
    labels = batch() | {"mos": torch.tensor([60.0, 50, 50, 50, 50, math.nan, math.nan])}
    labels["sigma"] = torch.full((B,), 10.0)
    said = replace(rollout(), preference=torch.tensor([[1.0, 0.0, -1.0, math.nan]]).repeat(B, 1))
    p = phi(10 / math.hypot(10, 10))

    earned = rewards.pair(said, labels)

    assert earned[0].tolist() == pytest.approx([p, 1 - abs(2 * p - 1), 1 - p, 0], abs=1e-5)
    assert earned[3].tolist() == pytest.approx([0.5, 1, 0.5, 0], abs=1e-5)


def test_a_picture_without_partner_is_not_compared() -> None:
    """Nor with itself, which would always be "similar"."""
    labels = batch() | {"partner": torch.tensor([1, 1, -2, 0, 0, 1, -1])}

    earned = rewards.pair(rollout(), labels)

    assert earned[3:5].isnan().all()
    assert earned[[0, 1, 2, 5, 6]].isfinite().all()


# --- degradations and regions ---


def one(levels: list[int], truth: list[int]) -> tuple[Rollout, dict[str, Tensor]]:
    """The same answer everywhere, and the same truth."""
    said = replace(rollout(), levels=torch.tensor(levels).expand(B, G, 8))
    return said, batch() | {"levels": torch.tensor(truth).expand(B, 8)}


def test_the_class_is_right_when_presence_is() -> None:
    """Whatever the level; absent rightly named absent counts as much as present as present."""
    said, labels = one([3, 0, 1, 0, 0, 0, 0, 2], [5, 0, 0, 4, 0, 0, -1, -1])

    assert rewards.degradation_class(said, labels)[0, 0].item() == pytest.approx(4 / 6)


def test_the_level_counts_by_its_distance() -> None:
    """1 - |difference| / 4 of what is there; nothing for what was missed; absent has no level."""
    said, labels = one([3, 0, 1, 0, 0, 0, 0, 2], [5, 0, 0, 4, 0, 0, -1, -1])

    assert rewards.degradation_level(said, labels)[0, 0].item() == pytest.approx((0.5 + 0) / 2)


def test_a_clean_picture_has_no_level_to_judge() -> None:
    """Its classes are judged: calling it degraded is the false alarm that matters most."""
    said, labels = one([1, 0, 0, 0, 0, 0, 0, 0], [0] * 8)

    assert rewards.degradation_level(said, labels).isnan().all()
    assert rewards.degradation_class(said, labels)[0, 0].item() == pytest.approx(7 / 8)


def test_a_region_is_right_cell_by_cell() -> None:
    """Cells of unknown state do not count."""
    said = replace(rollout(), regions=torch.tensor([1, 1, 0, 0, 0, 0, 0, 0, 0]).expand(B, G, 9))
    labels = batch() | {"regions": torch.tensor([1, 0, 0, 0, -1, -1, -1, -1, -1]).expand(B, 9)}

    assert rewards.region(said, labels)[0, 0].item() == pytest.approx(3 / 4)


# --- composition ---


def steps(*, pair: bool = False) -> dict[str, int]:
    names = ["score", *DEGRADATIONS, *CELLS, *(["pair"] if pair else [])]
    return {name: i for i, name in enumerate(names)}


WEIGHTS = {
    "closeness": 1.0,
    "ordering": 0.5,
    "class": 0.4,
    "level": 0.3,
    "region": 0.2,
    "pair": 0.1,
}


def test_every_head_is_judged_by_itself() -> None:
    """Score: closeness, order, pair; each degradation: its class and level; each cell: itself."""
    found = {c.name: (c.weight, c.steps) for c in for_heads(WEIGHTS, steps())}

    assert found["closeness"] == (1.0, (0,))
    assert found["ordering"] == (0.5, (0,))
    assert found["pair"] == (0.1, (0,))
    assert found["class/noise"] == (0.4, (2,))
    assert found["level/corrupted"] == (0.3, (8,))
    assert found["region/top-left"] == (0.2, (9,))
    assert found["region/bottom-right"] == (0.2, (17,))
    assert len(found) == 3 + 8 + 8 + 9


def test_a_pair_head_takes_the_preference_off_the_score() -> None:
    """What the score head did not say cannot teach it."""
    [pair] = [c for c in for_heads(WEIGHTS, steps(pair=True)) if c.name == "pair"]

    assert pair.steps == (18,)


def test_a_heads_reward_sees_only_its_own_label() -> None:
    """A mistake about noise must not cost the blur head."""
    said, labels = one([1, 1, 0, 0, 0, 0, 0, 0], [1, 0, -1, 0, 0, 0, 0, 0])
    by_name = {
        c.name: c.reward(said, labels)[0, 0].item() for c in for_heads({"class": 1}, steps())
    }

    assert by_name["class/blur"] == 1
    assert by_name["class/noise"] == 0
    assert math.isnan(by_name["class/compression"])


def test_a_token_is_judged_by_everything() -> None:
    """A sentence cannot be cut into what earned which part."""
    assert all(c.steps is None for c in for_text({"format": 1, **WEIGHTS}))
    assert [c.name for c in for_text({"format": 1, "region": 0})] == ["format"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"sharpness": 1.0}, "unknown reward 'sharpness'; known: format, closeness"),
        ({"closeness": -1.0}, "weight of closeness is -1"),
        ({"closeness": math.nan}, "weight of closeness is nan"),
        ({"closeness": 0.0}, "nothing could be learned"),
        ({"format": 1.0}, "heads cannot break a format"),
    ],
)
def test_weights_that_cannot_work_are_errors(weights: dict[str, float], message: str) -> None:
    """Found before the run starts, with what to do."""
    with pytest.raises(ValueError, match=message):
        for_heads(weights, steps())
