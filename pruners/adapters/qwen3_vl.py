"""Qwen3-VL: DeepStack, and timestamps between the frames of a video."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration

from pruners.adapters.qwen_vl import QwenVLAdapter
from pruners.errors import UnsupportedModelError
from pruners.vision_attention import QwenHeads
from pruners.vision_towers.packed import PackedTower


class Qwen3VLAdapter(QwenVLAdapter):
    """Parts of a `Qwen3VLForConditionalGeneration`.

    Its decoder adds features of earlier vision layers to the visual tokens after each of its first
    layers (DeepStack, arXiv 2406.04334).
    """

    family = "qwen3_vl"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, Qwen3VLForConditionalGeneration)
        module: Any = self.core.visual
        config = module.config
        added = len(config.deepstack_visual_indexes)
        if added >= len(self.decoder_layers):
            raise UnsupportedModelError(
                f"deepstack_visual_indexes names {added} vision layers, but the decoder has "
                f"{len(self.decoder_layers)} layers; schedules can be applied to models that add "
                "DeepStack features before their last layer only"
            )
        layers = list(module.blocks)
        tower = PackedTower(
            module,
            layers,
            [QwenHeads(layer) for layer in layers],
            width=config.hidden_size,
            merge=config.spatial_merge_size,
        )
        self.towers = {"image": tower, "video": tower}

    def take_added_features(self, options: dict[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
        options = dict(options)
        options.pop("visual_pos_masks", None)
        return options.pop("deepstack_visual_embeds", None) or [], options
