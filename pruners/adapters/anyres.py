"""Images that are cut into tiles, as LLaVA-NeXT and LLaVA-OneVision arrange them in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    places = whole + torch.arange(rows.tokens * shape[1]).view(shape)
    tiles = [Tile(torch.arange(whole), (side, side), source)]
    down, across = (torch.tensor(part.tile_of()) for part in (rows, columns))
    for tile in range(rows.tiles * columns.tiles):
        own_rows = down == tile // columns.tiles
        own_columns = across == tile % columns.tiles
        own = places[own_rows][:, :-1][:, own_columns]
        if own.numel():
            patches = tile_patches(rows, own_rows, columns, own_columns)
            tiles.append(
                Tile(own.flatten(), (own.shape[0], own.shape[1]), source + 1 + tile, patches)
            )
    return Medium(whole + places.numel(), tuple(tiles))


def tile_patches(
    rows: GridSide, own_rows: Tensor, columns: GridSide, own_columns: Tensor
) -> Tensor | None:
    """Find the patches that each token of a tile is made of.

    Args:
        rows: Rows of the grid's tokens.
        own_rows: True for those of the tile, (rows,).
        columns: Columns of the grid's tokens.
        own_columns: True for those of the tile, (columns,).

    Returns:
        Patches of the tile, (tokens, patches of each): one, or four that may repeat where the grid
        has shrunk; None where the tokens are all the patches in order.
    """
    side = rows.tile_side
    high = torch.tensor(rows.patches_of())[own_rows]
    wide = torch.tensor(columns.patches_of())[own_columns]
    if not is_shrunk(rows) and not is_shrunk(columns):
        if len(high) * len(wide) == side * side:
            return None
        high, wide = high[:, :1], wide[:, :1]
    # (rows, columns, two rows of patches, two columns of patches)
    patches = high[:, None, :, None] * side + wide[None, :, None, :]
    return patches.reshape(len(high) * len(wide), -1)


def is_shrunk(side: GridSide) -> bool:
    """Say whether a side of a grid has fewer tokens than patches."""
    return side.tokens < len(side.kept)


def sizes_on_host(image_sizes: Any) -> Sequence[tuple[int, int]]:
    """Read the sizes of images, which may be on a device.

    Args:
        image_sizes: Height and width of each, in pixels, (images, 2).

    Returns:
        The same as numbers.
    """
    return [(height, width) for height, width in torch.as_tensor(image_sizes).tolist()]
