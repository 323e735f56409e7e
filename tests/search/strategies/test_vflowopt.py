"""Ratios at fixed depths, by agreement of hidden states."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.samplers import GPSampler

from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE
from search.strategies.base import SearchState
from search.strategies.vflowopt import FixedDepths, VFlowOpt
from space import PRESETS, SearchSpace, parse_budget
from space.full_vocabulary import FullVocabulary


@pytest.mark.parametrize(
    ("layers", "layer_step", "expected"),
    [(28, 1, [9, 18]), (32, 1, [10, 21]), (32, 4, [12, 20]), (8, 1, [3, 5]), (4, 1, [1, 3])],
)
def test_stages_stand_at_the_published_depths(
    layers: int, layer_step: int, expected: list[int]
) -> None:
    shape = LLAVA_1_5_7B.model_copy(update={"decoder_layers": layers})
    space = FixedDepths(SearchSpace(shape, parse_budget("50%"), layer_step=layer_step))
    point = {"ratio_1": 0.5, "ratio_2": 0.5, "similarity_weight": 0.25}
    schedule = space.decode(point)
    assert [stage.layer for stage in schedule.stages] == [0, *expected]
    assert space.encode(schedule) == pytest.approx(point, abs=0.02)
    assert space.decode(space.encode(schedule)) == schedule


def test_ratios_are_relative_and_the_first_is_solved() -> None:
    space = FixedDepths(SearchSpace(ANALYTIC_SHAPE, parse_budget("36 tokens")))
    schedule = space.decode({"ratio_1": 0.5, "ratio_2": 0.25, "similarity_weight": 0.5})
    assert schedule.cost is not None
    # 3, 2 and 3 layers with x, x/2 and x/8 tokens are 4.375 x = 8 * 36.
    assert schedule.cost.visual_tokens_per_layer == (66, 66, 66, 33, 33, 8, 8, 8)


def test_only_ratios_and_the_fusion_weight_are_searched() -> None:
    for vocabulary in (None, FullVocabulary()):
        for stages in range(5):
            space = SearchSpace(LLAVA_1_5_7B, parse_budget("2"), stages, vocabulary=vocabulary)
            names = [dimension.name for dimension in FixedDepths(space).parameters]
            ratios = [f"ratio_{index}" for index in range(1, min(stages, 2) + 1)]
            assert names == [*ratios, "similarity_weight"]
    without = next(shape for shape in PRESETS.values() if not shape.has_paired_text_tower)
    space = FixedDepths(SearchSpace(without, parse_budget("50%")))
    assert [dimension.name for dimension in space.parameters] == ["ratio_1", "ratio_2"]


@pytest.mark.parametrize(
    ("limit", "random"), [(250, 3), (1000, 13), (4000, 27), (16_000, 27), (None, 27)]
)
def test_the_published_number_of_random_trials_unless_that_is_too_many(
    limit: int | None, random: int
) -> None:
    space = FixedDepths(SearchSpace(ANALYTIC_SHAPE, parse_budget("32 tokens")))
    study = optuna.create_study(direction="maximize")
    VFlowOpt(25).propose(SearchState(space, study, 0, 0, (25,) * 20, 0, limit, ()))
    assert isinstance(study.sampler, GPSampler)
    assert study.sampler._n_startup_trials == random


def test_it_compares_hidden_states_and_ends_as_published() -> None:
    strategy = VFlowOpt(25)
    assert strategy.signal == "hidden-agreement"
    space = FixedDepths(SearchSpace(ANALYTIC_SHAPE, parse_budget("32 tokens")))
    study = optuna.create_study(direction="maximize")
    assert strategy.propose(SearchState(space, study, 0, 300, (25,) * 20, 0, None, ())) is None


def test_it_finds_the_best_ratios(play) -> None:  # type: ignore[no-untyped-def]
    space = SearchSpace(ANALYTIC_SHAPE, parse_budget("32 tokens"))
    wanted = FixedDepths(space).decode({"ratio_1": 0.7, "ratio_2": 0.2, "similarity_weight": 0.8})
    tokens = np.array(wanted.cost.visual_tokens_per_layer)  # type: ignore[union-attr]

    def value(schedule) -> float:  # type: ignore[no-untyped-def]
        distance = np.abs(np.array(schedule.cost.visual_tokens_per_layer) - tokens).mean()
        scorer = schedule.stages[0].scorer
        return -float(distance / 10 + abs(scorer.weight - 0.8))

    searched = play(VFlowOpt(25), space, value, limit=25 * 40)
    assert max(each.value for each in searched) > -0.25
    assert max(each.value for each in searched[:3]) < -0.25
