from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.trial import TrialState

from pruners.errors import DataError
from pruners.published import dense
from pruners.schedule import Schedule
from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.interruption import SearchInterruptedError
from search.measuring import Measurements
from search.outcomes import SearchOutcome
from search.search_history import DUPLICATE_ATTRIBUTE, RACED_OUT_ATTRIBUTE
from search.searching import search_schedule
from search.settings import SearchSettings
from space.budgets import Budget
from space.coding import SearchSpace
from space.full_vocabulary import FullVocabulary
from studies.progress import best_trial
from studies.records import ORIGIN_ATTRIBUTE, trial_records
from studies.scores import ScoreCache
from studies.statistics import relative_accuracy

# The tokens that the analytic problem's best schedules need, on the target: 4 x 33.
SPACE = SearchSpace(LLAVA_1_5_7B, Budget("tokens", 136), decoder_stages=3, layer_step=4)

FULL_SPACE = SearchSpace(
    LLAVA_1_5_7B,
    Budget("tokens", 136),
    decoder_stages=3,
    layer_step=4,
    vocabulary=FullVocabulary(),
)


def _search(
    study: optuna.Study | None = None,
    measurements: Measurements | None = None,
    space: SearchSpace = SPACE,
    **settings: object,
) -> SearchOutcome:
    return search_schedule(
        measurements or Measurements(AnalyticEvaluator()),
        space,
        SearchSettings.model_validate({"strategy": "tpe", "block_size": 25, **settings}),
        study=study,
    )


def _study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def _stopping(evaluator: AnalyticEvaluator, after: int) -> Callable[[], None]:
    """A check that interrupts once so many samples have been scored."""

    def check() -> None:
        if evaluator.scored >= after:
            raise SearchInterruptedError

    return check


def _values(study: optuna.Study) -> list[tuple[dict[str, float], float | None]]:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    return [(trial.params, trial.value) for trial in complete]


@pytest.mark.parametrize(("space", "trials"), [(SPACE, 50), (FULL_SPACE, 100)])
def test_search_comes_near_the_known_optimum_and_beats_the_random_baseline(
    space: SearchSpace, trials: int
) -> None:
    evaluator = AnalyticEvaluator()
    found = {"tpe": [], "random": []}
    for strategy, seed in itertools.product(found, range(2)):
        outcome = _search(space=space, strategy=strategy, seed=seed, trials=trials)
        assert outcome.incumbent is not None
        found[strategy].append(evaluator.relative_accuracy(outcome.incumbent.measured))
    assert min(found["tpe"]) > 0.85
    assert sum(found["tpe"]) > sum(found["random"])


def test_all_schedules_meet_the_budget_and_the_value_is_the_measured_one() -> None:
    measurements = Measurements(AnalyticEvaluator())
    outcome = _search(measurements=measurements, trials=15)
    everything = range(500)
    reference = measurements.scores(dense(ANALYTIC_SHAPE), "search", everything)
    for candidate in outcome.candidates:
        assert candidate.schedule.cost is not None
        assert candidate.schedule.cost.mean_visual_tokens <= 136
        scores = measurements.scores(candidate.measured, "search", everything)
        assert candidate.value == relative_accuracy(scores, reference, measurements.tasks("search"))
    values = [candidate.value for candidate in outcome.candidates]
    assert values == sorted(values, reverse=True)


def test_the_first_trials_are_near_published_schedules_but_not_for_the_random_baseline() -> None:
    study = _study()
    _search(study, trials=3)
    origins = [trial.user_attrs.get(ORIGIN_ATTRIBUTE) for trial in study.trials]
    assert origins == ["near visiondrop", "near desap", None]
    random = _study()
    _search(random, trials=3, strategy="random")
    assert not any(ORIGIN_ATTRIBUTE in trial.user_attrs for trial in random.trials)


def test_trials_that_leave_the_race_are_never_candidates_nor_the_best_trial() -> None:
    study = _study()
    outcome = _search(study, trials=40)
    raced_out = [trial for trial in study.trials if RACED_OUT_ATTRIBUTE in trial.user_attrs]
    assert len(raced_out) > 10
    for trial in raced_out:
        assert trial.state is TrialState.COMPLETE
        assert len(trial.intermediate_values) < 20
        assert trial.value is not None
        assert trial.value < study.best_value
    assert outcome.incumbent is not None
    assert outcome.incumbent.trial == study.best_trial.number
    assert not {trial.number for trial in raced_out} & {
        candidate.trial for candidate in outcome.candidates
    }
    assert outcome.evaluations < 0.75 * 40 * 500


@pytest.mark.parametrize("strategy", ["g-search", "tpe-penalty"])
def test_what_is_tried_above_the_budget_is_not_shown_as_the_best_trial(strategy: str) -> None:
    study = _study()
    outcome = _search(study, trials=25, strategy=strategy)
    records = trial_records(study)
    above = {record.number for record in records if (record.mean_visual_tokens or 0) > 136}
    assert above
    assert {record.number for record in records if not record.within_budget} == above
    best = best_trial(records)
    assert best is not None
    assert best.number not in above
    assert best.accuracy == max(each.value for each in outcome.candidates)


def test_duplicates_have_the_value_of_their_twin_and_cost_nothing() -> None:
    # Without decoder stages only 2 numbers are left, and a study meets schedules again.
    space = SearchSpace(LLAVA_1_5_7B, Budget("tokens", 9), decoder_stages=0)
    study, evaluator = _study(), AnalyticEvaluator()
    outcome = _search(study, Measurements(evaluator), space, trials=60)
    duplicates = [trial for trial in study.trials if DUPLICATE_ATTRIBUTE in trial.user_attrs]
    assert len(duplicates) > 5
    for trial in duplicates:
        twin = study.trials[trial.user_attrs[DUPLICATE_ATTRIBUTE]]
        assert DUPLICATE_ATTRIBUTE not in twin.user_attrs
        assert (trial.value, trial.intermediate_values) == (twin.value, twin.intermediate_values)
    assert evaluator.scored == outcome.evaluations + 500  # 500 for dense
    hashes = [candidate.measured.content_hash for candidate in outcome.candidates]
    assert len(hashes) == len(set(hashes))


def test_the_same_seed_gives_the_same_search() -> None:
    studies = [_study(), _study(), _study()]
    for study, seed in zip(studies, (0, 0, 1), strict=True):
        _search(study, trials=20, seed=seed)
    assert _values(studies[0]) == _values(studies[1])
    assert _values(studies[0]) != _values(studies[2])


def test_a_continued_study_proposes_what_it_would_have_without_the_break() -> None:
    whole, broken = _study(), _study()
    _search(whole, trials=25)
    _search(broken, trials=14)
    outcome = _search(broken, trials=25)
    assert _values(broken) == _values(whole)
    assert outcome.trials == 25


def test_interrupting_loses_only_the_trial_in_flight(tmp_path: Path) -> None:
    whole, broken = _study(), _study()
    reference = _search(whole, trials=20)
    evaluator = AnalyticEvaluator()
    with ScoreCache(tmp_path / "scores.db") as cache:
        for after in (300, 700, 1250, 2600, 3300):  # in dense, in published trials, and later
            check = _stopping(evaluator, after)
            outcome = _search(broken, Measurements(evaluator, cache, check), trials=20)
            assert outcome.stopped == "interrupted"
        outcome = _search(broken, Measurements(evaluator, cache), trials=20)
    assert outcome.stopped == "trials"
    assert _values(broken) == _values(whole)
    found = [candidate.schedule for candidate in outcome.candidates]
    assert found == [candidate.schedule for candidate in reference.candidates]
    # Blocks that were scored before the interruption are not scored again.
    assert evaluator.scored == reference.evaluations + 500


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_scores_that_give_no_value_end_a_search_and_its_trial_has_failed() -> None:
    class Boundless(AnalyticEvaluator):
        """Gives scores that no evaluator may give: their means are infinite, of both signs."""

        def score(
            self, schedule: Schedule, split: str, indices: Sequence[int]
        ) -> NDArray[np.float64]:
            scores = super().score(schedule, split, indices)
            samples = self.samples(split)
            signs = [1.0 if samples[each].task == samples[0].task else -1.0 for each in indices]
            return np.array(signs) * 1e308 if schedule.stages else scores

    study = _study()
    with pytest.raises(DataError, match=r"trial 0 at .*136.* no number.*between 0 and 1"):
        _search(study, Measurements(Boundless()), trials=3)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


def test_a_trial_that_was_cut_off_as_it_left_the_race_may_stay_in_it_when_tried_again() -> None:
    study = _study()
    point = {each.name: (each.low + each.high) / 2 for each in SPACE.parameters}
    # As Optuna enqueues it again: with all that had been noted on it.
    study.enqueue_trial(point, user_attrs={RACED_OUT_ATTRIBUTE: True})
    outcome = _search(study, strategy="random", trials=1)
    assert [candidate.trial for candidate in outcome.candidates] == [0]


def test_limits_end_a_search() -> None:
    study = _study()
    assert _search(study, trials=5).stopped == "trials"
    assert _search(study, trials=5).trials == 5
    assert _search(study, trials=100, timeout=1e-6).stopped == "timeout"
    outcome = _search(study, trials=100, evaluations=4000)
    assert outcome.stopped == "evaluations"
    assert 4000 - 25 < outcome.evaluations <= 4000
    assert 5 < outcome.trials < 100


def test_a_study_stored_by_optuna_reads_the_same(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    stored = optuna.create_study(storage=storage, direction="maximize")
    memory = _study()
    _search(stored, trials=13)
    _search(memory, trials=13)
    assert _values(stored) == _values(memory)
