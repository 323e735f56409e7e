"""Staircases: tokens per layer, as peers find them, in the few steps that a space has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pruners.counting import alive_tokens
from pruners.schedule import Schedule
from pruners.scorers import VisualSelfAttention
from space.coding import SearchSpace
from space.flops import TERA, CostModel
from space.parameters import Value
from space.vocabulary import undecided_stage
from space.working import WorkingStage


class Step(NamedTuple):
    """Where a step of a staircase begins, and how high it is.

    Attributes:
        layer: First layer of the step.
        retention: Visual tokens alive in its layers, as a share of the dense model's.
    """

    layer: int
    retention: float


def nearest_steps(
    retentions: Sequence[float], boundaries: Sequence[int], stages: int
) -> tuple[Step, ...]:
    """Approximate a curve over depth by a staircase of few steps.

    Of all choices of boundaries, these leave the smallest squared error; each step is the mean of
    its layers (Bellman's dynamic programme for segmented regression).

    Args:
        retentions: Share of the tokens alive in each layer, never rising, `(layers,)`.
        boundaries: Layers above 0 at which a step may begin, rising.
        stages: Most steps after the first.

    Returns:
        The steps by rising layer, the first at layer 0, none as high as the one before.
    """
    curve = np.asarray(retentions, dtype=np.float64)
    starts = [0, *boundaries]
    ends = [*boundaries, len(curve)]
    sums = np.concatenate([[0.0], np.cumsum(curve)])

    def mean(first: int, last: int) -> float:
        """Height of one step over the pieces from `first` to `last`."""
        return float(sums[ends[last]] - sums[starts[first]]) / (ends[last] - starts[first])

    def error(first: int, last: int) -> float:
        """Squared error of that step, less what all choices have in common."""
        return -(ends[last] - starts[first]) * mean(first, last) ** 2

    pieces = len(starts)
    # best[last] is the error of all pieces up to `last`, and where each step begins.
    best: list[tuple[float, tuple[int, ...]]] = [(error(0, last), (0,)) for last in range(pieces)]
    for _ in range(min(stages, len(boundaries))):
        best = [
            min(
                [
                    best[last],
                    *(
                        (best[first - 1][0] + error(first, last), (*best[first - 1][1], first))
                        for first in range(1, last + 1)
                    ),
                ],
                key=lambda choice: choice[0],
            )
            for last in range(pieces)
        ]
    firsts = [*best[-1][1], pieces]
    steps: list[Step] = []
    for first, following in pairwise(firsts):
        height = mean(first, following - 1)
        if not steps or height < steps[-1].retention:
            steps.append(Step(starts[first], height))
    return tuple(steps)


def schedule_of_steps(space: SearchSpace, steps: Sequence[Step]) -> Schedule:
    """Make the schedule of a staircase, of a space's parts at their published defaults.

    Args:
        space: The space, which gives shape and vocabulary.
        steps: The steps by rising layer, the first at layer 0; at most one per stage of the space.

    Returns:
        The schedule, not priced; each stage keeps whole tokens, at layer 0 one at least.
    """
    dense = space.shape.visual_tokens
    defaults = space.vocabulary.values(None, [None] * space.decoder_stages, "compact")
    layers = [step.layer for step in steps[1:]]
    stages = []
    previous = dense
    made = space.vocabulary.stages(defaults, layers)
    for stage, step in zip(made, steps, strict=True):
        tokens = max(alive_tokens(step.retention, dense), 1 if step.layer == 0 else 0)
        if tokens < previous:
            stages.append(stage.model_copy(update={"retention": tokens / dense}))
            previous = tokens
    positions = space.vocabulary.positions(defaults)
    return Schedule(stages=tuple(stages), positions=positions, shape=space.shape)


def boundaries_of(space: SearchSpace) -> range:
    """List the layers at which a space's decoder stages may stand."""
    return range(space.layer_step, space.shape.decoder_layers, space.layer_step)


def equal_segments(space: SearchSpace) -> tuple[int, ...]:
    """Divide the decoder into as many segments as a schedule of a space can have.

    Args:
        space: The space.

    Returns:
        First layer of each segment, the first 0; the others are as evenly spaced as the space's
        boundaries allow.
    """
    boundaries = boundaries_of(space)
    parts = space.decoder_stages + 1
    return (0, *(boundaries[len(boundaries) * part // parts] for part in range(1, parts)))


def point_of_curve(space: SearchSpace, retentions: Sequence[float]) -> dict[str, Value]:
    """Find the point that is nearest to a curve of retentions over depth.

    Args:
        space: The space.
        retentions: Share of the tokens alive in each layer of its shape, never rising.

    Returns:
        A value per parameter; what the curve leaves open is at its published default.
    """
    steps = nearest_steps(retentions, boundaries_of(space), space.decoder_stages)
    return space.encode(schedule_of_steps(space, steps))


def curve_cost(space: SearchSpace) -> Callable[[Sequence[float]], float]:
    """Make the function that prices curves of retentions over depth.

    Args:
        space: The space, which gives shape, budget and encoder stage.

    Returns:
        A function of the share of the tokens alive in each layer, never rising: the cost in the
        unit of the budget's limit, without what choosing tokens costs in the decoder, as a schedule
        of the space chooses at fewer layers.
    """
    shape, budget, model = space.shape, space.budget, CostModel(space.shape)
    encoder = next(iter(space.vocabulary.encoder_stages()))
    decoder = [
        undecided_stage(layer, VisualSelfAttention()) for layer in range(1, shape.decoder_layers)
    ]

    def cost(retentions: Sequence[float]) -> float:
        stages = [
            WorkingStage(stage, alive_tokens(retention, shape.visual_tokens), 0)
            for stage, retention in zip([encoder, *decoder], retentions, strict=True)
        ]
        if budget.kind not in ("tflops", "share"):
            return budget.amount_of(stages, model)
        parts = model.breakdown(stages)
        return (parts.total - parts.scoring - parts.merging) / TERA

    return cost
