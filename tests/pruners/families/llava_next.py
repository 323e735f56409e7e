"""LLaVA-NeXT: a thumbnail and tiles of each image, a separator after each of the tiles' rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    AutoProcessor,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    MistralConfig,
)

from pruners import TextTower

from . import parts
from .tiny import TinyModel

SIDE, PATCH, GRID = 16, 4, 4
PINPOINTS = [[rows * SIDE, columns * SIDE] for rows, columns in [(1, 2), (2, 1), (2, 2), (3, 1)]]
IMAGE = parts.WORDS.index("<image>")
SLIDING_WINDOW = 24


def build_llava_next(folder: Path) -> TinyModel:
    """Build the model with the decoder of Vicuna."""
    return _build(folder, LlamaConfig(**parts.decoder_sizes(parts.WORDS, num_key_value_heads=4)))


def build_llava_next_mistral(folder: Path) -> TinyModel:
    """Build the model with Mistral's decoder, whose layers see fewer tokens than an image has."""
    sizes = parts.decoder_sizes(parts.WORDS, sliding_window=SLIDING_WINDOW)
    return _build(folder, MistralConfig(**sizes))


def _build(folder: Path, decoder: Any) -> TinyModel:
    clip = parts.save_clip(folder / "clip", parts.clip_vision_config(SIDE, PATCH))
    config = LlavaNextConfig(
        vision_config=parts.clip_vision_config(SIDE, PATCH),
        text_config=decoder,
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    load = parts.loader(
        LlavaNextForConditionalGeneration,
        config,
        [IMAGE],
        lambda model: model.model.vision_tower.load_state_dict(clip.vision_model.state_dict()),
    )
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_grid_pinpoints=PINPOINTS,
        ),
        parts.build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=parts.chat_template("<image>"),
    )
    model_folder = parts.save(folder / "model", load, processor)
    return TinyModel(
        load=load,
        processor=processor,
        folder=model_folder,
        reload_processor=lambda: AutoProcessor.from_pretrained(model_folder, backend="pil"),
        clip_folder=str(folder / "clip"),
        text_tower=TextTower.load(folder / "clip"),
        visual_tokens=GRID**2 + (2 * GRID) ** 2,
        separators=2 * GRID,
        standard=(2 * SIDE, 2 * SIDE),
        # Wider than its grid of 1x2 tiles is: a row above and a row below are padding.
        other=(SIDE, 4 * SIDE),
        image_text="<image>",
    )
