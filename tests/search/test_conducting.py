from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from pruners.errors import DataError
from pruners.shape import LLAVA_1_5_7B
from search.analytic import AnalyticEvaluator
from search.interruption import SearchInterruptedError
from search.measuring import Measurements
from search.outcomes import SearchOutcome
from search.search_history import DUPLICATE_ATTRIBUTE
from search.searching import search_schedule, search_schedules
from search.settings import SearchSettings
from search.strategies import STRATEGIES
from search.strategies.base import Proposal, SearchState, Strategy
from search.workers.assignments import Assignment, Measured
from search.workers.pool import OwnProcess
from space.budgets import Budget
from space.coding import SearchSpace
from studies.records import MEASURED_ATTRIBUTE
from studies.scores import ScoreCache

SPACES = tuple(
    SearchSpace(LLAVA_1_5_7B, Budget("tokens", tokens), decoder_stages=3, layer_step=4)
    for tokens in (136, 64)
)


class AnsweringInAnyOrder(OwnProcess):
    """Measures as this process does, but answers when it likes: workers without their processes."""

    def __init__(self, capacity: int, seed: int) -> None:
        super().__init__(AnalyticEvaluator())
        self.capacity = capacity
        self.most = 0
        self.measured: Counter[tuple[str, str, int]] = Counter()
        self._random = random.Random(seed)
        self._open: dict[Future[Measured], Assignment] = {}

    def submit(self, assignment: Assignment) -> Future[Measured]:
        future: Future[Measured] = Future()
        self._open[future] = assignment
        if assignment.schedule.stages:
            self.most = max(self.most, len(self._open))
        for index in assignment.indices:
            self.measured[assignment.schedule.content_hash, assignment.split, index] += 1
        return future

    def wait(self, futures: Collection[Future[Measured]], seconds: float) -> set[Future[Measured]]:
        if not futures or seconds == 0 or self._random.random() < 0.2:
            return set()
        future = self._random.choice(list(futures))
        future.set_result(super().submit(self._open.pop(future)).result())
        return {future}


def _search(
    pool: AnsweringInAnyOrder,
    studies: list[optuna.Study] | None = None,
    check: Callable[[], None] = lambda: None,
    **settings: Any,
) -> tuple[list[optuna.Study], tuple[SearchOutcome, ...]]:
    if studies is None:
        studies = [optuna.create_study(direction="maximize") for _ in SPACES]
    outcomes = search_schedules(
        Measurements(AnalyticEvaluator(), pool=pool, check=check),
        SPACES,
        SearchSettings.model_validate(settings),
        studies=studies,
    )
    return studies, outcomes


def _complete(studies: list[optuna.Study]) -> list[optuna.trial.FrozenTrial]:
    return [trial for study in studies for trial in study.get_trials(states=(TrialState.COMPLETE,))]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_with_trials_in_flight_every_strategy_keeps_its_limits(strategy: str) -> None:
    pool = AnsweringInAnyOrder(capacity=5, seed=1)
    studies, outcomes = _search(
        pool, strategy=strategy, trials=14, evaluations=3000, samples_per_trial=100
    )
    assert max(pool.measured.values()) == 1
    assert all(outcome.stopped != "interrupted" for outcome in outcomes)
    assert 0 < len(_complete(studies)) <= 28
    assert sum(outcome.evaluations for outcome in outcomes) <= 6000
    states = {trial.state for study in studies for trial in study.trials}
    assert states <= {TrialState.COMPLETE, TrialState.FAIL}
    assert sum(outcome.trials for outcome in outcomes) == len(_complete(studies))
    assert pool.most <= 5


@pytest.mark.parametrize("strategy", ["adaptive", "tpe", "random", "grid"])
def test_all_workers_have_something_to_measure(strategy: str) -> None:
    pool = AnsweringInAnyOrder(capacity=5, seed=2)
    studies, _ = _search(pool, strategy=strategy, trials=14, least_gain=0)
    assert pool.most == 5
    assert len(_complete(studies)) == 28


def test_the_same_schedule_in_flight_twice_is_measured_once() -> None:
    # One boundary and two numbers: several workers soon meet the same schedules.
    space = SearchSpace(LLAVA_1_5_7B, Budget("tokens", 9), decoder_stages=0)
    pool = AnsweringInAnyOrder(capacity=4, seed=3)
    study = optuna.create_study(direction="maximize")
    search_schedules(
        Measurements(AnalyticEvaluator(), pool=pool),
        (space,),
        SearchSettings(strategy="random", trials=60),
        studies=(study,),
    )
    trials = _complete([study])
    assert len(trials) == 60
    assert max(pool.measured.values()) == 1
    duplicates = [trial for trial in trials if DUPLICATE_ATTRIBUTE in trial.user_attrs]
    assert len(duplicates) > 5
    by_number = {trial.number: trial for trial in trials}
    for trial in duplicates:
        twin = by_number[trial.user_attrs[DUPLICATE_ATTRIBUTE]]
        assert twin.value == trial.value
        assert twin.user_attrs[MEASURED_ATTRIBUTE] == trial.user_attrs[MEASURED_ATTRIBUTE]
    firsts = [
        trial.user_attrs[MEASURED_ATTRIBUTE]
        for trial in trials
        if DUPLICATE_ATTRIBUTE not in trial.user_attrs
    ]
    assert len(firsts) == len(set(firsts))


def test_all_that_wait_for_the_same_schedule_end_with_it() -> None:
    class Insisting(Strategy):
        """Proposes one schedule, whatever is in flight."""

        name = "insisting"

        def propose(self, state: SearchState) -> Proposal:
            middle = {each.name: (each.low + each.high) / 2 for each in state.space.parameters}
            return Proposal(middle, len(state.block_sizes))

    pool = AnsweringInAnyOrder(capacity=4, seed=8)
    study = optuna.create_study(direction="maximize")
    outcome = search_schedule(
        Measurements(AnalyticEvaluator(), pool=pool),
        SPACES[0],
        SearchSettings(trials=4),
        study=study,
        strategy=Insisting(),
    )
    assert outcome.trials == len(_complete([study])) == 4
    assert max(pool.measured.values()) == 1


def test_a_strategy_with_nothing_to_propose_is_not_asked_again_before_a_trial_ends() -> None:
    class OneAtATime(Strategy):
        """Waits for each trial before it proposes the next."""

        name = "one-at-a-time"
        shares_budgets = True

        def propose(self, state: SearchState) -> Proposal | None:
            asked[str(state.space.budget), state.begun, len(state.in_flight)] += 1
            if state.in_flight or state.trials == 4:
                return None
            generator = np.random.default_rng(state.trials)
            point = {each.name: generator.uniform(*each[1:]) for each in state.space.parameters}
            return Proposal(point, len(state.block_sizes))

    asked: Counter[tuple[str, int, int]] = Counter()
    outcomes = search_schedules(
        Measurements(AnalyticEvaluator(), pool=AnsweringInAnyOrder(capacity=4, seed=10)),
        SPACES,
        SearchSettings(trials=50),
        strategy=OneAtATime(),
    )
    assert [(each.trials, each.stopped) for each in outcomes] == [(4, "converged")] * 2
    # Once with nothing in flight, and once more for each of the other budget's trials at most.
    assert sum(asked.values()) <= 2 * (5 + 5 + 8)


def test_interrupted_trials_fail_and_the_study_goes_on_to_its_end() -> None:
    studies = [optuna.create_study(direction="maximize") for _ in SPACES]
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 60:
            raise SearchInterruptedError

    pool = AnsweringInAnyOrder(capacity=4, seed=4)
    _, outcomes = _search(pool, studies, check, strategy="random", trials=10)
    assert {outcome.stopped for outcome in outcomes} == {"interrupted"}
    before = len(_complete(studies))
    failed = [t for study in studies for t in study.get_trials(states=(TrialState.FAIL,))]
    assert 0 < len(failed) <= 4
    _, outcomes = _search(AnsweringInAnyOrder(4, 5), studies, strategy="random", trials=10)
    assert before < len(_complete(studies)) == 20
    assert {outcome.stopped for outcome in outcomes} == {"trials"}


def test_what_workers_have_answered_when_a_search_is_interrupted_is_kept(tmp_path: Path) -> None:
    class AnsweringTogether(AnsweringInAnyOrder):
        """All workers answer at once."""

        def wait(
            self, futures: Collection[Future[Measured]], seconds: float
        ) -> set[Future[Measured]]:
            if seconds > 0:
                for future in futures:
                    future.set_result(self._answer(self._open.pop(future)))
            return set(futures) if seconds > 0 else set()

        def _answer(self, assignment: Assignment) -> Measured:
            for index in assignment.indices:
                answered[assignment.schedule.content_hash, assignment.split, index] += 1
            return assignment.measure(AnalyticEvaluator())

    answered: Counter[tuple[str, str, int]] = Counter()
    studies = [optuna.create_study(direction="maximize") for _ in SPACES]

    def check() -> None:
        if len(answered) > 1000:
            raise SearchInterruptedError

    with ScoreCache(tmp_path / "scores.db") as cache:
        for each in (check, lambda: None):
            search_schedules(
                Measurements(AnalyticEvaluator(), cache, each, pool=AnsweringTogether(3, 9)),
                SPACES,
                SearchSettings(strategy="random", trials=4),
                studies=studies,
            )
    assert len(_complete(studies)) == 8
    assert max(answered.values()) == 1


def test_an_evaluator_that_fails_ends_the_search_and_leaves_no_trial_running() -> None:
    class Failing(AnsweringInAnyOrder):
        def wait(
            self, futures: Collection[Future[Measured]], seconds: float
        ) -> set[Future[Measured]]:
            done = super().wait(futures, seconds)
            if len(self.measured) < 1500:
                return done
            future: Future[Measured] = next(iter(set(futures) - done))
            future.set_exception(DataError("the data is gone"))
            return {future}

    studies = [optuna.create_study(direction="maximize") for _ in SPACES]
    with pytest.raises(DataError, match="the data is gone"):
        _search(Failing(4, 6), studies, strategy="random", trials=50)
    states = {trial.state for study in studies for trial in study.trials}
    assert TrialState.RUNNING not in states
    assert TrialState.FAIL in states
