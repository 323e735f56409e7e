"""A schedule worked out for one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pruners.counting import StageCounts, split_budget
from pruners.schedule import Schedule
from pruners.scorers import QuestionReader, QuestionRelevance, SimilarityFusion
from pruners.stages import Stage


@dataclass(frozen=True)
class Plan:
    """The stages of a schedule that drop tokens.

    Attributes:
        schedule: The schedule.
        encoder: The stage at layer 0, or None.
        decoder: Stages by decoder layer.
        compact: Whether positions are counted anew after each drop.
    """

    schedule: Schedule
    encoder: Stage | None
    decoder: Mapping[int, Stage]
    compact: bool

    @classmethod
    def of(cls, schedule: Schedule) -> Plan:
        """Work out which stages of a schedule can drop tokens.

        Args:
            schedule: The schedule.

        Returns:
            The plan. A stage that never leaves fewer tokens alive than there were is not in it.
        """
        active = {}
        alive = 1.0
        for stage in schedule.stages:
            if stage.retention < alive or (stage.in_tower and stage.retention < 1):
                active[stage.layer] = stage
            alive = min(alive, stage.retention)
        return cls(schedule, active.pop(0, None), active, schedule.positions == "compact")

    @property
    def prunes(self) -> bool:
        """Whether any stage drops tokens."""
        return self.encoder is not None or bool(self.decoder)

    @property
    def in_tower(self) -> bool:
        """Whether tokens leave inside the vision tower."""
        return self.encoder is not None and self.encoder.in_tower

    @property
    def stages(self) -> Iterator[Stage]:
        """The stages that choose tokens, in order; one that drops all of them does not choose."""
        if self.encoder is not None:
            yield self.encoder
        yield from (stage for stage in self.decoder.values() if stage.retention > 0)

    @property
    def question_scorer(self) -> QuestionReader | None:
        """The first scorer that compares the image with the question, or None."""
        for stage in self.stages:
            scorer = stage.scorer
            if isinstance(scorer, QuestionRelevance):
                return scorer
            if isinstance(scorer, SimilarityFusion) and scorer.weight > 0:
                return scorer
        return None

    def counts(self, tiles: Sequence[int]) -> Mapping[int, StageCounts]:
        """Count what the stages leave of a sample.

        Args:
            tiles: Visual tokens of each tile of the sample.

        Returns:
            Counts by layer, of those stages that drop tokens of such a sample.
        """
        if not tiles:
            return {}
        previous, dropping = sum(tiles), {}
        for counts in self.schedule.counts(previous, tiles):
            if counts.alive < previous:
                dropping[counts.layer] = counts
            previous = counts.alive
        return dropping


def patches_chosen(stage: Stage, counts: StageCounts) -> int:
    """Count the dominant tokens that a stage chooses by score; the CLS token needs none.

    Args:
        stage: The stage.
        counts: Its token counts.

    Returns:
        Tokens to choose.
    """
    return counts.dominant - stage.keeps_cls


def fusion_split(stage: Stage, counts: StageCounts) -> tuple[int, int]:
    """Split the tokens of a stage that fuses scores (DeSAP, section 4.3).

    Args:
        stage: The stage, whose scorer is `SimilarityFusion`.
        counts: Its token counts.

    Returns:
        Tokens that similarity chooses, and tokens that saliency does.
    """
    assert isinstance(stage.scorer, SimilarityFusion)
    return split_budget(patches_chosen(stage, counts), stage.scorer.weight)
