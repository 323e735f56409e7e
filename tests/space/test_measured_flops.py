"""Predicted costs against `FlopCounterMode` on the real forward of the embedded model."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from pruners import Schedule, Shape, apply_schedule, dense, published
from pruners.methods import METHODS
from search.embedded import CHECKPOINT, CLIP
from search.embedded.prompts import chat
from space import (
    MissionVocabulary,
    SearchSpace,
    dense_cost,
    parse_budget,
    price,
    project,
    text_tower_shape,
)

QUESTION = "what colour is the diamond? A white B red C yellow D purple"
TOLERANCE = 0.005


@pytest.fixture(scope="module")
def model():
    # The counter does not see the CPU's fused attention kernel.
    return AutoModelForImageTextToText.from_pretrained(CHECKPOINT, attn_implementation="eager")


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def inputs(model, processor) -> dict[str, torch.Tensor]:
    side = model.config.vision_config.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return processor(images=Image.fromarray(pixels), text=chat(QUESTION), return_tensors="pt")


@pytest.fixture(scope="module")
def shape(model, inputs) -> Shape:
    """The embedded model's shape, at the lengths of this prompt and question."""
    is_image = inputs["input_ids"] == model.config.image_token_id
    tokens = len(AutoTokenizer.from_pretrained(CLIP)(QUESTION)["input_ids"])
    tower = text_tower_shape(CLIP).model_copy(update={"tokens": tokens})
    shape = Shape.from_config(
        model.config, text_tokens=int((~is_image).sum()), text_tower=tower, name="embedded"
    )
    assert shape.visual_tokens == int(is_image.sum())
    return shape


def count(model, processor, inputs, schedule: Schedule) -> int:
    with (
        apply_schedule(model, schedule, processor=processor, text_tower=CLIP),
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
    ):
        model(**inputs)
    return counter.get_total_flops()


def test_dense(model, processor, inputs, shape) -> None:
    measured = count(model, processor, inputs, dense(shape))
    assert dense_cost(shape).tflops * 1e12 == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize("seed", range(5))
def test_random_schedules(model, processor, inputs, shape, seed: int) -> None:
    rng = random.Random(seed)
    budget = parse_budget(f"{rng.uniform(50, 90):.1f}%")
    vocabulary = MissionVocabulary(str(CLIP))
    space = SearchSpace(shape, budget, decoder_stages=3, vocabulary=vocabulary)
    schedule = space.decode({name: rng.uniform(low, high) for name, low, high in space.parameters})
    assert len(schedule.stages) > 1
    measured = count(model, processor, inputs, schedule)
    assert price(schedule, shape).tflops * 1e12 == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize("text", ["60%", "40%"])
@pytest.mark.parametrize("method", METHODS)
def test_published_schedules(model, processor, inputs, shape, method: str, text: str) -> None:
    schedule = project(published(method, 48, shape), shape, parse_budget(text))
    measured = count(model, processor, inputs, schedule)
    priced = price(schedule, shape).tflops * 1e12
    if method == "flowcut":
        # How soon its tokens leave depends on the image; it is priced at the most it can cost.
        assert 0.8 * priced < measured <= priced * (1 + TOLERANCE)
    else:
        assert priced == pytest.approx(measured, rel=TOLERANCE)
