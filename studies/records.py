"""The trials of a study as rows: what was tried, what it cost, what it scored."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, TextIO

from pydantic import TypeAdapter

from pruners.errors import StudyError
from pruners.schedule import Schedule
from studies.files import atomic_path

if TYPE_CHECKING:
    import optuna

ORIGIN_ATTRIBUTE = "origin"
"""User attribute of an enqueued trial: the published schedule it is (``"vispruner"``) or is near to
(``"near visiondrop"``)."""

NEAR = "near "
"""What precedes a method's name in the origin of a trial that is not the method itself."""

SAMPLED = "sampler"
"""Origin of a trial that the sampler proposed."""

ACCURACIES_ATTRIBUTE = "accuracies"
"""User attribute of a trial whose intermediate values are another signal: relative accuracy by
block."""

MEASURED_ATTRIBUTE = "measured_hash"
"""User attribute of a trial: content hash of its schedule as the model measures it."""

BUDGET_ATTRIBUTE = "prunetune:budget"
"""User attribute of an Optuna study: its budget, with its unit."""

_SAMPLES_ATTRIBUTE = "samples"
_WITHIN_BUDGET_ATTRIBUTE = "within_budget"


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: Number within its budget's Optuna study.
        budget: Budget, with its unit.
        state: Optuna's state in lower case: complete, pruned, fail, running or waiting.
        objective: What the strategy compares schedules by, on the samples scored of the search
            split: relative accuracy or another signal's mean. A prediction for the whole split
            where the trial left the race; None without samples.
        accuracy: Relative accuracy on those samples; the objective where that is one.
        samples: Samples of the search split that were scored.
        parameters: The sampler's point by parameter name; choices by the name of the option.
        tflops: Cost on the target, in 10^12 FLOPs, convention `total`; None until priced.
        mean_visual_tokens: Visual tokens alive, averaged over the target's decoder layers.
        layers: Boundaries of the schedule's stages, in the target's layers.
        visual_tokens: Visual tokens of the target alive after each stage.
        content_hash: Hash of the schedule; None until decoded.
        seconds: Wall-clock time from asked to told, 0 if the clock was set back in between; None
            while unfinished.
        origin: ``"sampler"``, or the published schedule that the trial is or, after ``"near "``,
            is near to.
        measured_hash: Hash of the schedule as the model measures it; None until decoded.
        finished: When it was told; None while unfinished.
        blocks: Relative accuracy on each block of samples that its schedule is known on, in the
            order in which all trials score them.
        within_budget: Whether its schedule meets the budget; some strategies measure others on
            their way, such as the dense model.
    """

    number: int
    budget: str
    state: str
    objective: float | None
    accuracy: float | None
    samples: int
    parameters: dict[str, float | str]
    tflops: float | None
    mean_visual_tokens: float | None
    layers: tuple[int, ...]
    visual_tokens: tuple[int, ...]
    content_hash: str | None
    seconds: float | None
    origin: str
    measured_hash: str | None = None
    finished: datetime | None = None
    blocks: tuple[float, ...] = ()
    within_budget: bool = True

    @property
    def may_be_best(self) -> bool:
        """Whether it was scored and meets the budget."""
        return self.accuracy is not None and self.samples > 0 and self.within_budget


_RECORD = TypeAdapter(TrialRecord)


def note_schedule(trial: optuna.Trial, schedule: Schedule, *, within_budget: bool = True) -> None:
    """Keep on a trial which schedule it is; to be called once decoded, before scoring.

    Args:
        trial: The running trial.
        schedule: Its schedule, priced on the target.
        within_budget: Whether it meets the trial's budget.

    Raises:
        StudyError: The schedule has no shape or no cost.
    """
    if schedule.shape is None or schedule.cost is None:
        raise StudyError("a trial's schedule must be priced: its shape or its cost is missing")
    shape = schedule.shape
    counts = schedule.counts(shape.visual_tokens, shape.tokens_per_tile)
    trial.set_user_attr("content_hash", schedule.content_hash)
    trial.set_user_attr("tflops", schedule.cost.tflops)
    trial.set_user_attr("mean_visual_tokens", schedule.cost.mean_visual_tokens)
    trial.set_user_attr("layers", [count.layer for count in counts])
    trial.set_user_attr("visual_tokens", [count.alive for count in counts])
    if not within_budget:
        trial.set_user_attr(_WITHIN_BUDGET_ATTRIBUTE, False)


def note_samples(trial: optuna.Trial, samples: int) -> None:
    """Keep on a trial how many samples it was scored on; to be called when its scoring ends.

    Args:
        trial: The running trial.
        samples: Samples of the search split, those known from earlier trials included.
    """
    trial.set_user_attr(_SAMPLES_ATTRIBUTE, samples)


def trial_records(study: optuna.Study) -> list[TrialRecord]:
    """Read a budget's trials.

    Args:
        study: The Optuna study of one budget, which says of which, or else is named after it.

    Returns:
        One record per trial, by number.
    """
    budget = study.user_attrs.get(BUDGET_ATTRIBUTE, study.study_name)
    return [_record(trial, budget) for trial in study.get_trials(deepcopy=False)]


def seconds_of_search(records: Sequence[TrialRecord]) -> float:
    """Add up the time in which trials were under way, however many at once.

    Args:
        records: Trials.

    Returns:
        Wall-clock seconds. Trials that did not complete do not count: of one that a killed process
        has left, the end is when the study was continued.
    """
    total, reached = timedelta(), datetime.min
    spans = sorted(
        (record.finished - timedelta(seconds=record.seconds), record.finished)
        for record in records
        if record.state == "complete" and record.finished and record.seconds is not None
    )
    for start, end in spans:
        total += max(end, reached) - max(start, reached)
        reached = max(end, reached)
    return total.total_seconds()


def write_trials(records: Sequence[TrialRecord], path: Path) -> None:
    """Write ``trials.csv``: a row per trial, a column per attribute and per parameter.

    Args:
        records: Trials of any number of budgets.
        path: The file to write or replace.

    Raises:
        StudyError: The file cannot be written.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        write_rows(records, file)


def write_rows(records: Sequence[TrialRecord], file: TextIO) -> None:
    """Write the lines of ``trials.csv``.

    Args:
        records: Trials of any number of budgets.
        file: Where to write.
    """
    names = sorted({name for record in records for name in record.parameters})
    columns = [
        "budget", "number", "state", "origin", "objective", "accuracy", "samples", "tflops",
        "mean_visual_tokens", "within_budget", "layers", "visual_tokens", "seconds", "content_hash",
    ]  # fmt: skip
    writer = csv.DictWriter(file, [*columns, *names], lineterminator="\n")
    writer.writeheader()
    for record in records:
        row = {column: getattr(record, column) for column in columns}
        row["layers"] = " ".join(map(str, record.layers))
        row["visual_tokens"] = " ".join(map(str, record.visual_tokens))
        writer.writerow(row | record.parameters)


def _record(trial: optuna.trial.FrozenTrial, budget: str) -> TrialRecord:
    noted = trial.user_attrs
    finished = trial.state.is_finished()
    objective = trial.values[0] if trial.values else None
    accuracies = noted.get(ACCURACIES_ATTRIBUTE)
    reported = trial.intermediate_values
    values = dict(  # noqa: C408
        number=trial.number,
        budget=budget,
        state=trial.state.name.lower(),
        objective=objective,
        accuracy=objective if objective is None or not accuracies else mean(accuracies),
        samples=noted.get(_SAMPLES_ATTRIBUTE, 0) if finished else 0,
        parameters=dict(trial.params),
        tflops=noted.get("tflops"),
        mean_visual_tokens=noted.get("mean_visual_tokens"),
        layers=tuple(noted.get("layers", ())),
        visual_tokens=tuple(noted.get("visual_tokens", ())),
        content_hash=noted.get("content_hash"),
        seconds=max(0.0, trial.duration.total_seconds()) if finished and trial.duration else None,
        origin=noted.get(ORIGIN_ATTRIBUTE, SAMPLED),
        measured_hash=noted.get(MEASURED_ATTRIBUTE),
        finished=trial.datetime_complete,
        blocks=tuple(accuracies or (reported[block] for block in sorted(reported))),
        within_budget=noted.get(_WITHIN_BUDGET_ATTRIBUTE, True),
    )
    return _RECORD.validate_python(values)  # a database may hold anything in a number's place
