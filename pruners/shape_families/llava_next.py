"""LLaVA-NeXT: images cut into tiles, whose rows end in newlines and lose their padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruners.shape import Shape
from pruners.shape_families.anyres import tiled_image, together, unequal
from pruners.shape_families.inputs import Inputs
from pruners.shape_families.parts import decoder_sizes, square_tower, tile_pixels

# Defaults of transformers' LlavaNextConfig.
_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]

USUAL_TILES = 2
"""Tiles along each side of the image that is assumed where no size is given; the papers' square."""


def read(values: Mapping[str, Any], inputs: Inputs) -> Shape:
    """Read the shape of a LLaVA-NeXT model; by default for a square image of five tiles.

    Args:
        values: Contents of its ``config.json``.
        inputs: Images of one size.

    Returns:
        The shape.

    Raises:
        KeyError: A size is missing.
        UnsupportedModelError: The input is a video, or the tower neither CLIP's nor SigLIP's.
    """
    inputs.refuse("llava_next", frames=True)
    vision = square_tower(values, feature_layer=-2)
    pixels = tile_pixels(vision, values)
    usual = (USUAL_TILES * pixels, USUAL_TILES * pixels)
    image = tiled_image(
        inputs.image_size or usual,
        values.get("image_grid_pinpoints") or _PINPOINTS,
        pixels,
        vision.rows_and_columns[0],
    )
    tokens, newlines = together([image] * inputs.images)
    return Shape(
        name="llava_next",
        family="llava_next",
        visual_tokens=sum(tokens),
        newline_tokens=newlines,
        tiles=len(tokens),
        tile_tokens=unequal(tokens),
        projector_tokens=len(tokens) * vision.patches,
        vision=vision,
        **decoder_sizes(values),
    )
