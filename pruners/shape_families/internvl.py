"""InternVL: square tiles, 2 x 2 patches of which are shuffled into one visual token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruners.shape import Shape, VisionShape
from pruners.shape_families.inputs import Inputs
from pruners.shape_families.parts import decoder_sizes, one_layer_of_patches

# Defaults of transformers' InternVLVisionConfig.
_TOWER = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": (448, 448),
    "patch_size": (14, 14),
    "num_channels": 3,
}


def read(values: Mapping[str, Any], inputs: Inputs) -> Shape:
    """Read the shape of an InternVL model; by default for an image of one tile.

    Args:
        values: Contents of its ``config.json``.
        inputs: Images of as many tiles each as its processor cuts them into, or a video, each frame
            of which is one tile.

    Returns:
        The shape.

    Raises:
        KeyError: A size is missing.
        UnsupportedModelError: The tower hands the projector other tokens than one layer's patches.
    """
    own = {**_TOWER, **values["vision_config"]}
    side, patch = _side(own["image_size"]), _side(own["patch_size"])
    merge = round(1 / values.get("downsample_ratio", 0.5))
    tiles = inputs.frames or inputs.images * (inputs.tiles or 1)
    patches = (side // patch) ** 2
    return Shape(
        name="internvl",
        family="internvl",
        visual_tokens=tiles * patches // merge**2,
        tiles=tiles,
        vision=VisionShape(
            layers=own["num_hidden_layers"],
            hidden_size=own["hidden_size"],
            intermediate_size=own["intermediate_size"],
            attention_heads=own["num_attention_heads"],
            patches=patches,
            patch_size=patch,
            channels=own["num_channels"],
            feature_layer=one_layer_of_patches(values, feature_layer=-1, class_token=True),
            merge_size=merge,
        ),
        **decoder_sizes(values),
    )


def _side(size: Any) -> int:
    """Return the side of a square that is given as one number or as two."""
    return int(size) if isinstance(size, int) else int(size[0])
