"""P-Sigmoid, reconstructed: retention falls along a sigmoid over depth, whose shape is searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pruners.schedule import Schedule
from search.strategies.gaussian_process_trials import GaussianProcessTrials
from search.strategies.staircases import curve_cost, point_of_curve
from space.coding import SearchSpace
from space.parameters import Dimension, Parameter, Value, check_point, number
from space.working import working_stages

FLATTEST, STEEPEST = 0.1, 10.0
"""Steepness per layer of 32: almost a line, and a step within one layer (VisPCO's kernel)."""

_LAYERS = 32  # depth that steepness refers to

MOST_TRIALS = 100
"""Trials after which a Gaussian process over three numbers has seen enough."""

RANDOM_TRIALS = 10
"""Trials before the Gaussian process chooses; Optuna's default."""

_BISECTIONS = 60
_REACH = 20.0  # a sigmoid's argument at which it is 0 or 1 to eight digits
_NEAREST = 5  # values per number among which the nearest curve to a schedule is looked for


class Sigmoid(NamedTuple):
    """Retention over depth: cap * (floor + (1 - floor) / (1 + exp(steepness * (l - midpoint)))).

    Attributes:
        steepness: Per layer of 32; scaled to other depths.
        cap: Share of the tokens before the fall.
        floor: Share of those that is left behind it.
    """

    steepness: float
    cap: float = 1.0
    floor: float = 0.0

    def curve(self, midpoint: float, layers: int) -> list[float]:
        """Return the retention of each layer, `(layers,)`."""
        slope = self.steepness * _LAYERS / layers
        depths = np.clip(slope * (np.arange(layers) - midpoint), -700, 700)
        fall = self.floor + (1 - self.floor) / (1 + np.exp(depths))
        curve: list[float] = (self.cap * fall).tolist()
        return curve

    def midpoint(
        self, cost: Callable[[Sequence[float]], float], limit: float, layers: int
    ) -> float:
        """Solve the layer around which retention falls, so that the curve spends a budget.

        Args:
            cost: Cost of a curve, rising with every retention.
            limit: What it may cost.
            layers: Decoder layers.

        Returns:
            The largest midpoint within the limit; far before the first layer where even the floor
            costs more, far behind the last where the cap costs less.
        """
        reach = _REACH * layers / (_LAYERS * self.steepness)
        low, high = -reach, layers + reach
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if cost(self.curve(middle, layers)) <= limit:
                low = middle
            else:
                high = middle
        return low


class SigmoidSpace(SearchSpace):
    """Sigmoid curves at a budget, as the schedules of another space that are nearest to them.

    Steepness is searched on a logarithmic scale; the cap between the flat curve at the budget and
    all tokens, on a logarithmic scale too; the floor as a share of that flat curve. The midpoint is
    solved from the budget; what few stages of whole tokens change of the cost, the other space's
    decoding makes up for. Similarity weight and contextual share are the published ones.

    Args:
        within: The space that curves are expressed in.
    """

    def __init__(self, within: SearchSpace) -> None:
        super().__init__(
            within.shape,
            within.budget,
            within.decoder_stages,
            within.layer_step,
            within.vocabulary,
        )
        self.within = within
        cost, limit = curve_cost(within), within.budget.limit(within.shape)
        low, high = 0.0, 1.0
        while high - low > 0.5 / within.shape.visual_tokens:
            middle = (low + high) / 2
            if cost([middle] * within.shape.decoder_layers) <= limit:
                low = middle
            else:
                high = middle
        self._flat = high
        """Retention of the flat curve that spends the budget."""

    @property
    def parameters(self) -> tuple[Dimension, ...]:
        """Steepness, cap and floor."""
        return tuple(Parameter(name, 0.0, 1.0) for name in ("steepness", "cap", "floor"))

    def decode(self, point: Mapping[str, Value]) -> Schedule:
        """Turn a point into the schedule of its curve, at the budget."""
        check_point(point, self.parameters)
        cap = self._flat ** (1 - number(point, "cap"))
        sigmoid = Sigmoid(
            FLATTEST * (STEEPEST / FLATTEST) ** number(point, "steepness"),
            cap,
            number(point, "floor") * self._flat / cap,
        )
        return _schedule(self.within, sigmoid)

    def encode(self, schedule: Schedule) -> dict[str, Value]:
        """Find the point of a coarse grid whose schedule has the most similar tokens per layer."""
        wanted = _tokens(schedule.scaled_to(self.shape), self)
        grid = np.linspace(0, 1, _NEAREST).tolist()
        points: list[dict[str, Value]] = [
            dict(zip(("steepness", "cap", "floor"), values, strict=True))
            for values in product(grid, repeat=3)
        ]

        def distance(point: Mapping[str, Value]) -> float:
            return float(np.abs(_tokens(self.decode(point), self) - wanted).sum())

        return min(points, key=distance)


class PSigmoid(GaussianProcessTrials):
    """Searches the shape of one sigmoid over depth by a Gaussian process (Optuna's `GPSampler`).

    Source: P-Sigmoid of Zhao et al., "Accelerating Multimodal LLMs by Searching Optimal Vision
    Token Reduction" (CVPR 2025, arXiv 2412.00556). Reconstructed: no code is published, and of the
    curve it is only known that a sigmoid over depth gives the retentions and that Bayesian
    optimisation searches its parameters under a given budget. Here these are steepness, cap and
    floor. The cap is of the encoder's stage, so that small budgets can be met; the paper prunes
    inside the decoder only.

    Args:
        samples_per_trial: Samples of each trial, rounded to whole blocks; None for the whole split,
            or for less where that is too much for the samples that may be scored.
    """

    name = "p-sigmoid"
    most_trials = MOST_TRIALS
    most_random = RANDOM_TRIALS

    def space(self, space: SearchSpace) -> SigmoidSpace:
        """Return the space of sigmoid curves."""
        return SigmoidSpace(space)


@lru_cache(maxsize=1024)
def _schedule(space: SearchSpace, sigmoid: Sigmoid) -> Schedule:
    """Make the schedule of a curve; kept, as a search decodes each point several times."""
    layers, limit = space.shape.decoder_layers, space.budget.limit(space.shape)
    midpoint = sigmoid.midpoint(curve_cost(space), limit, layers)
    curve = sigmoid.curve(midpoint, layers)
    return space.decode(point_of_curve(space, curve))


def _tokens(schedule: Schedule, space: SearchSpace) -> NDArray[np.int_]:
    shape = space.shape
    alive = np.full(shape.decoder_layers, shape.visual_tokens)
    for working in working_stages(schedule, shape):
        alive[working.layer :] = working.alive
    return alive
