"""Qwen2.5-VL and Qwen3-VL: images of any grid, frames in pairs, 2 x 2 patches merged into one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruners.shape import Shape, VisionShape
from pruners.shape_families.inputs import Inputs
from pruners.shape_families.parts import decoder_sizes
from pruners.shape_limits import MOST_LAYERS

# Defaults of transformers' Qwen2_5_VLVisionConfig and Qwen3VLVisionConfig.
_QWEN2_5_TOWER = {
    "depth": 32,
    "hidden_size": 3584,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": (7, 15, 23, 31),
}
_QWEN3_TOWER = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "deepstack_visual_indexes": (8, 16, 24),
}

USUAL_SIDE = 24
"""Visual tokens along each side of the image that is assumed where no size is given.

The same 576 that LLaVA-1.5 makes of an image: 672 pixels for Qwen2.5-VL, 768 for Qwen3-VL.
"""


def read_qwen2_5_vl(values: Mapping[str, Any], inputs: Inputs) -> Shape:
    """Read the shape of a Qwen2.5-VL model; by default for an image of 672 x 672 pixels.

    Args:
        values: Contents of its ``config.json``.
        inputs: Images of one size, or a video. Its size is rounded to whole visual tokens, as the
            processor does; images that the processor makes larger or smaller must be given so.

    Returns:
        The shape.

    Raises:
        KeyError: A size is missing.
        UnsupportedModelError: A number of tiles is given.
    """
    own = {**_QWEN2_5_TOWER, **values["vision_config"]}
    full = len(set(own["fullatt_block_indexes"]) & set(range(min(own["depth"], MOST_LAYERS))))
    # Windows are counted in whole visual tokens.
    merge = own["spatial_merge_size"]
    window = own["window_size"] // merge // own["patch_size"] * merge
    extra = {"gated": True, "windowed_layers": own["depth"] - full, "window_patches": window}
    return _shape(values, own, inputs, extra, {"family": "qwen2_5_vl"}, "qwen2_5_vl_text")


def read_qwen3_vl(values: Mapping[str, Any], inputs: Inputs) -> Shape:
    """Read the shape of a Qwen3-VL model; by default for an image of 768 x 768 pixels.

    Args:
        values: Contents of its ``config.json``.
        inputs: Images of one size, or a video, as for Qwen2.5-VL.

    Returns:
        The shape.

    Raises:
        KeyError: A size is missing.
        UnsupportedModelError: A number of tiles is given.
    """
    own = {**_QWEN3_TOWER, **values["vision_config"]}
    mergers = len(own["deepstack_visual_indexes"])
    more = {"family": "qwen3_vl", "deepstack_mergers": mergers}
    return _shape(values, own, inputs, {}, more, "qwen3_vl_text")


def _shape(
    values: Mapping[str, Any],
    own: Mapping[str, Any],
    inputs: Inputs,
    vision_fields: Mapping[str, Any],
    fields: Mapping[str, Any],
    decoder: str,
) -> Shape:
    inputs.refuse(values["model_type"])
    merge, frames_per_patch = own["spatial_merge_size"], own["temporal_patch_size"]
    cell = merge * own["patch_size"]
    usual = USUAL_SIDE * cell
    height, width = inputs.image_size or (usual, usual)
    grid = tuple(max(round(side / cell), 1) * merge for side in (height, width))
    # The last frame is repeated until the frames fill their patches.
    tiles = inputs.images if inputs.frames is None else -(-inputs.frames // frames_per_patch)
    patches = grid[0] * grid[1]
    return Shape(
        name=values["model_type"],
        visual_tokens=tiles * patches // merge**2,
        tiles=tiles,
        projector_hidden_size=own["hidden_size"] * merge**2,
        vision=VisionShape(
            layers=own["depth"],
            hidden_size=own["hidden_size"],
            intermediate_size=own["intermediate_size"],
            attention_heads=own["num_heads"],
            patches=patches,
            patch_size=own["patch_size"],
            channels=own.get("in_channels") or own.get("in_chans") or 3,
            class_token=False,
            feature_layer=-1,
            grid=(grid[0], grid[1]),
            frames_per_patch=frames_per_patch,
            merge_size=merge,
            fused_projections=True,
            **vision_fields,
        ),
        **decoder_sizes(values, model_type=decoder),
        **fields,
    )
