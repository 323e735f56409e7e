"""Shapes read off real configuration classes."""

from __future__ import annotations

import pytest
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    PixtralVisionConfig,
    Qwen2Config,
)

from pruners.errors import UnsupportedModelError
from pruners.shape import LLAVA_1_5_7B, Shape


def llava_7b_config() -> LlavaConfig:
    """The configuration of llava-1.5-7b-hf, with the vocabulary that the papers count."""
    return LlavaConfig(
        text_config=LlamaConfig(
            vocab_size=32000,
            hidden_size=4096,
            intermediate_size=11008,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=32,
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
            projection_dim=768,
        ),
    )


def test_the_7b_configuration_gives_the_7b_shape() -> None:
    shape = Shape.from_config(
        llava_7b_config(), name="llava-1.5-7b", text_tower=LLAVA_1_5_7B.text_tower
    )
    assert shape == LLAVA_1_5_7B


def test_a_configuration_file_reads_like_the_object() -> None:
    config = llava_7b_config()
    assert Shape.from_config(config.to_dict()) == Shape.from_config(config)


def test_what_a_file_leaves_out_has_the_default_of_transformers() -> None:
    # The form of llava-1.5-7b-hf's own config.json: the decoder's sizes are not in it.
    values = {
        "model_type": "llava",
        "text_config": {"model_type": "llama", "vocab_size": 32064},
        "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
    }
    assert Shape.from_config(values) == Shape.from_config(LlavaConfig(**values))


def test_grouped_query_attention_and_dtype_are_read() -> None:
    config = llava_7b_config()
    config.text_config.num_key_value_heads = 8
    config.text_config.dtype = "float32"
    shape = Shape.from_config(config)
    assert (shape.key_value_heads, shape.head_size, shape.dtype_bytes) == (8, 128, 4)


def test_another_family_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'qwen2'; supported: llava"):
        Shape.from_config(Qwen2Config())


def test_another_vision_tower_is_refused_by_name() -> None:
    config = LlavaConfig(text_config=LlamaConfig(), vision_config=PixtralVisionConfig())
    with pytest.raises(UnsupportedModelError, match=r"'pixtral'; .* clip_vision_model"):
        Shape.from_config(config)


def test_missing_sizes_are_named() -> None:
    values = llava_7b_config().to_dict()
    values["text_config"] = {"model_type": "phi3"}
    with pytest.raises(UnsupportedModelError, match="num_attention_heads"):
        Shape.from_config(values)


def test_what_is_no_configuration_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="not int"):
        Shape.from_config(7)
