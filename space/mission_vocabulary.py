"""The vocabulary of the mission's space: DeSAP's split and VisionDrop's score and merging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pruners.merges import NearestReference, NoMerge
from pruners.methods.base import PAPER_TEXT_TOWER, encoder_saliency
from pruners.scorers import Scorer, VisualSelfAttention
from pruners.shape import LLAVA_1_5_7B, Shape
from pruners.stages import Stage
from space.fitting import Positions
from space.parameters import Dimension, Value, number
from space.vocabulary import (
    CONTEXTUAL,
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

    Free are the similarity weight and the contextual share. On models whose vision tower has no
    paired text tower, saliency alone chooses in the encoder, as in VisionDrop, and no weight is
    free.

    Args:
        text_tower: Folder or hub name of the paired text tower, as schedules name it.
        shape: Shape of the model.
    """

    name = "mission"

    def __init__(self, text_tower: str = PAPER_TEXT_TOWER, shape: Shape = LLAVA_1_5_7B) -> None:
        self.text_tower = text_tower
        self._shape = shape

    def on(self, shape: Shape) -> MissionVocabulary:
        """Return the vocabulary of the parts that a shape's model can run."""
        return MissionVocabulary(self.text_tower, shape)

    def dimensions(self, decoder_stages: int) -> tuple[Dimension, ...]:
        """List the shares."""
        return SHARES if self._shape.has_paired_text_tower else (CONTEXTUAL,)

    def stages(self, point: Mapping[str, Value], layers: Sequence[int]) -> list[Stage]:
        """Make the stages of a point."""
        contextual = rounded(number(point, "contextual"))
        merge = NearestReference() if contextual > 0 else NoMerge()
        scorer: Scorer = encoder_saliency(self._shape, keep_cls=False)
        if self._shape.has_paired_text_tower:
            scorer = fusion(rounded(number(point, "similarity_weight")), self.text_tower)
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
        contextual: dict[str, Value] = {"contextual": contextual_of(stages)}
        if not self._shape.has_paired_text_tower:
            return contextual
        weight = DEFAULT_WEIGHT
        if encoder is not None:
            weight = weight_of([encoder], default=0.0)
        return contextual | {"similarity_weight": weight}

    def encoder_stages(self) -> Iterator[Stage]:
        """Yield the stage that similarity alone chooses in, where it can."""
        if self._shape.has_paired_text_tower:
            yield undecided_stage(0, fusion(1.0, self.text_tower))
        else:
            yield undecided_stage(0, encoder_saliency(self._shape, keep_cls=False))
