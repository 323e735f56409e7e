"""What is under way while a pruned model runs: a prefill, or a step that continues one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pruners.cache import PrunedCache
from pruners.schedule import Schedule, StageCounts
from pruners.sequence import Layout, Selection
from pruners.stages import Stage
from pruners.text_tower import QuestionOutputs
from pruners.vision import VisionOutputs


@dataclass(frozen=True)
class Plan:
    """A schedule on one model: the stages that drop tokens there, with their counts.

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


@dataclass(frozen=True)
class StageRecord:
    """What one stage kept.

    Attributes:
        layer: Its boundary.
        indices: For every visual token alive after it, in sequence order, which of the dense
            model's N visual tokens it is or was merged into; -1 is the CLS token. (batch, alive)
        contextual: Which of them are contextual, (batch, alive).
        positions: Position in the dense sequence of everything left in the sequence,
            (batch, length).
    """

    layer: int
    indices: Tensor
    contextual: Tensor
    positions: Tensor

    @classmethod
    def of(cls, layer: int, layout: Layout) -> StageRecord:
        """Record the sequence after a stage."""
        return cls(layer, layout.origin, layout.contextual, layout.source)


@dataclass(frozen=True)
class PrefillRecord:
    """What a prefill kept.

    Attributes:
        stages: One record per stage that dropped tokens.
    """

    stages: tuple[StageRecord, ...]


@dataclass
class Prefill:
    """A prefill under way.

    Attributes:
        image_mask: True where an image placeholder is, (batch, length).
        input_ids: Token ids, to read the question from, or None.
        questions: Questions given explicitly, one per sample, or None.
        vision: What is known of the images, once the vision tower has run.
        selection: What the encoder stage kept, its tokens as the projector made them.
        dense: The sequence before anything was dropped.
        layout: The sequence as it is.
        rotation: Cosines and sines at its positions, after the first decoder stage.
        attention_mask: What the layers' attention gets, after the first decoder stage.
        cache: The key-value cache that is being filled.
        held: What the layers since each boundary will have cached.
        records: What the stages kept.
    """

    image_mask: Tensor
    input_ids: Tensor | None = None
    questions: QuestionOutputs | None = None
    vision: VisionOutputs | None = None
    selection: Selection | None = None
    dense: Layout | None = None
    layout: Layout | None = None
    rotation: tuple[Tensor, Tensor] | None = None
    attention_mask: Tensor | None = None
    cache: Any = None
    held: dict[int, Layout] = field(default_factory=dict)
    records: list[StageRecord] = field(default_factory=list)


@dataclass
class Continuation:
    """A step under way that continues a pruned prefill from its cache.

    Attributes:
        pruned: What the prefill left.
        cache: The cache.
        position_ids: Positions as if nothing had been dropped, (batch, new).
        mask: Padding mask as if nothing had been dropped, (batch, prompt + new), or None.
        rotation: Cosines and sines at the current layers' positions.
        attention_mask: What the current layers' attention gets.
    """

    pruned: PrunedCache
    cache: Any
    position_ids: Tensor | None = None
    mask: Tensor | None = None
    rotation: tuple[Tensor, Tensor] | None = None
    attention_mask: Tensor | None = None
