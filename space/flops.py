"""What a schedule costs: FLOPs by part and convention, visual tokens and key-value cache.

One multiply-accumulate (MAC) is 2 FLOPs. With n tokens in a decoder layer, width d and feed-forward
width m, and as many key heads as query heads, the published formulas are

* ``total``: per layer 2n(4d^2 + 3dm) + 4n^2 d over all tokens of one prefill (attention in full,
  not halved for causality), plus vision tower, text tower, projector, the output head at every
  position, and what scoring and merging add. Counts FLOPs. This is what budgets mean.
* ``llm-macs``: per layer 4nd^2 + 2n^2 d + 3ndm over visual tokens alone. Counts MACs; the
  literature's "3.82 TFLOPs" (PyramidDrop, SparseVLM, DeSAP).

Both are written here for grouped-query attention and any head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from pruners.errors import ScheduleMismatchError
from pruners.schedule import Cost, Schedule
from pruners.shape import Shape, VisionShape
from space.overhead import (
    WorkingStage,
    choosers,
    decoder_scoring_flops,
    encoder_scoring_flops,
    merging_flops,
    text_tower_flops,
)

Convention = Literal["total", "llm-macs"]
"""Names of the conventions; see the module's text."""

TERA = 1e12


@dataclass(frozen=True, slots=True)
class CostBreakdown:
    """The parts that a cost is the sum of: FLOPs, or MACs under ``llm-macs``.

    Attributes:
        vision_tower: All layers of the vision tower over all tiles.
        text_tower: The text tower over the question, when a scorer needs it.
        projector: The projector, on the tokens that reach it.
        decoder_linear: Projections and feed-forward layers of the decoder.
        decoder_attention: Attention products of the decoder.
        head: The output head at every position.
        scoring: What scorers compute beyond the model's own work.
        merging: Similarities between dropped tokens and those they merge into.
    """

    vision_tower: int = 0
    text_tower: int = 0
    projector: int = 0
    decoder_linear: int = 0
    decoder_attention: int = 0
    head: int = 0
    scoring: int = 0
    merging: int = 0

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return (
            self.vision_tower
            + self.text_tower
            + self.projector
            + self.decoder_linear
            + self.decoder_attention
            + self.head
            + self.scoring
            + self.merging
        )

    def in_tera(self) -> dict[str, float]:
        """Return the parts by name, in 10^12."""
        return {field.name: getattr(self, field.name) / TERA for field in fields(self)}


class CostModel:
    """Prices schedules on one shape; the constants of the shape are computed once.

    Args:
        shape: Shape of the model.
    """

    def __init__(self, shape: Shape) -> None:
        query_size = shape.attention_heads * shape.head_size
        key_size = shape.key_value_heads * shape.head_size
        self.shape = shape
        self._macs_per_token = shape.hidden_size * (
            2 * query_size + 2 * key_size + 3 * shape.intermediate_size
        )
        self._macs_per_pair = 2 * query_size
        self._kept_tokens = shape.newline_tokens + shape.text_tokens
        self._vision_tower = shape.tiles * _vision_tower_flops(shape.vision)
        self._text_tower = text_tower_flops(shape.text_tower) if shape.text_tower else 0
        self._projector_per_token = (
            2 * shape.hidden_size * (shape.vision.hidden_size + shape.hidden_size)
        )
        self._head_per_token = 2 * shape.hidden_size * shape.vocabulary_size
        self._kv_bytes_per_token = 2 * key_size * shape.dtype_bytes

    def breakdown(self, stages: Sequence[WorkingStage]) -> CostBreakdown:
        """Price stages under convention `total`.

        Args:
            stages: Stages that drop tokens, by rising layer.

        Returns:
            FLOPs by part.

        Raises:
            UnsupportedModelError: A stage scores by similarity, and the shape has no text tower.
        """
        shape = self.shape
        alive, start = shape.visual_tokens, 0
        projected = alive
        token_layers = pair_layers = scoring = merging = text_tower = 0
        for stage in stages:
            tokens = alive + self._kept_tokens
            token_layers += (stage.layer - start) * tokens
            pair_layers += (stage.layer - start) * tokens * tokens
            if stage.layer == 0:
                projected = stage.alive
                scoring += encoder_scoring_flops(stage, shape)
                if choosers(stage)[0]:
                    text_tower = self._text_tower
            else:
                scoring += decoder_scoring_flops(stage, alive, shape)
            merging += merging_flops(stage, alive, shape)
            alive, start = stage.alive, stage.layer
        tokens = alive + self._kept_tokens
        token_layers += (shape.decoder_layers - start) * tokens
        pair_layers += (shape.decoder_layers - start) * tokens * tokens
        return CostBreakdown(
            vision_tower=self._vision_tower,
            text_tower=text_tower,
            projector=projected * self._projector_per_token,
            decoder_linear=2 * self._macs_per_token * token_layers,
            decoder_attention=2 * self._macs_per_pair * pair_layers,
            head=tokens * self._head_per_token,
            scoring=scoring,
            merging=merging,
        )

    def llm_breakdown(self, stages: Sequence[WorkingStage]) -> CostBreakdown:
        """Price stages under convention `llm-macs`.

        Args:
            stages: Stages that drop tokens, by rising layer.

        Returns:
            MACs by part; only the decoder's parts are counted.
        """
        token_layers = pair_layers = 0
        for layers, alive in self._segments(stages):
            token_layers += layers * alive
            pair_layers += layers * alive * alive
        return CostBreakdown(
            decoder_linear=self._macs_per_token * token_layers,
            decoder_attention=self._macs_per_pair * pair_layers,
        )

    def tflops(self, stages: Sequence[WorkingStage]) -> float:
        """Return the cost of stages under convention `total`, in 10^12 FLOPs."""
        return self.breakdown(stages).total / TERA

    def mean_visual_tokens(self, stages: Sequence[WorkingStage]) -> float:
        """Return the visual tokens alive under stages, averaged over decoder layers."""
        layers = self.shape.decoder_layers
        return sum(span * alive for span, alive in self._segments(stages)) / layers

    def kv_bytes(self, stages: Sequence[WorkingStage]) -> int:
        """Return the size of the key-value cache after a prefill under stages, in bytes."""
        positions = sum(
            span * (alive + self._kept_tokens) for span, alive in self._segments(stages)
        )
        return positions * self._kv_bytes_per_token

    def price(self, stages: Sequence[WorkingStage], dense_tflops: float) -> Cost:
        """Price stages in every way.

        Args:
            stages: Stages that drop tokens, by rising layer.
            dense_tflops: Cost without pruning, in 10^12 FLOPs.

        Returns:
            The cost.
        """
        parts = self.breakdown(stages)
        return Cost(
            tflops=parts.total / TERA,
            dense_tflops=dense_tflops,
            mean_visual_tokens=self.mean_visual_tokens(stages),
            visual_tokens_per_layer=tuple(
                alive for span, alive in self._segments(stages) for _ in range(span)
            ),
            llm_macs=self.llm_breakdown(stages).total / TERA,
            kv_bytes=self.kv_bytes(stages),
            breakdown=parts.in_tera(),
        )

    def _segments(self, stages: Sequence[WorkingStage]) -> list[tuple[int, int]]:
        """Split the decoder into runs of layers: how many, and the visual tokens alive in them."""
        alive, start, segments = self.shape.visual_tokens, 0, []
        for stage in stages:
            segments.append((stage.layer - start, alive))
            alive, start = stage.alive, stage.layer
        segments.append((self.shape.decoder_layers - start, alive))
        return segments


def working_stages(schedule: Schedule, shape: Shape) -> tuple[WorkingStage, ...]:
    """Return the stages of a schedule that drop tokens on a shape, in counts.

    Args:
        schedule: The schedule.
        shape: Shape of the model.

    Returns:
        One entry per stage that leaves fewer tokens alive than there were; the others do nothing.

    Raises:
        ScheduleMismatchError: A stage's layer lies beyond the shape's decoder.
    """
    if schedule.stages and schedule.stages[-1].layer >= shape.decoder_layers:
        raise ScheduleMismatchError(
            f"the schedule has a stage at layer {schedule.stages[-1].layer}, but {shape.name} has "
            f"{shape.decoder_layers} decoder layers; use schedule.scaled_to(shape)"
        )
    working, previous = [], shape.visual_tokens
    for stage, count in zip(schedule.stages, schedule.counts(shape.visual_tokens), strict=True):
        if count.alive < previous:
            working.append(
                WorkingStage(count.layer, count.alive, count.contextual, stage.scorer, stage.merge)
            )
        previous = count.alive
    return tuple(working)


def price(schedule: Schedule, shape: Shape) -> Cost:
    """Price a schedule in every way.

    Args:
        schedule: The schedule; its layers refer to `shape`.
        shape: Shape of the model.

    Returns:
        Cost of one prefill of one sample.

    Raises:
        ScheduleMismatchError: A stage's layer lies beyond the shape's decoder.
        UnsupportedModelError: The schedule scores by similarity, and the shape has no text tower.
    """
    model = CostModel(shape)
    return model.price(working_stages(schedule, shape), dense_tflops=model.tflops(()))


def breakdown(schedule: Schedule, shape: Shape, convention: Convention = "total") -> CostBreakdown:
    """Price a schedule by part.

    Args:
        schedule: The schedule; its layers refer to `shape`.
        shape: Shape of the model.
        convention: Which operations count: ``"total"`` (in FLOPs) or ``"llm-macs"`` (in MACs).

    Returns:
        Cost of one prefill of one sample, by part.

    Raises:
        ScheduleMismatchError: A stage's layer lies beyond the shape's decoder.
        UnsupportedModelError: The schedule scores by similarity, and the shape has no text tower.
    """
    model, stages = CostModel(shape), working_stages(schedule, shape)
    return model.llm_breakdown(stages) if convention == "llm-macs" else model.breakdown(stages)


def dense_cost(shape: Shape) -> Cost:
    """Price the model without pruning.

    Args:
        shape: Shape of the model.

    Returns:
        Cost of one prefill of one sample.
    """
    return price(Schedule(), shape)


def _vision_tower_flops(vision: VisionShape) -> int:
    """One tile through every layer of the tower, with its patch embedding."""
    tokens, width = vision.patches + vision.class_token, vision.hidden_size
    layer = 2 * tokens * (4 * width**2 + 2 * width * vision.intermediate_size)
    attention = 4 * tokens**2 * width
    embedding = 2 * vision.patches * vision.channels * vision.patch_size**2 * width
    return vision.layers * (layer + attention) + embedding
