"""A schedule worked out for one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pruners.schedule import Schedule, StageCounts
from pruners.stages import Stage


@dataclass(frozen=True)
class Plan:
    """The stages of a schedule that drop tokens on one model, with their counts.

    Attributes:
        encoder: The stage at layer 0, or None.
        decoder: Stages by decoder layer.
        compact: Whether positions are counted anew after each drop.
    """

    encoder: tuple[Stage, StageCounts] | None
    decoder: Mapping[int, tuple[Stage, StageCounts]]
    compact: bool

    @classmethod
    def of(cls, schedule: Schedule, visual_tokens: int) -> Plan:
        """Work out which stages of a schedule drop tokens.

        Args:
            schedule: The schedule.
            visual_tokens: Visual tokens of the dense model.

        Returns:
            The plan. A stage that leaves as many tokens alive as there were is not in it.
        """
        active = {}
        previous = visual_tokens
        for stage, counts in zip(schedule.stages, schedule.counts(visual_tokens), strict=True):
            if counts.alive < previous:
                active[stage.layer] = (stage, counts)
            previous = counts.alive
        return cls(active.pop(0, None), active, schedule.positions == "compact")

    @property
    def prunes(self) -> bool:
        """Whether any stage drops tokens."""
        return self.encoder is not None or bool(self.decoder)
