"""LLaVA-1.5: a CLIP tower with a CLS token, one grid of patches per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
)

from pruners import TextTower

from . import parts
from .tiny import TinyModel

SIDE, PATCH, GRID = 20, 4, 5
IMAGE = parts.WORDS.index("<image>")


class TinyLlava(TinyModel):
    """Standard images are noise, not bytes: their range does not matter, and they are exact."""

    def images(self, count: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, SIDE, SIDE, generator=generator)

    def inputs(
        self, questions: Sequence[str] = ("w1 w2 w3",), padding: str = "left", seed: int = 0
    ) -> dict[str, Tensor]:
        inputs = super().inputs(questions, padding, seed)
        return {**inputs, "pixel_values": self.images(len(questions), seed)}

    def rows(
        self, questions: Sequence[str] = ("w1 w2 w3",), seed: int = 0
    ) -> list[dict[str, Tensor]]:
        return [
            {**row, "pixel_values": image[None]}
            for row, image in zip(
                super().rows(questions, seed), self.images(len(questions), seed), strict=True
            )
        ]


def build_llava(folder: Path, key_value_heads: int = 4) -> TinyModel:
    clip = parts.save_clip(folder / "clip", parts.clip_vision_config(SIDE, PATCH))
    decoder = parts.decoder_sizes(
        parts.WORDS, num_key_value_heads=key_value_heads, max_position_embeddings=256
    )
    config = LlavaConfig(
        vision_config=parts.clip_vision_config(SIDE, PATCH),
        text_config=LlamaConfig(**decoder),
        image_token_id=IMAGE,
        image_seq_length=GRID * GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    load = parts.loader(
        LlavaForConditionalGeneration,
        config,
        [IMAGE],
        lambda model: model.model.vision_tower.load_state_dict(clip.vision_model.state_dict()),
    )
    processor = LlavaProcessor(
        LlavaImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        parts.build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=parts.chat_template("<image>"),
    )
    model_folder = parts.save(folder / "model", load, processor)
    return TinyLlava(
        load=load,
        processor=processor,
        folder=model_folder,
        reload_processor=lambda: AutoProcessor.from_pretrained(model_folder, backend="pil"),
        clip_folder=str(folder / "clip"),
        text_tower=TextTower.load(folder / "clip"),
        visual_tokens=GRID * GRID,
        standard=(SIDE, SIDE),
        other=(SIDE, 2 * SIDE),
        image_text="<image>",
    )
