"""Seeded, stratified, disjoint subsets of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pruners.errors import DataError

_SMALLEST_STRATUM = 2
"""Rarer strata are pooled: a stratified draw needs two samples of each."""


def disjoint_subsets(
    identifiers: Sequence[str],
    strata: Sequence[str],
    sizes: Mapping[str, int],
    seed: int,
    *,
    balanced: bool = False,
) -> dict[str, list[int]]:
    """Draw disjoint subsets in which the strata have the shares that they have in the whole.

    The draw depends on identifiers, not on the order of rows. A subset does not change when those
    drawn after it are of another size.

    Args:
        identifiers: Identifier of each sample, all different.
        strata: Stratum of each sample.
        sizes: Samples wanted by subset, drawn in this order. When there are fewer samples in all,
            each subset gets its share of them.
        seed: Seed of the draw.
        balanced: Whether strata have equal shares instead: those with more samples than the
            smallest are cut to its size first, and subsets to a multiple of their number.

    Returns:
        Indices of each subset's samples, rising.

    Raises:
        DataError: There are fewer samples than subsets.
    """
    left = sorted(range(len(identifiers)), key=lambda index: identifiers[index])
    if balanced:
        left = _cut_to_smallest(left, strata, seed)
    if len(left) < len(sizes):
        raise DataError(
            f"{len(left)} samples cannot be divided into {len(sizes)} subsets; give more samples"
        )
    wanted = _that_fit(sizes, len(left))
    if balanced:
        distinct = len(set(strata))
        wanted = {name: size - size % distinct or size for name, size in wanted.items()}
    subsets = {}
    for number, (name, size) in enumerate(wanted.items()):
        drawn = _draw(left, [strata[index] for index in left], size, seed + number)
        subsets[name] = sorted(drawn)
        taken = set(drawn)
        left = [index for index in left if index not in taken]
    return subsets


def _that_fit(sizes: Mapping[str, int], available: int) -> dict[str, int]:
    """Sizes that sum up to at most what is available, each at least 1, in proportion."""
    total = sum(sizes.values())
    if total <= available:
        return dict(sizes)
    fitting = {name: max(1, size * available // total) for name, size in sizes.items()}
    while sum(fitting.values()) > available:
        fitting[max(fitting, key=lambda name: fitting[name])] -= 1
    return fitting


def _cut_to_smallest(indices: Sequence[int], strata: Sequence[str], seed: int) -> list[int]:
    generator = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for index in indices:
        members.setdefault(strata[index], []).append(index)
    smallest = min((len(each) for each in members.values()), default=0)
    return sorted(
        int(index)
        for _, each in sorted(members.items())
        for index in generator.permutation(each)[:smallest]
    )


def _draw(indices: Sequence[int], strata: Sequence[str], size: int, seed: int) -> list[int]:
    """Draw indices at random; stratified where size and strata allow it."""
    from sklearn.model_selection import train_test_split

    if size >= len(indices):
        return list(indices)
    counts = Counter(strata)
    labels = [name if counts[name] >= _SMALLEST_STRATUM else "" for name in strata]
    if Counter(labels)[""] == 1:  # one rare sample alone joins the largest stratum
        largest = counts.most_common(1)[0][0]
        labels = [label or largest for label in labels]
    distinct = len(set(labels))
    stratified = 1 < distinct <= min(size, len(indices) - size)
    drawn, _ = train_test_split(
        list(indices), train_size=size, random_state=seed, stratify=labels if stratified else None
    )
    return [int(index) for index in drawn]
