"""LLaVA-NeXT: a tile of the whole image and high-resolution tiles, without padding, in lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import LlavaNextForConditionalGeneration

from pruners.adapters.anyres import sizes_on_host, tiled_medium
from pruners.adapters.base import ModelAdapter
from pruners.adapters.llava import clip_tower
from pruners.media import Kind, Medium
from pruners.shape_families.anyres import token_grid
from pruners.tower_features import check_select_strategy


class LlavaNextAdapter(ModelAdapter):
    """Parts of a `LlavaNextForConditionalGeneration`."""

    family = "llava_next"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, LlavaNextForConditionalGeneration)
        core: Any = self.core
        config: Any = model.config
        self._tower = clip_tower(core.vision_tower, config.vision_feature_layer)
        check_select_strategy(
            config.vision_feature_select_strategy, class_token=self._tower.class_token
        )
        self.towers = {"image": self._tower}

    def media(self, kind: Kind, arguments: Mapping[str, Any], features: Any) -> tuple[Medium, ...]:
        config: Any = self.model.config
        media, source = [], 0
        for size in sizes_on_host(arguments["image_sizes"]):
            rows, columns = token_grid(
                size,
                config.image_grid_pinpoints,
                config.vision_config.image_size,
                math.isqrt(self._tower.patches),
            )
            media.append(tiled_medium(rows, columns, source))
            source += 1 + rows.tiles * columns.tiles
        return tuple(media)
