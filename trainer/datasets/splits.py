"""Splits by content: pictures that show the same never straddle them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainer.datasets.samples import Sample
from vqmon.likeness import dhash, distances

__all__ = ["NEAR", "content_groups", "dhash", "divided", "near_duplicates", "validation_part"]

NEAR = 10
"""Pictures whose 256-bit dHash differs in at most so many bits show the same content."""


def near_duplicates(
    a: NDArray[np.bool_], b: NDArray[np.bool_], limit: int = NEAR
) -> NDArray[np.int64]:
    """(pairs, 2) indices into the hashes `a` (n, 256) and `b` (m, 256) that are near."""
    return np.argwhere(distances(a, b) <= limit + 0.5)


def content_groups(hashes: NDArray[np.bool_], named: Sequence[str] = ()) -> NDArray[np.int64]:
    """(n,) group numbers: near-duplicates, and near-duplicates of those, are one group.

    named: of each picture the content that its set names (`Sample.group`), "" for none; pictures
    of one name are one group too.
    """
    parent = list(range(len(hashes)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, name in enumerate(named):
        if name:
            parent[root(i)] = root(first.setdefault(name, i))
    for i, j in near_duplicates(hashes, hashes).tolist():
        parent[root(i)] = root(j)
    return np.array([root(i) for i in range(len(hashes))])


def validation_part(
    subsets: Sequence[str], groups: NDArray[np.int64], size: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(n,) True for about `size` pictures, every subset in proportion, no group divided."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups.tolist()):
        members[group].append(i)
    total = len(subsets)
    room = {s: round(size * list(subsets).count(s) / total) for s in sorted(set(subsets))}
    chosen = np.zeros(total, bool)
    for group in rng.permutation(np.unique(groups)).tolist():
        taken = [subsets[i] for i in members[group]]
        if all(room[s] >= taken.count(s) for s in set(taken)):
            chosen[members[group]] = True
            for s in taken:
                room[s] -= 1
    return chosen


def divided(
    samples: Sequence[Sample],
    groups: NDArray[np.int64],
    shares: Mapping[str, float],
    rng: np.random.Generator,
) -> list[Sample]:
    """The samples with their splits drawn anew, group by group; for sets without one of their own.

    groups: from `content_groups`. shares: of the pictures by split, such as {"train": .8,
    "test": .2}; a split is filled until its share is reached, the last takes the rest.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups.tolist()):
        members[group].append(i)
    order = iter(rng.permutation(np.unique(groups)).tolist())
    names, total = list(shares), sum(shares.values())
    split = [names[-1]] * len(samples)
    for name in names[:-1]:
        room = shares[name] / total * len(samples)
        while room >= 0.5 and (group := next(order, None)) is not None:
            for i in members[group]:
                split[i] = name
            room -= len(members[group])
    return [replace(sample, split=name) for sample, name in zip(samples, split, strict=True)]
