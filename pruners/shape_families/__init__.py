"""Shapes by model family: how each turns a configuration and an input into sizes and counts.

One module per family; adding one is a module and a line below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pruners.shape import Shape
from pruners.shape_families import (
    internvl,
    llava,
    llava_next,
    llava_onevision,
    qwen,
    video_llava,
)
from pruners.shape_families.inputs import Inputs

__all__ = ["Inputs", "read_shape"]

_READERS: Mapping[str, Callable[[Mapping[str, Any], Inputs], Shape]] = {
    "llava": llava.read,
    "llava_next": llava_next.read,
    "llava_onevision": llava_onevision.read,
    "video_llava": video_llava.read,
    "qwen2_5_vl": qwen.read_qwen2_5_vl,
    "qwen3_vl": qwen.read_qwen3_vl,
    "internvl": internvl.read,
}


def read_shape(values: Mapping[str, Any], inputs: Inputs) -> Shape:
    """Read a shape, without the name, prompt length and text tower that the caller knows.

    Args:
        values: Contents of a ``config.json`` of one of `pruners.shape.SUPPORTED_FAMILIES`.
        inputs: What a sample holds.

    Returns:
        The shape, named after its family.

    Raises:
        KeyError: A size is missing.
        UnsupportedModelError: The family has no such input, or another vision tower than known.
    """
    return _READERS[values["model_type"]](values, inputs)
