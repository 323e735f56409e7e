"""How many tokens a stage at layer 0 can leave of an image in several tiles.

A stage whose scope is a tile keeps the same share of each, rounded to whole tokens tile by tile: of
five equal tiles a multiple of five, of unequal ones what the common share gives.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pruners.counting import alive_tokens, contextual_tokens
from pruners.shape import Shape
from pruners.stages import Stage


class Level(NamedTuple):
    """A number of tokens that tiles can keep together.

    Attributes:
        alive: Tokens over all tiles.
        retention: A share that gives this number.
    """

    alive: int
    retention: float


def chooses_by_tile(stage: Stage, shape: Shape) -> bool:
    """Whether a stage chooses within several tiles, each on its own."""
    return stage.layer == 0 and stage.scope == "tile" and shape.tiles > 1


def equal_tiles(stage: Stage, shape: Shape) -> float:
    """Return among how many tiles of equal size as many pairs of tokens are compared.

    Args:
        stage: The stage.
        shape: Shape of the model.

    Returns:
        The number of tiles where they are equal; less where they differ, and 1 for a stage that
        chooses among all tokens of a sample.
    """
    if not chooses_by_tile(stage, shape):
        return 1
    if not shape.tile_tokens:
        return shape.tiles
    return shape.visual_tokens**2 / sum(tokens**2 for tokens in shape.tile_tokens)


def contextual_by_tile(stage: Stage, retention: float, shape: Shape) -> int:
    """Count the contextual tokens that a stage makes over all tiles.

    Args:
        stage: The stage; its own retention is not read.
        retention: Share of each tile's tokens that stay alive.
        shape: Shape of the model.

    Returns:
        Contextual tokens; a tile that keeps all of its tokens has none.
    """
    return sum(
        contextual_tokens(stage.contextual, alive)
        for tokens in shape.tokens_per_tile
        if (alive := alive_tokens(retention, tokens)) < tokens
    )


def level_within(tokens: float, shape: Shape) -> Level:
    """Return the most tokens that tiles can keep together, up to a number.

    Args:
        tokens: The number.
        shape: Shape of the model.

    Returns:
        The level; the lowest one, of one token per tile, where the number is below it.
    """
    levels = _levels(shape.tokens_per_tile)
    return levels[max(bisect_right(levels, tokens, key=lambda level: level.alive) - 1, 0)]


def level_above(alive: int, shape: Shape) -> Level:
    """Return the next number of tokens that tiles can keep together.

    Args:
        alive: A number of tokens, below all of them.
        shape: Shape of the model.

    Returns:
        The level.
    """
    levels = _levels(shape.tokens_per_tile)
    return levels[bisect_right(levels, alive, key=lambda level: level.alive)]


@lru_cache(maxsize=32)
def _levels(tile_tokens: tuple[int, ...]) -> list[Level]:
    """List all levels, by rising tokens: those between the shares at which a tile rounds up."""
    total = sum(tile_tokens)
    steps = sorted(
        {(token - 0.5) / tokens for tokens in tile_tokens for token in range(2, tokens + 1)}
    )
    shares = [(low + high) / 2 for low, high in zip([0.0, *steps], [*steps, 1.0], strict=True)]
    levels: list[Level] = []
    for share in [*shares, 1.0]:
        alive = _alive(share, tile_tokens)
        if levels and alive == levels[-1].alive:
            continue
        # Where tokens over all of them say the same, a schedule's file reads better so.
        plain = alive / total
        levels.append(Level(alive, plain if _alive(plain, tile_tokens) == alive else share))
    return levels


def _alive(retention: float, tile_tokens: Sequence[int]) -> int:
    return sum(min(alive_tokens(retention, tokens), tokens) for tokens in tile_tokens)
