"""Handwritten digits: which a split may show, and how they are scaled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DigitPool:
    """Handwritten digits that a split may show.

    Attributes:
        images: Ink from 0 to 16, uint8, shape (samples, 8, 8).
        labels: The digit written, shape (samples,).
        sample_indices: Position of each in scikit-learn's ``load_digits``, shape (samples,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sample_indices: NDArray[np.int64]


_POOL_BOUNDS: dict[str, tuple[int, int]] = {
    "search": (0, 200),
    "confirm": (200, 350),
    "report": (350, 600),
    "train": (600, 1797),
}


@cache
def digit_pool(split: str) -> DigitPool:
    """Return the handwritten digits of one split; no sample belongs to two splits.

    Args:
        split: ``"search"``, ``"confirm"``, ``"report"`` or ``"train"``.

    Returns:
        The split's share of the 1,797 samples of scikit-learn's ``load_digits``.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(20_260_413).permutation(len(digits.target))
    start, stop = _POOL_BOUNDS[split]
    chosen = np.sort(order[start:stop])
    return DigitPool(
        images=digits.images[chosen].astype(np.uint8),
        labels=digits.target[chosen].astype(np.int64),
        sample_indices=chosen.astype(np.int64),
    )


def digit_ink(image: NDArray[np.uint8], size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Scale a handwritten digit, with a slight slant.

    Args:
        image: Ink from 0 to 16, shape (8, 8).
        size: Width and height to scale it to, in pixels.
        rng: Where all randomness comes from.

    Returns:
        Ink from 0 to 16, shape (size, size).
    """
    slant, tilt = rng.uniform(-0.15, 0.15, size=2)
    offset = (np.arange(size) - (size - 1) / 2) * (8 / size)
    across, down = np.meshgrid(offset, offset)
    column = np.clip(across + slant * down + 3.5, 0, 6.999)
    row = np.clip(down + tilt * across + 3.5, 0, 6.999)
    left, top = column.astype(np.int64), row.astype(np.int64)
    right_share, bottom_share = column - left, row - top
    ink = image.astype(np.float64)
    upper = ink[top, left] * (1 - right_share) + ink[top, left + 1] * right_share
    lower = ink[top + 1, left] * (1 - right_share) + ink[top + 1, left + 1] * right_share
    return np.asarray(upper * (1 - bottom_share) + lower * bottom_share)
