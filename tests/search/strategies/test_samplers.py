from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from pruners.errors import SettingsError
from pruners.shape import LLAVA_1_5_7B
from search.analytic import AnalyticEvaluator
from search.interruption import SearchInterruptedError
from search.measuring import Measurements
from search.searching import search_schedule
from search.settings import SearchSettings
from search.strategies import STRATEGIES, make_strategy
from search.strategies.samplers import SamplerStrategy
from space.budgets import Budget
from space.coding import SearchSpace
from space.full_vocabulary import FullVocabulary
from studies.records import ORIGIN_ATTRIBUTE
from studies.scores import ScoreCache

SPACE = SearchSpace(LLAVA_1_5_7B, Budget("tokens", 136), decoder_stages=2, layer_step=4)
SAMPLERS = [
    name
    for name in STRATEGIES
    if isinstance(make_strategy(SearchSettings(strategy=name)), SamplerStrategy)
]
UNRACED = ["gp", "cmaes", "nsga2"]


def _search(
    name: str, study: optuna.Study, measurements: Measurements | None = None, **more: object
):
    settings = {"strategy": name, "block_size": 25, "published_first": False, **more}
    return search_schedule(
        measurements or Measurements(AnalyticEvaluator()),
        SPACE,
        SearchSettings.model_validate(settings),
        study=study,
    )


def _told(study: optuna.Study) -> list[tuple[dict[str, float], float | None]]:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    return [(trial.params, trial.value) for trial in complete]


def _study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


@pytest.mark.parametrize("name", UNRACED)
def test_every_trial_is_measured_on_the_same_number_of_samples(name: str) -> None:
    study = _study()
    outcome = _search(name, study, trials=13, samples_per_trial=90)
    assert {len(trial.intermediate_values) for trial in study.trials} == {4}
    assert outcome.evaluations == 100 * len(outcome.candidates)
    assert {len(candidate.samples) for candidate in outcome.candidates} == {100}
    values = [candidate.value for candidate in outcome.candidates]
    assert values == sorted(values, reverse=True)
    whole = _search(name, _study(), trials=2)
    assert {len(candidate.samples) for candidate in whole.candidates} == {500}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_continued_study_proposes_what_it_would_have(name: str, tmp_path: Path) -> None:
    whole, other = _study(), _study()
    _search(name, whole, trials=14, samples_per_trial=50)
    broken = optuna.create_study(storage=f"sqlite:///{tmp_path / 'a.db'}", direction="maximize")
    _search(name, broken, trials=12, samples_per_trial=50)
    _search(name, broken, trials=14, samples_per_trial=50)
    assert _told(broken) == _told(whole)
    _search(name, other, trials=14, samples_per_trial=50, seed=1)
    assert _told(other) != _told(whole)


# The random numbers of CMA-ES depend on the numbers of trials, failed ones included.
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "cmaes"])
def test_an_interruption_changes_no_proposal(name: str, tmp_path: Path) -> None:
    whole, broken, evaluator = _study(), _study(), AnalyticEvaluator()
    _search(name, whole, trials=14, samples_per_trial=50)

    def check() -> None:
        if evaluator.scored >= 500 + 12 * 50 + 25:
            raise SearchInterruptedError

    with ScoreCache(tmp_path / "scores.db") as cache:
        measurements = Measurements(evaluator, cache, check)
        outcome = _search(name, broken, measurements, trials=14, samples_per_trial=50)
        assert outcome.stopped == "interrupted"
        _search(name, broken, Measurements(evaluator, cache), trials=14, samples_per_trial=50)
    assert _told(broken) == _told(whole)


def test_gaussian_process_beats_random_search_where_both_see_as_much() -> None:
    evaluator = AnalyticEvaluator()
    found = {"gp": 0.0, "random": 0.0}
    for name in found:
        for seed in range(2):
            outcome = _search(name, _study(), trials=25, samples_per_trial=100, seed=seed)
            assert outcome.incumbent is not None
            found[name] += evaluator.relative_accuracy(outcome.incumbent.measured)
    assert found["gp"] > found["random"]


def test_any_of_them_can_begin_with_the_published_schedules() -> None:
    study = _study()
    _search("gp", study, trials=3, published_first=True)
    origins = [trial.user_attrs.get(ORIGIN_ATTRIBUTE) for trial in study.trials]
    assert origins == ["near visiondrop", "near desap", None]


def test_cmaes_refuses_choices_among_names() -> None:
    full = SearchSpace(
        LLAVA_1_5_7B, Budget("tokens", 136), layer_step=4, vocabulary=FullVocabulary()
    )
    with pytest.raises(SettingsError, match=r"cmaes .*full space .*positions.*mission space"):
        make_strategy(SearchSettings(strategy="cmaes")).space(full)


def test_cmaes_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.strategies.samplers.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install cmaes"):
        make_strategy(SearchSettings(strategy="cmaes"))


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_known_by_its_name_and_described(name: str) -> None:
    strategy = make_strategy(SearchSettings(strategy=name))
    assert strategy.name == name
    assert strategy.identity()["sampler"] == name
    assert STRATEGIES[name].description


def test_an_unknown_strategy_is_refused_by_naming_all() -> None:
    with pytest.raises(ValueError, match=f"expected one of {', '.join(STRATEGIES)}"):
        SearchSettings(strategy="best")
