"""The full search space: what its points decode to, and which points schedules have."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruners import (
    DensityPeaks,
    Determinantal,
    LastTokenAttention,
    NoMerge,
    QuestionRelevance,
    Schedule,
    SimilarityFusion,
    Stage,
    published,
)
from pruners.errors import BudgetError, ScheduleError
from pruners.methods import METHODS
from space import (
    Budget,
    Choice,
    FullVocabulary,
    Parameter,
    SearchSpace,
    parse_budget,
    preset,
    price,
    project,
)
from space.parameters import Value
from tests.space.test_coding import SPACES
from tests.space.test_projection import alive, assert_spends

SHAPE = preset("llava-1.5-7b")
FULL_SPACES = {
    name: SearchSpace(shape, parse_budget(budget), stages, step, FullVocabulary())
    for name, (shape, budget, stages, step) in SPACES.items()
}
FULL = FULL_SPACES["2 TFLOPs"]
MIDDLE: dict[str, Value] = {
    dimension.name: (dimension.low + dimension.high) / 2
    if isinstance(dimension, Parameter)
    else dimension.options[0]
    for dimension in FULL.parameters
}


def points(space: SearchSpace) -> st.SearchStrategy[dict[str, Value]]:
    return st.fixed_dictionaries(
        {
            dimension.name: st.sampled_from(dimension.options)
            if isinstance(dimension, Choice)
            else st.floats(dimension.low, dimension.high)
            for dimension in space.parameters
        }
    )


@pytest.mark.parametrize("name", FULL_SPACES)
@settings(max_examples=60)
@given(data=st.data())
def test_every_point_is_a_schedule_that_spends_the_budget(name: str, data: st.DataObject) -> None:
    space = FULL_SPACES[name]
    schedule = space.decode(data.draw(points(space)))
    assert space.decode(space.encode(schedule)) == schedule
    assert Schedule.model_validate_json(schedule.model_dump_json()) == schedule
    counts = alive(schedule, space.shape)
    assert counts == sorted(set(counts), reverse=True)
    assert schedule.cost == price(schedule, space.shape)
    assert_spends(schedule, space.shape, space.budget)


def test_the_dimension_is_fixed() -> None:
    for stages in range(5):
        space = SearchSpace(SHAPE, parse_budget("2"), stages, vocabulary=FullVocabulary())
        names = [dimension.name for dimension in space.parameters]
        assert len(names) == len(set(names)) == 3 * stages + 6


def test_choices_mean_what_they_are_called() -> None:
    point = MIDDLE | {
        "encoder_scorer": "question-relevance",
        "encoder_selector": "determinantal",
        "boundary_1": 0.2,
        "boundary_2": 0.5,
        "boundary_3": 0.8,
        "scorer_1": "last-token-attention",
        "scorer_2": "similarity-fusion",
        "scorer_3": "rater-attention",
        "merge": "density-peaks",
        "contextual": 0.2,
        "similarity_weight": 0.3,
        "positions": "original",
    }
    schedule = FULL.decode(point)
    encoder, first, second, third = schedule.stages
    assert isinstance(encoder.scorer, QuestionRelevance)
    assert isinstance(encoder.selector, Determinantal)
    assert isinstance(first.scorer, LastTokenAttention)
    assert isinstance(second.scorer, SimilarityFusion)
    assert second.scorer.weight == 0.3
    assert third.scorer.kind == "rater-attention"
    assert {stage.selector.kind for stage in schedule.stages[1:]} == {"top-scores"}
    assert {type(stage.merge) for stage in schedule.stages} == {DensityPeaks}
    assert {stage.contextual for stage in schedule.stages} == {0.2}
    assert schedule.positions == "original"


def test_key_norms_come_with_the_selector_that_they_are_for() -> None:
    schedule = FULL.decode(MIDDLE | {"scorer_2": "key-norm", "boundary_2": 0.5})
    (dart,) = published("dart", tokens=128).stages
    assert (dart.scorer, dart.selector) in {
        (stage.scorer, stage.selector) for stage in schedule.stages
    }
    point = FULL.encode(published("dart", tokens=128))
    assert "key-norm" in {point[f"scorer_{index}"] for index in (1, 2, 3)}


@pytest.mark.parametrize(
    ("given_parts", "ignored"),
    [
        # The fusion splits the tokens between its two scores itself.
        ({"encoder_scorer": "similarity-fusion"}, {"encoder_selector": "determinantal"}),
        ({"merge": "cluster-average"}, {"contextual": 0.4}),
        ({"merge": "none"}, {"contextual": 0.4}),
        ({"encoder_scorer": "cls-attention"}, {"similarity_weight": 0.9}),
        # Without a contextual token there is nothing to merge into.
        ({"merge": "none"}, {"merge": "nearest-reference", "contextual": 0.0}),
    ],
)
def test_what_a_combination_does_not_use_is_ignored(
    given_parts: dict[str, Value], ignored: dict[str, Value]
) -> None:
    point = MIDDLE | given_parts
    assert FULL.decode(point | ignored) == FULL.decode(point)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("flowcut", "tome")])
def test_methods_have_a_nearest_point(name: str) -> None:
    if METHODS[name].control:
        return
    schedule = project(published(name, 192), SHAPE, FULL.budget)
    point = FULL.encode(schedule)
    decoded = FULL.decode(point)
    assert FULL.decode(FULL.encode(decoded)) == decoded
    assert decoded.positions == schedule.positions
    assert decoded.stages[-1].layer == schedule.stages[-1].layer
    first = schedule.stages[0]
    kinds = {stage.scorer.kind for stage in decoded.stages}
    if name not in ("dart", "divprune"):  # whose scorers the space does not have
        assert first.scorer.kind in kinds
    # Methods that merge in one stage only are merged alike in all.
    assert point["merge"] == first.merge.kind


@pytest.mark.parametrize("name", ["vispruner", "pyramiddrop", "dart"])
def test_methods_made_of_the_spaces_own_parts_are_points(name: str) -> None:
    """Exactly: their scorers, selectors, features and merge rules are among the options."""
    schedule = project(published(name, 64), SHAPE, FULL.budget)
    decoded = FULL.decode(FULL.encode(schedule))
    assert decoded.stages == schedule.stages
    assert decoded.positions == schedule.positions


@pytest.mark.parametrize(
    ("name", "unlike"),
    [
        ("visiondrop", {"scorer"}),  # which feeds the CLS token
        ("visionzip", {"scorer", "contextual"}),  # the same, and a share that is on no grid
        ("desap", {"scorer"}),  # whose saliency is that of the last layer
        ("cdpruner", {"features"}),
        ("divprune", {"scorer", "features"}),
        ("vscan", {"features", "merge"}),
        ("sparsevlm", {"contextual"}),
    ],
)
def test_what_the_nearest_points_of_other_methods_lack(name: str, unlike: set[str]) -> None:
    schedule = project(published(name, 64), SHAPE, FULL.budget)
    decoded = FULL.decode(FULL.encode(schedule))
    assert decoded.positions == schedule.positions
    assert alive(decoded, SHAPE) == pytest.approx(alive(schedule, SHAPE), abs=2)
    pairs = list(zip(decoded.stages, schedule.stages, strict=True))
    fields = Stage.model_fields.keys() - {"retention"}
    assert unlike == {
        field
        for mine, theirs in pairs
        for field in fields
        if getattr(mine, field) != getattr(theirs, field)
    }


def test_fastv_scores_for_less_than_any_point() -> None:
    """It reads cached keys; its nearest point computes those of the next layer."""
    schedule = project(published("fastv", 64), SHAPE, FULL.budget)
    decoded = FULL.decode(FULL.encode(schedule))
    assert decoded.stages[-1].scorer == LastTokenAttention(reads="next")
    assert schedule.stages[-1].scorer == LastTokenAttention(reads="previous")
    assert alive(decoded, SHAPE)[-1] < alive(schedule, SHAPE)[-1]


@pytest.mark.parametrize("name", ["flowcut", "tome", "downsampling"])
def test_stages_inside_the_tower_have_no_point(name: str) -> None:
    schedule = project(published(name, 64), SHAPE, FULL.budget)
    with pytest.raises(ScheduleError, match="inside the vision tower"):
        FULL.encode(schedule)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merge": "average"}, "merge is average; expected one of none, nearest-reference"),
        ({"positions": 1.0}, "positions is 1.0; expected one of compact, original"),
        ({"contextual": "none"}, r"contextual is none; expected a number in \[0, 0.5\]"),
        ({"ratio_1": float("nan")}, "ratio_1 is nan; expected a number"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Value], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        FULL.decode(MIDDLE | change)


def test_a_budget_below_the_dearest_single_token_is_refused() -> None:
    """Every point must have a schedule, also one that merges 575 tokens into the last."""
    stage = published("desap", 1).stages[0]
    schedule = Schedule(stages=(stage.model_copy(update={"merge": NoMerge()}),))
    budget = Budget("tflops", price(schedule, SHAPE).tflops)
    SearchSpace(SHAPE, budget)
    with pytest.raises(BudgetError, match="below the cheapest"):
        SearchSpace(SHAPE, budget, vocabulary=FullVocabulary())
