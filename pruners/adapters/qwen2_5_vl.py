"""Qwen2.5-VL: windows in most layers of the vision tower, frames of a video in one piece."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from pruners.adapters.qwen_vl import QwenVLAdapter
from pruners.errors import UnsupportedModelError
from pruners.vision_attention import QwenHeads
from pruners.vision_towers.packed import PackedTower, Windows


class Qwen25VLAdapter(QwenVLAdapter):
    """Parts of a `Qwen2_5_VLForConditionalGeneration`."""

    family = "qwen2_5_vl"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, Qwen2_5_VLForConditionalGeneration)
        module: Any = self.core.visual
        config = module.config
        if not config.fullatt_block_indexes:
            raise UnsupportedModelError(
                "fullatt_block_indexes is empty: no layer of the vision tower attends to whole "
                "images, and saliency would be that of windows"
            )
        layers = list(module.blocks)
        tower = PackedTower(
            module,
            layers,
            [QwenHeads(layer) for layer in layers],
            width=config.hidden_size,
            merge=config.spatial_merge_size,
            read_layer=max(config.fullatt_block_indexes) - len(layers),
            windows=Windows(config.window_size, config.patch_size),
        )
        self.towers = {"image": tower, "video": tower}
