"""A smaller image: the control that every pruning method should beat."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def image_grid(patches: int) -> tuple[int, int]:
    """Return height and width of a grid of patches, h x h or h x (h + 1).

    Args:
        patches: Patches of the grid, as `pruners.counting.grid_tokens` returns them.

    Returns:
        Height and width in patches.
    """
    height = math.isqrt(patches)
    return height, patches // height


def resize_images(pixel_values: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """Resize preprocessed images to a grid of patches, with antialiasing.

    Args:
        pixel_values: Images, (batch, channels, height, width).
        grid: Height and width in patches.
        patch_size: Side of a patch, in pixels.

    Returns:
        The smaller images, in the dtype given.
    """
    size = (grid[0] * patch_size, grid[1] * patch_size)
    # In float32, because the antialiasing filter does not exist for every dtype.
    resized = interpolate(
        pixel_values.float(), size, mode="bilinear", antialias=True, align_corners=False
    )
    return resized.to(pixel_values.dtype)


def nearest_patches(grid: tuple[int, int], side: int) -> Tensor:
    """Find for each patch of a smaller image the nearest patch of the dense model's.

    Args:
        grid: Height and width of the smaller image, in patches, at most `side`.
        side: Height and width of the dense model's image, in patches.

    Returns:
        Indices in the dense model's raster order, distinct and rising, (height * width,).
    """
    rows, columns = (_nearest(count, side) for count in grid)
    return (side * rows.unsqueeze(-1) + columns).flatten()


def _nearest(count: int, side: int) -> Tensor:
    """Along one side: which dense patch holds the centre, (i + 0.5) * side / count."""
    return (2 * torch.arange(count, device="cpu") + 1) * side // (2 * count)
