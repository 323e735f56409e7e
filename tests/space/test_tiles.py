"""Tokens of images in several tiles: which numbers there can be, and schedules that spend them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruners import (
    MaxMinDistance,
    NearestReference,
    NoMerge,
    Schedule,
    Shape,
    Stage,
    TopScores,
    VisualSelfAttention,
    published,
)
from pruners.methods import supported_methods
from space import (
    FullVocabulary,
    MissionVocabulary,
    Parameter,
    SearchSpace,
    breakdown,
    parse_budget,
    preset,
    price,
    published_within,
)
from space.tiles import contextual_by_tile, level_above, level_within
from tests.space.test_projection import TINY, alive

NEXT = preset("llava-next-7b")
UNEVEN = NEXT.model_copy(
    update={
        "name": "uneven",
        "visual_tokens": 576 + 2 * 576 + 2 * 192,
        "newline_tokens": 32,
        "tile_tokens": (576, 576, 576, 192, 192),
    }
)
"""An image twice as wide as the lower part of its tiles is high: less is left of the lower row."""


def tiled(*tile_tokens: int) -> Shape:
    return TINY.model_copy(
        update={
            "visual_tokens": sum(tile_tokens),
            "tiles": len(tile_tokens),
            "tile_tokens": tile_tokens,
        }
    )


def first_stage(retention: float, contextual: float = 0.0) -> Stage:
    return Stage(
        layer=0,
        retention=retention,
        contextual=contextual,
        scorer=VisualSelfAttention(),
        merge=NearestReference(),
    )


tiles = st.lists(st.integers(0, 30), min_size=2, max_size=5).filter(lambda sizes: sum(sizes) > 1)


@given(tile_tokens=tiles, retention=st.floats(0.01, 0.999), share=st.floats(0, 0.5))
def test_contextual_tokens_are_those_that_a_schedule_counts(
    tile_tokens: list[int], retention: float, share: float
) -> None:
    shape = tiled(*tile_tokens)
    stage = first_stage(retention, contextual=share)
    (count,) = Schedule(stages=(stage,)).counts(shape.visual_tokens, shape.tokens_per_tile)
    assert contextual_by_tile(stage, retention, shape) == count.contextual


@pytest.mark.parametrize("tile_tokens", [(9, 9, 9), (16, 9, 4), (20, 0, 1)])
def test_tokens_are_compared_within_their_tile(tile_tokens: tuple[int, ...]) -> None:
    shape = tiled(*tile_tokens).model_copy(update={"family": "llava_next"})
    stage = first_stage(0.5).model_copy(update={"selector": MaxMinDistance(), "merge": NoMerge()})
    pairs = {"tile": sum(tokens**2 for tokens in tile_tokens), "global": sum(tile_tokens) ** 2}
    plain = stage.model_copy(update={"selector": TopScores()})
    for scope, compared in pairs.items():
        costs = [
            breakdown(Schedule(stages=(each.model_copy(update={"scope": scope}),)), shape).scoring
            for each in (stage, plain)
        ]
        assert costs[0] - costs[1] == 2 * compared * shape.hidden_size


@given(sizes=tiles, wanted=st.floats(0, 160), contextual=st.floats(0, 0.5))
def test_levels_are_what_some_share_leaves(
    sizes: list[int], wanted: float, contextual: float
) -> None:
    shape = tiled(*sizes)
    level = level_within(wanted, shape)
    schedule = Schedule(stages=(first_stage(level.retention, contextual),))
    (count,) = schedule.counts(shape.visual_tokens, sizes)
    assert count.alive == level.alive
    made = contextual_by_tile(schedule.stages[0], level.retention, shape)
    assert made == count.contextual
    # No share on a fine grid gives a number between this level and the wanted one, or the next one.
    reachable = {
        Schedule(stages=(first_stage(step / 2000),)).counts(shape.visual_tokens, sizes)[0].alive
        for step in range(1, 2001)
    }
    within = [tokens for tokens in reachable if tokens <= wanted]
    assert level.alive == max(within, default=min(reachable))
    above = [tokens for tokens in reachable if tokens > level.alive]
    if above:
        assert level_above(level.alive, shape).alive == min(above)


@pytest.mark.parametrize("shape", [NEXT, UNEVEN], ids=lambda shape: shape.name)
@pytest.mark.parametrize("vocabulary", [MissionVocabulary(), FullVocabulary()])
def test_points_of_tiled_images_spend_the_budget(
    shape: Shape, vocabulary: MissionVocabulary
) -> None:
    budget = parse_budget("20%")
    space = SearchSpace(shape, budget, vocabulary=vocabulary)
    rng = random.Random(0)
    for _ in range(60):
        point = {
            dimension.name: rng.uniform(dimension.low, dimension.high)
            if isinstance(dimension, Parameter)
            else rng.choice(dimension.options)
            for dimension in space.parameters
        }
        schedule = space.decode(point)
        assert schedule.cost == price(schedule, shape)
        limit = budget.limit(shape)
        # A token of each tile, the least that can be added at layer 0, costs less than a percent.
        assert 0.99 * limit < schedule.cost.tflops <= limit
        counts = alive(schedule, shape)
        assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    "name", ["llava-onevision-7b", "video-llava-7b", "qwen2.5-vl-7b", "qwen3-vl-8b", "internvl3-8b"]
)
@pytest.mark.parametrize("vocabulary", [MissionVocabulary(), FullVocabulary()])
def test_every_family_can_be_searched(name: str, vocabulary: MissionVocabulary) -> None:
    shape, budget = preset(name), parse_budget("40%")
    space = SearchSpace(shape, budget, vocabulary=vocabulary)
    rng = random.Random(1)
    for _ in range(20):
        point = {
            dimension.name: rng.uniform(dimension.low, dimension.high)
            if isinstance(dimension, Parameter)
            else rng.choice(dimension.options)
            for dimension in space.parameters
        }
        schedule = space.decode(point)
        assert 0.98 * budget.limit(shape) < schedule.cost.tflops <= budget.limit(shape)
        assert space.decode(space.encode(schedule)) == schedule


@pytest.mark.parametrize("name", ["llava-next-7b", "qwen2.5-vl-7b", "internvl3-8b"])
def test_published_methods_meet_budgets_on_other_families(name: str) -> None:
    shape, budget = preset(name), parse_budget("45%")
    for method in supported_methods(shape):
        found = published_within(method, shape, budget)
        assert 0.97 * budget.limit(shape) < found.cost.tflops <= budget.limit(shape)


def test_layer_0_keeps_as_many_of_each_tile() -> None:
    schedule = published("visiondrop", 320, NEXT)
    (encoder, *_) = schedule.counts(2880, NEXT.tokens_per_tile)
    # VisionDrop's 480 = 5 x 96, of which ceil(96 / 8) each are contextual (its released rule).
    assert (encoder.alive, encoder.contextual) == (5 * 96, 5 * 12)
    assert price(schedule, NEXT).mean_visual_tokens == pytest.approx(320, abs=0.5)
