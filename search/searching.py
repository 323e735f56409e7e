"""The search of one budget: an Optuna study whose trials are raced over blocks of samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pruners.errors import DataError
from pruners.published import dense
from pruners.schedule import Schedule
from search.first_trials import first_points
from search.interruption import SearchInterruptedError
from search.measuring import Measurements, as_measured
from search.outcomes import Candidate, SearchOutcome, Stopped, TrialReport
from search.racing import block_accuracy, has_lost, make_blocks, predicted_value
from search.settings import SearchSettings
from search.strategies import make_sampler
from space.coding import SearchSpace
from space.parameters import Dimension, Parameter, Value
from studies.records import ORIGIN_ATTRIBUTE, note_samples, note_schedule
from studies.statistics import relative_accuracy, task_accuracies

if TYPE_CHECKING:
    import optuna

MEASURED_ATTRIBUTE = "measured_hash"
"""User attribute of a trial: content hash of its schedule as the model measures it."""

RACED_OUT_ATTRIBUTE = "raced_out"
"""User attribute of a trial that left the race; its value is a prediction."""

DUPLICATE_ATTRIBUTE = "duplicate_of"
"""User attribute of a trial that behaves as an earlier one: the number of that trial."""


def search_schedule(
    measurements: Measurements,
    space: SearchSpace,
    settings: SearchSettings,
    *,
    study: optuna.Study | None = None,
    on_trial: Callable[[TrialReport], None] = lambda report: None,
) -> SearchOutcome:
    """Search the schedule of one budget with the highest relative accuracy on the search split.

    Args:
        measurements: Scores of the measured model; what they already know costs nothing.
        space: The schedules to search, all of which meet the budget.
        settings: How to search.
        study: The study to continue; a new one in memory when None. Its sampler is set here.
        on_trial: Called after every trial.

    Returns:
        The schedules found; when `measurements` raises `SearchInterruptedError`, those found until
        then.

    Raises:
        DataError: The dense model scores 0 on a task, so that nothing is relative to it.
        PrunetuneError: The evaluator fails.
    """
    started = time.monotonic()
    if study is None:
        study = _study_in_memory()
    race = _Race(measurements, space, settings)
    first = first_points(space) if settings.starts_with_published else {}

    def stop_reason() -> Stopped | None:
        if len(race.finished) >= settings.trials:
            return "trials"
        if settings.timeout is not None and time.monotonic() - started >= settings.timeout:
            return "timeout"
        if settings.evaluations is not None and race.evaluations >= settings.evaluations:
            return "evaluations"
        return None

    race.load(study)
    try:
        race.score_dense()
        while (stopped := stop_reason()) is None:
            _enqueue_next(study, first, race.finished)
            study.sampler = make_sampler(settings.strategy, settings.seed, len(race.finished))
            on_trial(race.run_trial(study))
    except SearchInterruptedError:
        stopped = "interrupted"
    return SearchOutcome(
        candidates=race.candidates(),
        trials=len(race.finished),
        evaluations=race.evaluations,
        seconds=time.monotonic() - started,
        stopped=stopped,
    )


class _Race:
    """Runs the trials of one budget and knows those that have finished."""

    def __init__(
        self, measurements: Measurements, space: SearchSpace, settings: SearchSettings
    ) -> None:
        self._measurements = measurements
        self._space = space
        self._tasks = np.array(measurements.tasks("search"))
        self._blocks = make_blocks(self._tasks.tolist(), settings.block_size, settings.seed)
        self._dense_scores = np.empty(0)
        self._dense_accuracies: dict[str, float] = {}
        self.finished: list[optuna.trial.FrozenTrial] = []

    def load(self, study: optuna.Study) -> None:
        """Take over the trials that the study has finished."""
        from optuna.trial import TrialState

        self.finished = list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    @property
    def evaluations(self) -> int:
        """Samples scored by finished trials; duplicates cost none."""
        return sum(
            len(block)
            for trial in self.finished
            if DUPLICATE_ATTRIBUTE not in trial.user_attrs
            for block in self._blocks[: len(trial.intermediate_values)]
        )

    def score_dense(self) -> None:
        """Score the model without pruning, to which everything is relative."""
        schedule = dense(self._measurements.evaluator.shape)
        scores = np.empty(len(self._tasks))
        for block in self._blocks:
            scores[block] = self._measurements.scores(schedule, "search", block)
        self._dense_scores = scores
        self._dense_accuracies = task_accuracies(scores, self._tasks.tolist())
        failed = [task for task, accuracy in self._dense_accuracies.items() if accuracy <= 0]
        if failed:
            raise DataError(
                f"the dense model answers nothing right on {', '.join(failed)}, so that no "
                "schedule can be rated there; use another model or other tasks"
            )

    def run_trial(self, study: optuna.Study) -> TrialReport:
        """Propose a schedule, score it, and keep the result in the study."""
        from optuna.trial import TrialState

        trial = study.ask()
        try:
            value = self._score_trial(trial)
        except BaseException:
            # Its place in the study stays free: the next run proposes the same schedule again.
            study.tell(trial, state=TrialState.FAIL)
            raise
        frozen = study.tell(trial, value)
        self.finished.append(frozen)
        return TrialReport(
            finished=len(self.finished),
            value=value,
            best=max(map(_value, self.finished)),
            distinct=sum(DUPLICATE_ATTRIBUTE not in trial.user_attrs for trial in self.finished),
            samples=self._samples(len(frozen.intermediate_values)),
            raced_out=RACED_OUT_ATTRIBUTE in frozen.user_attrs,
            duplicate=DUPLICATE_ATTRIBUTE in frozen.user_attrs,
        )

    def candidates(self) -> tuple[Candidate, ...]:
        """Schedules that were scored on every sample, best first; equals in order of trial."""
        complete = [
            trial
            for trial in self.finished
            if not {RACED_OUT_ATTRIBUTE, DUPLICATE_ATTRIBUTE} & trial.user_attrs.keys()
        ]
        complete.sort(key=lambda trial: (-_value(trial), trial.number))
        return tuple(self._candidate(trial) for trial in complete)

    def _candidate(self, trial: optuna.trial.FrozenTrial) -> Candidate:
        schedule = self._space.decode(trial.params)
        measured = as_measured(schedule, self._measurements.evaluator.shape)
        return Candidate(schedule, measured, _value(trial), trial.number)

    def _score_trial(self, trial: optuna.Trial) -> float:
        point = {dimension.name: _suggest(trial, dimension) for dimension in self._space.parameters}
        schedule = self._space.decode(point)
        measured = as_measured(schedule, self._measurements.evaluator.shape)
        note_schedule(trial, schedule)
        trial.set_user_attr(MEASURED_ATTRIBUTE, measured.content_hash)
        twin = self._twin(measured)
        if twin is not None:
            return self._repeat(trial, twin)
        scores = np.empty(len(self._tasks))
        values: list[float] = []
        best = self._best()
        for number, block in enumerate(self._blocks[:-1]):
            scores[block] = self._measurements.scores(measured, "search", block)
            values.append(self._report_block(trial, number, scores))
            if best is not None and has_lost(values, best.intermediate_values):
                note_samples(trial, self._samples(len(values)))
                trial.set_user_attr(RACED_OUT_ATTRIBUTE, True)
                # Returned, not raised as TrialPruned: Optuna would then take the last block's
                # accuracy for the trial's value.
                return predicted_value(values, best.intermediate_values, _value(best))
        last = len(self._blocks) - 1
        scores[self._blocks[last]] = self._measurements.scores(
            measured, "search", self._blocks[last]
        )
        self._report_block(trial, last, scores)
        note_samples(trial, len(scores))
        return relative_accuracy(scores, self._dense_scores, self._tasks.tolist())

    def _best(self) -> optuna.trial.FrozenTrial | None:
        """The finished trial with the highest value, None before the first."""
        return max(self.finished, key=_value, default=None)

    def _twin(self, measured: Schedule) -> optuna.trial.FrozenTrial | None:
        """The finished trial that behaves as this schedule, if there is one."""
        measured_hash = measured.content_hash
        for trial in self.finished:
            attributes = trial.user_attrs
            if (
                attributes.get(MEASURED_ATTRIBUTE) == measured_hash
                and DUPLICATE_ATTRIBUTE not in attributes
            ):
                return trial
        return None

    def _repeat(self, trial: optuna.Trial, twin: optuna.trial.FrozenTrial) -> float:
        """Give a duplicate what its twin has, at no cost."""
        # Optuna may call either of them its best trial, and races others against its blocks.
        for block, value in twin.intermediate_values.items():
            trial.report(value, block)
        note_samples(trial, self._samples(len(twin.intermediate_values)))
        trial.set_user_attr(DUPLICATE_ATTRIBUTE, twin.number)
        if RACED_OUT_ATTRIBUTE in twin.user_attrs:
            trial.set_user_attr(RACED_OUT_ATTRIBUTE, True)
        return _value(twin)

    def _report_block(self, trial: optuna.Trial, number: int, scores: NDArray[np.float64]) -> float:
        block = self._blocks[number]
        value = block_accuracy(scores[block], self._tasks[block].tolist(), self._dense_accuracies)
        trial.report(value, number)
        return value

    def _samples(self, blocks: int) -> int:
        return sum(len(block) for block in self._blocks[:blocks])


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Value:
    """Let the sampler propose a value."""
    if isinstance(dimension, Parameter):
        return trial.suggest_float(dimension.name, dimension.low, dimension.high)
    return trial.suggest_categorical(dimension.name, dimension.options)


def _value(trial: optuna.trial.FrozenTrial) -> float:
    value = trial.value
    assert value is not None  # complete trials have one
    return value


def _study_in_memory() -> optuna.Study:
    import optuna

    return optuna.create_study(direction="maximize")


def _enqueue_next(
    study: optuna.Study,
    first: Mapping[str, dict[str, Value]],
    finished: Sequence[optuna.trial.FrozenTrial],
) -> None:
    """Put the next of the points that a study begins with at its head, if one is missing.

    One at a time: after an interruption the others would otherwise be tried before it.
    """
    from optuna.trial import TrialState

    done = {trial.user_attrs.get(ORIGIN_ATTRIBUTE) for trial in finished}
    missing = [name for name in first if name not in done]
    if missing and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        name = missing[0]
        study.enqueue_trial(first[name], user_attrs={ORIGIN_ATTRIBUTE: name})
