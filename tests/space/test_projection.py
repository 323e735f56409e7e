"""Projection onto a budget, against brute force and the published schedules."""

from __future__ import annotations

import contextlib
import itertools
import math
import random

import pytest

from pruners import (
    ClsAttention,
    NearestReference,
    Schedule,
    Shape,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
    dense,
    published,
)
from pruners.errors import BudgetError, ScheduleError
from pruners.methods import METHODS
from pruners.shape import TextTowerShape, VisionShape
from space import Budget, parse_budget, preset, price, project, published_within

SHAPE = preset("llava-1.5-7b")
ENCODER_METHODS = ("desap", "visionzip", "vispruner", "cdpruner", "flowcut", "divprune", "random")
"""Methods of one stage, behind a vision tower that all patches enter."""

TINY = Shape(
    name="tiny",
    decoder_layers=5,
    hidden_size=64,
    intermediate_size=160,
    attention_heads=4,
    key_value_heads=2,
    head_size=16,
    vocabulary_size=100,
    visual_tokens=16,
    text_tokens=5,
    vision=VisionShape(
        layers=2,
        hidden_size=32,
        intermediate_size=64,
        attention_heads=2,
        patches=16,
        patch_size=4,
    ),
    text_tower=TextTowerShape(
        layers=1,
        hidden_size=16,
        intermediate_size=32,
        attention_heads=2,
        projection_size=16,
        tokens=6,
    ),
)


def with_counts(schedule: Schedule, counts: list[int], visual_tokens: int) -> Schedule:
    """The same schedule with other numbers of tokens."""
    stages = [
        stage.model_copy(update={"retention": count / visual_tokens})
        for stage, count in zip(schedule.stages, counts, strict=True)
    ]
    return Schedule(stages=tuple(stages), positions=schedule.positions)


def alive(schedule: Schedule, shape: Shape) -> list[int]:
    counts = schedule.counts(shape.visual_tokens, shape.tokens_per_tile)
    return [count.alive for count in counts]


def assert_spends(schedule: Schedule, shape: Shape, budget: Budget) -> None:
    """The schedule is within the budget, and none of its stages could keep one more token."""
    limit = budget.limit(shape)
    assert budget.amount(price(schedule, shape)) <= limit
    counts = alive(schedule, shape)
    for index, count in enumerate(counts):
        # The next that changes anything: a smaller image has whole grids of patches only.
        for wanted in range(count + 1, (counts[index - 1] if index else shape.visual_tokens) + 1):
            more = [*counts[:index], wanted, *counts[index + 1 :]]
            larger = with_counts(schedule, more, shape.visual_tokens)
            if alive(larger, shape) != counts:
                assert budget.amount(price(larger, shape)) > limit, (counts, more)
                break


@pytest.mark.parametrize("text", ["2", "50%", "11%", "13.8%", "99.9%", "64 tokens", "40MB"])
@pytest.mark.parametrize("method", ["visiondrop", "desap"])
def test_published_schedules_at_any_budget(method: str, text: str) -> None:
    budget = parse_budget(text)
    if text == "11%":
        with pytest.raises(BudgetError, match=r"below .* fewest tokens"):
            project(published(method, 64), SHAPE, budget)
        return
    original = published(method, 64)
    schedule = project(original, SHAPE, budget)
    assert_spends(schedule, SHAPE, budget)
    assert schedule.cost == price(schedule, SHAPE)
    assert schedule.shape == SHAPE
    assert schedule.evidence is None
    assert schedule.provenance is not None
    assert schedule.provenance.origin == f"published: {method}, 64 tokens"
    kept = {stage.layer: stage for stage in schedule.stages}
    for stage in original.stages:
        if stage.layer in kept:
            update = {"retention": kept[stage.layer].retention}
            assert kept[stage.layer] == stage.model_copy(update=update)


@pytest.mark.parametrize("tokens", [192, 128, 64, 32])
def test_projection_keeps_the_ratios_between_stages(tokens: int) -> None:
    """From 64 tokens, VisionDrop's other published counts come out, give or take a token."""
    budget = Budget("tflops", price(published("visiondrop", tokens), SHAPE).tflops)
    found = alive(project(published("visiondrop", 64), SHAPE, budget), SHAPE)
    expected = alive(published("visiondrop", tokens), SHAPE)
    assert found == pytest.approx(expected, abs=2)


def test_a_schedule_at_its_own_cost_stays_as_it_is() -> None:
    budget = Budget("tflops", price(published("visiondrop", 64), SHAPE).tflops)
    assert project(published("visiondrop", 64), SHAPE, budget).stages == (
        published("visiondrop", 64).stages
    )


def test_projecting_twice_changes_nothing() -> None:
    for text in ("2", "30%", "100 tokens", "60MB"):
        budget = parse_budget(text)
        once = project(published("visiondrop", 64), SHAPE, budget)
        assert project(once, SHAPE, budget) == once


def test_boundaries_of_another_depth_are_carried_over() -> None:
    deeper = preset("llava-1.5-13b")
    schedule = project(published("visiondrop", 64), deeper, parse_budget("30%"))
    assert [stage.layer for stage in schedule.stages] == [0, 10, 20, 30]
    assert_spends(schedule, deeper, parse_budget("30%"))


def test_stages_saturate_at_the_dense_count() -> None:
    """Scaled up far enough, the encoder keeps everything and the first decoder stages follow."""
    schedule = project(published("visiondrop", 64), SHAPE, parse_budget("85%"))
    assert schedule.stages[0].layer > 0
    assert_spends(schedule, SHAPE, parse_budget("85%"))
    at_dense = project(published("visiondrop", 64), SHAPE, parse_budget("100%"))
    assert at_dense.stages == ()


def test_a_stage_that_comes_to_do_nothing_hands_its_ratio_on() -> None:
    """The second would keep as many as the first; the third keeps about half of them, as before."""
    stages = tuple(
        Stage(layer=layer, retention=tokens / TINY.visual_tokens, scorer=VisualSelfAttention())
        for layer, tokens in ((1, 4.85), (2, 4.25), (3, 2.64))
    )
    found = project(Schedule(stages=stages), TINY, Budget("tokens", 4.83))
    # Two tokens throughout would cost as much.
    assert found.visual_tokens_per_layer(5, TINY.visual_tokens) == (16, 3, 3, 1, 1)


def test_boundaries_move_earlier_only_where_the_budget_asks_for_it() -> None:
    stages = (Stage(layer=16, retention=0.1, scorer=VisualSelfAttention()),)
    # 16 layers of 576 tokens are 57 %; near that, fewer than 0.4 of the mean are left for the rest.
    for text, boundary in (("80%", 16), ("70%", 16), ("58%", 15), ("30%", 5), ("17%", 1)):
        budget = parse_budget(text)
        found = project(Schedule(stages=stages), SHAPE, budget)
        assert [stage.layer for stage in found.stages] == [boundary]
        assert_spends(found, SHAPE, budget)
    with pytest.raises(BudgetError, match=r"budget of 16% is below 16\.\d+% .* fewest tokens"):
        project(Schedule(stages=stages), SHAPE, parse_budget("16%"))


# SparseVLM's settings are named after no mean; a smaller image has whole grids only.
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"sparsevlm", "downsampling"}))
def test_a_published_method_is_found_at_its_own_cost(name: str) -> None:
    for tokens in (192, 64):
        own = published(name, tokens=tokens)
        budget = Budget("tflops", price(own, SHAPE).tflops * (1 + 1e-9))
        assert published_within(name, SHAPE, budget).stages == own.stages


@pytest.mark.parametrize("name", METHODS)
def test_a_published_method_is_scaled_from_the_most_tokens_that_fit(name: str) -> None:
    """By a scan of all: SparseVLM's cost falls where its named settings end."""
    costs = {}
    for tokens in range(1, SHAPE.visual_tokens):
        with contextlib.suppress(ScheduleError):  # fewer than the method can keep
            costs[tokens] = price(published(name, tokens), SHAPE)
    for text in ("1.6", "2.55", "200 tokens"):
        budget = parse_budget(text)
        limit = budget.limit(SHAPE)
        most = max(tokens for tokens, cost in costs.items() if budget.amount(cost) <= limit)
        found = published_within(name, SHAPE, budget)
        assert found.provenance is not None
        assert found.provenance.origin == f"published: {name}, {most} tokens"
        if (name, text) == ("sparsevlm", "2.55"):
            assert budget.amount(costs[96]) > limit  # where halving alone would end
            assert most == 98


@pytest.mark.parametrize("name", [*ENCODER_METHODS, "tome", "downsampling"])
def test_the_least_budget_is_what_the_method_itself_costs_at_one_token(name: str) -> None:
    """ToMe and the smaller image save in the vision tower as well."""
    least = price(published(name, 1), SHAPE).tflops
    assert (least < 1.1) == (name not in ENCODER_METHODS)
    for tflops in (least, (least + 1.4) / 2):
        budget = Budget("tflops", tflops)
        assert_spends(published_within(name, SHAPE, budget), SHAPE, budget)
    with pytest.raises(BudgetError, match=r"below .* fewest tokens"):
        published_within(name, SHAPE, Budget("tflops", 0.999 * least))


def test_dense_has_nothing_to_scale() -> None:
    with pytest.raises(ScheduleError, match="without a stage"):
        project(dense(), SHAPE, parse_budget("2"))


def _random_tiny_schedule(rng: random.Random) -> Schedule:
    layers = sorted(rng.sample(range(TINY.decoder_layers), rng.randint(1, 3)))
    retention, stages = 1.0, []
    for layer in layers:
        retention *= rng.uniform(0.2, 0.95)
        scorer = VisualSelfAttention()
        if layer == 0:
            scorer = rng.choice([ClsAttention(), SimilarityFusion(text_tower="any", weight=0.4)])
        stages.append(
            Stage(
                layer=layer,
                retention=retention,
                contextual=rng.choice([0, 0.3]),
                scorer=scorer,
                merge=NearestReference(),
            )
        )
    return Schedule(stages=tuple(stages))


def _all_counts(schedule: Schedule) -> list[list[int]]:
    fewest = [1 if stage.layer == 0 else 0 for stage in schedule.stages]
    ranges = [range(few, TINY.visual_tokens + 1) for few in fewest]
    return [
        list(counts)
        for counts in itertools.product(*ranges)
        if all(before >= after for before, after in itertools.pairwise(counts))
    ]


def test_no_choice_of_more_tokens_fits_by_enumeration() -> None:
    """Mean tokens cost the same wherever they are scored: then nothing that keeps more fits."""
    rng = random.Random(0)
    for _ in range(40):
        schedule = _random_tiny_schedule(rng)
        budget = Budget("tokens", rng.uniform(2, 15))
        try:
            found = project(schedule, TINY, budget)
        except BudgetError:
            least = _all_counts(schedule)[0]
            cost = price(with_counts(schedule, least, TINY.visual_tokens), TINY)
            assert cost.mean_visual_tokens > budget.value
            continue
        kept = {count.layer: count.alive for count in found.counts(TINY.visual_tokens)}
        counts, before = [], TINY.visual_tokens
        for stage in schedule.stages:
            before = kept.get(stage.layer, before)
            counts.append(before)
        dominated = [
            other
            for other in _all_counts(with_counts(schedule, counts, TINY.visual_tokens))
            if other != counts
            and all(more >= fewer for more, fewer in zip(other, counts, strict=True))
            and price(with_counts(schedule, other, TINY.visual_tokens), TINY).mean_visual_tokens
            <= budget.value
            # A stage that came to do nothing stays so.
            and all(
                other[i] == (other[i - 1] if i else TINY.visual_tokens)
                for i, stage in enumerate(schedule.stages)
                if stage.layer not in kept
            )
        ]
        assert not dominated, (counts, dominated)


def test_the_common_scale_is_the_largest_that_fits_by_enumeration() -> None:
    """Every scale of the ratios is tried; none that fits keeps more tokens than the projection."""
    rng = random.Random(1)
    for _ in range(40):
        schedule = _random_tiny_schedule(rng)
        budget = Budget("tokens", rng.uniform(2, 15))
        try:
            found = project(schedule, TINY, budget)
        except BudgetError:
            continue
        ratios = [count / alive(schedule, TINY)[0] for count in alive(schedule, TINY)]
        best = 0.0
        for step in range(1, 1600):
            counts = [
                min(TINY.visual_tokens, math.floor(step / 40 * ratio + 0.5)) for ratio in ratios
            ]
            if schedule.stages[0].layer == 0:
                counts[0] = max(counts[0], 1)
            cost = price(with_counts(schedule, counts, TINY.visual_tokens), TINY)
            if cost.mean_visual_tokens <= budget.value:
                best = max(best, cost.mean_visual_tokens)
        assert found.cost is not None
        assert found.cost.mean_visual_tokens >= best


def test_random_schedules_spend_random_budgets() -> None:
    rng = random.Random(2)
    spent = 0
    for _ in range(300):
        schedule = _random_tiny_schedule(rng)
        dense_cost = price(Schedule(), TINY)
        kind, most = rng.choice(
            [("tflops", dense_cost.tflops), ("kv_bytes", dense_cost.kv_bytes), ("share", 1)]
        )
        budget = Budget(kind, rng.uniform(0.3, 1) * most)
        try:
            found = project(schedule, TINY, budget)
        except BudgetError:
            continue
        assert_spends(found, TINY, budget)
        assert project(found, TINY, budget) == found if found.stages else True
        spent += 1
    assert spent > 150
