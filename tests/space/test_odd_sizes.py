"""Predicted costs against `FlopCounterMode` on decoders and inputs of unusual sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
)

from pruners import (
    LastTokenAttention,
    NearestReference,
    Schedule,
    Shape,
    Stage,
    VisualSelfAttention,
    apply_schedule,
)
from space import price
from tests.space.counters import flop_counter

TOLERANCE = 0.0001
IMAGE, PATCHES, TEXT = 7, 25, 4
SIZES = {
    "vocab_size": 91,
    "hidden_size": 42,
    "intermediate_size": 65,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
}
SCHEDULES = {
    "dense": Schedule(),
    "merging": Schedule(
        stages=(
            Stage(
                layer=2,
                retention=0.3,
                contextual=0.2,
                scorer=VisualSelfAttention(),
                merge=NearestReference(),
            ),
        )
    ),
    "cached keys": Schedule(
        stages=(Stage(layer=2, retention=0.3, scorer=LastTokenAttention(reads="previous")),)
    ),
}


def model_of(decoder: Any, **options: Any) -> Any:
    vision = CLIPVisionConfig(
        hidden_size=36,
        intermediate_size=50,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=22,  # whose last 2 pixels are in no patch
        patch_size=4,
        projection_dim=10,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=decoder, image_token_index=IMAGE, **options
    )
    return LlavaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()


def assert_priced(model: Any, schedule: Schedule, images: int = 1, batch: int = 1) -> None:
    prompt = [1, *[IMAGE] * (PATCHES * images), 2, 3, 4]
    pixels = torch.rand(batch * images, 3, 22, 22)
    with apply_schedule(model, schedule), flop_counter() as counter, torch.no_grad():
        model(input_ids=torch.tensor([prompt] * batch), pixel_values=pixels)
    shape = Shape.from_config(model.config, text_tokens=TEXT, images=images)
    measured = counter.get_total_flops() / batch
    assert price(schedule, shape).tflops * 1e12 == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(
    "sizes",
    [
        {"num_key_value_heads": 2, "head_dim": 10},
        {"num_key_value_heads": 1, "head_dim": 14},
        {"num_key_value_heads": 3, "head_dim": 10, "attention_bias": True, "mlp_bias": True},
        {"head_dim": 8, "tie_word_embeddings": True},
    ],
    ids=["grouped", "one key head", "biases", "tied head"],
)
def test_heads_of_any_size(sizes: dict[str, Any], schedule: Schedule) -> None:
    tied = sizes.get("tie_word_embeddings", False)
    model = model_of(LlamaConfig(**SIZES, **sizes), tie_word_embeddings=tied)
    assert_priced(model, schedule)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("images", "batch"), [(3, 1), (1, 3), (2, 2)])
def test_costs_are_those_of_one_sample_of_a_batch(
    images: int, batch: int, schedule: Schedule
) -> None:
    model = model_of(LlamaConfig(**SIZES, num_key_value_heads=2, head_dim=10))
    assert_priced(model, schedule, images, batch)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("window", [12, PATCHES + TEXT, PATCHES + TEXT + 1, None])
def test_windows_about_as_long_as_the_prompt(window: int | None, schedule: Schedule) -> None:
    """The cache of a window holds one position less: then keys of the layer before are computed."""
    decoder = MistralConfig(**SIZES, num_key_value_heads=3, head_dim=10, sliding_window=window)
    assert_priced(model_of(decoder), schedule)


@pytest.mark.parametrize("layer", [-1, -3, 1])
def test_the_tower_runs_whole_whichever_layer_makes_the_features(layer: int) -> None:
    model = model_of(LlamaConfig(**SIZES, head_dim=8), vision_feature_layer=layer)
    assert_priced(model, SCHEDULES["dense"])
