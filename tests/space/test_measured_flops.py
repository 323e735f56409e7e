"""Predicted costs against `FlopCounterMode` on the real forward of the embedded model."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from pruners import (
    BipartiteMatching,
    ClsAttention,
    ClusterAverage,
    Deduplicated,
    DensityPeaks,
    Determinantal,
    KeyNorm,
    LastTokenAttention,
    LeastDuplication,
    LocalWindows,
    MaxMinDistance,
    NearestReference,
    NoMerge,
    QuestionRelevance,
    Random,
    RaterAttention,
    Schedule,
    Shape,
    SimilarityFusion,
    SimilarityWeighted,
    Stage,
    TopScores,
    Uniform,
    VisualSelfAttention,
    apply_schedule,
    dense,
    published,
)
from pruners.methods import METHODS
from pruners.scorers import Scorer
from search.embedded import CHECKPOINT, CLIP
from search.embedded.prompts import chat
from space import (
    FullVocabulary,
    MissionVocabulary,
    Parameter,
    SearchSpace,
    breakdown,
    dense_cost,
    parse_budget,
    price,
    project,
    text_tower_shape,
)
from tests.space.counters import flop_counter

CLIP_NAME = str(CLIP)
QUESTION = "what colour is the diamond? A white B red C yellow D purple"
TOLERANCE = 0.001
"""Left to what the counter cannot see: distances of clusters."""

ENCODER_SCORERS = (
    ClsAttention(),
    ClsAttention(keep_cls=False),
    SimilarityFusion(text_tower=CLIP_NAME),
    SimilarityFusion(text_tower=CLIP_NAME, weight=0.0, keep_cls=True),
    QuestionRelevance(text_tower=CLIP_NAME),
    VisualSelfAttention(),
    KeyNorm(),
    Uniform(),
    Random(),
)
DECODER_SCORERS = (
    ClsAttention(keep_cls=False),
    SimilarityFusion(text_tower=CLIP_NAME),
    QuestionRelevance(text_tower=CLIP_NAME),
    VisualSelfAttention(),
    VisualSelfAttention(mean="bidirectional"),
    LastTokenAttention(),
    LastTokenAttention(reads="previous"),
    RaterAttention(),
    RaterAttention(reads="next"),
    KeyNorm(),
    KeyNorm(reads="next"),
    Uniform(),
    Random(),
)
SELECTORS = (
    TopScores(),
    LocalWindows(),
    Deduplicated(),
    Determinantal(),
    MaxMinDistance(),
    LeastDuplication(),
    LeastDuplication(text_pivots=0),
)
MERGES = (
    NoMerge(),
    NearestReference(),
    DensityPeaks(),
    ClusterAverage(),
    SimilarityWeighted(),
    BipartiteMatching(),
)


@pytest.fixture(scope="module")
def model():
    # Eager attention computes what is masked as well, as it is priced.
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
        flop_counter() as counter,
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
    vocabulary = MissionVocabulary(CLIP_NAME)
    space = SearchSpace(shape, budget, decoder_stages=3, vocabulary=vocabulary)
    schedule = space.decode({name: rng.uniform(low, high) for name, low, high in space.parameters})
    assert len(schedule.stages) > 1
    measured = count(model, processor, inputs, schedule)
    assert price(schedule, shape).tflops * 1e12 == pytest.approx(measured, rel=TOLERANCE)


def composed(rng: random.Random) -> Schedule:
    """A schedule of any parts that fit together."""
    layers = sorted(rng.sample(range(1, 8), rng.randint(0, 3)))
    if rng.random() < 0.7 or not layers:
        layers = [0, *layers]
    retention, stages = 1.0, []
    for layer in layers:
        retention *= rng.uniform(0.3, 0.9)
        while True:
            merge = rng.choice(MERGES)
            makes_tokens = isinstance(merge, NearestReference | DensityPeaks)
            try:
                stage = Stage(
                    layer=layer,
                    retention=retention,
                    contextual=0.2 if makes_tokens else 0.0,
                    scorer=rng.choice(DECODER_SCORERS if layer else ENCODER_SCORERS),
                    selector=rng.choice(SELECTORS),
                    features="vision" if layer else rng.choice(["vision", "projected"]),
                    merge=merge,
                )
            except ValidationError:
                continue
            stages.append(stage)
            break
    return Schedule(stages=tuple(stages))


@pytest.mark.parametrize("seed", range(40))
def test_any_composition_of_parts(model, processor, inputs, shape, seed: int) -> None:
    schedule = composed(random.Random(seed))
    measured = count(model, processor, inputs, schedule)
    assert price(schedule, shape).tflops * 1e12 == pytest.approx(measured, rel=TOLERANCE), schedule


@pytest.mark.parametrize("scorer", DECODER_SCORERS, ids=lambda scorer: scorer.kind)
def test_a_stage_that_drops_everything_scores_nothing(
    model, processor, inputs, shape, scorer: Scorer
) -> None:
    schedule = Schedule(stages=(Stage(layer=3, retention=0, scorer=scorer),))
    assert breakdown(schedule, shape).scoring == 0
    measured = count(model, processor, inputs, schedule)
    assert price(schedule, shape).tflops * 1e12 == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize("seed", range(5))
def test_random_schedules_of_the_full_space(model, processor, inputs, shape, seed: int) -> None:
    rng = random.Random(seed)
    budget = parse_budget(f"{rng.uniform(50, 90):.1f}%")
    space = SearchSpace(shape, budget, vocabulary=FullVocabulary(CLIP_NAME))
    point = {
        dimension.name: rng.uniform(dimension.low, dimension.high)
        if isinstance(dimension, Parameter)
        else rng.choice(dimension.options)
        for dimension in space.parameters
    }
    schedule = space.decode(point)
    assert len(schedule.stages) > 1
    measured = count(model, processor, inputs, schedule)
    assert price(schedule, shape).tflops * 1e12 == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize("text", ["60%", "80%"])
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
