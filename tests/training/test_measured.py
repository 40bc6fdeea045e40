"""The network on measures: what must hold of it whatever it has learned."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

import torch

from trainer.measured import (
    BINS,
    Lessons,
    MeasuredQuality,
    Recipe,
    correlation,
    ladder_loss,
    order_loss,
    predict,
    train,
)

torch.set_num_threads(1)

WIDTH = 6
CODING = 5
"""The last measure is one of coding damage."""

QUICK = Recipe(members=3, hidden=16, steps=400, batch=64, ladders=16, lr=1e-2)


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    """Opinions follow the first measure; ladders raise the fourth and the last."""
    rng = torch.Generator().manual_seed(0)
    opinions = torch.randn(400, 2, WIDTH, generator=rng)
    opinions[:, 1] = opinions[:, 0]
    ladders = torch.randn(40, 1, 1, WIDTH, generator=rng).repeat(1, 6, 2, 1)
    rungs = torch.arange(6.0)[None, :, None]
    ladders[:20, :, :, 3] += rungs
    ladders[20:, :, :, CODING] = 2.5 + rungs
    quality = (50 + 20 * opinions[:, 0, 0]).clamp(0, 100)
    return Lessons(opinions, quality, ladders, ladders[:, 0])


@pytest.fixture(scope="module")
def network(lessons: Lessons) -> MeasuredQuality:
    torch.manual_seed(0)
    network = MeasuredQuality(lessons, [CODING], QUICK)
    train(network, lessons, QUICK, look=float)
    return network


def test_it_learns_opinions_and_ladders_alike(network: MeasuredQuality, lessons: Lessons) -> None:
    """Both lessons at once: agreement with people, and order under damage."""
    quality, _ = predict(network, lessons.opinions[:, 0].numpy())
    rungs = lessons.ladders[:, :, 0]
    scores, _ = predict(network, rungs.reshape(-1, WIDTH).numpy())
    falls = scores.reshape(40, 6)[:, :-1] > scores.reshape(40, 6)[:, 1:]

    assert correlation(torch.from_numpy(quality), lessons.quality) > 0.9
    assert falls.mean() > 0.9


def test_the_score_is_a_distribution_over_the_bins(network: MeasuredQuality) -> None:
    """Expectation and spread are read from it; it has to sum to one."""
    given = network(torch.randn(10, WIDTH))

    assert given.shape == (10, len(BINS))
    assert (given >= 0).all()
    assert torch.allclose(given.sum(-1), torch.ones(10), atol=1e-5)


def test_coding_damage_never_raises_quality(network: MeasuredQuality) -> None:
    """Pictures with opinions say nothing of it, so its direction is built in, not learned."""
    pictures = torch.randn(50, 1, WIDTH).repeat(1, 20, 1)
    pictures[:, :, CODING] = torch.linspace(-5, 10, 20)

    scores, _ = predict(network, pictures.reshape(-1, WIDTH).numpy())
    steps = scores.reshape(50, 20)[:, 1:] - scores.reshape(50, 20)[:, :-1]

    assert (steps <= 1e-3).all()
    assert (scores.reshape(50, 20)[:, 0] - scores.reshape(50, 20)[:, -1] > 1).all()


def test_opinions_do_not_move_the_pull_of_coding_damage(lessons: Lessons) -> None:
    """Nearly all pictures with opinions are JPEG of one quality; fitting that fits the set."""
    recipe = replace(QUICK, ladder=0.0, steps=30, weight_decay=0.0)
    torch.manual_seed(0)
    network = MeasuredQuality(lessons, [CODING], recipe)
    before = network.pull.detach().clone()

    train(network, lessons, recipe, look=float)

    assert torch.equal(network.pull, before)


def test_beyond_the_training_range_nothing_changes(
    network: MeasuredQuality, lessons: Lessons
) -> None:
    """A measure never seen so large must not carry the score away with it."""
    edge = lessons.opinions[:4, 0].clone()
    edge[:, 0] = network.high[0]
    beyond = edge.clone()
    beyond[:, 0] = 1e6

    assert torch.equal(network(edge), network(beyond))


def test_the_kept_weights_are_those_of_the_best_look(lessons: Lessons) -> None:
    """Validation decides when to stop, not the last step."""
    torch.manual_seed(0)
    network = MeasuredQuality(lessons, [CODING], QUICK)
    probe = lessons.opinions[:5, 0]
    seen = {}

    def look(step: int) -> float:
        seen[step] = network(probe).detach().clone()
        return -abs(step - 60)

    train(network, lessons, QUICK, look, every=20)

    assert torch.equal(network(probe), seen[60])
    assert not torch.equal(seen[60], seen[400])


def test_the_same_seed_trains_the_same_network(lessons: Lessons) -> None:
    """The card names a command; whoever runs it should get the same figures."""
    trained = []
    for _ in range(2):
        torch.manual_seed(QUICK.seed)
        network = MeasuredQuality(lessons, [CODING], QUICK)
        train(network, lessons, replace(QUICK, steps=20), look=float)
        trained.append(network(lessons.opinions[:5, 0]))

    assert torch.equal(*trained)


def test_correlation_is_pearsons() -> None:
    """Golden: (1, 2, 3) against (1, 3, 2) is 0.5."""
    assert correlation(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 3, 2])) == pytest.approx(0.5)


def test_order_is_only_asked_where_opinions_differ() -> None:
    """Two means of thirty observers within four points are a tie."""
    said = torch.tensor([[50.0, 52.0]])

    assert order_loss(torch.tensor([[90.0, 10.0]]), said) == 0


def test_a_ladder_in_order_costs_less_than_one_upside_down() -> None:
    """Least damage first must mean highest score first."""
    falling = torch.tensor([[[80.0, 60, 40]]])

    assert ladder_loss(falling, 6.0) < 0.01
    assert ladder_loss(falling.flip(-1), 6.0) > 5
