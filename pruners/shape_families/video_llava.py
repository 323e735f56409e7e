"""Video-LLaVA: one tower for images and one for frames, which keep their CLS token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruners.shape import Shape
from pruners.shape_families.inputs import Inputs
from pruners.shape_families.parts import decoder_sizes, square_tower


def read(values: Mapping[str, Any], inputs: Inputs) -> Shape:
    """Read the shape of a Video-LLaVA model.

    Args:
        values: Contents of its ``config.json``.
        inputs: Images, or a video: the CLS token of each frame reaches the decoder and counts as a
            separator.

    Returns:
        The shape.

    Raises:
        KeyError: A size is missing.
        UnsupportedModelError: The tower is neither CLIP's nor SigLIP's.
    """
    inputs.refuse("video_llava")
    vision = square_tower(values, feature_layer=-2)
    tiles = inputs.frames or inputs.images
    classes = tiles if inputs.frames is not None and vision.class_token else 0
    return Shape(
        name="video_llava",
        family="video_llava",
        visual_tokens=tiles * vision.patches,
        newline_tokens=classes,
        tiles=tiles,
        projector_tokens=tiles * vision.patches + classes,
        vision=vision,
        **decoder_sizes(values),
    )
