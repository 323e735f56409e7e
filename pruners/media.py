"""How images and videos stand in a prompt, as a model family arranges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["image", "video"]
KINDS: tuple[Kind, ...] = ("image", "video")
"""Every kind of medium, in the order in which models take them."""


@dataclass(frozen=True, eq=False)
class Tile:
    """Visual tokens that went through the vision tower together: an image, a part, or a frame.

    Attributes:
        places: Which of its medium's placeholders they fill, rising, on the CPU, (tokens,).
        grid: Rows and columns of the tokens, row by row; their product is the number of tokens.
        source: Which image of the vision tower's call it is.
        patches: Which patches of that image each token is made of, on the CPU, (tokens, patches of
            each); None where the tokens are the patches, in order.
    """

    places: Tensor
    grid: tuple[int, int]
    source: int
    patches: Tensor | None = None

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, eq=False)
class Medium:
    """An image or a video of a prompt.

    Placeholders that belong to no tile are separators, such as LLaVA-NeXT's newline tokens; they
    are never pruned.

    Attributes:
        placeholders: Placeholders that it takes in the prompt.
        tiles: Its visual tokens by tile; tiles without tokens are left out.
    """

    placeholders: int
    tiles: tuple[Tile, ...]


def whole_images(count: int, grid: tuple[int, int]) -> tuple[Medium, ...]:
    """Describe images that are one tile each and whose tokens are the tower's patches.

    Args:
        count: Images of the call.
        grid: Rows and columns of patches of each.

    Returns:
        The media, in order.
    """
    tokens = grid[0] * grid[1]
    places = torch.arange(tokens, device="cpu")
    return tuple(Medium(tokens, (Tile(places, grid, source),)) for source in range(count))


def block_patches(rows: int, columns: int, block: int) -> Tensor:
    """Find the patches of each token, where square blocks of patches make one token.

    Args:
        rows: Rows of patches, a multiple of `block`.
        columns: Columns of patches, a multiple of `block`.
        block: Patches along each side of a block.

    Returns:
        Patches of each token, patches and tokens counted row by row, (tokens, block * block).
    """
    patches = torch.arange(rows * columns, device="cpu")
    blocks = patches.view(rows // block, block, columns // block, block)
    return blocks.transpose(1, 2).reshape(-1, block * block)


def consecutive_patches(tokens: int, each: int) -> Tensor:
    """Find the patches of each token, where so many consecutive patches make one token.

    Args:
        tokens: Number of tokens.
        each: Patches of each.

    Returns:
        Patches of each token, (tokens, each).
    """
    return torch.arange(tokens * each, device="cpu").view(tokens, each)


def separators(medium: Medium) -> int:
    """Count the placeholders of a medium that are never pruned."""
    return medium.placeholders - sum(map(len, medium.tiles))


def tile_sizes(media: Sequence[Medium]) -> tuple[int, ...]:
    """List the visual tokens of each tile of some media, in order."""
    return tuple(len(tile) for medium in media for tile in medium.tiles)
