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
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
    published,
)
from pruners.errors import UnsupportedModelError
from pruners.methods import METHODS
from space import (
    FullVocabulary,
    MissionVocabulary,
    SearchSpace,
    breakdown,
    parse_budget,
    preset,
    price,
    project,
    published_within,
)

TILED = preset("llava-next-7b")
SHAPE = preset("llava-1.5-7b")
WITHOUT_CLS = SHAPE.model_copy(
    update={
        "name": "no-cls",
        "vision": SHAPE.vision.model_copy(update={"class_token": False}),
    }
)


def test_a_smaller_image_of_several_tiles_has_no_price() -> None:
    schedule = published("downsampling", 320, TILED)
    says = r"scorer 'downsampling' .* 'llava-next-7b' has 5 tiles"
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


def test_methods_without_cls_token() -> None:
    able = set()
    for name in METHODS:
        try:
            published_within(name, WITHOUT_CLS, parse_budget("3"))
        except UnsupportedModelError as error:
            assert "'no-cls'" in str(error)  # noqa: PT017
        else:
            able.add(name)
    assert able == {"fastv", "pyramiddrop", "sparsevlm", "dart", "divprune", "random"}


@pytest.mark.parametrize("vocabulary", [MissionVocabulary(), FullVocabulary()])
@pytest.mark.parametrize("text", ["3", "64 tokens", "100MB"])
def test_spaces_need_a_cls_token(vocabulary: MissionVocabulary, text: str) -> None:
    with pytest.raises(UnsupportedModelError, match="'no-cls' has none"):
        SearchSpace(WITHOUT_CLS, parse_budget(text), vocabulary=vocabulary)
