"""Predicted cost of pruned forwards of every family against `FlopCounterMode` on the real ones."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from pruners import (
    ClsAttention,
    KeyNorm,
    Random,
    Schedule,
    Shape,
    Stage,
    VisualSelfAttention,
    apply_schedule,
    published,
)
from pruners.errors import UnsupportedModelError
from pruners.methods import supported_methods
from space import price, text_tower_shape
from space.working import working_stages
from tests.pruners.families import FAMILIES
from tests.space.test_family_flops import (
    QUESTION,
    TOLERANCE,
    Case,
    TinyModel,
    cases,
    flops_by_module,
    shape_of,
)
from tests.space.test_measured_flops import DECODER_SCORERS, MERGES, SELECTORS

KINDS = ["standard image", "image of another shape", "two images", "video"]
TEXT_SCORERS = ("similarity-fusion", "question-relevance")


@pytest.fixture(scope="module", params=[name for name in FAMILIES if "grouped" not in name])
def tiny(request, tmp_path_factory) -> TinyModel:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


def with_text_tower(shape: Shape, tiny: TinyModel) -> Shape:
    """The shape with its text tower, at the length of the question."""
    tokens = len(AutoTokenizer.from_pretrained(tiny.clip_folder)(QUESTION)["input_ids"])
    tower = text_tower_shape(tiny.clip_folder).model_copy(update={"tokens": tokens})
    return shape.model_copy(update={"text_tower": tower})


def measured(tiny: TinyModel, case: Case, shape: Shape, schedule: Schedule) -> int:
    """FLOPs of the pruned forward, which must keep the numbers of tokens that are priced."""
    model = tiny.load()
    with apply_schedule(
        model, schedule, processor=tiny.processor, text_tower=tiny.text_tower
    ) as handle:
        flops = flops_by_module(model, case.inputs)["Global"]
        assert handle.last_prefill is not None
        kept = {stage.layer: stage.indices.shape[1] for stage in handle.last_prefill.stages}
        made = {stage.layer: int(stage.contextual.sum()) for stage in handle.last_prefill.stages}
    priced = working_stages(schedule, shape)
    assert kept == {working.layer: working.alive for working in priced}
    # Contextual tokens of earlier stages are among those that later ones chose.
    assert made.get(0) == next((w.contextual for w in priced if w.layer == 0), None)
    return flops


@pytest.mark.parametrize("kind", KINDS)
def test_published_methods(tiny: TinyModel, kind: str) -> None:
    case = cases(tiny, kind)
    shape = with_text_tower(shape_of(tiny, case), tiny)
    for method in supported_methods(shape):
        if method == "downsampling" and shape.tiles > 1:
            continue  # which is refused: see test_supported
        schedule = published(method, max(shape.visual_tokens // 2, shape.tiles), shape)
        counted, priced = (
            measured(tiny, case, shape, schedule),
            price(schedule, shape).tflops * 1e12,
        )
        if method == "flowcut":
            # How soon its tokens leave depends on the image; it is priced at the most it can cost.
            assert 0.8 * priced < counted <= priced * (1 + TOLERANCE)
        else:
            assert priced == pytest.approx(counted, rel=TOLERANCE), method


ENCODER_SCORERS = (ClsAttention(keep_cls=False), VisualSelfAttention(), KeyNorm(), Random())


def composed(rng: random.Random, shape: Shape) -> Schedule:
    """A schedule of any parts that fit together and that the shape's model can run."""
    while True:
        layers = sorted(rng.sample(range(shape.decoder_layers), rng.randint(1, 3)))
        retention, stages = 1.0, []
        for layer in layers:
            retention *= rng.uniform(0.4, 0.8)
            merge = rng.choice(MERGES)
            contextual = 0.2 if merge.kind in ("nearest-reference", "density-peaks") else 0.0
            try:
                stage = Stage(
                    layer=layer,
                    retention=retention,
                    contextual=contextual,
                    scorer=rng.choice(DECODER_SCORERS if layer else ENCODER_SCORERS),
                    selector=rng.choice(SELECTORS),
                    scope="tile" if layer else rng.choice(["tile", "global"]),
                    merge=merge,
                )
            except ValidationError:
                break
            stages.append(stage)
        schedule = Schedule(stages=tuple(stages))
        if len(stages) < len(layers) or any(s.scorer.kind in TEXT_SCORERS for s in stages):
            continue
        try:
            price(schedule, shape)
        except UnsupportedModelError:
            continue
        return schedule


@pytest.mark.parametrize("kind", KINDS)
def test_any_composition_of_parts(tiny: TinyModel, kind: str) -> None:
    case = cases(tiny, kind)
    shape = shape_of(tiny, case)
    rng = random.Random(f"{shape.family} {kind}")
    for _ in range(3):
        schedule = composed(rng, shape)
        counted, priced = (
            measured(tiny, case, shape, schedule),
            price(schedule, shape).tflops * 1e12,
        )
        assert priced == pytest.approx(counted, rel=TOLERANCE), schedule
