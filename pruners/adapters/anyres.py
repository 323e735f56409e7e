"""Images that are cut into tiles, as LLaVA-NeXT and LLaVA-OneVision arrange them in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pruners.media import Medium, Tile
from pruners.shape_families.anyres import GridSide


def tiled_medium(rows: GridSide, columns: GridSide, source: int) -> Medium:
    """Describe an image: a tile of the whole, then the grid of tiles, a newline behind each row.

    Args:
        rows: Rows of the grid's tokens.
        columns: Its columns.
        source: Which image of the vision tower's call the tile of the whole image is; those of the
            grid follow row by row.

    Returns:
        The image. Padding is in no tile; newlines are separators. A token of a grid that has shrunk
        is in the tile that its centre lies in, and made of the patches of that tile, at most four,
        that interpolation reads: it has their mean score, whatever their weights.
    """
    side = rows.tile_side
    whole = side * side
    shape = (rows.tokens, columns.tokens + 1)
    places = whole + torch.arange(rows.tokens * shape[1], device="cpu").view(shape)
    tiles = [Tile(torch.arange(whole, device="cpu"), (side, side), source)]
    for number, (high, wide) in enumerate(product(spans(rows), spans(columns)), start=1):
        own = places[high.tokens][:, wide.tokens]
        if own.numel():
            patches = patches_of_tile(high, wide, side)
            grid = (own.shape[0], own.shape[1])
            tiles.append(Tile(own.flatten(), grid, source + number, patches))
    return Medium(whole + places.numel(), tuple(tiles))


class Span(NamedTuple):
    """What one tile has of one side of a grid.

    Attributes:
        tokens: Which of the side's tokens, (tokens,).
        patches: Patches along the tile's side that each of them is made of, (tokens, 1), or
            (tokens, 2) where the grid has shrunk.
    """

    tokens: Tensor
    patches: Tensor


def spans(side: GridSide) -> list[Span]:
    """Split one side of a grid among the tiles along it."""
    tile_of = torch.tensor(side.tile_of(), dtype=torch.long, device="cpu")
    patches = torch.tensor(side.patches_of(), dtype=torch.long, device="cpu").view(-1, 2)
    if side.tokens == len(side.kept):
        patches = patches[:, :1]
    places = ((tile_of == tile).nonzero()[:, 0] for tile in range(side.tiles))
    return [Span(own, patches[own]) for own in places]


def patches_of_tile(rows: Span, columns: Span, side: int) -> Tensor | None:
    """Find the patches that each token of a tile is made of.

    Args:
        rows: Rows of the tile's tokens.
        columns: Columns of the tile's tokens.
        side: Patches along the tile's side.

    Returns:
        Patches of the tile, (tokens, patches of each): one, or four that may repeat where the grid
        has shrunk; None where the tokens are all the patches in order.
    """
    tokens = len(rows.tokens) * len(columns.tokens)
    # (rows, columns, patches along a column, patches along a row)
    patches = rows.patches[:, None, :, None] * side + columns.patches[None, :, None, :]
    patches = patches.reshape(tokens, rows.patches.shape[1] * columns.patches.shape[1])
    # As many tokens as patches, each made of one: nothing has been left out.
    return None if tokens == side * side and patches.shape[1] == 1 else patches


def sizes_on_host(image_sizes: Any) -> Sequence[tuple[int, int]]:
    """Read the sizes of images, which may be on a device.

    Args:
        image_sizes: Height and width of each, in pixels, (images, 2).

    Returns:
        The same as numbers.
    """
    sizes = torch.as_tensor(image_sizes, device="cpu").tolist()
    return [(height, width) for height, width in sizes]
