"""Budgets: what is above them, and several in turn."""

from __future__ import annotations

from pruners.shape import LLAVA_1_5_7B
from search.analytic import AnalyticEvaluator
from search.measuring import Measurements
from search.outcomes import TrialReport
from search.searching import search_schedules
from search.settings import SearchSettings
from search.strategies.base import Proposal, SearchState
from space.budgets import Budget
from space.coding import SearchSpace
from tests.search.strategy_contract.made import BLOCK, Ladder, new_study, search_with


class Shared(Ladder):
    """The same, several budgets at once."""

    shares_budgets = True


class _Roomy(Ladder):
    """Searches twice the budget, so that some of what it tries may not be exported."""

    def space(self, space: SearchSpace) -> SearchSpace:
        return SearchSpace(space.shape, Budget("tokens", 272), 1, 4)


def test_what_is_above_the_budget_is_no_candidate() -> None:
    strategy = _Roomy()
    outcome = search_with(strategy)
    assert outcome.candidates == ()
    assert outcome.incumbent is None
    assert not any(tried.within_budget for tried in strategy.states[-1].tried)
    generous = SearchSpace(LLAVA_1_5_7B, Budget("tokens", 300), 1, 4)
    assert search_with(_Roomy(), space=generous).incumbent is not None


def test_budgets_that_are_shared_are_searched_in_turn_and_see_each_other() -> None:
    spaces = [SearchSpace(LLAVA_1_5_7B, Budget("tokens", limit), 1, 4) for limit in (136, 80, 200)]
    reports: list[TrialReport] = []
    studies = [new_study() for _ in spaces]
    strategy = Shared()
    evaluator = AnalyticEvaluator()
    outcomes = search_schedules(
        Measurements(evaluator),
        spaces,
        SearchSettings(block_size=BLOCK, evaluations=500),
        studies=studies,
        strategy=strategy,
        on_trial=reports.append,
    )
    assert [report.budget for report in reports[:9]] == [space.budget for space in spaces] * 3
    assert sum(outcome.evaluations for outcome in outcomes) == 1500
    assert evaluator.scored <= 1500 + 500
    for number, state in enumerate(strategy.states[:9]):
        own, turn = number % 3, number // 3
        assert state.space is spaces[own]
        seen = [other.space for other in state.others]
        assert seen == [space for space in spaces if space is not spaces[own]]
        assert [other.trials for other in state.others] == [
            turn + (spaces.index(space) < own) for space in seen
        ]
        assert state.limit == 1500
        assert state.left == 1500 - number * BLOCK
    assert all(outcome.incumbent is not None for outcome in outcomes)
    assert [outcome.stopped for outcome in outcomes] == ["evaluations"] * 3
    for outcome, space, study in zip(outcomes, spaces, studies, strict=True):
        assert outcome.trials == len(study.trials)
        for candidate in outcome.candidates:
            assert space.budget.amount(candidate.schedule.cost) <= space.budget.value


def test_a_budget_that_converges_leaves_the_rest_to_the_others() -> None:
    spaces = [SearchSpace(LLAVA_1_5_7B, Budget("tokens", limit), 1, 4) for limit in (136, 80)]

    class Unequal(Shared):
        def propose(self, state: SearchState) -> Proposal | None:
            if state.space is spaces[0] and state.trials == 2:
                return None
            return super().propose(state)

    outcomes = search_schedules(
        Measurements(AnalyticEvaluator()),
        spaces,
        SearchSettings(block_size=BLOCK, trials=7),
        strategy=Unequal(),
    )
    assert [outcome.trials for outcome in outcomes] == [2, 12]
    assert [outcome.stopped for outcome in outcomes] == ["converged", "trials"]


def test_budgets_that_are_not_shared_are_searched_one_after_the_other() -> None:
    spaces = [SearchSpace(LLAVA_1_5_7B, Budget("tokens", limit), 1, 4) for limit in (136, 80)]
    strategy = Ladder()
    reports: list[TrialReport] = []
    outcomes = search_schedules(
        Measurements(AnalyticEvaluator()),
        spaces,
        SearchSettings(block_size=BLOCK, evaluations=150),
        strategy=strategy,
        on_trial=reports.append,
    )
    assert [outcome.evaluations for outcome in outcomes] == [150, 150]
    assert [report.budget for report in reports] == [
        space.budget for space in spaces for _ in range(6)
    ]
    assert all(state.others == () and state.limit == 150 for state in strategy.states)
