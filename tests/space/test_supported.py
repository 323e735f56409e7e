"""Stages that a vision tower cannot run have no price."""

from __future__ import annotations

import pytest

from pruners import (
    ClsAttention,
    InformationFlow,
    KeyNorm,
    LocalWindows,
    NearestReference,
    QuestionRelevance,
    Random,
    Schedule,
    Shape,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
    published,
)
from pruners.errors import UnsupportedModelError
from pruners.methods import METHODS, supported_methods
from pruners.scorers import Scorer
from space import (
    PRESETS,
    breakdown,
    parse_budget,
    preset,
    price,
    project,
    published_within,
)

SHAPE = preset("llava-1.5-7b")
TILED = SHAPE.model_copy(update={"name": "two-images", "visual_tokens": 1152, "tiles": 2})
NEXT = preset("llava-next-7b")
WITHOUT_CLS = SHAPE.model_copy(
    update={
        "name": "no-cls",
        "vision": SHAPE.vision.model_copy(update={"class_token": False}),
    }
)


def test_a_smaller_image_of_several_tiles_has_no_price() -> None:
    schedule = published("downsampling", 320, TILED)
    says = r"scorer 'downsampling' .* 'two-images' has 2 tiles"
    with pytest.raises(UnsupportedModelError, match=says):
        price(schedule, TILED)
    with pytest.raises(UnsupportedModelError, match=says):
        breakdown(schedule, TILED, "llm-macs")
    for text in ("10", "300 tokens", "200MB"):  # what is not counted in FLOPs is refused as well
        with pytest.raises(UnsupportedModelError, match=says):
            project(schedule, TILED, parse_budget(text))
        with pytest.raises(UnsupportedModelError, match=says):
            published_within("downsampling", TILED, parse_budget(text))


@pytest.mark.parametrize(
    ("name", "stage", "says"),
    [
        ("llava-next-7b", {"scorer": InformationFlow()}, "'information-flow' drops .* inside"),
        ("llava-next-7b", {"scorer": ClsAttention()}, "set keep_cls to False"),
        ("internvl3-8b", {"scorer": ClsAttention(layer=-1)}, "set keep_cls to False"),
        (
            "internvl3-8b",
            {"scorer": SimilarityFusion(text_tower="any")},
            "'similarity-fusion' compares .* not CLIP's",
        ),
        (
            "internvl3-8b",
            {"layer": 3, "scorer": QuestionRelevance(text_tower="any")},
            "'question-relevance' compares .* not CLIP's",
        ),
        ("qwen2.5-vl-7b", {"scorer": ClsAttention(keep_cls=False)}, "needs .* with a CLS token"),
    ],
)
def test_what_a_family_cannot_run_has_no_price(name: str, stage: dict, says: str) -> None:
    schedule = Schedule(stages=(Stage(**{"layer": 0, "retention": 0.1, **stage}),))
    with pytest.raises(UnsupportedModelError, match=says) as refusal:
        price(schedule, preset(name))
    assert f"shape {name!r}" in str(refusal.value)


@pytest.mark.parametrize(
    ("stage", "part"),
    [
        ({"scorer": ClsAttention()}, "scorer 'cls-attention'"),
        ({"layer": 8, "scorer": ClsAttention(keep_cls=False)}, "scorer 'cls-attention'"),
        ({"scorer": QuestionRelevance(text_tower="any")}, "scorer 'question-relevance'"),
        ({"scorer": SimilarityFusion(weight=0, text_tower="any")}, "scorer 'similarity-fusion'"),
        ({"scorer": SimilarityFusion(weight=1, text_tower="any")}, "scorer 'similarity-fusion'"),
        ({"scorer": InformationFlow()}, "scorer 'information-flow'"),
        (
            {"scorer": VisualSelfAttention(), "selector": LocalWindows()},
            "selector 'local-windows'",
        ),
    ],
)
def test_what_needs_a_cls_token_has_no_price_without_one(stage: dict, part: str) -> None:
    schedule = Schedule(stages=(Stage(**{"layer": 0, "retention": 0.1, **stage}),))
    assert price(schedule, SHAPE).tflops < 9
    with pytest.raises(UnsupportedModelError, match=f"{part} needs .* 'no-cls' has none"):
        price(schedule, WITHOUT_CLS)


def test_what_needs_no_cls_token_is_priced_without_one() -> None:
    for scorer in (VisualSelfAttention(), KeyNorm(), Random()):
        stage = Stage(
            layer=0, retention=0.1, scorer=scorer, contextual=0.1, merge=NearestReference()
        )
        tflops = price(Schedule(stages=(stage,)), WITHOUT_CLS).tflops
        assert 0 < tflops < price(Schedule(stages=(stage,)), SHAPE).tflops
    dropped = Stage(layer=31, retention=0, scorer=ClsAttention(keep_cls=False))
    assert price(Schedule(stages=(dropped,)), WITHOUT_CLS).tflops > 0


@pytest.mark.parametrize("name", PRESETS)
def test_a_method_is_made_where_it_can_be_priced_and_refused_elsewhere(name: str) -> None:
    shape = PRESETS[name]
    tokens = shape.visual_tokens // 4
    for method in METHODS:
        if method in supported_methods(shape):
            assert price(published(method, tokens, shape), shape).tflops > 0
        else:
            with pytest.raises(UnsupportedModelError, match=r"Use another method, such as '(\w+)'"):
                published(method, tokens, shape)
            assert METHODS[method].instead in supported_methods(shape)


def test_methods_by_shape() -> None:
    anywhere = {
        "visiondrop",
        "fastv",
        "pyramiddrop",
        "sparsevlm",
        "visionzip",
        "vispruner",
        "dart",
        "divprune",
        "random",
    }
    with_cls = anywhere | {"vscan"}
    clip = with_cls | {"desap", "cdpruner"}
    assert set(supported_methods(SHAPE)) == set(METHODS)
    assert set(supported_methods(NEXT)) == clip
    assert set(supported_methods(preset("video-llava-7b"))) == with_cls
    assert set(supported_methods(preset("internvl3-8b"))) == with_cls
    for shape in (
        *map(preset, ("llava-onevision-7b", "qwen2.5-vl-7b", "qwen3-vl-8b")),
        WITHOUT_CLS,
    ):
        assert set(supported_methods(shape)) == anywhere


@pytest.mark.parametrize("method", ["visiondrop", "visionzip", "vispruner"])
def test_saliency_at_the_encoder_follows_the_tower(method: str) -> None:
    def scorer(shape: Shape) -> Scorer:
        return published(method, 64, shape).stages[0].scorer

    keeps_cls = method != "vispruner"
    assert scorer(SHAPE) == ClsAttention(keep_cls=keeps_cls)
    assert scorer(NEXT) == ClsAttention(keep_cls=False)
    assert scorer(preset("internvl3-8b")) == ClsAttention(layer=-1, keep_cls=False)
    assert scorer(preset("qwen3-vl-8b")) == VisualSelfAttention()
    assert scorer(WITHOUT_CLS) == VisualSelfAttention()
