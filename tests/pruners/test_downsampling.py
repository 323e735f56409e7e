"""The smaller image: grids, resizing and which dense patches its patches stand for."""

from __future__ import annotations

import torch

from pruners.counting import grid_tokens
from pruners.downsampling import image_grid, nearest_patches, resize_images


def test_grids_hold_their_patches() -> None:
    for tokens in range(1, 600):
        patches = grid_tokens(tokens)
        height, width = image_grid(patches)
        assert height * width == patches
        assert width - height in (0, 1)


def test_nearest_patches_are_nearest_distinct_and_rising() -> None:
    for side in (1, 2, 5, 24):
        for patches in {grid_tokens(tokens) for tokens in range(1, side**2 + 1)}:
            height, width = image_grid(patches)
            nearest = nearest_patches((height, width), side).tolist()
            assert nearest == sorted(set(nearest))
            for place, dense in enumerate(nearest):
                for small, large, count in (
                    (place // width, dense // side, height),
                    (place % width, dense % side, width),
                ):
                    # Both centres in units of 1 / (2 * side * count) of the image.
                    centre = (2 * small + 1) * side
                    distances = [abs(centre - (2 * patch + 1) * count) for patch in range(side)]
                    assert distances[large] == min(distances)


def test_halving_averages_with_a_triangle() -> None:
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    resized = resize_images(images, (2, 3), patch_size=2)
    assert resized.shape == (2, 3, 4, 6)
    # At half the size, the antialiasing filter is (1, 3, 3, 1) / 8 along each side.
    weights = [1 / 8, 3 / 8, 3 / 8, 1 / 8]
    for row in (1, 2):
        for column in (1, 2, 3, 4):
            expected = sum(
                weights[i] * weights[j] * images[:, :, 2 * row - 1 + i, 2 * column - 1 + j]
                for i in range(4)
                for j in range(4)
            )
            torch.testing.assert_close(resized[:, :, row, column], expected)


def test_resizing_keeps_dtype_and_flat_images() -> None:
    images = torch.full((1, 3, 20, 20), 0.5, dtype=torch.bfloat16)
    resized = resize_images(images, (3, 4), patch_size=4)
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized, torch.full((1, 3, 12, 16), 0.5, dtype=torch.bfloat16))
