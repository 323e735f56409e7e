"""What a search knows, read from nothing but the Optuna study that keeps its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pruners.schedule import Schedule
from search.strategies.base import InFlight, SearchState, Tried
from space.budgets import Budget
from space.coding import SearchSpace
from space.parameters import Value
from studies.records import ACCURACIES_ATTRIBUTE, MEASURED_ATTRIBUTE

if TYPE_CHECKING:
    import optuna

RACED_OUT_ATTRIBUTE = "raced_out"
"""User attribute, true of a trial that left the race; its value is a prediction."""

DUPLICATE_ATTRIBUTE = "duplicate_of"
"""User attribute of a trial that measured nothing: the number of the one that had before."""

KNOWN_BLOCKS_ATTRIBUTE = "known_blocks"
"""User attribute of a trial that went on where earlier ones had ended: blocks known before it."""

BLOCKS_ATTRIBUTE = "blocks"
"""User attribute of a trial that was proposed as such: on how many blocks it shall be known."""


class SearchHistory:
    """The finished trials of one budget, and what they say of schedules.

    Args:
        study: The budget's Optuna study.
        space: The space that its points are of.
        budget: The budget that exported schedules must meet.
        block_sizes: Samples of each block of the search split.
        measured_form: Tells what is measured in a schedule's place.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        budget: Budget,
        block_sizes: tuple[int, ...],
        measured_form: Callable[[Schedule], Schedule],
    ) -> None:
        self.study = study
        self.space = space
        self.budget = budget
        self.evaluations = 0
        """Samples scored by finished trials; what was known before a trial costs it nothing."""
        self._block_sizes = block_sizes
        self._measured_form = measured_form
        self._seen: set[int] = set()
        self._decoded: dict[frozenset[tuple[str, Value]], Schedule] = {}
        self._tried: dict[str, Tried] = {}
        self.refresh()

    @property
    def trials(self) -> int:
        """How many trials have finished."""
        return len(self._seen)

    @property
    def tried(self) -> tuple[Tried, ...]:
        """What has been measured, in order of the first trial."""
        return tuple(sorted(self._tried.values(), key=lambda tried: tried.trial))

    def refresh(self) -> None:
        """Take in the trials that have finished since, whoever told the study."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            self.take(trial)

    def take(self, trial: optuna.trial.FrozenTrial) -> None:
        """Take in a finished trial; one that is known already changes nothing.

        This spares a read of the study, which costs the more the more trials are running.
        """
        if trial.number in self._seen:
            return
        self._seen.add(trial.number)
        self.evaluations += self._cost(trial)
        self._merge(trial)

    def decode(self, point: Mapping[str, Value]) -> Schedule:
        """Decode a point of the space; the newest is kept, for its trial will be read next."""
        key = frozenset(point.items())
        if key not in self._decoded:
            self._decoded = {key: self.space.decode(point)}
        return self._decoded[key]

    def meets_budget(self, schedule: Schedule) -> bool:
        """Whether a schedule of the space, priced, may be exported."""
        assert schedule.cost is not None  # decoded schedules are priced
        return self.budget.amount(schedule.cost) <= self.budget.limit(self.space.shape)

    def find(self, measured_hash: str) -> Tried | None:
        """Return what is known of schedules that behave like one, None when nothing is."""
        return self._tried.get(measured_hash)

    def best(self, blocks: int) -> Tried | None:
        """Return the best schedule that meets the budget and is known on so many blocks, if any."""
        known = [
            tried
            for tried in self._tried.values()
            if tried.blocks >= blocks and tried.within_budget and not tried.raced_out
        ]
        return max(known, key=lambda tried: (tried.estimate, -tried.trial), default=None)

    def state(
        self,
        seed: int,
        limit: int | None,
        others: tuple[SearchState, ...] = (),
        in_flight: tuple[InFlight, ...] = (),
    ) -> SearchState:
        """Put together what a strategy may know.

        Args:
            seed: Seed of the search.
            limit: Samples that trials may score in all.
            others: States of the other budgets that share the limit.
            in_flight: What is being measured.

        Returns:
            The state.
        """
        return SearchState(
            space=self.space,
            study=self.study,
            seed=seed,
            trials=self.trials,
            block_sizes=self._block_sizes,
            samples=self.evaluations,
            limit=limit,
            tried=self.tried,
            others=others,
            measured_form=self._measured_form,
            in_flight=in_flight,
        )

    def _cost(self, trial: optuna.trial.FrozenTrial) -> int:
        """Samples that a trial scored itself."""
        if DUPLICATE_ATTRIBUTE in trial.user_attrs:
            return 0
        known = trial.user_attrs.get(KNOWN_BLOCKS_ATTRIBUTE, 0)
        return sum(self._block_sizes[known : len(trial.intermediate_values)])

    def _merge(self, trial: optuna.trial.FrozenTrial) -> None:
        """Merge a trial with what is known of its schedule's measured form."""
        measured_hash = trial.user_attrs.get(MEASURED_ATTRIBUTE)
        if measured_hash is None:
            return  # it was added by hand
        known = self._tried.get(measured_hash)
        if known is not None and known.within_budget and DUPLICATE_ATTRIBUTE in trial.user_attrs:
            return
        found = self._read(trial)
        if known is not None:
            # Schedules that behave alike on the measured model may differ in cost on the target.
            shown = min(known, found, key=lambda each: (not each.within_budget, each.trial))
            found = replace(
                max(known, found, key=lambda each: each.blocks),
                trial=shown.trial,
                point=shown.point,
                schedule=shown.schedule,
                within_budget=shown.within_budget,
            )
        self._tried[measured_hash] = found

    def _read(self, trial: optuna.trial.FrozenTrial) -> Tried:
        """Read what a trial alone says."""
        schedule = self.decode(trial.params)
        reported = [trial.intermediate_values[block] for block in sorted(trial.intermediate_values)]
        return Tried(
            trial=trial.number,
            point=trial.params,
            schedule=schedule,
            measured=trial.user_attrs[MEASURED_ATTRIBUTE],
            accuracies=np.array(trial.user_attrs.get(ACCURACIES_ATTRIBUTE, reported)),
            signals=np.array(reported),
            raced_out=trial.user_attrs.get(RACED_OUT_ATTRIBUTE, False),
            within_budget=self.meets_budget(schedule),
            value=trial.value,
        )
