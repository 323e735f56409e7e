"""Qwen2.5-VL and Qwen3-VL: towers without a CLS token, images of any size, patches merged by 2x2.

Without torchvision only Qwen3-VL's video processor can be imported; its layout is Qwen2.5-VL's too,
and the tiny models of both have it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

from pruners import TextTower

from . import parts
from .tiny import Size, TinyModel

PATCH, MERGE = 4, 2
STANDARD: Size = (40, 40)
OTHER: Size = (24, 48)
SPECIAL = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
# What Qwen3-VL says before frames: their times, two frames together, at two frames per second.
TIMES = ["<0.2", "<1.2", "seconds>"]
WORDS = [*parts.WORDS, *SPECIAL.values(), *TIMES]
TOKENS = {f"{name}_id": WORDS.index(token) for name, token in SPECIAL.items()}
IMAGE_TEXT = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO_TEXT = "<|vision_start|><|video_pad|><|vision_end|>"
VISION = {
    "depth": parts.VISION_LAYERS,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
}


def build_qwen2_5_vl(folder: Path) -> TinyModel:
    config = Qwen2_5_VLConfig(
        # Windows of 2x2 merged tokens; a standard image has 5x5, so that some are not full.
        vision_config={**VISION, "window_size": 4 * PATCH, "fullatt_block_indexes": [1, 3]},
        text_config=parts.decoder_sizes(
            WORDS, rope_parameters={"rope_type": "default", "mrope_section": [2, 1, 1]}
        ),
        tie_word_embeddings=False,
        **TOKENS,
    )
    return _build(folder, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, config)


def build_qwen3_vl(folder: Path) -> TinyModel:
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        vision_config={
            **VISION,
            # Learnt for 6x6 patches, so that they are interpolated.
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config=parts.decoder_sizes(WORDS, head_dim=8, rope_parameters=rope),
        tie_word_embeddings=False,
        **TOKENS,
    )
    return _build(
        folder, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, config, _sharpen_attention
    )


def _sharpen_attention(model: Any) -> None:
    """Lengthen queries: their norms would undo whatever the weights before them are."""
    for layer in model.model.language_model.layers:
        layer.self_attn.q_norm.weight.data *= 2


def _build(
    folder: Path,
    model_class: Any,
    processor_class: Any,
    config: Any,
    adjust: Callable[[Any], None] = lambda model: None,
) -> TinyModel:
    # These towers are not CLIP's, so this CLIP checkpoint is an external one.
    parts.save_clip(folder / "clip", parts.clip_vision_config(20, PATCH))
    load = parts.loader(model_class, config, sorted(TOKENS.values()), adjust)
    patches = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    video_class = parts.video_processor_class("qwen3_vl", "Qwen3VLVideoProcessor")
    processor_class = parts.accepting_video(processor_class)
    processor = processor_class(
        image_processor=Qwen2VLImageProcessorPil(
            size={"shortest_edge": 8 * 8, "longest_edge": 64 * 64}, **patches
        ),
        tokenizer=parts.build_tokenizer(words=WORDS, special=SPECIAL),
        video_processor=video_class(
            cap_pixels_per_frame=False, **patches, **parts.UNCHANGED_FRAMES
        ),
        chat_template=parts.chat_template(IMAGE_TEXT, VIDEO_TEXT),
    )
    model_folder = parts.save(folder / "model", load, processor)
    return TinyModel(
        load=load,
        processor=processor,
        folder=model_folder,
        reload_processor=lambda: parts.load_processor(model_folder, processor_class, video_class),
        clip_folder=str(folder / "clip"),
        text_tower=TextTower.load(folder / "clip"),
        visual_tokens=STANDARD[0] * STANDARD[1] // (PATCH * MERGE) ** 2,
        standard=STANDARD,
        other=OTHER,
        image_text=IMAGE_TEXT,
        video_text=VIDEO_TEXT,
        videos=((4, 24, 24), (2, 16, 32), (4, 16, 16)),
    )
