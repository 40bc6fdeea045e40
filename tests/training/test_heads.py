"""Heads: as a network that reads out the same every time, and as a policy that samples rightly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from trainer import checkpoints
from trainer.policies import heads
from trainer.policies.heads import (
    KINDS,
    PAIR,
    REGIONS,
    SCORE,
    Heads,
    HeadsPolicy,
    Shape,
    trainable,
)

torch.set_num_threads(1)

B, F, G = 12, 10, 6


def network(*, pair: bool = False, seed: int = 0, dropout: float = 0.5) -> Heads:
    torch.manual_seed(seed)
    return Heads(Shape(features=F, width=24, blocks=2, dropout=dropout, pair=pair))


def batch(rows: int = B, seed: int = 1) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    partner = torch.ones(rows, dtype=torch.long)
    partner[-1] = 0
    return {"features": 2 * torch.randn(rows, F, generator=rng), "partner": partner}


# --- the network ---


def test_outputs_are_distributions_of_the_promised_shapes() -> None:
    """What export writes and the scorer reads."""
    score, kinds, regions = network().eval()(batch()["features"])

    assert (score.shape, kinds.shape, regions.shape) == ((B, 21), (B, 8, 6), (B, 9, 2))
    for outputs in (score, kinds, regions):
        assert torch.allclose(outputs.sum(-1), torch.ones(1))


def test_reading_out_is_the_expectation() -> None:
    """Quality, uncertainty, presence and level, worked out from the probabilities in loops."""
    net, x = network().eval(), batch()["features"]
    score, kinds, regions = (outputs.detach().numpy() for outputs in net(x))

    reading = net.read(x)

    values = np.linspace(0, 100, 21)
    for b in range(B):
        mean = sum(p * v for p, v in zip(score[b], values, strict=True))
        variance = sum(p * (v - mean) ** 2 for p, v in zip(score[b], values, strict=True))
        assert reading.quality[b].item() == pytest.approx(mean, rel=1e-5)
        assert reading.uncertainty[b].item() == pytest.approx(math.sqrt(variance), rel=1e-4)
        assert reading.present[b].tolist() == pytest.approx(1 - kinds[b, :, 0], abs=1e-6)
        level = kinds[b, :, 1:] @ np.arange(1, 6) / kinds[b, :, 1:].sum(-1)
        assert reading.level[b].tolist() == pytest.approx(level, rel=1e-4)
        assert reading.damaged[b].tolist() == pytest.approx(regions[b, :, 1], abs=1e-6)


def test_a_picture_is_read_the_same_alone_and_in_any_batch() -> None:
    """To 0.01 points, whatever stands beside it, and on every run."""
    net, x = network(), batch(64)["features"]
    together = net.read(x).quality

    alone = torch.cat([net.read(row[None]).quality for row in x])
    shuffled = net.read(x.flip(0)).quality.flip(0)

    assert (alone - together).abs().max() < 0.01
    assert (shuffled - together).abs().max() < 0.01
    assert torch.equal(net.read(x).quality, together)


def test_reading_out_leaves_training_as_it_was() -> None:
    """A look at the held-out set must not switch dropout off for the rest of a warm-up."""
    net = network().train()

    net.read(batch()["features"])

    assert net.training


def test_the_score_reads_what_the_degradation_heads_say() -> None:
    """A picture called blurred must be able to score lower for it."""
    net, x = network().eval(), batch()["features"]
    before = net.read(x).quality
    with torch.no_grad():
        net.degradations.bias[0] += 10  # blur: surely absent

    assert (net.read(x).quality - before).abs().max() > 0.1


def test_a_better_score_is_never_bought_with_a_wrong_degradation() -> None:
    """The score's gradient stops at the probabilities that it reads."""
    net = network().eval()

    raised = net(batch()["features"])[0][:, 3].sum()
    learned = [net.score.weight, net.enter.weight, net.degradations.weight]
    score, trunk, degradations = torch.autograd.grad(raised, learned, materialize_grads=True)

    assert score.any()
    assert trunk.any()
    assert not degradations.any()


def test_features_are_standardised_by_the_training_set() -> None:
    """Backbone features come in all scales; a constant one has no scale and counts nothing."""
    net, x = network().eval(), batch(500)["features"]
    x = 1000 * x + 500
    x[:, 3] = 7.0

    net.standardise(x)

    other = x.clone()
    other[:, 3] = -1e6
    standard = (x - net.centre) * net.gain
    assert standard.std(0).tolist() == pytest.approx([1, 1, 1, 0, *[1] * 6], abs=1e-3)
    assert standard.mean(0).abs().max() < 1e-3
    assert torch.equal(net.read(x).quality, net.read(other).quality)


def test_a_feature_far_outside_training_changes_nothing_more() -> None:
    """An odd picture must not be extrapolated to an odd score."""
    net = network().eval()
    far, farther = torch.zeros(1, F), torch.zeros(1, F)
    far[0, 0], farther[0, 0] = 10.0, 1e6

    assert torch.equal(net.read(far).quality, net.read(farther).quality)


def test_the_heads_stay_small() -> None:
    """Under ten million trainable parameters, counted; the frozen reference adds none."""
    usual = Heads(Shape(features=1200))

    assert trainable(usual) == sum(p.numel() for p in usual.parameters())
    assert trainable(usual) < 1_000_000
    assert trainable(HeadsPolicy(usual)) == trainable(usual)
    with pytest.raises(ValueError, match=r"trainable parameters; the heads must stay under"):
        Heads(Shape(features=600, width=2000, blocks=2))


def test_heads_come_back_as_saved(tmp_path: Path) -> None:
    """Shape, weights and standardisation, ready to read out."""
    net, x = network(pair=True), batch()["features"]
    net.standardise(5 * x)

    heads.save(tmp_path / "heads.pt", net, step=3)
    found = heads.load(tmp_path / "heads.pt")

    assert found.shape == net.shape
    assert torch.equal(found.read(x).quality, net.read(x).quality)
    assert not found.training


def test_a_file_without_heads_is_named(tmp_path: Path) -> None:
    """For example a checkpoint of a run, which holds more than heads, given by mistake."""
    checkpoints.save(tmp_path / "last.pt", {"policy": {}})

    with pytest.raises(checkpoints.CheckpointUnreadable, match=r"last\.pt holds no heads"):
        heads.load(tmp_path / "last.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_network_can_be_exported(tmp_path: Path) -> None:
    """ONNX Runtime gives what torch gives: nothing in the heads is torch's alone."""
    onnxruntime = pytest.importorskip("onnxruntime")
    net, x = network().eval(), batch()["features"]
    path = tmp_path / "heads.onnx"

    torch.onnx.export(
        net, (x[:2],), str(path), input_names=["x"], dynamic_axes={"x": {0: "n"}}, dynamo=False
    )
    found = onnxruntime.InferenceSession(str(path)).run(None, {"x": x.numpy()})

    for ours, theirs in zip(net(x), found, strict=True):
        assert np.allclose(ours.detach().numpy(), theirs, atol=1e-5)


# --- the policy ---


def test_a_step_is_a_head() -> None:
    """Rewards find their head by name."""
    steps = HeadsPolicy(network(pair=True)).steps

    assert steps["score"] == SCORE
    assert [steps["blur"], steps["corrupted"]] == [KINDS.start, KINDS.stop - 1]
    assert [steps["top-left"], steps["bottom-right"]] == [REGIONS.start, REGIONS.stop - 1]
    assert steps["pair"] == PAIR == len(steps) - 1
    assert "pair" not in HeadsPolicy(network()).steps


def test_log_probabilities_are_finite_and_those_of_the_distributions() -> None:
    """`forward`, `log_prob` and `distributions` are three views of one thing."""
    policy, given = HeadsPolicy(network(pair=True)).eval(), batch()
    rollout = policy.answer(given, G, torch.arange(B))

    said = policy(given, rollout.actions)

    assert said.log_prob.shape == rollout.actions.shape == (B, G, 19)
    assert said.log_prob.isfinite().all()
    assert said.log_prob.min() > -50
    assert torch.equal(said.log_prob, policy.log_prob(given, rollout.actions))
    assert torch.equal(said.distributions, policy.distributions(given))
    assert torch.allclose(said.distributions.exp().sum(-1), torch.ones(1), atol=1e-5)
    for b, g, t in [(0, 0, 0), (3, 2, 5), (11, 5, 18)]:
        chosen = rollout.actions[b, g, t]
        assert said.log_prob[b, g, t] == said.distributions[b, t, chosen]


def test_the_gradient_reaches_every_parameter_of_the_heads_and_none_of_the_reference() -> None:
    """A parameter that no reward can move is dead weight; a moving reference is none."""
    policy, given = HeadsPolicy(network(pair=True)).eval(), batch()
    rollout = policy.answer(given, G, torch.arange(B))

    names, learned = zip(*policy.heads.named_parameters(), strict=True)
    found = torch.autograd.grad((policy.log_prob(given, rollout.actions) ** 2).sum(), learned)

    for name, gradient in zip(names, found, strict=True):
        assert gradient.abs().max() > 0, name
    assert not any(p.requires_grad for p in policy.start.parameters())


def test_an_answer_means_what_its_outcomes_say() -> None:
    """Bins are qualities, outcomes levels; sampled outcomes exist."""
    policy, given = HeadsPolicy(network(pair=True)), batch()

    rollout = policy.answer(given, 200, torch.arange(B))

    actions = rollout.actions
    assert rollout.quality is not None
    assert rollout.preference is not None
    assert torch.equal(rollout.quality, 5.0 * actions[..., 0])
    assert actions[..., 0].max() <= 20
    assert rollout.levels is not None
    assert torch.equal(rollout.levels, actions[..., 1:9])
    assert set(rollout.levels.flatten().tolist()) == {0, 1, 2, 3, 4, 5}
    assert rollout.regions is not None
    assert set(rollout.regions.flatten().tolist()) == {0, 1}
    assert set(rollout.preference.flatten().tolist()) == {-1.0, 0.0, 1.0}
    assert rollout.readable.all()


def test_only_a_picture_with_a_partner_is_compared() -> None:
    """The pair head's step is outside the mask for the others."""
    policy, given = HeadsPolicy(network(pair=True)), batch()

    mask = policy.answer(given, G, torch.arange(B)).mask

    assert mask[:-1].all()
    assert not mask[-1, :, PAIR].any()
    assert mask[-1, :, :PAIR].all()


def test_answers_are_as_frequent_as_they_are_probable() -> None:
    """Sampling from anything but the policy makes every advantage wrong."""
    policy, given = HeadsPolicy(network()), batch(2)
    answers = 20000

    actions = policy.answer(given, answers, torch.arange(2)).actions
    probabilities = policy.eval().distributions(given).exp()

    for b in range(2):
        for t in range(18):
            expected = probabilities[b, t]
            found = torch.bincount(actions[b, :, t], minlength=21) / answers
            assert (found - expected).abs().max() < 5 * (0.25 / answers) ** 0.5


def test_heads_are_sampled_independently() -> None:
    """Two heads that read the same chance would be credited for each other."""
    policy = HeadsPolicy(network())

    levels = policy.answer(batch(1), 20000, torch.arange(1)).levels
    assert levels is not None
    between = np.corrcoef(levels[0].double().numpy().T) - np.eye(8)

    assert np.abs(between).max() < 0.04


def test_dropout_is_off_while_answering() -> None:
    """Else the answers come from another policy than the one whose probabilities are compared."""
    policy, given = HeadsPolicy(network(dropout=0.5)), batch()
    quiet = policy.eval().answer(given, G, torch.arange(B)).actions

    loud = policy.train().answer(given, G, torch.arange(B)).actions

    assert torch.equal(loud, quiet)
    assert policy.training


def test_the_reference_is_the_policy_as_it_was_made() -> None:
    """It must not follow the weights that are trained."""
    policy, given = HeadsPolicy(network()).eval(), batch()
    start = policy.distributions(given)
    with torch.no_grad():
        for parameter in policy.heads.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))

    with policy.reference():
        assert torch.equal(policy.distributions(given), start)
    assert not torch.allclose(policy.distributions(given), start, atol=0.01)


def test_the_reference_ends_even_when_something_fails() -> None:
    """Otherwise training would go on against a frozen copy, without any error."""
    policy, given = HeadsPolicy(network()).eval(), batch()

    with pytest.raises(RuntimeError), policy.reference():
        raise RuntimeError

    assert policy.distributions(given).requires_grad


def test_swapping_two_pictures_swaps_what_the_pair_head_says() -> None:
    """ "A is better" and "B is worse" are the same statement."""
    policy = HeadsPolicy(network(pair=True)).eval()
    given = {"features": batch(2)["features"], "partner": torch.tensor([1, -1])}

    ours, theirs = policy.distributions(given)[:, PAIR, :3]

    assert torch.allclose(ours, theirs.flip(0), atol=1e-5)
    assert (ours[0] - ours[2]).abs() > 1e-3
