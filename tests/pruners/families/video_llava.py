"""Video-LLaVA: one CLIP tower for images, another for frames, which keep their CLS tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import (
    LlamaConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaImageProcessor,
    VideoLlavaProcessor,
)

from pruners import TextTower

from . import parts
from .tiny import TinyModel

SIDE, PATCH, GRID, FRAMES = 16, 4, 4, 4
WORDS = [*parts.WORDS, "<video>"]
IMAGE, VIDEO = WORDS.index("<image>"), WORDS.index("<video>")


class TinyVideoLlava(TinyModel):
    """The processor calls the pixels of images by another name than other families' do."""

    def images(self, count: int, seed: int = 0) -> Tensor:
        return self.inputs(["w1"] * count, seed=seed)["pixel_values_images"]


def build_video_llava(folder: Path) -> TinyModel:
    vision = parts.clip_vision_config(SIDE, PATCH)
    clip = parts.save_clip(folder / "clip", vision)
    config = VideoLlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**parts.decoder_sizes(WORDS, num_key_value_heads=4)),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_seq_length=GRID * GRID,
        video_seq_length=FRAMES * (GRID * GRID + 1),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )

    def pair_image_tower(model: Any) -> None:
        model.model.image_tower.load_state_dict(clip.vision_model.state_dict())

    load = parts.loader(
        VideoLlavaForConditionalGeneration, config, [IMAGE, VIDEO], pair_image_tower
    )
    video_class = parts.video_processor_class("video_llava", "VideoLlavaVideoProcessor")
    processor_class = parts.accepting_video(VideoLlavaProcessor)
    processor = processor_class(
        image_processor=VideoLlavaImageProcessor(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        video_processor=video_class(**parts.UNCHANGED_FRAMES),
        tokenizer=parts.build_tokenizer(
            words=WORDS, special={"image_token": "<image>", "video_token": "<video>"}
        ),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=parts.chat_template("<image>", "<video>"),
    )
    model_folder = parts.save(folder / "model", load, processor)
    return TinyVideoLlava(
        load=load,
        processor=processor,
        folder=model_folder,
        reload_processor=lambda: parts.load_processor(model_folder, processor_class, video_class),
        clip_folder=str(folder / "clip"),
        text_tower=TextTower.load(folder / "clip"),
        visual_tokens=GRID * GRID,
        standard=(SIDE, SIDE),
        other=(SIDE, 2 * SIDE),
        image_text="<image>",
        video_text="<video>",
        videos=((FRAMES, SIDE, SIDE),) * 3,
    )
