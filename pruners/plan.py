"""A schedule worked out for one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pruners.counting import StageCounts, split_budget
from pruners.schedule import Schedule
from pruners.scorers import QuestionRelevance, SimilarityFusion
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

    @property
    def in_tower(self) -> bool:
        """Whether tokens leave inside the vision tower."""
        return self.encoder is not None and self.encoder[0].in_tower

    @property
    def stages(self) -> Iterator[tuple[Stage, StageCounts]]:
        """The stages that choose tokens, in order; one that drops all of them does not choose."""
        if self.encoder is not None:
            yield self.encoder
        yield from (stage for stage in self.decoder.values() if stage[1].alive > 0)

    @property
    def question_scorer(self) -> SimilarityFusion | QuestionRelevance | None:
        """The first scorer that compares the image with the question, or None."""
        for stage, counts in self.stages:
            scorer = stage.scorer
            if isinstance(scorer, QuestionRelevance):
                return scorer
            if isinstance(scorer, SimilarityFusion) and fusion_split(stage, counts)[0] > 0:
                return scorer
        return None


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
