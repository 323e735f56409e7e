"""Shapes that need no hub, and shapes read from checkpoints."""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pruners.errors import ModelError, UnsupportedModelError, shortened, shown
from pruners.json_files import read_json
from pruners.paths import is_folder
from pruners.reference_shapes import (
    INTERNVL3_8B,
    LLAVA_NEXT_7B,
    LLAVA_ONEVISION_7B,
    QWEN2_5_VL_7B,
    QWEN3_VL_8B,
    VIDEO_LLAVA_7B,
)
from pruners.shape import LLAVA_1_5_7B, PAPER_TEXT_TOKENS, Shape, TextTowerShape

_LLAVA_1_5_13B = LLAVA_1_5_7B.model_copy(
    update={
        "name": "llava-1.5-13b",
        "decoder_layers": 40,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "attention_heads": 40,
        "key_value_heads": 40,
    }
)

PRESETS = MappingProxyType(
    {
        shape.name: shape
        for shape in (
            LLAVA_1_5_7B,
            _LLAVA_1_5_13B,
            LLAVA_NEXT_7B,
            LLAVA_ONEVISION_7B,
            VIDEO_LLAVA_7B,
            QWEN2_5_VL_7B,
            QWEN3_VL_8B,
            INTERNVL3_8B,
        )
    }
)
"""Shapes by name, each for one input; `pruners.reference_shapes` says which and where from."""


def preset(name: str) -> Shape:
    """Return a shape that is known by name.

    Args:
        name: One of `PRESETS`.

    Returns:
        The shape, at the papers' prompt length of 63 text tokens.

    Raises:
        UnsupportedModelError: No preset has that name.
    """
    if name not in PRESETS:
        raise UnsupportedModelError(
            f"no preset shape is called {shown(name)}; expected one of {', '.join(PRESETS)}, "
            "or a model folder or hub name for shape_from_pretrained"
        )
    return PRESETS[name]


def shape_from_pretrained(
    model: str | os.PathLike[str],
    *,
    text_tokens: int = PAPER_TEXT_TOKENS,
    text_tower: TextTowerShape | str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] | None = None,
    images: int = 1,
    frames: int | None = None,
    tiles: int | None = None,
) -> Shape:
    """Read a checkpoint's shape off its configuration; weights are not touched.

    A folder is read without importing transformers; a hub name is resolved by it.

    Args:
        model: Folder with a ``config.json``, or hub name.
        text_tokens: Prompt length beside the image, in tokens.
        text_tower: The paired CLIP text tower: its sizes, or the folder or hub name of its
            checkpoint. Without it, schedules that score by similarity cannot be priced.
        image_size: Height and width of each image or frame, in pixels; see `Shape.from_config`.
        images: Images per sample.
        frames: Frames of one video, which then takes the images' place.
        tiles: Tiles per image of InternVL.

    Returns:
        The shape, named after the folder or hub name as given.

    Raises:
        ModelError: There is no readable configuration.
        UnsupportedModelError: The model's family has no adapter or no such input, or a size is
            missing.
    """
    if text_tower is not None and not isinstance(text_tower, TextTowerShape):
        text_tower = text_tower_shape(text_tower)
    return Shape.from_config(
        _read_config(model),
        name=str(model),
        text_tokens=text_tokens,
        text_tower=text_tower,
        image_size=image_size,
        images=images,
        frames=frames,
        tiles=tiles,
    )


def text_tower_shape(checkpoint: str | os.PathLike[str]) -> TextTowerShape:
    """Read the sizes of a CLIP text tower off its checkpoint's configuration.

    Args:
        checkpoint: Folder or hub name of a CLIP model, or of its text tower alone.

    Returns:
        The sizes, at DeSAP's question length of 30 tokens.

    Raises:
        ModelError: There is no readable configuration, or it is not a CLIP text tower's.
    """
    values = _read_config(checkpoint)
    try:
        if "hidden_size" not in values.get("text_config", values):
            values = _resolve_config(checkpoint)
        text = values.get("text_config", values)
        return TextTowerShape(
            layers=text["num_hidden_layers"],
            hidden_size=text["hidden_size"],
            intermediate_size=text["intermediate_size"],
            attention_heads=text["num_attention_heads"],
            projection_size=values.get("projection_dim") or text["projection_dim"],
        )
    except (LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"the configuration of {checkpoint} lacks or has a wrong {shortened(error)}; expected "
            "that of a CLIP model"
        ) from error


def _read_config(model: str | os.PathLike[str]) -> dict[str, Any]:
    folder = Path(model)
    if not is_folder(folder):
        return _resolve_config(model)
    path = folder / "config.json"
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read {path} ({shortened(error)}); expected a Hugging Face model folder"
        ) from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds {type(values).__name__}; expected a JSON object")
    return values


def _resolve_config(model: str | os.PathLike[str]) -> dict[str, Any]:
    from transformers import AutoConfig  # imported late: it costs seconds

    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    # A damaged configuration fails wherever transformers first uses the wrong value.
    except Exception as error:
        raise ModelError(
            f"{str(model)!r} is neither a model folder nor a hub name that can be read here "
            f"({shortened(str(error).splitlines()[0] if str(error) else type(error).__name__)}); "
            "expected a folder with a config.json, a hub name, or a preset: "
            f"{', '.join(PRESETS)}"
        ) from error
    values: dict[str, Any] = config.to_dict()
    return values
