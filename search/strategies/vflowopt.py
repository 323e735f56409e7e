"""VFlowOpt's search, reconstructed: ratios at fixed layers, by agreement of hidden states."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pruners.schedule import Schedule
from search.strategies.gaussian_process_trials import GaussianProcessTrials
from search.strategies.staircases import boundaries_of
from space.coding import SearchSpace
from space.parameters import Dimension, Value, check_point

DEPTHS = (9 / 28, 18 / 28)
"""Where its decoder stages stand: before layers 9 and 18 of LLaVA-OneVision's 28."""

RANDOM_TRIALS = 27
"""Trials before the Gaussian process chooses, as published."""

MOST_TRIALS = 300
"""Trials of its search, as published."""


class FixedDepths(SearchSpace):
    """A space whose boundaries are fixed: free are the ratios and the similarity weight.

    Whatever else the vocabulary leaves open has its published default.

    Args:
        within: The space that points are made of.
        depths: Relative depths of the decoder stages, rising; as many as the space has stages are
            used.
    """

    def __init__(self, within: SearchSpace, depths: Sequence[float] = DEPTHS) -> None:
        super().__init__(
            within.shape,
            within.budget,
            min(within.decoder_stages, len(depths)),
            within.layer_step,
            within.vocabulary,
        )
        stages = self.decoder_stages
        boundaries = boundaries_of(within)
        slots: list[int] = []
        for number, depth in enumerate(depths[:stages]):
            nearest = math.floor(depth * self.shape.decoder_layers / self.layer_step - 0.5)
            lowest = slots[-1] + 1 if slots else 0
            slots.append(min(max(nearest, lowest), len(boundaries) - (stages - number)))
        fixed: dict[str, Value] = {
            f"boundary_{index}": fraction
            for index, fraction in enumerate(self._fractions(slots), start=1)
        }
        self._fixed = fixed | self.vocabulary.values(None, [None] * stages, "compact")
        self._whole = SearchSpace(
            within.shape, within.budget, stages, within.layer_step, within.vocabulary
        )

    @property
    def parameters(self) -> tuple[Dimension, ...]:
        """The ratios, and the similarity weight where there is one."""
        return tuple(
            dimension
            for dimension in super().parameters
            if dimension.name.startswith("ratio_") or dimension.name == "similarity_weight"
        )

    def decode(self, point: Mapping[str, Value]) -> Schedule:
        """Turn a point into the schedule at the budget."""
        check_point(point, self.parameters)
        return self._whole.decode({**self._fixed, **point})

    def encode(self, schedule: Schedule) -> dict[str, Value]:
        """Find the nearest point; stages elsewhere lend their ratios by rising layer."""
        point = super().encode(schedule)
        return {dimension.name: point[dimension.name] for dimension in self.parameters}


class VFlowOpt(GaussianProcessTrials):
    """Searches ratios by a Gaussian process, comparing hidden states with those of the dense model.

    Source: VFlowOpt (ICCV 2025, arXiv 2508.05211) and its public code as described there; written
    anew. Its objective is the cosine between the last hidden states of the prompt's last token,
    pruned and dense; 300 trials, of which 27 random, by the Gaussian process of scikit-optimize;
    ratios are relative to the stage before, one is solved from the budget; layers are fixed.

    What differs here: the Gaussian process is Optuna's `GPSampler`; the ratio that is solved is the
    first, not the last; of its three parameters of the importance map only the fusion weight has a
    counterpart, the similarity weight; where fewer than 81 trials can be afforded, a third of them
    are random. Where the measured model gives no hidden states, accuracy takes their place.

    Args:
        samples_per_trial: Samples of each trial, rounded to whole blocks; None for the whole split,
            or for less where that is too much for the samples that may be scored.
    """

    name = "vflowopt"
    signal = "hidden-agreement"
    most_trials = MOST_TRIALS
    most_random = RANDOM_TRIALS

    def space(self, space: SearchSpace) -> FixedDepths:
        """Return the space with fixed boundaries."""
        return FixedDepths(space)
