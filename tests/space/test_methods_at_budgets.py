"""Every published method at the budgets that papers compare at, and where boundaries move."""

from __future__ import annotations

import math

import pytest

from pruners import Schedule, Shape, published
from pruners.errors import BudgetError, ScheduleError, UnsupportedModelError
from pruners.methods import METHODS, supported_methods
from space import Budget, preset, price, project
from tests.space.test_projection import alive, assert_spends

SHAPE = preset("llava-1.5-7b")
TOKENS = (288, 192, 128, 64, 32)
"""Mean tokens of VisionDrop; its cost at these is 50, 33, 22, 11 and 5.6 % of dense tokens."""


def budget_of(tokens: int, shape: Shape = SHAPE) -> Budget:
    """What VisionDrop's published schedule costs."""
    return Budget("tflops", price(published("visiondrop", tokens, shape), shape).tflops)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_spends_every_budget(method: str, tokens: int) -> None:
    budget = budget_of(tokens)
    original = published(method, 192)
    found = project(original, SHAPE, budget)
    assert_spends(found, SHAPE, budget)
    assert found.cost == price(found, SHAPE)
    assert project(found, SHAPE, budget) == found
    assert found.positions == original.positions
    for before, after in zip(original.stages, found.stages, strict=True):
        kept = {"layer": after.layer, "retention": after.retention}
        assert after == before.model_copy(update=kept)
        assert 0 < after.layer <= before.layer or after.layer == before.layer == 0


@pytest.mark.parametrize("name", ["llava-1.5-13b", "llava-next-7b"])
@pytest.mark.parametrize("method", METHODS)
def test_other_shapes(method: str, name: str) -> None:
    shape = preset(name)
    for divisor in (3, 9):
        tokens = shape.visual_tokens // divisor
        if method not in supported_methods(shape):
            with pytest.raises(UnsupportedModelError, match="that is not so of 'llava-next-7b'"):
                published(method, tokens, shape)
            continue
        found = project(published(method, tokens, shape), shape, budget_of(tokens, shape))
        assert_spends(found, shape, budget_of(tokens, shape))


@pytest.mark.parametrize("method", METHODS)
def test_ratios_between_stages_are_kept(method: str) -> None:
    original = published(method, 192)
    wanted = alive(original, SHAPE)
    for tokens in TOKENS:
        found = alive(project(original, SHAPE, budget_of(tokens)), SHAPE)
        factors = [have / want for have, want in zip(found, wanted, strict=True)]
        # A token more or less at each stage; what is left of the budget, less than a token of a
        # late stage, may be a few tokens of a first stage that is soon followed by another.
        for factor, want in zip(factors, wanted, strict=True):
            assert factor == pytest.approx(factors[0], abs=2 / min(want, wanted[0]))


def _moved(original: Schedule, factor: float) -> tuple[list[int], float]:
    """Boundaries and cost in TFLOPs when both they and retentions are scaled, written out."""
    layers: list[int] = []
    for stage in original.stages:
        layer = max(1, math.floor(factor * stage.layer + 0.5)) if stage.layer else 0
        layers.append(max(layer, layers[-1] + 1) if layers else layer)
    stages = [
        stage.model_copy(update={"layer": layer, "retention": max(factor * stage.retention, 1e-9)})
        for stage, layer in zip(original.stages, layers, strict=True)
    ]
    return layers, price(Schedule(stages=tuple(stages)), SHAPE).tflops


@pytest.mark.parametrize(
    ("method", "tokens"),
    [("fastv", 32), ("dart", 32), ("sparsevlm", 32), *(("pyramiddrop", t) for t in (128, 64, 32))],
)
def test_boundaries_move_by_the_largest_factor_that_fits(method: str, tokens: int) -> None:
    original, budget = published(method, 192), budget_of(tokens)
    found = project(original, SHAPE, budget)
    steps = [step for step in range(256, 0, -1) if _moved(original, step / 256)[1] <= budget.value]
    assert [stage.layer for stage in found.stages] == _moved(original, steps[0] / 256)[0]
    assert [stage.layer for stage in found.stages] != [stage.layer for stage in original.stages]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "downsampling"])
def test_a_budget_of_mean_tokens_gives_the_published_schedule(method: str) -> None:
    """Both rules scale alike: by cost, or by the mean number of tokens over layers."""
    for tokens in (192, 128, 64):
        expected = published(method, tokens)
        counts = alive(expected, SHAPE)
        mean = price(expected, SHAPE).mean_visual_tokens
        found = project(published(method, tokens), SHAPE, Budget("tokens", mean))
        assert alive(found, SHAPE) == pytest.approx(counts, abs=1)
        assert [stage.layer for stage in found.stages] == [s.layer for s in expected.stages]


@pytest.mark.parametrize("method", METHODS)
def test_below_its_fewest_tokens_a_method_is_refused(method: str) -> None:
    fewest = project(published(method, 64), SHAPE, Budget("tokens", 32))
    first = fewest.stages[0].layer
    if first == 0:
        # One token in all layers, or in layer 0 alone where a later stage can drop it.
        least = 1 / 32 if len(fewest.stages) > 1 else 1
        assert alive(project(published(method, 64), SHAPE, Budget("tokens", least)), SHAPE)[0] == 1
        with pytest.raises(BudgetError, match="below"):
            project(published(method, 64), SHAPE, Budget("tokens", 0.99 * least))
    else:
        # All 576 tokens in layer 0 alone are a mean of 18.
        with pytest.raises(BudgetError, match=r"the budget of 17.9 tokens is below"):
            project(published(method, 64), SHAPE, Budget("tokens", 17.9))


@pytest.mark.parametrize("layers", [2, 3, 4, 6])
@pytest.mark.parametrize("method", METHODS)
def test_decoders_with_fewer_layers_than_boundaries(method: str, layers: int) -> None:
    shape = SHAPE.model_copy(update={"decoder_layers": layers})
    for tokens in (64, 192, 400):  # 64 and 192 are settings of SparseVLM's tables
        try:
            found = published(method, tokens, shape)
        except ScheduleError:  # all tokens in the first layer alone are more than that
            continue
        boundaries = [stage.layer for stage in found.stages]
        assert boundaries == sorted(set(boundaries))
        assert boundaries[-1] < layers
        budget = Budget("tokens", price(found, shape).mean_visual_tokens)
        assert_spends(project(found, shape, budget), shape, budget)
