"""InternVL: tiles of an image go through a tower with a CLS token; pixels are shuffled after it."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
    Qwen2Config,
)

from pruners import TextTower

from . import parts
from .tiny import TinyModel

SIDE, PATCH, GRID = 32, 4, 4
TILES = 3  # two and a thumbnail
SPECIAL = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
WORDS = [*parts.WORDS, *SPECIAL.values(), "Frame1:", "Frame2:"]
IMAGE = WORDS.index("<IMG_CONTEXT>")


def build_internvl(folder: Path) -> TinyModel:
    # The tower is not CLIP's, so this CLIP checkpoint is an external one.
    parts.save_clip(folder / "clip", parts.clip_vision_config(20, PATCH))
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=parts.VISION_LAYERS,
            num_attention_heads=2,
            attention_bias=True,
            image_size=SIDE,
            patch_size=PATCH,
            layer_scale_init_value=0.5,
        ),
        text_config=Qwen2Config(**parts.decoder_sizes(WORDS)),
        image_token_id=IMAGE,
        image_seq_length=GRID * GRID,
        downsample_ratio=0.5,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    load = parts.loader(
        InternVLForConditionalGeneration, config, [WORDS.index(token) for token in SPECIAL.values()]
    )
    # InternVL's own video processor needs torchvision to be imported. The model has no separate
    # input for videos: the processor hands their frames on as images, whatever made them.
    video_class = parts.video_processor_class("llava_onevision", "LlavaOnevisionVideoProcessor")
    processor_class = parts.accepting_video(InternVLProcessor)
    processor = processor_class(
        image_processor=GotOcr2ImageProcessorPil(
            size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=4
        ),
        tokenizer=parts.build_tokenizer(words=WORDS, special=SPECIAL),
        video_processor=video_class(**parts.UNCHANGED_FRAMES),
        image_seq_length=GRID * GRID,
        chat_template=parts.chat_template("<IMG_CONTEXT>", "<video>"),
    )
    model_folder = parts.save(folder / "model", load, processor)
    return TinyModel(
        load=load,
        processor=processor,
        folder=model_folder,
        reload_processor=lambda: parts.load_processor(model_folder, processor_class, video_class),
        clip_folder=str(folder / "clip"),
        text_tower=TextTower.load(folder / "clip"),
        visual_tokens=TILES * GRID * GRID,
        tiles=TILES,
        standard=(SIDE, 2 * SIDE),
        other=(SIDE, SIDE),
        image_text="<IMG_CONTEXT>",
        video_text="<video>",
        videos=((2, SIDE, SIDE),) * 3,
    )
