"""Every peer through the search itself, on the synthetic problem."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from pruners.errors import SettingsError
from pruners.shape import LLAVA_1_5_7B
from search.analytic import AnalyticEvaluator
from search.interruption import SearchInterruptedError
from search.measuring import Measurements
from search.outcomes import SearchOutcome
from search.searching import search_schedule
from search.settings import SearchSettings
from search.strategies import STRATEGIES, make_strategy
from search.strategies.base import Proposal, SearchState, Strategy
from search.strategies.free_space import FreeSpace
from space import FullVocabulary, SearchSpace, parse_budget

PEERS = ("grid", "tpe-penalty", "p-sigmoid", "g-search", "vflowopt", "fitprune", "gsop")
SPACE = SearchSpace(LLAVA_1_5_7B, parse_budget("136 tokens"), layer_step=4)
"""The synthetic problem's best schedules cost so much; its model is a quarter as deep and wide."""


def searched(
    peer: str,
    evaluations: int | None,
    space: SearchSpace = SPACE,
    study: optuna.Study | None = None,
    measurements: Measurements | None = None,
    **settings: int,
) -> SearchOutcome:
    given = {"block_size": 25, "samples_per_trial": 25, "trials": 150} | settings
    return search_schedule(
        measurements or Measurements(AnalyticEvaluator()),
        space,
        SearchSettings(strategy=peer, evaluations=evaluations, **given),
        study=study,
    )


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(
    ("budget", "vocabulary"), [("136 tokens", None), ("32 tokens", None), ("3", FullVocabulary())]
)
def test_few_samples_are_enough_to_find_something(
    peer: str, budget: str, vocabulary: FullVocabulary | None
) -> None:
    space = SearchSpace(LLAVA_1_5_7B, parse_budget(budget), layer_step=4, vocabulary=vocabulary)
    evaluator = AnalyticEvaluator()
    outcome = searched(peer, 250, space, measurements=Measurements(evaluator), trials=60)
    assert outcome.incumbent is not None
    # The dense model is scored once beside the trials.
    assert outcome.evaluations <= 250
    assert evaluator.scored <= 250 + 500
    for candidate in outcome.candidates:
        assert candidate.schedule.cost is not None
        assert space.budget.amount(candidate.schedule.cost) <= space.budget.limit(LLAVA_1_5_7B)


@pytest.mark.parametrize("peer", PEERS)
def test_more_samples_find_something_good(peer: str) -> None:
    evaluator = AnalyticEvaluator()
    outcome = searched(
        peer, 10_000, measurements=Measurements(evaluator), samples_per_trial=250, trials=60
    )
    assert outcome.incumbent is not None
    ones = {each.name: 1.0 for each in SPACE.parameters}
    uniform = SPACE.decode(ones | {"contextual": 0.125, "similarity_weight": 0.5})
    flat = evaluator.relative_accuracy(Measurements(evaluator).measured_form(uniform))
    assert evaluator.relative_accuracy(outcome.incumbent.measured) > flat


@pytest.mark.parametrize("peer", PEERS)
def test_an_interrupted_search_goes_on_as_it_would_have(peer: str) -> None:
    whole = optuna.create_study(direction="maximize")
    searched(peer, 375, study=whole, trials=20)
    parts = optuna.create_study(direction="maximize")
    evaluator = AnalyticEvaluator()

    def check() -> None:
        if evaluator.scored >= 500 + 50:
            raise SearchInterruptedError

    stopped = searched(
        peer, 375, study=parts, measurements=Measurements(evaluator, check=check), trials=20
    )
    assert stopped.stopped == "interrupted"
    searched(peer, 375, study=parts, trials=20)
    complete = [
        [(t.params, t.value) for t in study.get_trials(states=(TrialState.COMPLETE,))]
        for study in (whole, parts)
    ]
    assert complete[0] == complete[1]
    assert complete[0]


@pytest.mark.parametrize("peer", ["g-search", "gsop"])
def test_schedules_above_the_budget_are_measured_but_never_ranked(peer: str) -> None:
    study = optuna.create_study(direction="maximize")
    outcome = searched(peer, 1000, study=study)
    own = make_strategy(SearchSettings(strategy=peer)).space(SPACE)
    above = {
        trial.number
        for trial in study.trials
        if own.decode(trial.params).cost.mean_visual_tokens > 136  # type: ignore[union-attr]
    }
    assert above
    assert outcome.incumbent is not None
    assert outcome.incumbent.schedule.cost is not None
    assert 135 < outcome.incumbent.schedule.cost.mean_visual_tokens <= 136
    assert not above & {candidate.trial for candidate in outcome.candidates}


class Twins(Strategy):
    """Measures a schedule above the budget, then one within it that the model runs the same."""

    name = "twins"

    def space(self, space: SearchSpace) -> FreeSpace:
        return FreeSpace(space)

    def propose(self, state: SearchState) -> Proposal | None:
        ones = {each.name: 1.0 for each in state.space.parameters}
        point = ones | {"contextual": 0.125, "similarity_weight": 0.5}
        retentions = (137 / 576, 136 / 576, 135 / 576)
        if state.trials == len(retentions):
            return None
        return Proposal(point | {"retention": retentions[state.trials]}, 1)


def test_a_schedule_within_the_budget_stands_for_its_twin_above_it() -> None:
    outcome = search_schedule(
        Measurements(AnalyticEvaluator()),
        SPACE,
        SearchSettings(block_size=25),
        strategy=Twins(),
    )
    (candidate,) = outcome.candidates
    assert candidate.trial == 1
    assert candidate.schedule.cost is not None
    assert candidate.schedule.cost.mean_visual_tokens == 136
    assert outcome.evaluations == 25


def test_infeasible_trials_of_the_penalty_cost_nothing_and_count() -> None:
    study = optuna.create_study(direction="maximize")
    space = SearchSpace(LLAVA_1_5_7B, parse_budget("32 tokens"), layer_step=4)
    outcome = searched("tpe-penalty", None, space, study, trials=40)
    assert outcome.trials == len(study.trials) == 40
    feasible = [trial for trial in study.trials if trial.intermediate_values]
    assert 0 < len(feasible) < 40
    assert outcome.evaluations <= 25 * len(feasible)
    assert {candidate.trial for candidate in outcome.candidates} <= {t.number for t in feasible}


def test_fitprune_measures_one_schedule_and_ends() -> None:
    outcome = searched("fitprune", 500)
    # A tenth is spent on attention.
    assert (outcome.trials, outcome.stopped, outcome.evaluations) == (1, "converged", 450)


def test_fitprune_refuses_a_model_without_attention() -> None:
    class Blind:
        name = "blind"

    with pytest.raises(SettingsError, match=r"needs the model's attention, which blind does not"):
        make_strategy(SearchSettings(strategy="fitprune")).prepare(Blind())  # type: ignore[arg-type]


def test_all_peers_can_be_chosen() -> None:
    assert set(PEERS) < set(STRATEGIES)
    for peer in PEERS:
        assert make_strategy(SearchSettings(strategy=peer)).name == peer
        assert make_strategy(SearchSettings(strategy=peer)).identity()["sampler"] == peer
