"""LLaVA-OneVision: a SigLIP tower without a CLS token; tiles, several images, and videos."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)

from pruners import TextTower

from . import parts
from .tiny import TinyModel

SIDE, PATCH, GRID = 16, 4, 4
TILES = range(1, 7)
PINPOINTS = [[rows * SIDE, columns * SIDE] for rows in TILES for columns in TILES]
WORDS = [*parts.WORDS, "<video>"]
IMAGE, VIDEO = WORDS.index("<image>"), WORDS.index("<video>")


def build_llava_onevision(folder: Path) -> TinyModel:
    # The model's own tower is SigLIP's, so this CLIP checkpoint is an external one.
    parts.save_clip(folder / "clip", parts.clip_vision_config(SIDE, PATCH))
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=parts.VISION_LAYERS,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(**parts.decoder_sizes(WORDS)),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_9",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    load = parts.loader(LlavaOnevisionForConditionalGeneration, config, [IMAGE, VIDEO])
    video_class = parts.video_processor_class("llava_onevision", "LlavaOnevisionVideoProcessor")
    processor_class = parts.accepting_video(LlavaOnevisionProcessor)
    processor = processor_class(
        image_processor=LlavaOnevisionImageProcessorPil(
            size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer=parts.build_tokenizer(
            words=WORDS, special={"image_token": "<image>", "video_token": "<video>"}
        ),
        video_processor=video_class(size={"height": SIDE, "width": SIDE}, **parts.UNCHANGED_FRAMES),
        num_image_tokens=GRID * GRID,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        chat_template=parts.chat_template("<image>", "<video>"),
    )
    model_folder = parts.save(folder / "model", load, processor)
    return TinyModel(
        load=load,
        processor=processor,
        folder=model_folder,
        reload_processor=lambda: parts.load_processor(model_folder, processor_class, video_class),
        clip_folder=str(folder / "clip"),
        text_tower=TextTower.load(folder / "clip"),
        visual_tokens=GRID**2 + GRID * 2 * GRID,
        separators=GRID,
        standard=(SIDE, 2 * SIDE),
        # 3x4 tiles are more than 9, so that their features are resized.
        other=(3 * SIDE - 8, 4 * SIDE),
        image_text="<image>",
        video_text="<video>",
        videos=((2, SIDE, SIDE),) * 3,
    )
