"""The compact backbone of the lite model: what a picture looks like, as one vector of features.

    patches (B, 36, 40, 40) -> each by itself through small convolutions  (B, 36, C)
    view    (B, 3, 96, 96)  -> convolutions over the whole picture        (B, W)
    measures (B, M)         -> clipped to the training range, a perceptron (B, S)
    features = [mean, deviation and an attended mean over patches, nine cells, view, measures]

Patches never touch: each is convolved with zeros around it, so that no seam between two of them
can look like a coding block. Resolution is halved by moving pixels into channels, which loses
nothing of the grid and the noise that live in single pixels.

Nothing depends on how many patches of a cell there are, so that the warm-up may look at some of
them for a part of the cost. Trained there together with heads (`trainer.policies.heads`), then frozen.

Shapes: B pictures, 36 patches row by row, C and W channels, S width of the measures' perceptron.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.policies.heads import Headed, Heads, Shape
from vqmon.measures import MEASURES
from vqmon.patches import GRID

CELLS_A_SIDE = 3


class Inputs(NamedTuple):
    """patches: (B, 36, 40, 40) uint8. view: (B, 3, 96, 96) uint8. measures: (B, M) float32."""

    patches: Tensor
    view: Tensor
    measures: Tensor

    def flipped(self) -> Inputs:
        """Left and right exchanged; the measures are taken to be the same either way."""
        grid = self.patches.unflatten(1, (GRID, GRID)).flip(2, 4).flatten(1, 2)  # type: ignore[no-untyped-call]
        return Inputs(grid, self.view.flip(3), self.measures)

    def thinned(self, rng: torch.Generator, each: int = 2) -> Inputs:
        """So many of the four patches of each cell, the same of all pictures: (B, 9 each, ...)."""
        cells = torch.arange(GRID * GRID).reshape(3, 2, 3, 2).permute(0, 2, 1, 3).reshape(9, 4)
        pick = torch.rand(9, 4, generator=rng).argsort(1)[:, :each]
        return self._replace(patches=self.patches[:, cells.gather(1, pick).flatten()])


@dataclass(frozen=True, slots=True)
class Size:
    """Channels of the stages. cell: features of each of the nine cells."""

    patch: tuple[int, int, int] = (16, 32, 64)
    view: tuple[int, int, int] = (24, 48, 96)
    measures: int = 96
    cell: int = 16

    @property
    def features(self) -> int:
        return 3 * self.patch[2] + 9 * self.cell + self.view[2] + self.measures


class Backbone(nn.Module):
    """Inputs -> (B, F) features."""

    low: Tensor
    high: Tensor
    centre: Tensor
    gain: Tensor

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = size = size or Size()
        a, b, c = size.patch
        self.patch = nn.Sequential(
            nn.PixelUnshuffle(2),  # (4, 20, 20)
            _step(4, a),
            _step(a, b, stride=2),  # (b, 10, 10)
            _step(b, c, stride=2),  # (c, 5, 5)
            Residual(c),
        )
        v, w, x = size.view
        self.view = nn.Sequential(
            nn.PixelUnshuffle(2),  # (12, 48, 48)
            _step(12, v, stride=2),
            _step(v, w, stride=2),
            _step(w, x, stride=2),  # (x, 6, 6)
            Residual(x),
        )
        self.cell = nn.Linear(c, size.cell)
        self.attention = nn.Linear(c, 1)
        self.perceptron = nn.Sequential(
            nn.Linear(len(MEASURES), 2 * size.measures),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(2 * size.measures, size.measures),
            nn.GELU(),
        )
        for name in ("low", "centre"):
            self.register_buffer(name, torch.zeros(len(MEASURES)))
        for name in ("high", "gain"):
            self.register_buffer(name, torch.ones(len(MEASURES)))

    def forward(self, patches: Tensor, view: Tensor, measures: Tensor) -> Tensor:
        """(B, F)"""
        return torch.cat([self._patches(patches), self._view(view), self._measures(measures)], 1)

    def standard(self, measures: Tensor) -> Tensor:
        """(B, M) clipped to the training range, in deviations from the middle."""
        inside = torch.minimum(torch.maximum(measures, self.low), self.high)
        return ((inside - self.centre) * self.gain).clamp(-6, 6)

    def standardise(self, measures: Tensor) -> None:
        """Take range, centre and gain from training measures (n, M)."""
        low, middle, high = measures.quantile(torch.tensor([0.1, 0.5, 0.9]), 0)
        spread = torch.maximum((high - low) / 2.56, measures.std(0) / 4).clamp(min=1e-6)
        self.low.copy_(measures.amin(0))
        self.high.copy_(measures.amax(0))
        self.centre.copy_(middle)
        self.gain.copy_(1 / spread)

    def widen(self, measures: Tensor) -> None:
        """Take these measures (n, M) into the range as well; centre and gain stay."""
        self.low.copy_(torch.minimum(self.low, measures.amin(0)))
        self.high.copy_(torch.maximum(self.high, measures.amax(0)))

    def _patches(self, patches: Tensor) -> Tensor:
        count = patches.shape[1]
        luma = (patches.flatten(0, 1).unsqueeze(1).float() - 128) / 64
        seen = self.patch(luma).mean((2, 3)).unflatten(0, (-1, count))  # (B, 36, C)
        mean = seen.mean(1)
        deviation = ((seen - mean.unsqueeze(1)).square().mean(1) + 1e-4).sqrt()
        attended = (seen * self.attention(seen).softmax(1)).sum(1)
        return torch.cat([mean, deviation, attended, self._cells(seen)], 1)

    def _cells(self, seen: Tensor) -> Tensor:
        """All patches in the order of the grid, or some a cell in that of cells -> (B, 9 c)."""
        if seen.shape[1] == GRID * GRID:
            inside = GRID // CELLS_A_SIDE
            cells = seen.unflatten(1, (CELLS_A_SIDE, inside, CELLS_A_SIDE, inside))  # type: ignore[no-untyped-call]
            mean = cells.mean((2, 4)).flatten(1, 2)  # (B, 9, C)
        else:
            mean = seen.unflatten(1, (CELLS_A_SIDE**2, -1)).mean(2)  # type: ignore[no-untyped-call]
        return functional.gelu(self.cell(mean)).flatten(1)

    def _view(self, view: Tensor) -> Tensor:
        seen: Tensor = self.view((view.float() - 128) / 64).mean((2, 3))
        return seen

    def _measures(self, measures: Tensor) -> Tensor:
        found: Tensor = self.perceptron(self.standard(measures))
        return found


class Residual(nn.Module):
    """x + a convolution over half the channels, for a fifth of the cost of two whole ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.inner = nn.Sequential(_step(channels, half, side=1), _step(half, half))
        self.outer = nn.Sequential(
            nn.Conv2d(half, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.outer(self.inner(x)))


class Lite(Headed):
    """This backbone and heads; reads patches, view and measures."""

    backbone: Backbone

    def __init__(self, backbone: Backbone, heads: Heads) -> None:
        super().__init__(backbone, heads)


def lite(size: Size | None = None, *, width: int = 256, dropout: float = 0.2) -> Lite:
    """A new one, untrained."""
    backbone = Backbone(size)
    shape = Shape(features=backbone.size.features, width=width, blocks=2, dropout=dropout)
    return Lite(backbone, Heads(shape))


def served(network: Lite) -> Lite:
    """The same network for export: pixels are moved into channels by the convolution that reads
    them, 3x3 over squares of 2x2 pixels being 6x6 over pixels; moving them took a tenth of its time.
    """
    network = copy.deepcopy(network).eval()
    for layers in (network.backbone.patch, network.backbone.view):
        unshuffle: Any = layers[0]
        step: Any = layers[1]
        step[0] = _over_pixels(step[0], unshuffle.downscale_factor)
        layers[0] = nn.Identity()
    return network


def _over_pixels(convolution: nn.Conv2d, side: int) -> nn.Conv2d:
    """Reads what `PixelUnshuffle(side)` before `convolution` would have read."""
    out, channels, height, width = convolution.weight.shape
    before = channels // side**2
    merged = nn.Conv2d(
        before,
        out,
        height * side,
        convolution.stride[0] * side,
        padding=int(convolution.padding[0]) * side,
        bias=False,
    )
    apart = convolution.weight.detach().reshape(out, before, side, side, height, width)
    pixels = apart.permute(0, 1, 4, 2, 5, 3)
    merged.weight = nn.Parameter(pixels.reshape(out, before, height * side, width * side))
    return merged


def _step(before: int, after: int, stride: int = 1, side: int = 3) -> nn.Sequential:
    """Convolution, normalisation (folded into it when exported), rectifier."""
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride, padding=side // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
