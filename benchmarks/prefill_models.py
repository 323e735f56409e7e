"""Models of real sizes with random weights, for `prefill.py`: time does not depend on values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from pruners import TextTower
from pruners.errors import UnsupportedModelError
from pruners.shape import Shape

_START, _END, _IMAGE = 0, 1, 2
_WORDS = 64
_VOCABULARY = {"<s>": _START, "</s>": _END, "<image>": _IMAGE} | {
    f"word{index}": 3 + index for index in range(_WORDS)
}
_POSITIONS = 77
"""Positions of CLIP's text tower."""

_ALONG_SIDE = 2
"""Tiles along each side of a LLaVA-NeXT image, beside its overview."""

_CLASSES: Mapping[str, Any] = MappingProxyType(
    {"llava": LlavaForConditionalGeneration, "llava_next": LlavaNextForConditionalGeneration}
)
"""Models by family."""


@dataclass(frozen=True)
class Workload:
    """A model with random weights, and what it is called with.

    Attributes:
        model: The dense model.
        shape: Its sizes; bytes per element are those of its dtype.
        tokenizer: Reads questions back from prompts.
        text_tower: The text tower that schedules with similarity use.
    """

    model: Any
    shape: Shape
    tokenizer: PreTrainedTokenizerFast
    text_tower: TextTower

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return torch.device(self.model.device)

    def inputs(self, batch: int) -> dict[str, Tensor]:
        """Make prompts as long as the shape is priced for.

        Args:
            batch: Samples.

        Returns:
            Arguments of the model: random images; prompts of one image and `shape.text_tokens` text
            tokens, of which those behind the image are the question: as many as the text tower is
            priced for.
        """
        shape, device = self.shape, self.device
        assert shape.text_tower is not None
        question = min(shape.text_tower.tokens - 2, shape.text_tokens)
        before = shape.text_tokens - question
        generator = torch.Generator().manual_seed(0)
        text = torch.randint(3, 3 + _WORDS, (batch, shape.text_tokens), generator=generator)
        image = torch.full((batch, shape.visual_tokens + shape.newline_tokens), _IMAGE)
        input_ids = torch.cat([text[:, :before], image, text[:, before:]], dim=1)
        return {
            "input_ids": input_ids.to(device),
            "attention_mask": torch.ones_like(input_ids, device=device),
            **self._images(batch, generator),
        }

    def _images(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        shape = self.shape
        side = self.model.config.vision_config.image_size
        tiles = (shape.tiles,) if shape.family == "llava_next" else ()
        pixels = torch.randn(
            batch, *tiles, shape.vision.channels, side, side, generator=generator
        ).to(self.device, self.model.dtype)
        if not tiles:
            return {"pixel_values": pixels}
        sizes = torch.full((batch, 2), _ALONG_SIDE * side, device=self.device)
        return {"pixel_values": pixels, "image_sizes": sizes}

    def next_step(self, inputs: Mapping[str, Tensor], cache: Any) -> dict[str, Any]:
        """Make the arguments of a step that decodes one token.

        Args:
            inputs: Arguments of the prefill.
            cache: The cache that it has filled.

        Returns:
            Arguments of the model, for some next token.
        """
        mask = inputs["attention_mask"]
        return {
            "input_ids": torch.full_like(mask[:, :1], _IMAGE + 1),
            "attention_mask": torch.cat([mask, mask[:, :1]], dim=1),
            "past_key_values": cache,
        }


def build_workload(
    shape: Shape, device: torch.device, dtype: torch.dtype, attention: str
) -> Workload:
    """Build a model directly on its device and in its dtype.

    Args:
        shape: Its sizes, with a text tower.
        device: Where it runs.
        dtype: Floating-point type of weights and activations.
        attention: Attention implementation, a name that transformers knows.

    Returns:
        The model and what belongs to it.

    Raises:
        UnsupportedModelError: The attention implementation is not there.
    """
    torch.manual_seed(0)
    with torch.device(device):
        try:
            model = (
                _CLASSES[shape.family]
                ._from_config(model_config(shape), attn_implementation=attention, dtype=dtype)
                .eval()
            )
        except (ImportError, ValueError) as error:
            raise UnsupportedModelError(
                f"attention {attention!r} cannot be used here ({str(error).splitlines()[0]}); "
                "choose sdpa or eager"
            ) from error
        tower = _text_tower(shape, dtype)
    # No token ends an answer, so that all runs decode as many.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = _START
    return Workload(
        model=model,
        shape=shape.model_copy(update={"dtype_bytes": dtype.itemsize}),
        tokenizer=_tokenizer(closed=False),
        text_tower=tower,
    )


def model_config(shape: Shape) -> LlavaConfig | LlavaNextConfig:
    """Turn a shape into the configuration of a LLaVA-1.5 or LLaVA-NeXT model.

    Args:
        shape: The shape; its patches are a square.

    Returns:
        The configuration.
    """
    vision = shape.vision
    side = round(vision.patches**0.5) * vision.patch_size
    common: dict[str, Any] = {
        "vision_config": CLIPVisionConfig(
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
            num_hidden_layers=vision.layers,
            num_attention_heads=vision.attention_heads,
            image_size=side,
            patch_size=vision.patch_size,
            num_channels=vision.channels,
            projection_dim=vision.projection_size,
        ),
        "text_config": LlamaConfig(
            vocab_size=shape.vocabulary_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.decoder_layers,
            num_attention_heads=shape.attention_heads,
            num_key_value_heads=shape.key_value_heads,
            head_dim=shape.head_size,
            max_position_embeddings=4096,
            bos_token_id=_START,
            eos_token_id=_END,
            pad_token_id=_START,
            tie_word_embeddings=False,
        ),
        "vision_feature_layer": vision.feature_layer,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }
    if shape.family == "llava_next":
        tiled = _ALONG_SIDE * side
        return LlavaNextConfig(
            **common, image_token_index=_IMAGE, image_grid_pinpoints=[[tiled, tiled]]
        )
    return LlavaConfig(**common, image_token_id=_IMAGE, image_seq_length=shape.visual_tokens)


def _text_tower(shape: Shape, dtype: torch.dtype) -> TextTower:
    sizes = shape.text_tower
    if sizes is None:
        raise UnsupportedModelError(
            f"shape {shape.name} has no text tower; give it one to time schedules with similarity"
        )
    config = CLIPTextConfig(
        vocab_size=len(_VOCABULARY),
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.attention_heads,
        max_position_embeddings=_POSITIONS,
        projection_dim=sizes.projection_size,
        bos_token_id=_START,
        eos_token_id=_END,
        pad_token_id=_START,
    )
    clip = CLIPTextModelWithProjection(config)
    projection = nn.Linear(shape.vision.hidden_size, sizes.projection_size, bias=False)
    tower = TextTower(
        f"random weights, as of {shape.name}",
        _tokenizer(closed=True),
        clip.text_model,
        clip.text_projection,
        projection,
    )
    return tower.to(projection.weight.device, dtype)


def _tokenizer(*, closed: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of words; a closed text is put between start and end token, as CLIP's are."""
    tokenizer = Tokenizer(models.WordLevel(_VOCABULARY, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if closed:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", _START), ("</s>", _END)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def cached_bytes(cache: Any) -> int:
    """Count the bytes that a key-value cache holds, over all samples.

    Args:
        cache: A cache of transformers that a prefill has filled.

    Returns:
        Bytes of keys and values.
    """
    layers: Sequence[Any] = cache.layers
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
