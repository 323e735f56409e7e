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
from typing import Literal, NamedTuple

from pruners.schedule import Cost, Schedule
from pruners.scorers import RaterAttention
from pruners.shape import Shape
from space.merging import merging_flops
from space.scoring import decoder_scoring_flops, rater_choice_flops
from space.selecting import selecting_flops
from space.supported import check_supported
from space.tower_reads import Read, comparison_flops, read_question, tower_reads
from space.towers import (
    projector_flops_per_token,
    pruned_tower_flops,
    text_tower_flops,
    vision_tower_flops,
)
from space.working import WorkingStage, working_stages

Convention = Literal["total", "llm-macs"]
"""Names of the conventions; see the module's text."""

TERA = 1e12


@dataclass(frozen=True, slots=True)
class CostBreakdown:
    """The parts that a cost is the sum of: FLOPs, or MACs under ``llm-macs``.

    Attributes:
        vision_tower: All layers of the vision tower over all tiles, with what scorers that prune
            inside it compute.
        text_tower: The text tower over the question, when a scorer needs it.
        projector: The projector or merger, on the tokens that reach it, and DeepStack's mergers.
        decoder_linear: Projections and feed-forward layers of the decoder.
        decoder_attention: Attention products of the decoder.
        head: The output head at every position.
        scoring: What scorers and selectors compute beyond the model's own work.
        merging: Similarities between dropped tokens and those they merge into, and their keys.
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


class _Overhead(NamedTuple):
    """FLOPs that stages add to the model's own, and whether they need the text tower."""

    scoring: int
    merging: int
    reads_question: bool


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
        self._vision_tower = shape.tiles * vision_tower_flops(shape.vision)
        self._text_tower = text_tower_flops(shape.text_tower) if shape.text_tower else 0
        self._projector_per_token = projector_flops_per_token(shape)
        self._head_per_token = 2 * shape.hidden_size * shape.vocabulary_size
        self._kv_bytes_per_token = 2 * key_size * shape.dtype_bytes

    def breakdown(self, stages: Sequence[WorkingStage]) -> CostBreakdown:
        """Price stages under convention `total`.

        Args:
            stages: Stages that drop tokens, by rising layer.

        Returns:
            FLOPs by part.

        Raises:
            UnsupportedModelError: A stage compares with the question, and the shape has no text
                tower; or its vision tower cannot run a stage (`space.supported`).
        """
        check_supported(stages, self.shape)
        token_layers = pair_layers = 0
        for layers, alive in self._segments(stages):
            tokens = alive + self._kept_tokens
            token_layers += layers * tokens
            pair_layers += layers * tokens * tokens
        vision_tower = self._vision_tower
        projected = self.shape.projector_tokens or self.shape.visual_tokens
        if stages and stages[0].layer == 0:
            first = stages[0]
            if first.stage.in_tower:
                vision_tower = pruned_tower_flops(first, self.shape)
            if first.stage.features == "vision" and self.shape.prunes_before_projector:
                projected = first.alive
        overhead = self._overhead(stages)
        return CostBreakdown(
            vision_tower=vision_tower,
            text_tower=self._text_tower if overhead.reads_question else 0,
            projector=projected * self._projector_per_token,
            decoder_linear=2 * self._macs_per_token * token_layers,
            decoder_attention=2 * self._macs_per_pair * pair_layers,
            head=tokens * self._head_per_token,
            scoring=overhead.scoring,
            merging=overhead.merging,
        )

    def llm_breakdown(self, stages: Sequence[WorkingStage]) -> CostBreakdown:
        """Price stages under convention `llm-macs`.

        Args:
            stages: Stages that drop tokens, by rising layer.

        Returns:
            MACs by part; only the decoder's parts are counted.

        Raises:
            UnsupportedModelError: The shape's vision tower cannot run a stage.
        """
        check_supported(stages, self.shape)
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
        """Return the bytes of all keys and values of a prefill, those outside of a window too."""
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

    def _overhead(self, stages: Sequence[WorkingStage]) -> _Overhead:
        """Price what stages compute beside the model; those that prune in the tower do it there."""
        shape = self.shape
        alive = entering = shape.visual_tokens
        scoring = merging = 0
        rated = False
        reads: dict[Read, int] = {}
        for working in stages:
            stage = working.stage
            if working.alive > 0 and not stage.in_tower:
                reads |= tower_reads(working, shape)
                scoring += shape.tiles * comparison_flops(working, shape)
                scoring += selecting_flops(working, alive, shape)
                merging += merging_flops(working, alive, shape)
                if stage.layer > 0:
                    scoring += decoder_scoring_flops(working, alive, shape)
                    rated = rated or isinstance(stage.scorer, RaterAttention)
            alive = working.alive
            if stage.layer == 0:
                entering = alive
        scoring += shape.tiles * sum(reads.values())
        if rated:
            scoring += rater_choice_flops(entering, shape)
        return _Overhead(scoring, merging, read_question(reads))

    def _segments(self, stages: Sequence[WorkingStage]) -> list[tuple[int, int]]:
        """Split the decoder into runs of layers: how many, and the visual tokens alive in them."""
        alive, start, segments = self.shape.visual_tokens, 0, []
        for stage in stages:
            segments.append((stage.layer - start, alive))
            alive, start = stage.alive, stage.layer
        segments.append((self.shape.decoder_layers - start, alive))
        return segments


def price(schedule: Schedule, shape: Shape) -> Cost:
    """Price a schedule in every way.

    Args:
        schedule: The schedule; its layers refer to `shape`.
        shape: Shape of the model.

    Returns:
        Cost of one prefill of one sample.

    Raises:
        ScheduleMismatchError: A stage's layer lies beyond the shape's decoder.
        UnsupportedModelError: It compares with the question, and the shape has no text tower; or
            the vision tower cannot run a stage.
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
        UnsupportedModelError: It compares with the question, and the shape has no text tower; or
            the vision tower cannot run a stage.
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
