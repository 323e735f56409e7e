"""Images of any resolution: which tiles an image is cut into, and the tokens that each leaves.

LLaVA-NeXT's and LLaVA-OneVision's way. An image is resized and padded to the best of some
resolutions, which is cut into tiles; a tile of the whole image comes first. Of the grid of patches
that the tiles make together, rows or columns of padding are left out, and each row ends in a
newline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

FINE_LIMIT = 1.1
"""How far, in side length, a grid may pass the most tiles before it shrinks (LLaVA-OneVision)."""


class TiledImage(NamedTuple):
    """What becomes of an image.

    Attributes:
        tile_tokens: Visual tokens of each tile, that of the whole image first.
        newline_tokens: Rows of the grid, each of which ends in a newline.
    """

    tile_tokens: tuple[int, ...]
    newline_tokens: int


def best_resolution(
    image_size: tuple[int, int], resolutions: Sequence[Sequence[int]]
) -> tuple[int, int]:
    """Choose the resolution that keeps the most of an image, and of those the smallest.

    Args:
        image_size: Height and width, in pixels.
        resolutions: Heights and widths to choose from.

    Returns:
        One of them.
    """
    height, width = image_size

    def kept(resolution: Sequence[int]) -> tuple[int, int]:
        scale = min(resolution[1] / width, resolution[0] / height)
        area = min(int(width * scale) * int(height * scale), width * height)
        return area, area - resolution[0] * resolution[1]

    rows, columns = max(resolutions, key=kept)
    return rows, columns


def tiled_image(
    image_size: tuple[int, int],
    resolutions: Sequence[Sequence[int]],
    tile_pixels: int,
    side: int,
    most_tiles: int | None = None,
) -> TiledImage:
    """Count the tokens of an image by tile.

    Args:
        image_size: Height and width, in pixels.
        resolutions: Heights and widths that images are brought to, in pixels.
        tile_pixels: Side of a tile, in pixels.
        side: Side of a tile, in patches.
        most_tiles: The grid shrinks to that many tiles' tokens where it is larger (by interpolation
            of the projected features); None if it never does.

    Returns:
        Tokens and newlines. Those of a shrunk grid belong to the tile that they lie in.
    """
    height, width = best_resolution(image_size, resolutions)
    down, across = height // tile_pixels, width // tile_pixels
    rows, columns = _without_padding(image_size, down * side, across * side)
    shrink = 1.0
    if most_tiles is not None:
        ratio = math.sqrt(len(rows) * len(columns) / (most_tiles * side**2))
        shrink = ratio if ratio > FINE_LIMIT else 1.0
    row_counts = _per_tile(rows, side, down, shrink)
    column_counts = _per_tile(columns, side, across, shrink)
    return TiledImage(
        tile_tokens=(side**2, *(high * wide for high in row_counts for wide in column_counts)),
        newline_tokens=sum(row_counts),
    )


def _without_padding(image_size: tuple[int, int], rows: int, columns: int) -> tuple[range, range]:
    """Return the rows and columns of patches that are not padding."""
    height, width = image_size
    if width / height > columns / rows:
        inner = int(round(height * (columns / width), 7))
        padding = (rows - inner) // 2
        return range(padding, rows - padding), range(columns)
    inner = int(round(width * (rows / height), 7))
    padding = (columns - inner) // 2
    return range(rows), range(padding, columns - padding)


def _per_tile(kept: range, side: int, tiles: int, shrink: float) -> list[int]:
    """Count the kept rows (or columns) of each tile, after the grid has shrunk."""
    count = int(len(kept) // shrink)
    centres = (kept.start + (index + 0.5) * len(kept) / count for index in range(count))
    of_tile = [min(int(centre // side), tiles - 1) for centre in centres]
    return [of_tile.count(tile) for tile in range(tiles)]


def together(images: Sequence[TiledImage]) -> TiledImage:
    """Put the tiles of several images one after another."""
    return TiledImage(
        tile_tokens=tuple(tokens for image in images for tokens in image.tile_tokens),
        newline_tokens=sum(image.newline_tokens for image in images),
    )


def unequal(tile_tokens: Sequence[int]) -> tuple[int, ...]:
    """Return tokens by tile where tiles differ, and nothing where they are equal."""
    differ = any(first != second for first, second in pairwise(tile_tokens))
    return tuple(tile_tokens) if differ else ()
