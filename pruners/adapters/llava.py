"""LLaVA-1.5: CLIP (or SigLIP) vision tower, two-layer projector, one image in one piece."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import LlavaForConditionalGeneration

from pruners.adapters.base import ModelAdapter
from pruners.media import Kind, Medium, whole_images
from pruners.tower_features import check_select_strategy
from pruners.vision_attention import ClipHeads
from pruners.vision_towers.batched import BatchedTower


class LlavaAdapter(ModelAdapter):
    """Parts of a `LlavaForConditionalGeneration`."""

    family = "llava"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, LlavaForConditionalGeneration)
        core: Any = self.core
        config: Any = model.config
        tower = clip_tower(core.vision_tower, config.vision_feature_layer)
        check_select_strategy(config.vision_feature_select_strategy, class_token=tower.class_token)
        self.towers = {"image": tower}
        self.projector = core.multi_modal_projector

    def media(self, kind: Kind, arguments: Mapping[str, Any], features: Any) -> tuple[Medium, ...]:
        tower = self.towers["image"]
        assert isinstance(tower, BatchedTower)
        side = math.isqrt(tower.patches)
        return whole_images(len(features.pooler_output), (side, side))


def clip_tower(module: Any, feature_layer: int) -> BatchedTower:
    """Describe a CLIP or SigLIP vision model.

    Args:
        module: The stock vision model.
        feature_layer: Which hidden states the projector reads.

    Returns:
        The tower.
    """
    config = module.config
    layers = list(module.encoder.layers)
    has_class_token = config.model_type == "clip_vision_model"
    return BatchedTower(
        module,
        layers,
        [ClipHeads(layer) for layer in layers],
        # SigLIP pools patches by attention: they are in no space shared with its text tower.
        norm=module.post_layernorm if has_class_token else None,
        class_token=has_class_token,
        feature_layer=feature_layer,
        width=config.hidden_size,
        patches=(config.image_size // config.patch_size) ** 2,
    )
