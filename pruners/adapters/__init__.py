"""Model families that schedules can be applied to: one file each, and one line here."""

from __future__ import annotations

from typing import Any

from torch import nn

from pruners.adapters.base import DecoderCall, ModelAdapter
from pruners.adapters.llava import LlavaAdapter
from pruners.errors import UnsupportedModelError

__all__ = ["ADAPTERS", "DecoderCall", "ModelAdapter", "adapter_for"]

ADAPTERS: dict[str, type[ModelAdapter]] = {adapter.family: adapter for adapter in (LlavaAdapter,)}
"""Adapters by the `model_type` of a configuration."""


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
    if family not in ADAPTERS:
        found = f"model_type {family!r}" if family else type(model).__name__
        raise UnsupportedModelError(
            f"a schedule cannot be applied to {found}; supported model types: "
            f"{', '.join(ADAPTERS)}. See CONTRIBUTING.md for how to add a family"
        )
    return ADAPTERS[family](model)
