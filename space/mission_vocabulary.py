"""The vocabulary of the mission's space: DeSAP's split and VisionDrop's score and merging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pruners.merges import NearestReference, NoMerge
from pruners.methods.base import PAPER_TEXT_TOWER
from pruners.scorers import Scorer, VisualSelfAttention
from pruners.stages import Stage
from space.fitting import Positions
from space.parameters import Dimension, Value, number
from space.vocabulary import (
    DEFAULT_WEIGHT,
    SHARES,
    contextual_of,
    fusion,
    rounded,
    undecided_stage,
    weight_of,
)


class MissionVocabulary:
    """DeSAP's fusion in the encoder, VisionDrop's score in the decoder, and VisionDrop's merging.

    Free are the similarity weight and the contextual share.

    Args:
        text_tower: Folder or hub name of the paired text tower, as schedules name it.
    """

    name = "mission"

    def __init__(self, text_tower: str = PAPER_TEXT_TOWER) -> None:
        self.text_tower = text_tower

    def dimensions(self, decoder_stages: int) -> tuple[Dimension, ...]:
        """List the two shares."""
        return SHARES

    def stages(self, point: Mapping[str, Value], layers: Sequence[int]) -> list[Stage]:
        """Make the stages of a point."""
        contextual = rounded(number(point, "contextual"))
        merge = NearestReference() if contextual > 0 else NoMerge()
        scorer: Scorer = fusion(rounded(number(point, "similarity_weight")), self.text_tower)
        stages = []
        for layer in (0, *layers):
            stages.append(undecided_stage(layer, scorer, contextual=contextual, merge=merge))
            scorer = VisualSelfAttention()
        return stages

    def positions(self, point: Mapping[str, Value]) -> Positions:
        """Positions are compact."""
        return "compact"

    def values(
        self, encoder: Stage | None, decoder: Sequence[Stage | None], positions: Positions
    ) -> dict[str, Value]:
        """Find the nearest values; CLS attention is similarity weight 0."""
        stages = [stage for stage in (encoder, *decoder) if stage is not None]
        weight = DEFAULT_WEIGHT
        if encoder is not None:
            weight = weight_of([encoder], default=0.0)
        return {"contextual": contextual_of(stages), "similarity_weight": weight}

    def encoder_stages(self) -> Iterator[Stage]:
        """Yield the stage that similarity alone chooses in."""
        yield undecided_stage(0, fusion(1.0, self.text_tower))
