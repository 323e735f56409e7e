"""What strategies see: schedules measured further, signals, the state read from the study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search.analytic import AnalyticEvaluator
from search.interruption import SearchInterruptedError
from search.measuring import Measurements
from search.search_history import SearchHistory
from search.strategies.base import Proposal, Signal, Tried
from studies.records import MEASURED_ATTRIBUTE, trial_records
from studies.scores import ScoreCache
from tests.search.strategy_contract.made import (
    BLOCK,
    BLOCKS,
    SPACE,
    Given,
    Ladder,
    block_figures,
    new_study,
    point_of,
    search_with,
)


def _same(one: Tried, other: Tried) -> bool:
    arrays = ("accuracies", "signals")
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    ) and _without_arrays(one) == _without_arrays(other)


def _without_arrays(tried: Tried) -> Tried:
    return replace(tried, accuracies=(), signals=())  # type: ignore[arg-type]


def test_a_schedule_is_measured_further_where_it_has_ended() -> None:
    evaluator, study, strategy = AnalyticEvaluator(), new_study(), Ladder()
    measurements = Measurements(evaluator)
    outcome = search_with(strategy, measurements, study)
    assert outcome.stopped == "converged"
    assert [tried.blocks for tried in strategy.states[-1].tried].count(1) == 4
    assert outcome.evaluations == (8 * 1 + 4 * 3 + 2 * 16) * BLOCK
    assert evaluator.scored == outcome.evaluations + 500  # and dense
    assert outcome.trials == 14
    assert len({tried.measured for tried in strategy.states[-1].tried}) == 8
    for tried in strategy.states[-1].tried:
        measured = measurements.measured_form(SPACE.decode(tried.point))
        assert measured.content_hash == tried.measured
        accuracies = block_figures(measured)[0][: tried.blocks]
        assert tried.accuracies == pytest.approx(accuracies)
        assert tried.signals.tolist() == tried.accuracies.tolist()
        assert tried.value == pytest.approx(accuracies.mean())
    origins = [trial.user_attrs.get("origin") for trial in study.trials]
    assert origins == [f"start {number}" for number in range(8)] + [None] * 6
    assert [record.samples for record in trial_records(study)] == [25] * 8 + [100] * 4 + [500] * 2


@pytest.mark.parametrize(("signal", "place"), [("answer-probability", 1), ("hidden-agreement", 2)])
def test_signals_are_means_of_the_probes_beside_the_accuracies(signal: Signal, place: int) -> None:
    strategy, study = Ladder(signal), new_study()
    measurements = Measurements(AnalyticEvaluator())
    outcome = search_with(strategy, measurements, study)
    for tried in strategy.states[-1].tried:
        figures = block_figures(measurements.measured_form(SPACE.decode(tried.point)))
        assert tried.accuracies == pytest.approx(figures[0][: tried.blocks])
        assert tried.signals == pytest.approx(figures[place][: tried.blocks])
        assert tried.value == pytest.approx(tried.signals.mean())
    best = outcome.candidates[0]
    assert best.value == pytest.approx(block_figures(best.measured)[0].mean())
    (last,) = (tried for tried in strategy.states[-1].tried if tried.measured == _hash(study))
    assert list(study.trials[-1].intermediate_values.values()) == last.signals.tolist()


def _hash(study: optuna.Study) -> str:
    """Hash of what the last trial measured."""
    return str(study.trials[-1].user_attrs[MEASURED_ATTRIBUTE])


class _ScoresOnly:
    """An evaluator without probes, as those of real benchmarks are."""

    def __init__(self) -> None:
        evaluator = AnalyticEvaluator()
        self.name, self.measured_on = evaluator.name, evaluator.measured_on
        self.shape, self.fingerprint = evaluator.shape, evaluator.fingerprint
        self.samples, self.score = evaluator.samples, evaluator.score
        self.split_fingerprint = evaluator.split_fingerprint


def test_without_probes_accuracy_takes_the_signals_place() -> None:
    plain, fallen_back = Ladder(), Ladder("answer-probability")
    search_with(plain)
    search_with(fallen_back, Measurements(_ScoresOnly()))
    for one, other in zip(plain.states[-1].tried, fallen_back.states[-1].tried, strict=True):
        assert _same(one, other)


@pytest.mark.parametrize("signal", ["accuracy", "answer-probability"])
def test_the_state_is_read_from_the_stored_study_alone(signal: Signal, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=storage, study_name="one", direction="maximize")
    strategy, measurements = Ladder(signal), Measurements(AnalyticEvaluator())
    outcome = search_with(strategy, measurements, study)
    read = SearchHistory(
        optuna.load_study(study_name="one", storage=storage),
        SPACE,
        SPACE.budget,
        (BLOCK,) * BLOCKS,
        measurements.measured_form,
    )
    live, again = strategy.states[-1], read.state(0, None)
    assert (again.trials, again.samples) == (outcome.trials, outcome.evaluations)
    assert (again.trials, again.samples) == (live.trials, live.samples)
    for one, other in zip(live.tried, again.tried, strict=True):
        assert _same(one, other)


def test_an_interrupted_search_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, broken = new_study(), new_study()
    search_with(Ladder("answer-probability"), study=whole)
    evaluator = AnalyticEvaluator()
    with ScoreCache(tmp_path / "scores.db") as cache:
        for after in (510, 640, 830, 1150):  # on every rung

            def check(after: int = after) -> None:
                if evaluator.scored >= after:
                    raise SearchInterruptedError

            outcome = search_with(
                Ladder("answer-probability"), Measurements(evaluator, cache, check), broken
            )
            assert outcome.stopped == "interrupted"
        outcome = search_with(Ladder("answer-probability"), Measurements(evaluator, cache), broken)
    assert outcome.stopped == "converged"
    assert evaluator.scored == outcome.evaluations + 500

    def told(study: optuna.Study) -> list[object]:
        complete = study.get_trials(states=(TrialState.COMPLETE,))
        return [(each.params, each.value, each.intermediate_values) for each in complete]

    assert told(broken) == told(whole)


def test_a_trial_that_a_killed_process_left_waiting_keeps_its_blocks() -> None:
    study = new_study()
    # As studies.storage enqueues what was running, with its attributes.
    study.enqueue_trial(point_of(SPACE, 3), user_attrs={"blocks": 2, "origin": "before"})
    search_with(
        Given([Proposal(point_of(SPACE, 3), 2, "before"), Proposal(point_of(SPACE, 4), 3)]),
        study=study,
    )
    blocks = [len(trial.intermediate_values) for trial in study.trials]
    assert blocks == [2, 3]
    assert study.trials[0].user_attrs["origin"] == "before"
