"""The search space: what its points decode to, and that encoding inverts decoding."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pruners import ClsAttention, Schedule, SimilarityFusion, Stage, VisualSelfAttention, published
from pruners.errors import BudgetError, ScheduleError, SettingsError, UnsupportedModelError
from space import SearchSpace, parse_budget, preset, price, project
from tests.space.test_projection import TINY, alive, assert_spends

SHAPE = preset("llava-1.5-7b")

SPACES = {
    "2 TFLOPs": (SHAPE, "2", 3, 1),
    "half, layers of an 8-layer proxy": (SHAPE, "50%", 4, 4),
    "11 % of the tokens": (SHAPE, "64 tokens", 3, 1),
    "encoder only": (SHAPE, "22%", 0, 1),
    "nearly nothing": (SHAPE, "13.75%", 3, 1),
    "nearly dense": (SHAPE, "99%", 3, 1),
    "tiles and newlines": (preset("llava-next-7b"), "100MB", 2, 1),
    "no CLS token": (preset("qwen2.5-vl-7b"), "50%", 3, 1),
    "deeper": (preset("llava-1.5-13b"), "33%", 3, 1),
    "tiny": (TINY, "60%", 4, 1),
    "tiny, cache": (TINY, "4000 bytes", 3, 1),
}
POINTS = 1000
"""Points per space: 11,000 in all."""


def space_of(name: str) -> SearchSpace:
    shape, budget, stages, step = SPACES[name]
    return SearchSpace(shape, parse_budget(budget), stages, step)


def random_point(space: SearchSpace, rng: random.Random) -> dict[str, float]:
    """Mostly inside the space, now and then on its edges or with equal values."""
    point = {}
    for name, low, high in space.parameters:
        inside = rng.uniform(low, high)
        point[name] = rng.choices([inside, low, high, (low + high) / 2], [17, 1, 1, 1])[0]
    return point


@pytest.mark.parametrize("name", SPACES)
def test_random_points(name: str) -> None:
    """Monotone, valid, never above the budget, not one token below it, and inverted by encode."""
    space, rng = space_of(name), random.Random(name)
    for _ in range(POINTS):
        schedule = space.decode(random_point(space, rng))
        assert space.decode(space.encode(schedule)) == schedule
        # Building the schedule has validated it; once more from its JSON.
        assert Schedule.model_validate_json(schedule.model_dump_json()) == schedule
        counts = alive(schedule, space.shape)
        assert counts == sorted(set(counts), reverse=True)
        assert all(
            stage.retention * space.shape.visual_tokens == pytest.approx(count, abs=1e-9)
            for stage, count in zip(schedule.stages, counts, strict=True)
        )
        layers = [stage.layer for stage in schedule.stages if stage.layer > 0]
        assert len(layers) <= space.decoder_stages
        assert all(layer % space.layer_step == 0 for layer in layers)
        assert schedule.cost == price(schedule, space.shape)
        assert_spends(schedule, space.shape, space.budget)


def test_the_dimension_is_fixed() -> None:
    for stages in range(5):
        space = SearchSpace(SHAPE, parse_budget("2"), stages)
        names = [parameter.name for parameter in space.parameters]
        assert len(names) == len(set(names)) == 2 * stages + 2
        assert all(parameter.low < parameter.high for parameter in space.parameters)


def test_every_choice_of_boundaries_has_a_point() -> None:
    space = SearchSpace(SHAPE, parse_budget("2"), decoder_stages=2)
    rng = random.Random(0)
    for _ in range(200):
        first, second = sorted(rng.sample(range(1, 32), 2))
        stages = [
            Stage(layer=0, retention=0.3, scorer=ClsAttention()),
            Stage(layer=first, retention=0.2, scorer=VisualSelfAttention()),
            Stage(layer=second, retention=0.1, scorer=VisualSelfAttention()),
        ]
        decoded = space.decode(space.encode(Schedule(stages=tuple(stages))))
        assert [stage.layer for stage in decoded.stages] == [0, first, second]


def test_the_order_of_boundaries_does_not_matter() -> None:
    space, rng = SearchSpace(SHAPE, parse_budget("2")), random.Random(0)
    point = random_point(space, rng)
    swapped = point | {"boundary_1": point["boundary_3"], "boundary_3": point["boundary_1"]}
    assert space.decode(swapped) == space.decode(point)


def test_parameters_mean_what_they_are_called() -> None:
    space = SearchSpace(SHAPE, parse_budget("2"), decoder_stages=1)
    point = {"boundary_1": 0.5, "ratio_1": 0.5, "contextual": 0.1, "similarity_weight": 0.3}
    encoder, decoder = space.decode(point).stages
    assert decoder.layer == 16
    assert decoder.retention / encoder.retention == pytest.approx(0.5, abs=0.01)
    assert encoder.contextual == decoder.contextual == 0.1
    assert isinstance(encoder.scorer, SimilarityFusion)
    assert encoder.scorer.weight == 0.3
    low, high = (space.decode(point | {"ratio_1": ratio}).stages for ratio in (0.2, 0.9))
    assert low[0].retention > encoder.retention > high[0].retention
    assert low[1].retention < decoder.retention < high[1].retention


def test_no_ratio_left_drops_all_tokens_at_the_boundary() -> None:
    space = SearchSpace(SHAPE, parse_budget("50%"), decoder_stages=1)
    point = {"boundary_1": 0.7, "ratio_1": 0.0, "contextual": 0.0, "similarity_weight": 0.0}
    schedule = space.decode(point)
    assert schedule.stages[-1].retention == 0
    assert space.decode(space.encode(schedule)) == schedule


@pytest.mark.parametrize("text", ["2", "50%", "100 tokens"])
def test_published_schedules_are_points(text: str) -> None:
    budget = parse_budget(text)
    space = SearchSpace(SHAPE, budget)
    visiondrop = project(published("visiondrop", 64), SHAPE, budget)
    decoded = space.decode(space.encode(visiondrop))
    assert [stage.layer for stage in decoded.stages] == [0, 8, 16, 24]
    assert alive(decoded, SHAPE) == pytest.approx(alive(visiondrop, SHAPE), abs=1)
    assert {stage.contextual for stage in decoded.stages} == {0.125}
    assert isinstance(decoded.stages[0].scorer, SimilarityFusion)
    assert decoded.stages[0].scorer.weight == 0

    desap = project(published("desap", 64), SHAPE, budget)
    decoded = space.decode(space.encode(desap))
    assert [stage.layer for stage in decoded.stages] == [0]
    assert alive(decoded, SHAPE) == pytest.approx(alive(desap, SHAPE), abs=1)
    assert isinstance(decoded.stages[0].scorer, SimilarityFusion)
    assert decoded.stages[0].scorer.weight == 0.5


def test_a_schedule_of_more_stages_gives_the_closest_point() -> None:
    budget = parse_budget("2")
    visiondrop = project(published("visiondrop", 64), SHAPE, budget)
    space = SearchSpace(SHAPE, budget, decoder_stages=2)
    decoded = space.decode(space.encode(visiondrop))
    # The stage that drops the fewest tokens, the last one, is left out.
    assert [stage.layer for stage in decoded.stages] == [0, 8, 16]
    uneven = Schedule(
        stages=tuple(
            Stage(layer=layer, retention=retention, scorer=VisualSelfAttention())
            for layer, retention in ((8, 0.5), (16, 0.48), (24, 0.2))
        )
    )
    assert [stage.layer for stage in space.decode(space.encode(uneven)).stages[1:]] == [8, 24]
    coarse = SearchSpace(SHAPE, budget, decoder_stages=3, layer_step=5)
    decoded = coarse.decode(coarse.encode(visiondrop))
    assert [stage.layer for stage in decoded.stages] == [0, 10, 15, 25]
    early = Stage(layer=1, retention=0.1, scorer=VisualSelfAttention())
    decoded = coarse.decode(coarse.encode(Schedule(stages=(early,))))
    assert [stage.layer for stage in decoded.stages if stage.layer > 0] == [5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio_1": float("nan")}, r"ratio_1 is nan; expected a number in \[0, 1\]"),
        ({"ratio_1": 1.01}, r"ratio_1 is 1.01; expected"),
        ({"ratio_1": None}, r"ratio_1 is None; expected"),
        ({"ratio_1": "half"}, r"ratio_1 is half; expected"),
        ({"contextual": 0.6}, r"contextual is 0.6; expected a number in \[0, 0.5\]"),
        ({"depth": 0.5}, r"has the values boundary_1, .*; given were .*depth"),
    ],
)
def test_bad_points_are_refused(change: dict[str, Any], message: str) -> None:
    space = SearchSpace(SHAPE, parse_budget("2"))
    with pytest.raises(ScheduleError, match=message):
        space.decode(random_point(space, random.Random(0)) | change)
    with pytest.raises(ScheduleError, match="given were none"):
        space.decode({})


@pytest.mark.parametrize("stages", [-1, 5])
def test_bad_numbers_of_stages_are_refused(stages: int) -> None:
    with pytest.raises(SettingsError, match=f"decoder_stages is {stages}; expected 0 to 4"):
        SearchSpace(SHAPE, parse_budget("2"), stages)


def test_spaces_that_cannot_be_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"4 decoder stages need .* has 1 at layer_step 16"):
        SearchSpace(SHAPE, parse_budget("2"), 4, layer_step=16)
    with pytest.raises(SettingsError, match="layer_step is 0"):
        SearchSpace(SHAPE, parse_budget("2"), layer_step=0)
    with pytest.raises(BudgetError, match="below the cheapest"):
        SearchSpace(SHAPE, parse_budget("1"))
    with pytest.raises(BudgetError, match="above the dense cost"):
        SearchSpace(SHAPE, parse_budget("10"))
    with pytest.raises(UnsupportedModelError, match="no text tower"):
        SearchSpace(SHAPE.model_copy(update={"text_tower": None}), parse_budget("2"))
