"""Strategies made for trying what the search promises to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna

from pruners.published import dense
from pruners.schedule import Schedule
from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.measuring import Measurements
from search.outcomes import SearchOutcome
from search.racing import make_blocks
from search.searching import search_schedule
from search.settings import SearchSettings
from search.strategies.base import Proposal, SearchState, Signal, Strategy
from space.budgets import Budget
from space.coding import SearchSpace

BLOCK = 25
BLOCKS = 20
SPACE = SearchSpace(LLAVA_1_5_7B, Budget("tokens", 136), decoder_stages=1, layer_step=4)


class Ladder(Strategy):
    """Measures 8 points on 1 block each, the better half on 4, and the best two on all."""

    name = "ladder"

    def __init__(self, signal: Signal = "accuracy", *, races: bool = False) -> None:
        self.signal = signal
        self.races = races
        self.states: list[SearchState] = []

    def propose(self, state: SearchState) -> Proposal | None:
        self.states.append(state)
        if len(state.tried) < 8:
            return Proposal(point_of(state.space, len(state.tried)), 1, f"start {len(state.tried)}")
        for blocks, kept in ((4, 4), (len(state.block_sizes), 2)):
            for tried in sorted(state.tried, key=lambda each: -each.signals[0])[:kept]:
                if tried.blocks < blocks:
                    return Proposal(tried.point, blocks)
        return None


class Given(Strategy):
    """Proposes what it is told."""

    name = "given"

    def __init__(self, proposals: Sequence[Proposal], *, races: bool = False) -> None:
        self.proposals = proposals
        self.races = races

    def propose(self, state: SearchState) -> Proposal | None:
        return self.proposals[state.trials] if state.trials < len(self.proposals) else None


def point_of(space: SearchSpace, number: int) -> dict[str, float]:
    generator = np.random.default_rng(number)
    return {each.name: float(generator.uniform(each.low, each.high)) for each in space.parameters}


def new_study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def search_with(
    strategy: Strategy,
    measurements: Measurements | None = None,
    study: optuna.Study | None = None,
    space: SearchSpace = SPACE,
    **settings: object,
) -> SearchOutcome:
    return search_schedule(
        measurements or Measurements(AnalyticEvaluator()),
        space,
        SearchSettings.model_validate({"block_size": BLOCK, **settings}),
        study=study,
        strategy=strategy,
    )


def block_figures(schedule: Schedule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative accuracy, answer probability and hidden agreement of each block, by hand."""
    evaluator = AnalyticEvaluator()
    keys = evaluator.samples("search")
    tasks = np.array([key.task for key in keys])
    reference = evaluator.score(dense(ANALYTIC_SHAPE), "search", range(len(keys)))
    probe = evaluator.probe(schedule, "search", range(len(keys)))
    accuracies, probabilities, agreements = [], [], []
    for block in make_blocks(tasks.tolist(), BLOCK, 0):
        ratios = [probe.scores[index] / reference[tasks == tasks[index]].mean() for index in block]
        accuracies.append(np.mean(ratios))  # 5 samples of each task in every block
        probabilities.append(probe.answer_probabilities[block].mean())
        agreements.append(probe.hidden_agreements[block].mean())
    return np.array(accuracies), np.array(probabilities), np.array(agreements)
