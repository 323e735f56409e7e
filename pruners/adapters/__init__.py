"""Model families that schedules can be applied to: one file each, and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from torch import nn

from pruners.adapters.base import DecoderCall, ModelAdapter
from pruners.errors import UnsupportedModelError

__all__ = ["FAMILIES", "DecoderCall", "ModelAdapter", "adapter_for"]

FAMILIES = {
    "llava": "LlavaAdapter",
    "llava_next": "LlavaNextAdapter",
    "llava_onevision": "LlavaOnevisionAdapter",
    "video_llava": "VideoLlavaAdapter",
    "internvl": "InternVLAdapter",
    "qwen2_5_vl": "Qwen25VLAdapter",
    "qwen3_vl": "Qwen3VLAdapter",
}
"""Classes of adapters by the `model_type` of a configuration, which also names their module.

They are imported when they are first needed: each loads the stock classes of its family.
"""


def adapter_for(model: nn.Module) -> ModelAdapter:
    """Find the parts of a model.

    Args:
        model: A loaded vision-language model.

    Returns:
        Its adapter.

    Raises:
        UnsupportedModelError: No adapter knows the model's family or configuration.
    """
    config: Any = getattr(model, "config", None)
    family = getattr(config, "model_type", None)
    if family not in FAMILIES:
        found = f"model_type {family!r}" if family else type(model).__name__
        raise UnsupportedModelError(
            f"a schedule cannot be applied to {found}; supported model types: "
            f"{', '.join(FAMILIES)}. See CONTRIBUTING.md for how to add a family"
        )
    module = import_module(f"pruners.adapters.{family}")
    return cast(ModelAdapter, getattr(module, FAMILIES[family])(model))
