"""The search space: points of fixed dimension, each of which is a schedule at the budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from pruners.errors import ScheduleError, SettingsError, UnsupportedModelError
from pruners.schedule import Schedule
from pruners.shape import Shape
from pruners.stages import Stage
from space.budgets import Budget
from space.fitting import StagePlan, fit
from space.flops import CostModel
from space.mission_vocabulary import MissionVocabulary
from space.parameters import Dimension, Parameter, Value, check_point, number
from space.projection import at_depth_of, plans_of
from space.supported import check_supported
from space.vocabulary import Vocabulary
from space.working import WorkingStage

MAX_DECODER_STAGES = 4
"""More boundaries than any published schedule has."""


class _Place(NamedTuple):
    """Tokens alive after a boundary, and the stage there; None for one that does nothing."""

    alive: int
    stage: Stage | None


class SearchSpace:
    """Points that decode to schedules meeting a budget by construction.

    A schedule of the space has an encoder stage and up to `decoder_stages` decoder stages, made of
    the parts that its vocabulary knows. Free are the boundaries, each stage's retention relative to
    the stage before, and what the vocabulary leaves open. The common scale of the retentions is not
    free: it is solved so that the schedule spends the budget.

    For a point ``x``, ``schedule = space.decode(x)`` is valid and monotone, never costs more than
    the budget, and none of its stages could keep one more token. ``space.encode`` inverts it:
    ``space.decode(space.encode(schedule)) == schedule``.

    Args:
        shape: Shape that schedules are made for and priced on; with a CLIP tower, it needs its text
            tower.
        budget: What schedules may cost.
        decoder_stages: Most decoder stages that a schedule has, 0 to 4.
        layer_step: Boundaries lie at multiples of this layer, for measuring on a shallower model
            whose layers are that far apart; 1 means anywhere.
        vocabulary: What stages are made of, as far as the shape's model can run it.

    Raises:
        BudgetError: The budget is below the cost of one visual token per tile, or above the dense
            cost.
        SettingsError: The boundaries are too few for the stages, or a number is out of range.
        UnsupportedModelError: The shape has no text tower, though its vision tower is CLIP's.
    """

    def __init__(
        self,
        shape: Shape,
        budget: Budget,
        decoder_stages: int = 3,
        layer_step: int = 1,
        vocabulary: Vocabulary | None = None,
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
        if shape.text_tower is None and shape.has_paired_text_tower:
            raise UnsupportedModelError(
                f"shape {shape.name!r} has no text tower, which similarity to the question needs; "
                "pass text_tower to Shape.from_config or shape_from_pretrained"
            )
        self.vocabulary: Vocabulary = (vocabulary or MissionVocabulary()).on(shape)
        fewest = sum(tokens > 0 for tokens in shape.tokens_per_tile)
        encoder_stages = self.vocabulary.encoder_stages()
        fallbacks = [(WorkingStage(stage, fewest, 0),) for stage in encoder_stages]
        for stages in fallbacks:
            check_supported(stages, shape)
        budget.check(shape, fallbacks)
        self.shape = shape
        self.budget = budget
        self.decoder_stages = decoder_stages
        self.layer_step = layer_step
        self._model = CostModel(shape)

    @property
    def parameters(self) -> tuple[Dimension, ...]:
        """The dimensions, always the same ones in the same order.

        ``boundary_i`` are relative depths in any order; ``ratio_i`` is the retention of the i-th
        decoder stage by rising layer, relative to the stage before it. The vocabulary's follow.
        """
        numbers = range(1, self.decoder_stages + 1)
        return (
            *(Parameter(f"boundary_{index}", 0.0, 1.0) for index in numbers),
            *(Parameter(f"ratio_{index}", 0.0, 1.0) for index in numbers),
            *self.vocabulary.dimensions(self.decoder_stages),
        )

    def decode(self, point: Mapping[str, Value]) -> Schedule:
        """Turn a point into the schedule that it stands for.

        Args:
            point: A value per parameter.

        Returns:
            The schedule at the budget, priced on the space's shape.

        Raises:
            ScheduleError: A value is missing, unknown or out of range.
        """
        check_point(point, self.parameters)
        numbers = range(1, self.decoder_stages + 1)
        layers = self._layers([number(point, f"boundary_{index}") for index in numbers])
        ratios = [1.0, *(number(point, f"ratio_{index}") for index in numbers)]
        stages = self.vocabulary.stages(point, layers)
        plans = [StagePlan(stage, ratio) for stage, ratio in zip(stages, ratios, strict=True)]
        return fit(plans, self._model, self.budget, self.vocabulary.positions(point))

    def encode(self, schedule: Schedule) -> dict[str, Value]:
        """Turn a schedule into the point that stands for it.

        Args:
            schedule: A schedule of this space. Any other schedule gives the closest point:
                boundaries move to the nearest possible ones, the stages that change the fewest
                tokens are left out where there are too many, and parts that the vocabulary does not
                know become the most similar ones that it knows.

        Returns:
            A value per parameter. Where the schedule leaves a value open, it is a published
            default.

        Raises:
            ScheduleError: Its tokens leave inside the vision tower, where no point has a stage.
            ScheduleMismatchError: It has a stage beyond the shape's decoder.
        """
        schedule = at_depth_of(schedule, self.shape)
        stages = {plan.layer: plan.stage for plan in plans_of(schedule, self.shape)}
        encoder = stages.pop(0, None)
        if encoder is not None and encoder.in_tower:
            raise ScheduleError(
                f"scorer {encoder.scorer.kind!r} drops tokens inside the vision tower, but this "
                "space has stages at the tower's output and in the decoder only; compare with such "
                "a schedule, but do not encode it"
            )
        counts = schedule.counts(self.shape.visual_tokens, self.shape.tokens_per_tile)
        alive = {count.layer: count.alive for count in counts}
        first = alive[0] if encoder else self.shape.visual_tokens
        placed = self._nearest_places(
            first, {layer: _Place(alive[layer], stage) for layer, stage in stages.items()}
        )
        point: dict[str, Value] = {}
        for index, boundary in enumerate(self._fractions([slot for slot, _ in placed]), start=1):
            point[f"boundary_{index}"] = boundary
        previous = first
        for index, (_, place) in enumerate(placed, start=1):
            point[f"ratio_{index}"] = place.alive / previous if place.alive < previous else 1.0
            previous = place.alive
        decoder = [place.stage for _, place in placed]
        return point | self.vocabulary.values(encoder, decoder, schedule.positions)

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

    def _nearest_places(self, first: int, places: Mapping[int, _Place]) -> list[tuple[int, _Place]]:
        """Return exactly `decoder_stages` pairs of boundary slot and stage, in order.

        Args:
            first: Tokens alive before the first decoder stage.
            places: Decoder stages by layer.
        """
        slots: dict[int, _Place] = {}
        for layer in sorted(places):
            if self._boundaries:
                slot = math.floor((layer - self._boundaries[0]) / self.layer_step + 0.5)
                slots[min(max(slot, 0), len(self._boundaries) - 1)] = places[layer]
        while len(slots) > self.decoder_stages:
            counts = [first, *(place.alive for place in slots.values())]
            drops = [before - after for before, after in pairwise(counts)]
            del slots[list(slots)[drops.index(min(drops))]]
        for slot in range(len(self._boundaries)):
            if len(slots) == self.decoder_stages:
                break
            if slot not in slots:
                # A stage that does nothing fills an unused place.
                before = [place.alive for used, place in slots.items() if used < slot]
                slots[slot] = _Place(min(before, default=first), None)
        return sorted(slots.items(), key=lambda item: item[0])
