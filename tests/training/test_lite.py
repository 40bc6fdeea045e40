"""The compact network: what it can and cannot see, and that it exports as it is."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from trainer.policies.heads import TRAINABLE_LIMIT, trainable
from trainer.policies.lite import Inputs, Lite, lite, served
from vqmon.measures import MEASURES

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> Lite:
    torch.manual_seed(0)
    return lite().eval()


def inputs(count: int = 2, seed: int = 0) -> Inputs:
    rng = torch.Generator().manual_seed(seed)
    return Inputs(
        torch.randint(0, 255, (count, 36, 40, 40), dtype=torch.uint8, generator=rng),
        torch.randint(0, 255, (count, 3, 96, 96), dtype=torch.uint8, generator=rng),
        torch.randn(count, len(MEASURES), generator=rng),
    )


@torch.no_grad()
def test_patches_do_not_see_their_neighbours(network: Lite) -> None:
    """A seam between two patches must never count as a coding block: exchanging patches inside
    a cell changes nothing.
    """
    seen = inputs()
    exchanged = seen.patches[:, [1, 0, *range(2, 36)]]

    assert torch.allclose(
        network.backbone(*seen), network.backbone(exchanged, *seen[1:]), atol=1e-5
    )


@torch.no_grad()
def test_cells_are_where_the_patches_are(network: Lite) -> None:
    """Region heads read the features of their own cell."""
    seen, size = inputs(1), network.backbone.size
    begin = 3 * size.patch[2]
    before = network.backbone(*seen)[0, begin : begin + 9 * size.cell].reshape(9, -1)
    changed = seen.patches.clone()
    changed[:, 6 * 4 + 5] = 0  # fifth row, sixth column: the bottom-right cell

    after = network.backbone(changed, *seen[1:])[0, begin : begin + 9 * size.cell].reshape(9, -1)

    moved = (after - before).abs().amax(1) > 1e-6
    assert moved.tolist() == [False] * 8 + [True]


@torch.no_grad()
def test_half_of_the_patches_are_two_of_each_cell(network: Lite) -> None:
    """The warm-up sees half of them for half the cost, in the order of the cells."""
    seen = inputs(1)
    marked = seen._replace(
        patches=torch.arange(36, dtype=torch.uint8)[None, :, None, None].expand(1, 36, 40, 40)
    )

    thinned = marked.thinned(torch.Generator().manual_seed(3)).patches[0, :, 0, 0].reshape(9, 2)

    for cell, pair in enumerate(thinned.tolist()):
        assert {(it // 6 // 2) * 3 + it % 6 // 2 for it in pair} == {cell}
    assert network.backbone(*seen.thinned(torch.Generator())).shape == (
        1,
        network.backbone.size.features,
    )


@torch.no_grad()
def test_the_form_that_is_exported_gives_the_same(network: Lite) -> None:
    """Moving pixels into channels is a part of the convolution there, and the original stays."""
    seen, form = inputs(), served(network)

    assert torch.allclose(network.backbone(*seen), form.backbone(*seen), atol=1e-6)
    assert isinstance(form.backbone.patch[0], torch.nn.Identity)
    assert isinstance(network.backbone.patch[0], torch.nn.PixelUnshuffle)


@torch.no_grad()
def test_an_intact_flip_is_its_own_inverse() -> None:
    """Pixels and places are exchanged together."""
    seen = inputs()

    assert all(torch.equal(a, b) for a, b in zip(seen.flipped().flipped(), seen, strict=True))
    assert torch.equal(seen.flipped().patches[:, 0], seen.patches[:, 5].flip(2))


def test_it_gives_probabilities_and_stays_small(network: Lite) -> None:
    """The article's bound is for what is trained by GRPO: the heads alone."""
    with torch.no_grad():
        score, levels, regions = network(*inputs(3))

    assert score.sum(-1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert levels.shape == (3, 8, 6)
    assert levels.sum(-1).flatten().tolist() == pytest.approx([1.0] * 24, abs=1e-5)
    assert ((regions >= 0) & (regions <= 1)).all()
    assert regions.shape == (3, 9)
    assert trainable(network) < TRAINABLE_LIMIT
