"""Pictures that arrive in pieces: lost slices through a real decoder, and made-up debris."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trainer.degrade.codecs import decoded, encoded, shown, yuv
from trainer.degrade.pixels import Picture

AREAS = (0.0, 0.02, 0.055, 0.13, 0.28, 0.55)
"""Share of the picture that is damaged at levels 0 to 5; in between, the nearest on a log scale."""

CHANGED = 10
"""Of 255: a smaller difference to the intact picture is no damage."""

SLICES = 12
START = re.compile(rb"\x00\x00\x00?\x01")


def level_of_area(share: float) -> int:
    """0 where nobody would notice, else 1 to 5."""
    if share < 0.006:
        return 0
    distances = np.abs(np.log(np.array(AREAS[1:])) - np.log(share))
    return 1 + int(np.argmin(distances))


def damage(picture: Picture, intact: Picture) -> NDArray[np.bool_]:
    """(h, w) where the picture differs visibly from the intact one, small holes closed."""
    difference = np.abs(picture.astype(np.int16) - intact).max(axis=2)
    dense = ndimage.uniform_filter((difference > CHANGED).astype(np.float32), 17)
    return np.asarray(dense > 0.3)


def debris(picture: Picture, share: float, rng: np.random.Generator) -> Picture:
    """Runs of macroblocks smeared, displaced, grey, green or repeated, until `share` of the
    picture is hit; a larger share hits the same blocks and more.
    """
    height, width = picture.shape[:2]
    block = 16 * max(1, round(min(height, width) / 600))
    rows, columns = height // block, width // block
    style = int(rng.integers(5))
    out, hit = picture.copy(), np.zeros((rows, columns), bool)
    wanted, burst = share * rows * columns, int(rng.integers(2, 5))
    around = int(rng.integers(rows))
    while hit.sum() < wanted:
        row = int(np.clip(rng.normal(around, rows / 5), 0, rows - 1))
        first, length = int(rng.integers(columns)), int(rng.integers(3, columns + 1))
        move = (rng.integers(-4, 5, 2) * block + rng.integers(-7, 8, 2)).tolist()
        for r in range(row, min(rows, row + int(rng.integers(1, burst)))):
            for c in range(first, min(columns, first + length)):
                if not hit[r, c] and hit.sum() < wanted:
                    hit[r, c] = True
                    _spoil(out, picture, r * block, c * block, block, style, move, rng)
    return out


def _spoil(  # noqa: PLR0917
    out: Picture,
    picture: Picture,
    y: int,
    x: int,
    block: int,
    style: int,
    move: Sequence[int],
    rng: np.random.Generator,
) -> None:
    there = np.s_[y : y + block, x : x + block]
    height, width = picture.shape[:2]
    if style == 0:
        out[there] = picture[max(0, y - 1), x : x + block][None]
    elif style == 1:
        top = int(np.clip(y + move[0], 0, height - block))
        left = int(np.clip(x + move[1], 0, width - block))
        out[there] = picture[top : top + block, left : left + block]
    elif style == 2:
        out[there] = (128, 128, 128) if move[0] % 2 else (0, 135, 0)
    elif style == 3:
        out[there] = out[there].mean(axis=(0, 1)).astype(np.uint8)
        out[y : y + block // 2, x : x + block] = rng.integers(0, 256, 3)
    else:
        shift = rng.integers(-90, 91, 3)
        out[there] = np.clip(out[there].astype(np.int16)[:, ::-1] + shift, 0, 255)


def lossy_rungs(
    clip: Sequence[Picture], shares: Sequence[float], rng: np.random.Generator
) -> tuple[Picture, list[Picture]]:
    """The last frame of a clip decoded intact, and with ever more of its slices lost.

    H.264 in slices. Slices go missing whole or by half, in one frame near the end or in several
    from there on; later frames carry the damage on. `shares` of a frame's slices are lost.
    """
    extra = {"slices": str(SLICES), "bf": "0", "x264-params": f"slices={SLICES}:intra-refresh=0"}
    packets = encoded(yuv(clip), "h264", float(rng.uniform(19, 27)), extra=extra)
    intact = shown(decoded(packets, "h264")[-1])
    first = len(clip) - int(rng.choice((2, 4, 6, 8, 10)))
    frames_hit = range(max(first, 1), min(len(clip), first + int(rng.choice((3, 6, 10)))))
    order = rng.permutation(SLICES)
    halves = rng.random(SLICES) < 0.35
    rungs = []
    for share in shares:
        lost = set(order[: max(1, round(share * SLICES))].tolist())
        damaged = list(packets)
        for place in frames_hit:
            damaged[place] = _without(packets[place], lost, halves)
        frames = decoded(damaged, "h264")
        rungs.append(shown(frames[-1]) if frames else intact)
    return intact, rungs


def _without(packet: bytes, lost: set[int], halves: NDArray[np.bool_]) -> bytes:
    """A packet less some of its slices, or less their second half."""
    starts = [found.start() for found in START.finditer(packet)]
    kept, place = [], 0
    for begin, end in zip(starts, [*starts[1:], len(packet)], strict=True):
        unit = packet[begin:end]
        kind = unit[START.match(unit).end()] & 31  # type: ignore[union-attr]
        if kind not in {1, 5}:
            kept.append(unit)
            continue
        if place not in lost:
            kept.append(unit)
        elif halves[place % len(halves)]:
            kept.append(unit[: max(12, len(unit) // 2)])
        place += 1
    return b"".join(kept)
