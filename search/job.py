"""The main job: from a plan to schedules that were searched, confirmed and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pruners.errors import DataError, StudyError
from pruners.files import save_schedule
from pruners.published import dense
from pruners.schedule import Provenance, Schedule, SplitEvidence
from search.baselines import compared_methods, left_out, published_at
from search.display import Display
from search.explaining import closing_lines, few_images, opening_lines
from search.export import (
    is_confirmed,
    now,
    with_evidence,
    write_reported,
    write_samples,
    write_study,
)
from search.interruption import Interruption, SearchInterruptedError
from search.measured_form import measured_share
from search.measuring import Measurements
from search.outcomes import Candidate, SearchOutcome, nothing_found
from search.planning import Plan
from search.searching import search_schedules
from search.selection import Scores, confirm, score_split
from search.settings import SearchSettings
from search.strategies import make_strategy
from search.study_page import write_study_page
from search.trial_progress import showing_trials
from search.workers.pool import WorkerPool
from space.coding import SearchSpace
from space.flops import price
from studies.comparing import compare, split_evidence
from studies.file_names import schedule_file
from studies.identity import SPLITS
from studies.records import seconds_of_search, trial_records
from studies.report import print_report
from studies.results import DENSE, SEARCHED, BudgetResult
from studies.run_limits import write_limits
from studies.storage import StudyFolder

if TYPE_CHECKING:
    import optuna


class Job:
    """Runs a plan in its study's folder.

    Args:
        plan: What to do.
        settings: How to search each budget.
        folder: The study's folder, held by this process.
        display: What the terminal shows.
        interruption: The user's wish to stop.
        command: The command line, for provenance.
        pool: Workers that measure; this process when None.
    """

    def __init__(
        self,
        plan: Plan,
        settings: SearchSettings,
        folder: StudyFolder,
        display: Display,
        interruption: Interruption,
        command: str,
        pool: WorkerPool | None = None,
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._folder = folder
        self._display = display
        self._interruption = interruption
        self._command = command
        self._strategy = make_strategy(settings)
        self._measurements = Measurements(
            plan.evaluator,
            folder.scores,
            check=self._check,
            limits=settings.limits,
            seed=settings.seed,
            pool=pool,
        )
        self._studies: dict[SearchSpace, optuna.Study] = {}
        self._results: list[BudgetResult] = []
        self._missing: list[str] = []
        """Why budgets have no schedule."""

    def run(self) -> None:
        """Search every budget and write all results; stops early when interrupted.

        Raises:
            PrunetuneError: A model or a file fails; what was finished is kept. Or some budgets
                have no schedule when all have been searched, and nobody has interrupted that.
        """
        for line in opening_lines(self._plan):
            self._display.say(line)
        if self._folder.continued:
            self._display.say(f"Continuing the study in {self._folder.path}")
        write_samples(self._plan.evaluator, self._folder.path)
        write_limits(self._folder.path, self._settings.trials, self._settings.timeout)
        for space in self._plan.spaces:  # also of budgets that an interruption leaves out
            self._studies[space] = self._folder.study(str(space.budget))
        try:
            self._score_dense()
            for spaces in self._searched_together():
                self._run_budgets(spaces)
        except SearchInterruptedError:
            self._display.show("Interrupted; the same command continues this study.")
        write_study(self._folder.path, list(self._studies.values()), self._results)
        self._show_results()
        self._show_files()
        if self._missing and self._interruption.signal is None:
            raise StudyError("; ".join(self._missing))

    def _check(self) -> None:
        """Look up from work in progress."""
        self._interruption.check()
        self._folder.keep_alive()

    def _searched_together(self) -> list[tuple[SearchSpace, ...]]:
        """Divide the budgets into those that the strategy searches together."""
        if self._strategy.shares_budgets:
            return [self._plan.spaces]
        return [(space,) for space in self._plan.spaces]

    def _run_budgets(self, spaces: Sequence[SearchSpace]) -> None:
        outcomes = self._search(spaces, [self._studies[space] for space in spaces])
        for space, outcome in zip(spaces, outcomes, strict=True):
            # Kept before anything else: from here on there is always a schedule to use. A continued
            # study may have a confirmed one, which stays until there is another.
            if outcome.incumbent is not None and not is_confirmed(self._schedule_path(space)):
                self._save_unconfirmed(outcome.incumbent, space, outcome)
        if any(outcome.stopped == "interrupted" for outcome in outcomes):
            raise SearchInterruptedError
        for space, outcome in zip(spaces, outcomes, strict=True):
            self._finish_budget(space, outcome)

    def _finish_budget(self, space: SearchSpace, outcome: SearchOutcome) -> None:
        """Confirm, report and save what was found at one budget."""
        if outcome.incumbent is None:
            self._missing.append(nothing_found(space.budget, outcome.stopped))
            return
        winner = self._confirm(outcome)
        if len(winner.samples) < len(self._measurements.samples("search")):
            # What the search saw of the winner made it the winner; the rest of the split did not.
            self._score({SEARCHED: winner.schedule}, "search", "The winner on the search split")
        self._results.append(self._report(winner.schedule, space, outcome))
        evidence = {split: self._evidence(winner.schedule, split) for split in SPLITS}
        self._save(winner.schedule, space, outcome, evidence)

    def _search(
        self, spaces: Sequence[SearchSpace], studies: Sequence[optuna.Study]
    ) -> tuple[SearchOutcome, ...]:
        display, settings = self._display, self._settings
        where = spaces[0].budget.label if len(spaces) == 1 else f"{len(spaces)} budgets"
        total = settings.trials * len(spaces)
        with display.bar(f"Search at {where}", total) as advance:
            outcomes = search_schedules(
                self._measurements,
                spaces,
                settings,
                studies=studies,
                strategy=self._strategy,
                on_trial=showing_trials(advance, len(spaces)),
            )
        for space, outcome in zip(spaces, outcomes, strict=True):
            display.say(f"Search at {space.budget.label}: {outcome.in_words}")
        return outcomes

    def _score_dense(self) -> None:
        """Measure the dense model everywhere, so that splits it fails on end no search later."""
        reference = {DENSE: self._dense()}
        for split in SPLITS:
            scores = self._score(reference, split, f"Dense model, {split} split")
            scores.relative_accuracy(DENSE)  # refuses a task without a right answer

    def _confirm(self, outcome: SearchOutcome) -> Candidate:
        """Choose among the best few on samples that the search never saw."""
        candidates = outcome.candidates[: self._settings.candidates]
        total = len(self._measurements.samples("confirm"))
        with self._display.bar(f"Confirm the best {len(candidates)}", total) as advance:
            return confirm(self._measurements, candidates, advance)

    def _report(self, winner: Schedule, space: SearchSpace, outcome: SearchOutcome) -> BudgetResult:
        """Measure the winner beside dense and the published schedules, on the report split."""
        schedules = {
            SEARCHED: winner,
            DENSE: self._dense(),
            **published_at(space.budget, space.shape, compared_methods(space)),
        }
        scores = self._score(schedules, "report", "Report the winner")
        write_reported(self._measurements, schedules, scores, self._schedule_path(space))
        return compare(
            schedules,
            scores.by_schedule,
            scores.tasks,
            scores.images,
            budget=str(space.budget),
            measured_on=self._plan.evaluator.measured_on,
            trials=outcome.trials,
            evaluations=outcome.evaluations,
            seconds=seconds_of_search(trial_records(self._studies[space])),
            measured_shares={
                name: measured_share(schedule, self._plan.evaluator.shape)
                for name, schedule in schedules.items()
            },
        )

    def _save_unconfirmed(
        self, best: Candidate, space: SearchSpace, outcome: SearchOutcome
    ) -> None:
        """Write the best of a search with what is known of it; nothing is measured for that."""
        try:
            evidence = {"search": self._evidence(best.schedule, "search", best.samples)}
        except DataError:
            evidence = {}  # on so few samples that dense answers nothing right on a task
        warning = "It is the best so far: not yet confirmed."
        self._save(best.schedule, space, outcome, evidence, warning)

    def _save(
        self,
        schedule: Schedule,
        space: SearchSpace,
        outcome: SearchOutcome,
        evidence: Mapping[str, SplitEvidence],
        warning: str = "",
    ) -> None:
        """Write a schedule with what was measured, by split."""
        provenance = Provenance(
            origin="search",
            study=self._folder.path.name,
            seed=self._settings.seed,
            budget=space.budget.describe(space.shape),
            trials=outcome.trials,
            evaluations=outcome.evaluations,
            command=self._command,
            versions=self._folder.identity.versions,
            created=now(),
        )
        complete = with_evidence(
            schedule, self._plan.evaluator, evidence, provenance, warning=warning
        )
        save_schedule(complete, self._schedule_path(space))

    def _schedule_path(self, space: SearchSpace) -> Path:
        return self._folder.path / schedule_file(space.budget, self._plan.budgets)

    def _evidence(
        self, schedule: Schedule, split: str, samples: Sequence[int] | None = None
    ) -> SplitEvidence:
        """Sum up what is known of a schedule on a split, or on some of its samples."""
        schedules = {SEARCHED: schedule, DENSE: self._dense()}
        scores = score_split(self._measurements, schedules, split, indices=samples)
        own, reference = scores.by_schedule[SEARCHED], scores.by_schedule[DENSE]
        return split_evidence(own, reference, scores.tasks, scores.images)

    def _score(self, schedules: Mapping[str, Schedule], split: str, what: str) -> Scores:
        total = len(self._measurements.samples(split))
        with self._display.bar(what, total) as advance:
            return score_split(self._measurements, schedules, split, advance)

    def _dense(self) -> Schedule:
        schedule = dense(self._plan.target)
        return schedule.model_copy(update={"cost": price(schedule, self._plan.target)})

    def _show_results(self) -> None:
        if self._results:
            self._display.table(lambda console: print_report(self._results, console))
            samples = self._measurements.tasks("report"), self._measurements.images("report")
            for note in (few_images(*samples), *map(left_out, self._plan.spaces)):
                if note is not None:
                    self._display.show(note)

    def _show_files(self) -> None:
        page = write_study_page(
            self._folder.path,
            self._plan.evaluator,
            self._plan.spaces,
            storage=self._folder.storage_url,
            ask=self._measurements.ask,
            interrupted=self._interruption.signal is not None,
        )
        files = [self._schedule_path(space) for space in self._plan.spaces]
        written = [file for file in files if file.exists()]
        if written:
            for line in closing_lines(self._plan, written, page):
                self._display.show(line)
