"""A small tower with random weights, pruned inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
from transformers import LlavaForConditionalGeneration as Llava

from pruners.adapters import adapter_for
from pruners.merges import BipartiteMatching
from pruners.scorers import Downsampling, InformationFlow, TokenMatching
from pruners.sequence import Selection
from pruners.stages import Stage
from pruners.tower import TowerPruning

GRID, PATCH, WIDTH, HEADS, INNER, LAYERS = 6, 4, 16, 2, 32, 8
PATCHES = GRID**2
FEATURE = LAYERS - 2
FLOW = Stage(layer=0, retention=0.5, scorer=InformationFlow(momentum=0.3))
MERGE = Stage(layer=0, retention=0.5, scorer=TokenMatching(), merge=BipartiteMatching())
SMALLER = Stage(layer=0, retention=0.5, scorer=Downsampling())
STAGES = {"information-flow": FLOW, "token-matching": MERGE, "downsampling": SMALLER}


@cache
def build(
    attention: str = "eager", dtype: torch.dtype = torch.float32, feature_layer: int = -2
) -> Any:
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=GRID * PATCH,
        patch_size=PATCH,
    )
    decoder = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=decoder,
        image_token_id=4,
        vision_feature_layer=feature_layer,
        vision_feature_select_strategy="default",
    )
    model = Llava._from_config(config, attn_implementation=attention)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.data = 0.1 * noise + ("norm" in name and name.endswith("weight"))
        else:
            parameter.data = noise / parameter.shape[1:].numel() ** 0.5
    for layer in model.model.vision_tower.encoder.layers:
        # Attention so uneven that FlowCut's rates differ from image to image.
        layer.self_attn.q_proj.weight.data *= 2
    return model.to(dtype).eval()


def images(count: int, seed: int = 0) -> Tensor:
    side = GRID * PATCH
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@contextmanager
def pruning(model: Any, stage: Stage, alive: int) -> Iterator[TowerPruning]:
    pruned = TowerPruning(adapter_for(model).towers["image"], stage, alive)
    try:
        yield pruned
    finally:
        pruned.remove()


@torch.no_grad()
def run(model: Any, stage: Stage, alive: int, pixel_values: Tensor) -> Selection:
    with pruning(model, stage, alive):
        left = TowerPruning.recorded(model.model.vision_tower(pixel_values))
    assert left is not None
    return left


def all_stages(function: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("kind", STAGES)(function)
