"""Video-LLaVA: one CLIP tower for images and another for the frames of videos."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import VideoLlavaForConditionalGeneration

from pruners.adapters.base import ModelAdapter
from pruners.adapters.llava import clip_tower
from pruners.media import Kind, Medium, Tile, whole_images
from pruners.tower_features import check_select_strategy


class VideoLlavaAdapter(ModelAdapter):
    """Parts of a `VideoLlavaForConditionalGeneration`.

    Each frame stands in the prompt with its CLS token before its patches: a separator, never
    pruned. Images stand there without. Stages at layer 0 work on projected tokens, for the tokens
    of a video cannot all be taken out before the projector.

    Questions are compared with patches by the text tower that both vision towers were trained with
    (in the released model LanguageBind's, which images and videos share), saved as a CLIP
    checkpoint. That a text tower has the vision towers' width is checked; that it was trained with
    them cannot be.
    """

    family = "video_llava"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, VideoLlavaForConditionalGeneration)
        core: Any = self.core
        config: Any = model.config
        image = clip_tower(core.image_tower, config.vision_feature_layer)
        video = clip_tower(core.video_tower, config.vision_feature_layer)
        check_select_strategy(config.vision_feature_select_strategy, class_token=image.class_token)
        self.towers = {"image": image, "video": video}

    def media(self, kind: Kind, arguments: Mapping[str, Any], features: Any) -> tuple[Medium, ...]:
        count, tokens = features.pooler_output.shape[:2]
        if kind == "image":
            side = math.isqrt(tokens)
            return whole_images(count, (side, side))
        videos, frames = arguments["pixel_values_videos"].shape[:2]
        return tuple(_video(frames, tokens, frames * video) for video in range(videos))


def _video(frames: int, tokens: int, first: int) -> Medium:
    """Describe a video.

    Args:
        frames: Its frames.
        tokens: Placeholders of each, CLS token included.
        first: Which image of the tower's call its first frame is.
    """
    side = math.isqrt(tokens - 1)
    patches = torch.arange(1, tokens, device="cpu")
    tiles = (Tile(frame * tokens + patches, (side, side), first + frame) for frame in range(frames))
    return Medium(frames * tokens, tuple(tiles))
