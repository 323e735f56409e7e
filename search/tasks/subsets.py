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
    images: Sequence[str] | None = None,
) -> dict[str, list[int]]:
    """Draw disjoint subsets in which the strata have the shares that they have in the whole.

    The draw depends on identifiers, not on the order of rows. Where several samples have the same
    image, images are first divided among the subsets, by the subsets' sizes, so that no image is
    in two of them. Elsewhere a subset does not change when those drawn after it are of another
    size.

    Args:
        identifiers: Identifier of each sample, all different.
        strata: Stratum of each sample.
        sizes: Samples wanted by subset, drawn in this order. When there are fewer samples in all,
            each subset gets its share of them.
        seed: Seed of the draw.
        balanced: Whether strata have equal shares instead: those with more samples than the
            smallest are cut to its size first, and subsets to a multiple of their number.
        images: Identifier of each sample's image; None where each has its own.

    Returns:
        Indices of each subset's samples, rising; fewer than wanted where its images have fewer.

    Raises:
        DataError: There are fewer samples, or fewer images, than subsets.
    """
    left = sorted(range(len(identifiers)), key=lambda index: identifiers[index])
    if balanced:
        left = _cut_to_smallest(left, strata, seed)
    if len(left) < len(sizes):
        raise DataError(
            f"its samples are {len(left)}, which cannot be divided into {len(sizes)} subsets; give "
            "more of them"
        )
    wanted = _that_fit(sizes, len(left))
    if balanced:
        distinct = len(set(strata))
        wanted = {name: size - size % distinct or size for name, size in wanted.items()}
    pools = _divided_by_image(left, images, wanted, seed) if images is not None else None
    subsets = {}
    for number, (name, size) in enumerate(wanted.items()):
        pool = left if pools is None else pools[name]
        drawn = _draw(pool, [strata[index] for index in pool], size, seed + number)
        subsets[name] = sorted(drawn)
        taken = set(drawn)
        left = [index for index in left if index not in taken]
    return subsets


def _divided_by_image(
    indices: Sequence[int], images: Sequence[str], sizes: Mapping[str, int], seed: int
) -> dict[str, list[int]] | None:
    """Divide samples by image, in proportion to sizes; None where no two have the same image."""
    members: dict[str, list[int]] = {}
    for index in indices:
        members.setdefault(images[index], []).append(index)
    if len(members) == len(indices):
        return None
    if len(members) < len(sizes):
        raise DataError(
            f"its samples are of {len(members)} different images, which cannot be divided into "
            f"{len(sizes)} subsets without one in two of them; give samples of more images"
        )
    names = sorted(members)
    pools: dict[str, list[int]] = {name: [] for name in sizes}
    for place in np.random.default_rng(seed).permutation(len(names)):
        neediest = min(sizes, key=lambda name: len(pools[name]) / sizes[name])
        pools[neediest] += members[names[place]]
    order = {index: place for place, index in enumerate(indices)}
    return {name: sorted(pool, key=order.__getitem__) for name, pool in pools.items()}


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
