from __future__ import annotations

import numpy as np
from PIL import Image

from search.tasks.sharpening import sharpest, shrunk_images


def test_samples_that_lose_most_come_first_then_those_that_are_right() -> None:
    dense = [1.0, 0.0, 1.0, 0.6, 1.0, 0.0]
    shrunk = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert sharpest(dense, shrunk, 6) == [2, 4, 3, 0, 1, 5]
    assert sharpest(dense, shrunk, 2) == [2, 4]


def test_shrunk_images_keep_size_and_mean_but_lose_detail() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    (image,) = shrunk_images([Image.fromarray(noise)], 8)
    values = np.asarray(image, dtype=float)
    assert image.size == (48, 64)
    assert abs(values.mean() - noise.mean()) < 2
    assert values.std() < noise.std() / 4
