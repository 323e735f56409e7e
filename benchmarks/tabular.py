"""An evaluator that looks results up in the ground truth instead of running a model.

Searches run on it as they run on a model, thousands of times faster, and their regret is exact.
What is not in the table is measured as the nearest schedule that is: `measured_form`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tabular_data import GroundTruth

from pruners.errors import DataError
from pruners.schedule import Schedule
from pruners.shape import Shape
from pruners.stages import SimilarityFusion
from search.attention_mass import AttentionMass
from search.evaluators import Probe, SampleKey
from search.measured_form import as_measured
from search.measuring import Measurements

DENSE_ROW = 0
"""Row of the dense model in a ground truth."""

_FEWEST = 0.5  # tokens that a layer without any counts as, for it has no logarithm


class TabularEvaluator:
    """Serves results of a ground truth.

    Args:
        truth: The ground truth.
        searched: Samples of its search split that make up this one's; all of them by default.
        held_out: Samples of its search split that stand in for the report split, which then is not
            read at all; None for the report split itself.
    """

    def __init__(
        self,
        truth: GroundTruth,
        searched: Sequence[int] | None = None,
        held_out: Sequence[int] | None = None,
    ) -> None:
        everything = range(len(truth.about.splits["search"].identifiers))
        self.truth = truth
        self._searched = np.array(everything if searched is None else searched)
        self._held_out = None if held_out is None else np.array(held_out)

    @property
    def name(self) -> str:
        """Name of the measured model."""
        return f"{self.truth.about.model} (table)"

    @property
    def measured_on(self) -> str:
        """The model and benchmark, in words."""
        return f"{self.truth.about.measured_on}, results of a lattice of schedules"

    @property
    def shape(self) -> Shape:
        """Shape of the measured model."""
        return self.truth.about.shape

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the model and the table's schedules."""
        content = "\n".join([self.truth.about.fingerprint, *self.truth.hashes])
        return hashlib.sha256(content.encode()).hexdigest()

    def samples(self, split: str) -> Sequence[SampleKey]:
        """List a split's samples."""
        return self._samples[self._known(split)]

    def split_fingerprint(self, split: str) -> str:
        """Hash of a split's samples."""
        return hashlib.sha256(repr(self.samples(split)).encode()).hexdigest()

    def score(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        """Look scores up."""
        row = self._right[self._known(split)][self.row(schedule)]
        return row[list(indices)].astype(np.float64)

    def probe(self, schedule: Schedule, split: str, indices: Sequence[int]) -> Probe:
        """Look scores, probabilities of the dense answer and agreements up; search split only."""
        if split != "search":
            raise DataError(f"the table has no probabilities on the {split} split, only on search")
        row, columns = self.row(schedule), self._searched[list(indices)]
        return Probe(
            scores=self.score(schedule, split, indices),
            answer_probabilities=self.truth.answer_probabilities[row, columns].astype(np.float64),
            hidden_agreements=self.truth.hidden_agreements[row, columns].astype(np.float64),
        )

    def attention_mass(self, split: str, indices: Sequence[int]) -> AttentionMass:
        """Look the dense model's attention up; search split only."""
        attention = self.truth.attention
        if attention is None or split != "search":
            raise DataError(f"the table has no attention on the {split} split")
        places = self._searched[list(indices)]
        return AttentionMass(cross=attention.cross[places], own=attention.own[places])

    def measured_form(self, schedule: Schedule) -> Schedule:
        """Return the schedule of the table that stands for another one.

        It is the one with the nearest tokens by layer (root mean square of their logarithms),
        similarity weight and contextual share among those that keep no more tokens in all; the
        cheapest of the table where none does. A schedule that is less than one token per layer
        below a budget counts as spending it, as those of the lattice do, and only those stand for
        it: what the table has off its budgets changes nothing for searches that keep to them.

        Args:
            schedule: A schedule of the mission's parts, for any depth.

        Returns:
            The schedule, in the form that is measured.
        """
        measured = as_measured(schedule, self.shape)
        if measured.content_hash in self.truth.rows:
            return self.truth.schedules[self.row(measured)]
        allowed = self._allowed(_tokens(measured, self.shape).mean())
        if not allowed.any():
            return self.truth.schedules[int(np.argmin(self._mean_tokens))]
        apart = np.square(self._features - features(measured, self.shape)).sum(axis=1)
        return self.truth.schedules[int(np.argmin(np.where(allowed, apart, np.inf)))]

    def measurements(self) -> Measurements:
        """Return measurements without a cache, for the table is one."""
        return _Lookups(self, measured_form=self.measured_form)

    def relative_accuracies(self, split: str) -> NDArray[np.float64]:
        """Relative accuracy of every schedule of the table on a split, `(schedules,)`.

        Args:
            split: ``"search"`` or ``"report"``.

        Returns:
            The mean over tasks of accuracy / dense accuracy, dense first.
        """
        right = self._right[self._known(split)]
        tasks = np.array([sample.task for sample in self.samples(split)])
        accuracies = np.stack(
            [right[:, tasks == task].mean(axis=1) for task in np.unique(tasks)]
        )  # tasks x schedules
        means: NDArray[np.float64] = (accuracies / accuracies[:, [DENSE_ROW]]).mean(axis=0)
        return means

    def optimum(self, mean_tokens: float, split: str) -> int:
        """Find the best schedule of the table within a budget.

        Chosen on the report split it is an upper bound that no search can be expected to reach, for
        it profits from that split's noise. Chosen on the search split it is what a search without
        any limit finds; others may beat it on the report split.

        Args:
            mean_tokens: The budget: visual tokens as a mean over decoder layers.
            split: Split that it has the highest relative accuracy on.

        Returns:
            Its row.

        Raises:
            DataError: Nothing in the table meets the budget.
        """
        values = np.where(
            (self.truth.budgets > 0) & (self._mean_tokens <= mean_tokens),
            self.relative_accuracies(split),
            -np.inf,
        )
        if not np.isfinite(values).any():
            raise DataError(f"no schedule of the table keeps {mean_tokens:g} tokens or fewer")
        return int(np.argmax(values))

    def row(self, schedule: Schedule) -> int:
        """Return the row of a schedule that `measured_form` gave, or of dense.

        Raises:
            DataError: It is not in the table.
        """
        row = self.truth.rows.get(schedule.content_hash)
        if row is None:
            raise DataError(
                f"the table has no schedule {schedule.content_hash[:12]}; search with "
                "measured_form=TabularEvaluator.measured_form, which names the nearest that it has"
            )
        return row

    def _allowed(self, mean_tokens: float) -> NDArray[np.bool_]:
        """Which rows may stand for a schedule that keeps so many tokens, as a mean over layers."""
        budgets = np.unique(self.truth.budgets[self.truth.budgets > 0])
        spending = budgets[(budgets >= mean_tokens) & (budgets - mean_tokens < 1)]
        if len(spending):
            return (self.truth.budgets > 0) & (self._mean_tokens <= spending[0])
        return self._mean_tokens <= mean_tokens

    def _known(self, split: str) -> str:
        if split not in self._right:
            raise DataError(f"the table has no split {split!r}, only {' and '.join(self._right)}")
        return split

    @cached_property
    def _right(self) -> Mapping[str, NDArray[np.bool_]]:
        """Right answers by split, each `(schedules, samples)`."""
        search = self.truth.right["search"]
        report = self.truth.right["report"] if self._held_out is None else search[:, self._held_out]
        return {"search": search[:, self._searched], "report": report}

    @cached_property
    def _samples(self) -> Mapping[str, tuple[SampleKey, ...]]:
        keys = {split: each.keys for split, each in self.truth.about.splits.items()}
        searched = tuple(keys["search"][index] for index in self._searched)
        if self._held_out is None:
            return {"search": searched, "report": keys["report"]}
        return {
            "search": searched,
            "report": tuple(keys["search"][index] for index in self._held_out),
        }

    @cached_property
    def _features(self) -> NDArray[np.float64]:
        """What distances are measured by, one row per schedule."""
        return np.stack([features(each, self.shape) for each in self.truth.schedules])

    @cached_property
    def _mean_tokens(self) -> NDArray[np.float64]:
        return self.truth.tokens.mean(axis=1)


class _Lookups(Measurements):
    """Measurements that ask a table every time."""

    evaluator: TabularEvaluator

    def scores(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        return self.evaluator.score(schedule, split, indices)

    def probe(self, schedule: Schedule, split: str, indices: Sequence[int]) -> Probe:
        return self.evaluator.probe(schedule, split, indices)


def features(schedule: Schedule, shape: Shape) -> NDArray[np.float64]:
    """Describe a schedule by numbers whose squared differences add up to its distance to another.

    Args:
        schedule: A schedule in the form that is measured.
        shape: Shape of the measured model.

    Returns:
        Logarithms of its tokens by layer, divided by the root of the number of layers; its
        similarity weight; its contextual share over all stages, `(layers + 2,)`.
    """
    tokens = _tokens(schedule, shape)
    logs = np.log(np.maximum(tokens, _FEWEST)) / np.sqrt(len(tokens))
    weights = [
        stage.scorer.weight
        for stage in schedule.stages
        if isinstance(stage.scorer, SimilarityFusion)
    ]
    counts = schedule.counts(shape.visual_tokens, shape.tokens_per_tile)
    alive = sum(count.alive for count in counts)
    contextual = sum(count.contextual for count in counts) / alive if alive else 0.0
    return np.array([*logs, weights[0] if weights else 0.0, contextual])


def halves(truth: GroundTruth, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Divide the samples of the search split in two, for tuning without the report split.

    Args:
        truth: The ground truth.
        seed: Seed of the division.

    Returns:
        Indices of the samples to search on and of those held out, each rising. All samples of an
        image are in the same half, as searched and reported samples share none.
    """
    images = np.array(truth.about.splits["search"].images)
    shuffled = np.random.default_rng(seed).permutation(np.unique(images))
    inside = np.isin(images, shuffled[: len(shuffled) // 2])
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def _tokens(schedule: Schedule, shape: Shape) -> NDArray[np.int64]:
    return np.array(
        schedule.visual_tokens_per_layer(
            shape.decoder_layers, shape.visual_tokens, shape.tokens_per_tile
        )
    )
