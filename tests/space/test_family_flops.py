"""Predicted cost of every family's dense model against `FlopCounterMode` on the real forward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from pruners import Schedule, Shape
from space import breakdown
from tests.pruners.families import FAMILIES
from tests.pruners.families.tiny import Sample, TinyModel, picture
from tests.space.counters import flop_counter

TOLERANCE = 0.005
QUESTION = "w1 w2 w3"


@dataclass(frozen=True)
class Case:
    """An input, and how the shape is told of it."""

    inputs: dict[str, torch.Tensor]
    arguments: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request, tmp_path_factory) -> TinyModel:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


def one_image(tiny: TinyModel, size: tuple[int, int]) -> Case:
    inputs = tiny.prepare([Sample(QUESTION, images=(picture(size, 0),))])
    return Case(inputs, {"image_size": size, **tiles(tiny, inputs, images=1)})


def tiles(tiny: TinyModel, inputs: dict[str, torch.Tensor], images: int) -> dict[str, int]:
    """InternVL's processor alone decides how many tiles there are."""
    if tiny.model.config.model_type != "internvl":
        return {}
    return {"tiles": len(inputs["pixel_values"]) // images}


def cases(tiny: TinyModel, kind: str) -> Case:
    match kind:
        case "standard image":
            return one_image(tiny, tiny.standard)
        case "image of another shape":
            return one_image(tiny, tiny.other)
        case "two images":
            images = (picture(tiny.standard, 0), picture(tiny.standard, 1))
            inputs = tiny.prepare([Sample(QUESTION, images=images)])
            size = {"image_size": tiny.standard, "images": 2}
            return Case(inputs, {**size, **tiles(tiny, inputs, images=2)})
        case _:
            if not tiny.videos:
                pytest.skip("the family takes no videos")
            frames, height, width = tiny.videos[0]
            video = {"image_size": (height, width), "frames": frames}
            return Case(tiny.video_rows()[0], video)


def shape_of(tiny: TinyModel, case: Case) -> Shape:
    """The shape, whose counts must be those of the family's own processor."""
    shape = Shape.from_config(tiny.model.config, **case.arguments)
    config, inputs = tiny.model.config, case.inputs["input_ids"]
    marks = [config.image_token_id, getattr(config, "video_token_id", -1)]
    visual = sum(int((inputs == mark).sum()) for mark in marks)
    assert shape.visual_tokens + shape.newline_tokens == visual
    return shape.model_copy(update={"text_tokens": inputs.shape[1] - visual})


def flops_by_module(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, int]:
    """FLOPs by module name; the whole is called ``Global``."""
    with flop_counter(depth=None) as counter, torch.no_grad():
        model(**inputs)
    counts = {}
    for name, operations in counter.get_flop_counts().items():
        counts[name.partition(".")[2] or name] = sum(operations.values())
    return counts


PROJECTORS = ("model.multi_modal_projector", "model.visual.merger")
TOWERS = ("vision_tower", "image_tower", "video_tower", "visual")


@pytest.mark.parametrize(
    "kind", ["standard image", "image of another shape", "two images", "video"]
)
def test_dense_prefill_by_part(tiny: TinyModel, kind: str) -> None:
    case = cases(tiny, kind)
    shape = shape_of(tiny, case)
    parts = breakdown(Schedule(), shape)
    measured = flops_by_module(tiny.load(), case.inputs)
    assert parts.total == pytest.approx(measured["Global"], rel=TOLERANCE)
    tower = sum(measured.get(f"model.{name}", 0) for name in TOWERS)
    projector = sum(measured.get(name, 0) for name in PROJECTORS)
    merging = [flops for name, flops in measured.items() if "deepstack_merger_list." in name]
    projector += sum(
        flops
        for name, flops in measured.items()
        if name.count(".") == 3 and "deepstack_merger_list." in name
    )
    assert len(merging) >= shape.deepstack_mergers
    if "model.visual" in measured:
        tower -= projector  # Qwen's towers hold their mergers.
    assert parts.vision_tower == pytest.approx(tower, rel=TOLERANCE)
    assert parts.projector == pytest.approx(projector, rel=TOLERANCE)


@pytest.mark.parametrize("head", [True, False])
def test_llava_with_siglip(head: bool) -> None:
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=20,
        patch_size=4,
        vision_use_head=head,
    )
    decoder = LlamaConfig(
        vocab_size=90,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=decoder,
        image_token_index=7,
        vision_feature_select_strategy="full",
    )
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    inputs = {
        "input_ids": torch.tensor([[1, *[7] * 25, 2, 3]]),
        "pixel_values": torch.zeros(1, 3, 20, 20),
    }
    shape = Shape.from_config(config, text_tokens=3)
    assert not shape.vision.class_token
    measured = flops_by_module(model, inputs)
    parts = breakdown(Schedule(), shape)
    assert parts.total == pytest.approx(measured["Global"], rel=TOLERANCE)
    assert parts.vision_tower == pytest.approx(measured["model.vision_tower"], rel=TOLERANCE)
