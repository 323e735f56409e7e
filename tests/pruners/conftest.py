"""Tiny checkpoints with random weights, one builder per model family."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from pruners import Shape, TextTower

VOCABULARY = ["<pad>", "<s>", "<unk>", "</s>", "<image>", "USER:", "ASSISTANT:"] + [
    f"w{index}" for index in range(33)
]
IMAGE = VOCABULARY.index("<image>")
SIDE, PATCH, GRID = 20, 4, 5
VISION_LAYERS, DECODER_LAYERS = 4, 6
TEXT_POSITIONS = 12


def build_tokenizer(*, closed: bool) -> PreTrainedTokenizerFast:
    identifiers = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(identifiers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if closed else "<s> $A", special_tokens=[("<s>", 1), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


def vision_config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=8,
    )


def spread_weights(model: torch.nn.Module, seed: int) -> None:
    """Give a model weights large enough that attention is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = parameter.data + 0.1 * noise if "norm" in name else 0.1 * noise
        else:
            width = parameter.shape[1:].numel()
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = noise * (1.5 if "embed" in name else 1.5 / width**0.5)


@dataclass(frozen=True)
class TinyModel:
    """A tiny vision-language model, its paired CLIP checkpoint, and inputs for it.

    Attributes:
        load: Returns an instance with these weights, by attention implementation and dtype; one
            instance per combination.
        model: The instance with SDPA in float32.
        tokenizer: Its tokenizer.
        clip_folder: Folder of the CLIP checkpoint whose vision tower it has.
        text_tower: That checkpoint's text tower.
    """

    load: Callable[..., Any]
    model: Any
    tokenizer: Any
    clip_folder: str
    text_tower: TextTower
    visual_tokens: int = GRID * GRID

    @property
    def shape(self) -> Shape:
        """Sizes of the model, with those of its text tower."""
        return Shape.from_config(self.model.config, name="tiny")

    def images(self, count: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, SIDE, SIDE, generator=generator)

    def inputs(
        self, questions: Sequence[str] = ("w1 w2 w3",), padding: str = "left", seed: int = 0
    ) -> dict[str, Tensor]:
        """Make a batch of prompts with one image each, padded on one side."""
        images = "<image> " * self.visual_tokens
        prompts = [f"USER: {images}{question} ASSISTANT:" for question in questions]
        tokens = self.tokenizer(prompts, padding=True, padding_side=padding, return_tensors="pt")
        return {
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "pixel_values": self.images(len(questions), seed),
        }


def build_llava(folder: Path, key_value_heads: int = 4) -> TinyModel:
    text = CLIPTextConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_POSITIONS,
        projection_dim=8,
        bos_token_id=1,
        eos_token_id=3,
        pad_token_id=0,
    )
    clip = CLIPModel(
        CLIPConfig(
            text_config=text.to_dict(), vision_config=vision_config().to_dict(), projection_dim=8
        )
    )
    spread_weights(clip, seed=1)
    clip.save_pretrained(folder)
    build_tokenizer(closed=True).save_pretrained(folder)
    decoder = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=DECODER_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision_config(),
        text_config=decoder,
        image_token_id=IMAGE,
        image_seq_length=GRID * GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )

    @cache
    def load(attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> Any:
        # A copy, because the implementation is noted in the configuration.
        model = LlavaForConditionalGeneration._from_config(
            copy.deepcopy(config), attn_implementation=attention
        )
        assert model.model.language_model.config._attn_implementation == attention
        spread_weights(model, seed=2)
        model.model.vision_tower.load_state_dict(clip.vision_model.state_dict())
        model.generation_config.pad_token_id = 0
        # Decoding without a cache feeds answers back, where a placeholder would need an image.
        model.generation_config.suppress_tokens = [IMAGE]
        return model.to(dtype).eval()

    return TinyModel(
        load=load,
        model=load(),
        tokenizer=build_tokenizer(closed=False),
        clip_folder=str(folder),
        text_tower=TextTower.load(folder),
    )


FAMILIES: dict[str, Callable[[Path], TinyModel]] = {
    "llava": build_llava,
    "llava-grouped-queries": lambda folder: build_llava(folder, key_value_heads=2),
}
"""A new family is one line here; the conformance tests then run on it."""


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return build_llava(tmp_path_factory.mktemp("tiny"))
