"""Measuring on fewer samples than there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def equal_shares(tasks: Sequence[str], limit: int, seed: int) -> list[int]:
    """Draw samples at random, as many of each task as of any other where there are enough.

    Args:
        tasks: Task of each sample.
        limit: Most samples to draw.
        seed: Seed of the draw.

    Returns:
        Indices of the drawn samples, rising; all of them when they are within the limit.
    """
    if limit >= len(tasks):
        return list(range(len(tasks)))
    labels = np.asarray(tasks)
    names = np.unique(labels)
    generator = np.random.default_rng(seed)
    drawn: list[int] = []
    for number, name in enumerate(names):
        share = limit // len(names) + (number < limit % len(names))
        drawn += generator.permutation(np.flatnonzero(labels == name))[:share].tolist()
    return sorted(drawn)
