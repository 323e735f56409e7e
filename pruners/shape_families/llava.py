"""LLaVA-1.5: one square image, one visual token per patch, pruned before the projector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruners.shape import Shape
from pruners.shape_families.inputs import Inputs
from pruners.shape_families.parts import decoder_sizes, square_tower


def read(values: Mapping[str, Any], inputs: Inputs) -> Shape:
    """Read the shape of a LLaVA model; images are resized to the tower's size.

    Args:
        values: Contents of its ``config.json``.
        inputs: Images.

    Returns:
        The shape.

    Raises:
        KeyError: A size is missing.
        UnsupportedModelError: The input is a video, or the tower neither CLIP's nor SigLIP's.
    """
    inputs.refuse("llava", frames=True)
    vision = square_tower(values, feature_layer=-2)
    return Shape(
        name="llava",
        visual_tokens=inputs.images * vision.patches,
        tiles=inputs.images,
        vision=vision,
        **decoder_sizes(values),
    )
