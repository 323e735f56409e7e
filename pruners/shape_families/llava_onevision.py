"""LLaVA-OneVision: tiles for one image, one tile each for several, pooled frames for a video."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pruners.shape import Shape
from pruners.shape_families.anyres import TiledImage, tiled_image, together, unequal
from pruners.shape_families.inputs import Inputs
from pruners.shape_families.parts import decoder_sizes, square_tower, tile_pixels

# Defaults of transformers' LlavaOnevisionConfig.
_PINPOINTS = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]
_ASPECT_RATIO = "anyres_max_9"

USUAL_TILES = 2
"""Tiles along each side of the image that is assumed where no size is given."""


def read(values: Mapping[str, Any], inputs: Inputs) -> Shape:
    """Read the shape of a LLaVA-OneVision model; by default for a square image of five tiles.

    Args:
        values: Contents of its ``config.json``.
        inputs: One image, which is cut into tiles; several, which are not; or a video, whose frames
            are pooled 2 x 2 behind the projector and end in one newline together.

    Returns:
        The shape.

    Raises:
        KeyError: A size is missing.
        UnsupportedModelError: The tower is neither CLIP's nor SigLIP's.
    """
    inputs.refuse("llava_onevision")
    vision = square_tower(values, feature_layer=-1)
    side = vision.rows_and_columns[0]
    if inputs.frames is not None:
        pooled = math.ceil(side / 2) ** 2
        tokens, newlines = TiledImage((pooled,) * inputs.frames, 1)
    elif inputs.images > 1:
        tokens, newlines = together([TiledImage((side**2,), 1)] * inputs.images)
    else:
        pixels = tile_pixels(vision, values)
        most = values.get("vision_aspect_ratio") or _ASPECT_RATIO
        tokens, newlines = tiled_image(
            inputs.image_size or (USUAL_TILES * pixels, USUAL_TILES * pixels),
            values.get("image_grid_pinpoints") or _PINPOINTS,
            pixels,
            side,
            most_tiles=int(most.removeprefix("anyres_max_")),
        )
    return Shape(
        name="llava_onevision",
        family="llava_onevision",
        visual_tokens=sum(tokens),
        newline_tokens=newlines,
        tiles=len(tokens),
        tile_tokens=unequal(tokens),
        projector_tokens=len(tokens) * vision.patches,
        vision=vision,
        **decoder_sizes(values),
    )
