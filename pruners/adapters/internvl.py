"""InternVL: a tower with a CLS token, and square blocks of patches as visual tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration

from pruners.adapters.base import ModelAdapter
from pruners.errors import UnsupportedModelError
from pruners.media import Kind, Medium, Tile, block_patches, whole_images
from pruners.tower_features import check_select_strategy
from pruners.vision_attention import InternHeads
from pruners.vision_towers.batched import BatchedTower


class InternVLAdapter(ModelAdapter):
    """Parts of an `InternVLForConditionalGeneration`.

    Pixel shuffle puts each block of 2 x 2 patches into one visual token before the projector, so a
    stage at layer 0 works on projected tokens. The tower gets tiles of images and frames of videos
    alike, one by one; which of them belong together, the model is not told, and nothing needs it:
    each is a medium of its own.
    """

    family = "internvl"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, InternVLForConditionalGeneration)
        core: Any = self.core
        config: Any = model.config
        tower = intern_tower(core.vision_tower, config.vision_feature_layer)
        check_select_strategy(config.vision_feature_select_strategy, class_token=tower.class_token)
        self._block = round(1 / config.downsample_ratio)
        self.towers = {"image": tower}

    def media(self, kind: Kind, arguments: Mapping[str, Any], features: Any) -> tuple[Medium, ...]:
        count, tokens = features.pooler_output.shape[:2]
        side = math.isqrt(tokens)
        patches = block_patches(side * self._block, side * self._block, self._block)
        return tuple(
            Medium(medium.placeholders, tuple(_made_of(patches, tile) for tile in medium.tiles))
            for medium in whole_images(count, (side, side))
        )


def intern_tower(module: Any, feature_layer: int) -> BatchedTower:
    """Describe an InternVL vision model.

    Args:
        module: The stock vision model.
        feature_layer: Which hidden states the projector reads.

    Returns:
        The tower; no text tower is paired with it.

    Raises:
        UnsupportedModelError: Its images are not square.
    """
    config = module.config
    rows, columns = module.embeddings.patch_embeddings.patch_shape
    if rows != columns:
        raise UnsupportedModelError(
            f"the vision tower cuts images into {rows} x {columns} patches; schedules can be "
            "applied to InternVL models with square tiles"
        )
    layers = list(module.encoder.layer)
    return BatchedTower(
        module,
        layers,
        [InternHeads(layer) for layer in layers],
        norm=None,
        class_token=True,
        feature_layer=feature_layer,
        width=config.hidden_size,
        patches=rows * columns,
    )


def _made_of(patches: Tensor, tile: Tile) -> Tile:
    return Tile(tile.places, tile.grid, tile.source, patches)
