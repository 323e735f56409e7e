"""The space without a budget: points whose retentions are all free."""

from __future__ import annotations

from collections.abc import Mapping

from pruners.counting import alive_tokens
from pruners.schedule import Schedule
from pruners.stages import Stage
from space.coding import SearchSpace
from space.flops import CostModel
from space.parameters import Dimension, Parameter, Value, check_point, number
from space.tiles import Level, chooses_by_tile, level_within
from space.working import working_stages

RETENTION = Parameter("retention", 0.0, 1.0)
"""The encoder stage's retention, which other spaces solve from the budget."""


class FreeSpace(SearchSpace):
    """A search space in which no budget is solved: a point's schedule costs what it costs.

    It has the dimensions of the space that it is made from, and the encoder stage's retention.

    Args:
        within: The space at the budget; shape, stages, boundaries and vocabulary are its own.
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
        self._dense_tflops = CostModel(within.shape).tflops(())

    @property
    def parameters(self) -> tuple[Dimension, ...]:
        """The dimensions of the space at the budget, and the encoder stage's retention."""
        return (*super().parameters, RETENTION)

    def decode(self, point: Mapping[str, Value]) -> Schedule:
        """Turn a point into the schedule that it stands for, whatever that costs.

        Args:
            point: A value per parameter.

        Returns:
            The schedule, priced on the space's shape.

        Raises:
            ScheduleError: A value is missing, unknown or out of range.
        """
        check_point(point, self.parameters)
        numbers = range(1, self.decoder_stages + 1)
        layers = self._layers([number(point, f"boundary_{index}") for index in numbers])
        ratios = [number(point, RETENTION.name)]
        ratios += [number(point, f"ratio_{index}") for index in numbers]
        stages: list[Stage] = []
        alive, share = self.shape.visual_tokens, 1.0
        for stage, ratio in zip(self.vocabulary.stages(point, layers), ratios, strict=True):
            level = self._level(stage, alive_tokens(ratio, alive))
            if level.alive < alive:
                # Whole tokens of unequal tiles may lie above the share that they are rounded from.
                alive, share = level.alive, min(level.retention, share)
                stages.append(stage.model_copy(update={"retention": share}))
        schedule = Schedule(
            stages=tuple(stages), positions=self.vocabulary.positions(point), shape=self.shape
        )
        cost = self._model.price(working_stages(schedule, self.shape), self._dense_tflops)
        return schedule.model_copy(update={"cost": cost})

    def encode(self, schedule: Schedule) -> dict[str, Value]:
        """Turn a schedule into the point that stands for it, as `SearchSpace.encode` does."""
        stages = working_stages(schedule, self.shape)
        first = self.shape.visual_tokens
        if stages and stages[0].layer == 0:
            first = stages[0].alive
        return super().encode(schedule) | {RETENTION.name: first / self.shape.visual_tokens}

    def at_budget(self, point: Mapping[str, Value]) -> dict[str, Value]:
        """Find the point that spends the budget, with the ratios of another.

        Args:
            point: A value per parameter.

        Returns:
            The point of the schedule that the space at the budget has for the same boundaries and
            ratios; its retentions are scaled together.
        """
        given = {name: value for name, value in point.items() if name != RETENTION.name}
        return self.encode(self.within.decode(given))

    def spends_budget(self, point: Mapping[str, Value]) -> bool:
        """Whether a point's schedule is the one that spends the budget with its ratios."""
        at_budget = self.decode(self.at_budget(point))
        return at_budget.content_hash == self.decode(point).content_hash

    def meets_budget(self, schedule: Schedule) -> bool:
        """Whether a schedule of this space, priced, costs no more than the budget."""
        return self.excess(schedule) <= 0

    def excess(self, schedule: Schedule) -> float:
        """Return by which share of the budget a schedule of this space exceeds it.

        Args:
            schedule: The schedule, priced on the space's shape.

        Returns:
            Cost over budget, minus 1; negative where some of the budget is left.
        """
        assert schedule.cost is not None  # decode prices
        return self.budget.amount(schedule.cost) / self.budget.limit(self.shape) - 1

    def _level(self, stage: Stage, tokens: int) -> Level:
        """Return how many tokens a stage can leave, at most so many, and at which share."""
        if stage.layer == 0:
            fewest = sum(tokens > 0 for tokens in self.shape.tokens_per_tile)
            tokens = max(tokens, fewest)
        if chooses_by_tile(stage, self.shape):
            return level_within(tokens, self.shape)
        return Level(tokens, tokens / self.shape.visual_tokens)
