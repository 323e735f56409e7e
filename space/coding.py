"""The search space: points of fixed dimension, each of which is a schedule at the budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from pruners.errors import ScheduleError, SettingsError, UnsupportedModelError
from pruners.merges import NearestReference, NoMerge
from pruners.methods.base import PAPER_TEXT_TOWER
from pruners.schedule import Schedule
from pruners.scorers import SimilarityFusion, VisualSelfAttention
from pruners.shape import Shape
from pruners.stages import Stage
from space.budgets import Budget
from space.fitting import StagePlan, fit
from space.flops import CostModel
from space.projection import at_depth_of, plans_of

MAX_DECODER_STAGES = 4
"""More boundaries than any published schedule has."""

MAX_CONTEXTUAL = 0.5
"""Largest contextual share; VisionDrop's is 1/8, its ablations stay below 1/2."""

RESOLUTION = 200
"""Steps per unit of the similarity weight and the contextual share.

Finer ones move no token at the counts that budgets leave, so that more points are the same schedule
and need no second measurement. Published values (1/2, 1/8) lie on the grid.
"""

DEFAULT_WEIGHT = 0.5
DEFAULT_CONTEXTUAL = 0.125


class Parameter(NamedTuple):
    """One dimension of a space: a real number in [low, high]."""

    name: str
    low: float
    high: float


class SearchSpace:
    """Points that decode to schedules meeting a budget by construction.

    A schedule of the space has an encoder stage, which chooses by DeSAP's fusion of similarity and
    VisionDrop's saliency, and up to `decoder_stages` decoder stages with VisionDrop's score. What
    is dropped is merged into contextual tokens. Free are the boundaries, each stage's retention
    relative to the stage before, the contextual share, and the similarity weight. The common scale
    of the retentions is not free: it is solved so that the schedule spends the budget.

    For a point ``x``, ``schedule = space.decode(x)`` is valid and monotone, never costs more than
    the budget, and none of its stages could keep one more token. ``space.encode`` inverts it:
    ``space.decode(space.encode(schedule)) == schedule``.

    Args:
        shape: Shape that schedules are made for and priced on; it needs a text tower.
        budget: What schedules may cost.
        decoder_stages: Most decoder stages that a schedule has, 0 to 4.
        layer_step: Boundaries lie at multiples of this layer, for measuring on a shallower model
            whose layers are that far apart; 1 means anywhere.
        text_tower: Folder or hub name of the paired text tower, as schedules name it.

    Raises:
        BudgetError: The budget is below the cost of one visual token, or above the dense cost.
        SettingsError: The boundaries are too few for the stages, or a number is out of range.
        UnsupportedModelError: The shape has no text tower.
    """

    def __init__(
        self,
        shape: Shape,
        budget: Budget,
        decoder_stages: int = 3,
        layer_step: int = 1,
        text_tower: str = PAPER_TEXT_TOWER,
    ) -> None:
        if not 0 <= decoder_stages <= MAX_DECODER_STAGES:
            raise SettingsError(
                f"decoder_stages is {decoder_stages}; expected 0 to {MAX_DECODER_STAGES}"
            )
        if layer_step < 1:
            raise SettingsError(f"layer_step is {layer_step}; expected at least 1")
        self._boundaries = range(layer_step, shape.decoder_layers, layer_step)
        if decoder_stages > len(self._boundaries):
            raise SettingsError(
                f"{decoder_stages} decoder stages need as many boundaries, but {shape.name} has "
                f"{len(self._boundaries)} at layer_step {layer_step}; choose fewer stages"
            )
        if shape.text_tower is None:
            raise UnsupportedModelError(
                f"shape {shape.name!r} has no text tower, which the similarity weight needs; "
                "pass text_tower to Shape.from_config or shape_from_pretrained"
            )
        budget.check(shape)
        self.shape = shape
        self.budget = budget
        self.decoder_stages = decoder_stages
        self.layer_step = layer_step
        self.text_tower = text_tower
        self._model = CostModel(shape)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The dimensions, always the same ones in the same order.

        ``boundary_i`` are relative depths in any order; ``ratio_i`` is the retention of the i-th
        decoder stage by rising layer, relative to the stage before it.
        """
        numbers = range(1, self.decoder_stages + 1)
        return (
            *(Parameter(f"boundary_{number}", 0.0, 1.0) for number in numbers),
            *(Parameter(f"ratio_{number}", 0.0, 1.0) for number in numbers),
            Parameter("contextual", 0.0, MAX_CONTEXTUAL),
            Parameter("similarity_weight", 0.0, 1.0),
        )

    def decode(self, point: Mapping[str, float]) -> Schedule:
        """Turn a point into the schedule that it stands for.

        Args:
            point: A value per parameter.

        Returns:
            The schedule at the budget, priced on the space's shape.

        Raises:
            ScheduleError: A value is missing, unknown or out of range.
        """
        self._check(point)
        numbers = range(1, self.decoder_stages + 1)
        layers = self._layers([point[f"boundary_{number}"] for number in numbers])
        contextual = _rounded(point["contextual"])
        merge = NearestReference() if contextual > 0 else NoMerge()
        encoder = StagePlan(
            Stage(
                layer=0,
                retention=1.0,
                contextual=contextual,
                scorer=SimilarityFusion(
                    weight=_rounded(point["similarity_weight"]),
                    text_tower=self.text_tower,
                    saliency_layer=-2,
                ),
                merge=merge,
            ),
            ratio=1.0,
        )
        decoder = [
            StagePlan(
                Stage(
                    layer=layer,
                    retention=1.0,
                    contextual=contextual,
                    scorer=VisualSelfAttention(),
                    merge=merge,
                ),
                point[f"ratio_{number}"],
            )
            for number, layer in zip(numbers, layers, strict=True)
        ]
        return fit([encoder, *decoder], self._model, self.budget)

    def encode(self, schedule: Schedule) -> dict[str, float]:
        """Turn a schedule into the point that stands for it.

        Args:
            schedule: A schedule of this space. Any other schedule gives the closest point:
                boundaries move to the nearest possible ones, the stages that change the fewest
                tokens are left out where there are too many, and CLS attention is similarity
                weight 0.

        Returns:
            A value per parameter. Where the schedule leaves a value open, it is VisionDrop's
            contextual share or DeSAP's weight.

        Raises:
            ScheduleMismatchError: It has a stage beyond the shape's decoder.
        """
        schedule = at_depth_of(schedule, self.shape)
        plans = plans_of(schedule, self.shape)
        alive = {count.layer: count.alive for count in schedule.counts(self.shape.visual_tokens)}
        encoder = next((plan for plan in plans if plan.layer == 0), None)
        first = alive[0] if encoder else self.shape.visual_tokens
        stages = self._nearest_stages(
            first, {plan.layer: alive[plan.layer] for plan in plans if plan.layer > 0}
        )

        point: dict[str, float] = {}
        for number, boundary in enumerate(self._fractions([slot for slot, _ in stages]), start=1):
            point[f"boundary_{number}"] = boundary
        previous = first
        for number, (_, kept) in enumerate(stages, start=1):
            point[f"ratio_{number}"] = kept / previous if kept < previous else 1.0
            previous = kept
        shares = [plan.stage.contextual for plan in plans]
        mean_share = sum(shares) / len(shares) if shares else DEFAULT_CONTEXTUAL
        point["contextual"] = min(_rounded(mean_share), MAX_CONTEXTUAL)
        weight = DEFAULT_WEIGHT
        if encoder is not None:
            scorer = encoder.stage.scorer
            weight = scorer.weight if isinstance(scorer, SimilarityFusion) else 0.0
        point["similarity_weight"] = _rounded(weight)
        return point

    def _check(self, point: Mapping[str, float]) -> None:
        expected = {parameter.name: parameter for parameter in self.parameters}
        if point.keys() != expected.keys():
            raise ScheduleError(
                f"a point of this space has the values {', '.join(expected)}; "
                f"given were {', '.join(point) or 'none'}"
            )
        for name, value in point.items():
            _, low, high = expected[name]
            if not low <= value <= high:  # also refuses NaN
                raise ScheduleError(f"{name} is {value}; expected a number in [{low:g}, {high:g}]")

    def _layers(self, fractions: Sequence[float]) -> list[int]:
        """Return distinct rising layers for relative depths in any order.

        The i-th smallest depth is read among the boundaries that leave room for i before it and the
        rest after it, so that every choice of distinct boundaries has a point.
        """
        room = len(self._boundaries) - self.decoder_stages + 1
        return [
            self._boundaries[index + min(math.floor(fraction * room), room - 1)]
            for index, fraction in enumerate(sorted(fractions))
        ]

    def _fractions(self, slots: Sequence[int]) -> list[float]:
        """Return the relative depths that `_layers` reads as the boundaries at rising slots."""
        room = len(self._boundaries) - self.decoder_stages + 1
        return [(slot - index + 0.5) / room for index, slot in enumerate(slots)]

    def _nearest_stages(self, first: int, alive: Mapping[int, int]) -> list[tuple[int, int]]:
        """Return exactly `decoder_stages` pairs of boundary slot and tokens alive, both in order.

        Args:
            first: Tokens alive before the first decoder stage.
            alive: Tokens alive after each decoder stage, by layer.
        """
        slots: dict[int, int] = {}
        for layer in sorted(alive):
            if self._boundaries:
                slot = math.floor((layer - self._boundaries[0]) / self.layer_step + 0.5)
                slots[min(max(slot, 0), len(self._boundaries) - 1)] = alive[layer]
        while len(slots) > self.decoder_stages:
            counts = [first, *slots.values()]
            drops = [before - after for before, after in pairwise(counts)]
            del slots[list(slots)[drops.index(min(drops))]]
        for slot in range(len(self._boundaries)):
            if len(slots) == self.decoder_stages:
                break
            if slot not in slots:
                # A stage that does nothing fills an unused place.
                before = [kept for used, kept in slots.items() if used < slot]
                slots[slot] = min(before, default=first)
        return sorted(slots.items())


def _rounded(value: float) -> float:
    return round(value * RESOLUTION) / RESOLUTION
