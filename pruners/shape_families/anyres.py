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

from pruners.errors import UnsupportedModelError, shown
from pruners.shape_limits import MOST_TILES

FINE_LIMIT = 1.1
"""How far, in side length, a grid may pass the most tiles before it shrinks (LLaVA-OneVision)."""


_MOST_TILES, _LONGEST_SIDE = 1000, 10_000  # of an image; real models have up to 36, and 162


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


class GridSide(NamedTuple):
    """One side of the grid of patches that an image's tiles make together: its rows, or columns.

    Attributes:
        kept: Patches along it that are no padding.
        tokens: Tokens along it; fewer than `kept` where the grid has shrunk.
        tiles: Tiles along it.
        tile_side: Patches along a tile's side.
    """

    kept: range
    tokens: int
    tiles: int
    tile_side: int

    def tile_of(self) -> list[int]:
        """List the tile that each token, or its centre, lies in."""
        return [min(int(at // self.tile_side), self.tiles - 1) for at in self._centres()]

    def per_tile(self) -> list[int]:
        """Count the tokens in each tile."""
        tiles = self.tile_of()
        return [tiles.count(tile) for tile in range(self.tiles)]

    def patches_of(self) -> list[tuple[int, int]]:
        """List the two patches, counted from 0 in its tile, that each token is made of.

        Without shrinking both are the token's own patch. A shrunk token lies between two: bilinear
        interpolation reads these. Where one is another tile's, the other stands for it.
        """
        side = self.tile_side
        found = []
        for at, tile in zip(self._centres(), self.tile_of(), strict=True):
            within = at - tile * side - 0.5  # in patches, from the centre of the tile's first
            found.append((max(math.floor(within), 0), min(math.ceil(within), side - 1)))
        return found

    def _centres(self) -> list[float]:
        """Say where along the side, in patches from its start, the tokens have their centres."""
        kept, tokens = self.kept, self.tokens
        # Rounded, so that a centre that is a patch's own is not taken for one beside it.
        return [
            round(kept.start + (token + 0.5) * len(kept) / tokens, 7) for token in range(tokens)
        ]


def shrunk_side(patches: int, tokens: int) -> GridSide:
    """Describe one side of a tile whose features are interpolated on their own (a video's frame).

    Args:
        patches: Patches along it.
        tokens: Tokens along it.

    Returns:
        The side.
    """
    return GridSide(range(patches), tokens, 1, patches)


def token_grid(
    image_size: tuple[int, int],
    resolutions: Sequence[Sequence[int]],
    tile_pixels: int,
    side: int,
    most_tiles: int | None = None,
) -> tuple[GridSide, GridSide]:
    """Lay out the tokens of an image's tiles, without the tile of the whole image.

    Args:
        image_size: Height and width, in pixels.
        resolutions: Heights and widths that images are brought to, in pixels.
        tile_pixels: Side of a tile, in pixels.
        side: Side of a tile, in patches.
        most_tiles: The grid shrinks to that many tiles' tokens where it is larger (by interpolation
            of the projected features); None if it never does.

    Returns:
        Rows and columns of the grid.

    Raises:
        UnsupportedModelError: The image would have no tiles, or more than any model takes.
    """
    height, width = best_resolution(image_size, resolutions)
    down, across = height // tile_pixels, width // tile_pixels
    if not (0 < down * across <= _MOST_TILES and max(down, across) * side <= _LONGEST_SIDE):
        raise UnsupportedModelError(
            f"the configuration brings images to {shown(height)} x {shown(width)} pixels in tiles "
            f"of {tile_pixels}; expected 1 to {_MOST_TILES} tiles of an image and at most "
            f"{_LONGEST_SIDE} patches along it"
        )
    rows, columns = _without_padding(image_size, down * side, across * side)
    shrink = 1.0
    if most_tiles is not None:
        ratio = math.sqrt(len(rows) * len(columns) / (most_tiles * side**2))
        shrink = ratio if ratio > FINE_LIMIT else 1.0
    return (
        GridSide(rows, int(len(rows) // shrink), down, side),
        GridSide(columns, int(len(columns) // shrink), across, side),
    )


def tiled_image(
    image_size: tuple[int, int],
    resolutions: Sequence[Sequence[int]],
    tile_pixels: int,
    side: int,
    most_tiles: int | None = None,
) -> TiledImage:
    """Count the tokens of an image by tile; arguments are those of `token_grid`.

    Returns:
        Tokens and newlines. Those of a shrunk grid belong to the tile that they lie in.
    """
    rows, columns = token_grid(image_size, resolutions, tile_pixels, side, most_tiles)
    across = columns.per_tile()
    high_resolution = (high * wide for high in rows.per_tile() for wide in across)
    return TiledImage(tile_tokens=(side**2, *high_resolution), newline_tokens=rows.tokens)


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


def together(images: Sequence[TiledImage]) -> TiledImage:
    """Put the tiles of several images one after another.

    Raises:
        UnsupportedModelError: They are more than any sample needs.
    """
    tiles = sum(len(image.tile_tokens) for image in images)
    if tiles > MOST_TILES:
        raise UnsupportedModelError(f"{tiles} tiles of a sample; expected at most {MOST_TILES}")
    return TiledImage(
        tile_tokens=tuple(tokens for image in images for tokens in image.tile_tokens),
        newline_tokens=sum(image.newline_tokens for image in images),
    )


def unequal(tile_tokens: Sequence[int]) -> tuple[int, ...]:
    """Return tokens by tile where tiles differ, and nothing where they are equal."""
    differ = any(first != second for first, second in pairwise(tile_tokens))
    return tuple(tile_tokens) if differ else ()
