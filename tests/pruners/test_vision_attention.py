"""Projections of vision layers, against what the towers of transformers themselves compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    InternVLVisionConfig,
    InternVLVisionModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pruners.attention_rows import (
    cls_attention,
    decoupled_output,
    key_heads,
    patch_attention,
)
from pruners.vision_attention import ClipHeads, InternHeads, QwenHeads

LAYERS, WIDTH, HEADS, PATCH = 2, 16, 2, 4
GRIDS = torch.tensor([[1, 4, 6], [1, 8, 2]])
"""Frames, rows and columns of patches of two images."""


@contextmanager
def attending(module: Any) -> Iterator[list[tuple[Tensor, ...]]]:
    """Record queries, keys, values and outputs of what a tower's blocks attend with inside."""
    seen: list[tuple[Tensor, ...]] = []
    exact = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attend(block: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any):  # type: ignore[no-untyped-def]
        seen.append((query, key, value))
        return exact(block, query, key, value, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register("recorded", attend)
    module.set_attn_implementation("recorded")
    with torch.no_grad():
        yield seen


@contextmanager
def inputs_of(layer: Any, block: Any) -> Iterator[dict[str, Any]]:
    """Record what a layer is given, and what its attention block returns."""
    seen: dict[str, Any] = {}

    def enter(module: Any, args: Any, kwargs: Any) -> None:
        seen["hidden"] = args[0] if args else kwargs["hidden_states"]
        seen["rotation"] = kwargs.get("position_embeddings")

    def leave(module: Any, args: Any, output: Any) -> None:
        seen["output"] = output[0] if isinstance(output, tuple) else output

    hooks = [
        layer.register_forward_pre_hook(enter, with_kwargs=True),
        block.register_forward_hook(leave),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def check(heads: Any, seen: Any, projected: tuple[Tensor, ...], rotation: Any = None) -> None:
    """Compare all projections, and the block's output, with what the tower computed."""
    hidden = seen["hidden"] if seen["hidden"].ndim == 3 else seen["hidden"][None]
    for letters in ("q", "k", "v", "kv", "vqk"):
        found = heads.project(hidden, letters, rotation)
        for letter, own in zip(letters, found, strict=True):
            torch.testing.assert_close(own, projected["qkv".index(letter)], atol=1e-6, rtol=0)
    torch.testing.assert_close(heads.queries(hidden, rotation), projected[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(heads.keys(hidden, rotation), projected[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(heads.values(hidden), projected[2], atol=1e-6, rtol=0)
    torch.testing.assert_close(key_heads(heads, hidden, rotation), projected[1], atol=1e-6, rtol=0)


def attention_maps(queries: Tensor, keys: Tensor) -> Tensor:
    return (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(dim=-1)


def siglip() -> Any:
    config = SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, image_size=16, patch_size=PATCH,
    )  # fmt: skip
    return SiglipVisionModel(config)


def internvl(*, normed: bool) -> Any:
    config = InternVLVisionConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, image_size=[16, 16], patch_size=[PATCH, PATCH],
        use_qk_norm=normed, attention_bias=True,
    )  # fmt: skip
    return InternVLVisionModel(config)


def qwen(name: str) -> Any:
    text = {
        "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {
        "depth": LAYERS, "hidden_size": WIDTH, "intermediate_size": 32, "num_heads": HEADS,
        "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "out_hidden_size": 32,
    }  # fmt: skip
    if name == "qwen2.5":
        vision |= {"window_size": 16, "fullatt_block_indexes": [1]}
        config: Any = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
        return Qwen2_5_VLForConditionalGeneration(config).model.visual
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    text["head_dim"] = 16
    config = Qwen3VLConfig(text_config=text, vision_config=vision)
    return Qwen3VLForConditionalGeneration(config).model.visual


def ready(tower: Any) -> Any:
    """Give a tower weights large enough that attention is far from uniform."""
    generator = torch.Generator().manual_seed(3)
    for parameter in tower.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * (1.5 / parameter.shape[1:].numel() ** 0.5)
    return tower.eval()


def images(count: int = 2, side: int = 16) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_siglip_heads_are_those_of_the_tower() -> None:
    tower = ready(siglip())
    layer = getattr(tower, "vision_model", tower).encoder.layers[-1]
    heads = ClipHeads(layer)
    with attending(tower) as projected, inputs_of(layer, layer.self_attn) as seen:
        tower(images())
        check(heads, seen, projected[-1])
        queries, keys, _ = projected[-1]
        expected = attention_maps(queries, keys).mean(dim=(1, 2))
        torch.testing.assert_close(
            patch_attention(heads, seen["hidden"]), expected, atol=1e-6, rtol=0
        )
        output = decoupled_output(heads, seen["hidden"], "qk")
        torch.testing.assert_close(output, seen["output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("normed", [True, False])
def test_internvl_heads_are_those_of_the_tower(normed: bool) -> None:
    tower = ready(internvl(normed=normed))
    layer = tower.encoder.layer[-1]
    heads = InternHeads(layer)
    with attending(tower) as projected, inputs_of(layer, layer.attention) as seen:
        tower(images())
        check(heads, seen, projected[-1])
        queries, keys, _ = projected[-1]
        maps = attention_maps(queries, keys)
        scores = cls_attention(heads, seen["hidden"])
        torch.testing.assert_close(scores, maps.mean(dim=1)[:, 0, 1:], atol=1e-6, rtol=0)
        patches = patch_attention(heads, seen["hidden"], 1)
        expected = maps[:, :, 1:, 1:].mean(dim=(1, 2))
        torch.testing.assert_close(patches, expected, atol=1e-6, rtol=0)
        output = decoupled_output(heads, seen["hidden"], "qk")
        torch.testing.assert_close(output, seen["output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
def test_qwen_heads_are_those_of_the_tower(name: str) -> None:
    tower = ready(qwen(name))
    layer = tower.blocks[-1]  # attends to the whole image
    heads = QwenHeads(layer)
    lengths = GRIDS.prod(dim=-1).tolist()
    pixels = torch.randn(sum(lengths), 3 * 2 * PATCH**2, generator=torch.Generator().manual_seed(0))
    with attending(tower) as projected, inputs_of(layer, layer.attn) as seen:
        tower(pixels, grid_thw=GRIDS)
        # The tower attends image by image; the block's are the last two calls.
        both = [torch.cat(parts, dim=2) for parts in zip(*projected[-2:], strict=True)]
        cos, sin = seen["rotation"]
        check(heads, seen, tuple(both), (cos[None], sin[None]))
        images = torch.arange(sum(lengths)).split(lengths)
        for own, (queries, keys, _) in zip(images, projected[-2:], strict=True):
            rotation = (cos[None, own], sin[None, own])
            scores = patch_attention(heads, seen["hidden"][None, own], rotation=rotation)
            expected = attention_maps(queries, keys).mean(dim=(1, 2))
            torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)
        first = slice(0, lengths[0])
        alone = decoupled_output(
            heads, seen["hidden"][None, first], "qk", (cos[None, first], sin[None, first])
        )
        torch.testing.assert_close(alone[0], seen["output"][first], atol=1e-5, rtol=0)
