"""The adaptive strategy on the synthetic problem, whose true accuracies are known."""

import numpy as np
import pytest

from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.measuring import Measurements
from search.searching import search_schedules
from search.settings import SearchSettings
from search.strategies import make_strategy
from search.strategies.adaptive import FEWEST_TRIED, AdaptiveStrategy
from space.budgets import parse_budget
from space.coding import SearchSpace

BUDGETS = ("32 tokens", "16 tokens")


@pytest.fixture(scope="module")
def spaces():
    return [SearchSpace(ANALYTIC_SHAPE, parse_budget(budget)) for budget in BUDGETS]


def search(spaces, strategy, seed, evaluations, **changes):
    settings = SearchSettings(
        trials=1000, evaluations=evaluations, seed=seed, block_size=25, **changes
    )
    evaluator = AnalyticEvaluator(seed=seed)
    outcomes = search_schedules(Measurements(evaluator), spaces, settings, strategy=strategy)
    return evaluator, outcomes


def found(spaces, strategy, seed, evaluations):
    evaluator, outcomes = search(spaces, strategy, seed, evaluations)
    return np.mean([evaluator.relative_accuracy(each.incumbent.measured) for each in outcomes])


def test_it_finds_better_schedules_than_random_search_with_four_times_the_samples(spaces):
    random = make_strategy(SearchSettings(strategy="random", samples_per_trial=50))
    seeds = range(3)
    mine = [found(spaces, AdaptiveStrategy(), seed, 250) for seed in seeds]
    theirs = [found(spaces, random, seed, 1000) for seed in seeds]
    assert np.mean(mine) > np.mean(theirs)


def test_it_spends_what_it_is_given_and_repeats_nothing(spaces):
    _, outcomes = search(spaces, AdaptiveStrategy(), 0, 300)
    assert sum(outcome.evaluations for outcome in outcomes) == 2 * 300
    for outcome in outcomes:
        assert outcome.stopped == "evaluations"
        measured = [candidate.measured.content_hash for candidate in outcome.candidates]
        assert len(set(measured)) == len(measured)
        # Every trial measured something: no more trials than blocks of 25.
        assert outcome.trials <= outcome.evaluations / 25


def test_it_ends_when_little_is_left_to_gain(spaces):
    _, outcomes = search(spaces, AdaptiveStrategy(least_gain=0.9), 0, 2000)
    for outcome in outcomes:
        assert outcome.stopped == "converged"
        assert len(outcome.candidates) == FEWEST_TRIED
    _, (some, *_) = search(spaces[:1], AdaptiveStrategy(least_gain=0.02), 0, 20_000)
    _, (more, *_) = search(spaces[:1], AdaptiveStrategy(least_gain=0.01), 0, 20_000)
    assert some.stopped == more.stopped == "converged"
    assert some.evaluations < more.evaluations < 20_000


class Remembered(AdaptiveStrategy):
    """Keeps the states that it was asked about, with its answers."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def propose(self, state):
        proposal = super().propose(state)
        self.asked.append((state, proposal))
        return proposal


def test_its_answers_depend_on_nothing_but_the_state(spaces):
    strategy = Remembered()
    search(spaces, strategy, 3, 200)
    for state, proposal in strategy.asked[::5]:
        assert AdaptiveStrategy().propose(state) == proposal


def test_the_first_trial_prunes_once_as_desap_does(spaces):
    strategy = Remembered()
    search(spaces[:1], strategy, 0, 25)
    (_, proposal), *_ = strategy.asked
    assert "desap" in proposal.origin
    schedule = spaces[0].decode(proposal.point)
    assert [stage.layer for stage in schedule.stages] == [0]
