"""Choosing samples that tell schedules apart.

Most samples of a benchmark are answered alike whatever is pruned: right, because a glance is
enough, or wrong, because the dense model cannot answer them either. Those that the dense model
answers right, but not from a strongly downsampled image, need visual detail, and there schedules
differ (VTC-Bench's finding). On them relative accuracies are lower, and differences between
schedules larger, than on the benchmark: they serve to find a schedule, never to report on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from PIL.Image import Image

POOL = 4
"""Candidates per sample of the search split."""

SHRINKAGE = 8
"""Factor by which the sides of downsampled images are smaller: 24 x 24 patches become 3 x 3."""

BIAS = (
    "the search split prefers samples that the dense model answers right, but not from an image "
    f"downsampled {SHRINKAGE}-fold, so that its relative accuracies lie below the benchmarks'; "
    "the confirm and report splits are plain"
)
"""What readers of a search split's figures must know."""


def sharpest(dense: ArrayLike, shrunk: ArrayLike, size: int) -> list[int]:
    """Choose the samples that depend most on visual detail.

    Args:
        dense: Scores of the dense model, `(candidates,)`, candidates in random order.
        shrunk: Its scores with downsampled images, `(candidates,)`.
        size: Samples to choose.

    Returns:
        Indices of the candidates with the largest loss; of equals, those that it answers better,
        then the first.
    """
    before, after = np.asarray(dense, dtype=float), np.asarray(shrunk, dtype=float)
    order = np.lexsort((np.arange(len(before)), -before, after - before))
    return [int(index) for index in order[:size]]


def shrunk_images(images: Sequence[Image], factor: int) -> tuple[Image, ...]:
    """Remove detail from images, which keep their size.

    Args:
        images: The images.
        factor: How many times smaller their sides become before they are enlarged again.

    Returns:
        The images.
    """
    from PIL.Image import Resampling

    return tuple(
        image.resize(
            (max(1, image.width // factor), max(1, image.height // factor)), Resampling.BOX
        ).resize(image.size, Resampling.BICUBIC)
        for image in images
    )
