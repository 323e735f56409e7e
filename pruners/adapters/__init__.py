"""Model families that schedules can be applied to: one file each, and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

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
        UnsupportedModelError: No adapter knows the model's family or configuration, or it is
            something that wraps a model.
    """
    inside = _wrapped(model)
    if inside is not None:
        raise UnsupportedModelError(
            f"{type(model).__name__} wraps a {type(inside).__name__}; apply the schedule to that "
            "one (model.get_base_model() with peft, model._orig_mod with torch.compile, "
            "model.module in data parallelism), then call the wrapper as before"
        )
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


def _wrapped(model: nn.Module) -> PreTrainedModel | None:
    """Find the model in what peft, torch.compile or data parallelism made of it, if they have."""
    if isinstance(model, PreTrainedModel):
        return None
    parts = (part for part in model.modules() if isinstance(part, PreTrainedModel))
    return next((part for part in parts if part.config.model_type in FAMILIES), None)
