"""LLaVA-OneVision: SigLIP, tiles for one image of a sample, none for several, pooled videos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration

from pruners.adapters.anyres import patches_of_tile, sizes_on_host, spans, tiled_medium
from pruners.adapters.base import ModelAdapter
from pruners.adapters.llava import clip_tower
from pruners.errors import InputError
from pruners.media import Kind, Medium, Tile
from pruners.shape_families.anyres import shrunk_side, token_grid
from pruners.tower_features import check_select_strategy


class LlavaOnevisionAdapter(ModelAdapter):
    """Parts of a `LlavaOnevisionForConditionalGeneration`."""

    family = "llava_onevision"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, LlavaOnevisionForConditionalGeneration)
        core: Any = self.core
        config: Any = model.config
        tower = clip_tower(core.vision_tower, config.vision_feature_layer)
        check_select_strategy(config.vision_feature_select_strategy, class_token=tower.class_token)
        self.towers = {"image": tower, "video": tower}
        self._side = math.isqrt(tower.patches)

    def media(self, kind: Kind, arguments: Mapping[str, Any], features: Any) -> tuple[Medium, ...]:
        if kind == "video":
            videos, frames = arguments["pixel_values_videos"].shape[:2]
            return tuple(self._video(frames, frames * video) for video in range(videos))
        config: Any = self.model.config
        sizes = sizes_on_host(arguments["image_sizes"])
        alone = _alone(arguments.get("batch_num_images"), len(sizes))
        if len(alone) != len(sizes):
            raise InputError(
                f"image_sizes has {len(sizes)} images, but batch_num_images {len(alone)}; pass "
                "both as the processor makes them"
            )
        aspect_ratio = arguments.get("vision_aspect_ratio") or config.vision_aspect_ratio
        most_tiles = int(aspect_ratio.removeprefix("anyres_max_"))
        media: list[Medium] = []
        source = 0
        for size, is_tiled in zip(sizes, alone, strict=True):
            if not is_tiled:
                media.append(self._untiled(source))
                source += 1
                continue
            rows, columns = token_grid(
                size,
                config.image_grid_pinpoints,
                config.vision_config.image_size,
                self._side,
                most_tiles,
            )
            media.append(tiled_medium(rows, columns, source))
            source += 1 + rows.tiles * columns.tiles
        return tuple(media)

    def _untiled(self, source: int) -> Medium:
        """Describe an image of a sample with several: all its patches, and a newline."""
        tokens = self._side**2
        tile = Tile(torch.arange(tokens, device="cpu"), (self._side, self._side), source)
        return Medium(tokens + 1, (tile,))

    def _video(self, frames: int, source: int) -> Medium:
        """Describe a video: its frames, each pooled 2 x 2, and a newline behind the last.

        Args:
            frames: Frames.
            source: Which image of the vision tower's call the first one is.

        Returns:
            The video; each token is made of the four patches that pooling reads. Of a tower with an
            odd number of patches along its side it weights them; their scores count alike.
        """
        pooled = math.ceil(self._side / 2)
        (span,) = spans(shrunk_side(self._side, pooled))
        patches = patches_of_tile(span, span, self._side)
        tokens = pooled**2
        places = torch.arange(tokens, device="cpu")
        tiles = (
            Tile(frame * tokens + places, (pooled, pooled), source + frame, patches)
            for frame in range(frames)
        )
        return Medium(frames * tokens + 1, tuple(tiles))


def _alone(images_by_sample: Tensor | Sequence[int] | None, images: int) -> list[bool]:
    """Say of each image whether it is the only one of its sample.

    Args:
        images_by_sample: Images of each sample; None if each has one.
        images: Images of all samples.

    Returns:
        Whether it is, for each image.
    """
    if images_by_sample is None:
        return [True] * images
    counts = torch.as_tensor(images_by_sample, device="cpu").tolist()
    return [count == 1 for count in counts for _ in range(count)]
