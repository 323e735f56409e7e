"""What the search promises to strategies, tried with strategies made for it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from pruners.errors import ScheduleError
from pruners.published import dense
from pruners.schedule import Schedule
from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.interruption import SearchInterruptedError
from search.measuring import Measurements
from search.outcomes import SearchOutcome, TrialReport
from search.racing import has_lost, make_blocks
from search.search_history import (
    DUPLICATE_ATTRIBUTE,
    RACED_OUT_ATTRIBUTE,
    SearchHistory,
)
from search.searching import search_schedule, search_schedules
from search.settings import SearchSettings
from search.strategies.base import (
    Proposal,
    SearchState,
    Signal,
    Strategy,
    Tried,
    blocks_holding,
)
from space.budgets import Budget
from space.coding import SearchSpace
from studies.records import MEASURED_ATTRIBUTE, trial_records
from studies.scores import ScoreCache

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
            return Proposal(_point(state.space, len(state.tried)), 1, f"start {len(state.tried)}")
        for blocks, kept in ((4, 4), (len(state.block_sizes), 2)):
            for tried in sorted(state.tried, key=lambda each: -each.signals[0])[:kept]:
                if tried.blocks < blocks:
                    return Proposal(tried.point, blocks)
        return None


class Shared(Ladder):
    """The same, several budgets at once."""

    shares_budgets = True


class Given(Strategy):
    """Proposes what it is told."""

    name = "given"

    def __init__(self, proposals: Sequence[Proposal], *, races: bool = False) -> None:
        self.proposals = proposals
        self.races = races

    def propose(self, state: SearchState) -> Proposal | None:
        return self.proposals[state.trials] if state.trials < len(self.proposals) else None


def _point(space: SearchSpace, number: int) -> dict[str, float]:
    generator = np.random.default_rng(number)
    return {each.name: float(generator.uniform(each.low, each.high)) for each in space.parameters}


def _study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def _search(
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


def _block_figures(schedule: Schedule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _same(one: Tried, other: Tried) -> bool:
    arrays = ("accuracies", "signals")
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    ) and _without_arrays(one) == _without_arrays(other)


def _without_arrays(tried: Tried) -> Tried:
    return replace(tried, accuracies=(), signals=())  # type: ignore[arg-type]


def test_a_schedule_is_measured_further_where_it_has_ended() -> None:
    evaluator, study, strategy = AnalyticEvaluator(), _study(), Ladder()
    measurements = Measurements(evaluator)
    outcome = _search(strategy, measurements, study)
    assert outcome.stopped == "converged"
    assert [tried.blocks for tried in strategy.states[-1].tried].count(1) == 4
    assert outcome.evaluations == (8 * 1 + 4 * 3 + 2 * 16) * BLOCK
    assert evaluator.scored == outcome.evaluations + 500  # and dense
    assert outcome.trials == 14
    assert len({tried.measured for tried in strategy.states[-1].tried}) == 8
    for tried in strategy.states[-1].tried:
        measured = measurements.measured_form(SPACE.decode(tried.point))
        assert measured.content_hash == tried.measured
        accuracies = _block_figures(measured)[0][: tried.blocks]
        assert tried.accuracies == pytest.approx(accuracies)
        assert tried.signals.tolist() == tried.accuracies.tolist()
        assert tried.value == pytest.approx(accuracies.mean())
    origins = [trial.user_attrs.get("origin") for trial in study.trials]
    assert origins == [f"start {number}" for number in range(8)] + [None] * 6
    assert [record.samples for record in trial_records(study)] == [25] * 8 + [100] * 4 + [500] * 2


@pytest.mark.parametrize(("signal", "place"), [("answer-probability", 1), ("hidden-agreement", 2)])
def test_signals_are_means_of_the_probes_beside_the_accuracies(signal: Signal, place: int) -> None:
    strategy, study = Ladder(signal), _study()
    measurements = Measurements(AnalyticEvaluator())
    outcome = _search(strategy, measurements, study)
    for tried in strategy.states[-1].tried:
        figures = _block_figures(measurements.measured_form(SPACE.decode(tried.point)))
        assert tried.accuracies == pytest.approx(figures[0][: tried.blocks])
        assert tried.signals == pytest.approx(figures[place][: tried.blocks])
        assert tried.value == pytest.approx(tried.signals.mean())
    best = outcome.candidates[0]
    assert best.value == pytest.approx(_block_figures(best.measured)[0].mean())
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
    _search(plain)
    _search(fallen_back, Measurements(_ScoresOnly()))
    for one, other in zip(plain.states[-1].tried, fallen_back.states[-1].tried, strict=True):
        assert _same(one, other)


@pytest.mark.parametrize("signal", ["accuracy", "answer-probability"])
def test_the_state_is_read_from_the_stored_study_alone(signal: Signal, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=storage, study_name="one", direction="maximize")
    strategy, measurements = Ladder(signal), Measurements(AnalyticEvaluator())
    outcome = _search(strategy, measurements, study)
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
    whole, broken = _study(), _study()
    _search(Ladder("answer-probability"), study=whole)
    evaluator = AnalyticEvaluator()
    with ScoreCache(tmp_path / "scores.db") as cache:
        for after in (510, 640, 830, 1150):  # on every rung

            def check(after: int = after) -> None:
                if evaluator.scored >= after:
                    raise SearchInterruptedError

            outcome = _search(
                Ladder("answer-probability"), Measurements(evaluator, cache, check), broken
            )
            assert outcome.stopped == "interrupted"
        outcome = _search(Ladder("answer-probability"), Measurements(evaluator, cache), broken)
    assert outcome.stopped == "converged"
    assert evaluator.scored == outcome.evaluations + 500

    def told(study: optuna.Study) -> list[object]:
        complete = study.get_trials(states=(TrialState.COMPLETE,))
        return [(each.params, each.value, each.intermediate_values) for each in complete]

    assert told(broken) == told(whole)


def test_a_trial_that_a_killed_process_left_waiting_keeps_its_blocks() -> None:
    study = _study()
    # As studies.storage enqueues what was running, with its attributes.
    study.enqueue_trial(_point(SPACE, 3), user_attrs={"blocks": 2, "origin": "before"})
    _search(
        Given([Proposal(_point(SPACE, 3), 2, "before"), Proposal(_point(SPACE, 4), 3)]), study=study
    )
    blocks = [len(trial.intermediate_values) for trial in study.trials]
    assert blocks == [2, 3]
    assert study.trials[0].user_attrs["origin"] == "before"


@pytest.mark.parametrize("evaluations", [1, 24, 25, 260, 499, 500, 680, 999, 1000, 1300, 1325])
def test_no_sample_is_scored_beyond_the_limit(evaluations: int) -> None:
    evaluator = AnalyticEvaluator()
    outcome = _search(Ladder(), Measurements(evaluator), evaluations=evaluations)
    assert outcome.evaluations == min(evaluations // BLOCK, 52) * BLOCK
    assert evaluator.scored == outcome.evaluations + 500
    assert outcome.stopped == ("evaluations" if evaluations <= 1300 else "converged")
    assert (outcome.incumbent is None) == (evaluations < BLOCK)


def test_what_the_last_samples_were_spent_on_is_kept_and_can_be_continued() -> None:
    study = _study()
    proposal = [Proposal(_point(SPACE, 0), BLOCKS)]
    outcome = _search(Given(proposal), study=study, evaluations=260)
    assert outcome.stopped == "evaluations"
    (candidate,) = outcome.candidates
    blocks = make_blocks([key.task for key in AnalyticEvaluator().samples("search")], BLOCK, 0)
    assert list(candidate.samples) == sorted(itertools.chain(*blocks[:10]))
    assert candidate.value == pytest.approx(_block_figures(candidate.measured)[0][:10].mean())

    outcome = _search(Given(proposal * 2), study=study, evaluations=500)
    assert outcome.evaluations == 500
    assert [len(trial.intermediate_values) for trial in study.trials] == [10, 20]
    assert outcome.candidates[0].samples == tuple(range(500))


def test_what_is_known_already_costs_nothing() -> None:
    evaluator, study = AnalyticEvaluator(), _study()
    proposals = [Proposal(_point(SPACE, 0), blocks) for blocks in (3, 2, 3, 4)]
    outcome = _search(Given(proposals), Measurements(evaluator), study)
    assert outcome.evaluations == 4 * BLOCK == evaluator.scored - 500
    duplicates = [trial.user_attrs.get(DUPLICATE_ATTRIBUTE) for trial in study.trials]
    assert duplicates == [None, 0, 0, None]
    assert [len(trial.intermediate_values) for trial in study.trials] == [3, 3, 3, 4]
    assert study.trials[1].value == study.trials[0].value
    assert len(outcome.candidates) == 1


def test_what_left_the_race_is_not_measured_further() -> None:
    good, bad = _best_and_worst()
    study = _study()
    proposals = [Proposal(good, BLOCKS), Proposal(bad, BLOCKS), Proposal(bad, BLOCKS)]
    outcome = _search(Given(proposals, races=True), study=study)
    raced = [RACED_OUT_ATTRIBUTE in trial.user_attrs for trial in study.trials]
    assert raced == [False, True, True]
    assert study.trials[2].user_attrs[DUPLICATE_ATTRIBUTE] == 1
    assert 5 <= len(study.trials[1].intermediate_values) < BLOCKS
    assert [candidate.trial for candidate in outcome.candidates] == [0]
    unraced = _study()
    _search(Given(proposals), study=unraced)
    assert [len(trial.intermediate_values) for trial in unraced.trials] == [BLOCKS] * 3


def test_a_trial_that_would_lose_with_its_last_block_has_its_own_value() -> None:
    study = _study()
    proposals = [Proposal(point, 5) for point in _best_and_worst()]
    _search(Given(proposals, races=True), study=study)
    best, worst = ([*trial.intermediate_values.values()] for trial in study.trials)
    assert has_lost(worst, dict(enumerate(best)))
    assert RACED_OUT_ATTRIBUTE not in study.trials[1].user_attrs
    assert study.trials[1].value == pytest.approx(np.mean(worst))


def _best_and_worst() -> tuple[dict[str, float], dict[str, float]]:
    evaluator = AnalyticEvaluator()
    measurements = Measurements(evaluator)
    points = [_point(SPACE, number) for number in range(30)]
    points.sort(
        key=lambda point: evaluator.relative_accuracy(
            measurements.measured_form(SPACE.decode(point))
        )
    )
    return points[-1], points[0]


class _Roomy(Ladder):
    """Searches twice the budget, so that some of what it tries may not be exported."""

    def space(self, space: SearchSpace) -> SearchSpace:
        return SearchSpace(space.shape, Budget("tokens", 272), 1, 4)


def test_what_is_above_the_budget_is_no_candidate() -> None:
    strategy = _Roomy()
    outcome = _search(strategy)
    assert outcome.candidates == ()
    assert outcome.incumbent is None
    assert not any(tried.within_budget for tried in strategy.states[-1].tried)
    generous = SearchSpace(LLAVA_1_5_7B, Budget("tokens", 300), 1, 4)
    assert _search(_Roomy(), space=generous).incumbent is not None


def test_budgets_that_are_shared_are_searched_in_turn_and_see_each_other() -> None:
    spaces = [SearchSpace(LLAVA_1_5_7B, Budget("tokens", limit), 1, 4) for limit in (136, 80, 200)]
    reports: list[TrialReport] = []
    studies = [_study() for _ in spaces]
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


def test_a_proposal_that_is_no_point_of_the_space_is_refused() -> None:
    study = _study()
    with pytest.raises(ScheduleError, match="boundary_1 is 2"):
        _search(Given([Proposal(_point(SPACE, 0) | {"boundary_1": 2.0}, 1)]), study=study)
    assert study.trials == []


@pytest.mark.parametrize(
    ("samples", "blocks"), [(None, 4), (1, 1), (25, 1), (37, 1), (38, 2), (100, 4), (1000, 4)]
)
def test_samples_are_rounded_to_whole_blocks(samples: int | None, blocks: int) -> None:
    assert blocks_holding(samples, (25, 25, 25, 24)) == blocks
