"""The schedule: everything the runtime needs to prune a model, as a file that travels.

Importing this module costs milliseconds: it needs neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pruners.counting import StageCounts, alive_tokens, contextual_tokens, grid_tokens
from pruners.errors import ScheduleError
from pruners.scorers import Downsampling, QuestionReader, VisionScorer
from pruners.shape import Shape
from pruners.stages import Stage

FORMAT: Literal["prunetune.schedule"] = "prunetune.schedule"
VERSION: Literal[1] = 1

ADDED_KEYS = ("selector", "features", "scope")
"""Keys of a stage that the format gained after its first files were written."""


class _Record(BaseModel):
    # JSON has no NaN, and nothing here can be infinite.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Cost(_Record):
    """What a schedule costs on the shape it was priced for.

    Attributes:
        tflops: FLOPs of one prefill in 10^12, convention `total`; 1 multiply-accumulate is 2 FLOPs.
        dense_tflops: The same without pruning.
        mean_visual_tokens: Visual tokens alive, averaged over decoder layers.
        visual_tokens_per_layer: Visual tokens alive in each decoder layer.
        llm_macs: Multiply-accumulates in 10^12, convention `llm-macs` (the literature's
            "3.82 TFLOPs").
        kv_bytes: Size of the key-value cache after prefill, in bytes.
        breakdown: Parts that `tflops` is the sum of, in 10^12 FLOPs.
    """

    tflops: float = Field(ge=0)
    dense_tflops: float = Field(ge=0)
    mean_visual_tokens: float = Field(ge=0)
    visual_tokens_per_layer: tuple[int, ...]
    llm_macs: float = Field(ge=0)
    kv_bytes: int = Field(ge=0)
    breakdown: dict[str, float] = Field(default_factory=dict)


class SplitEvidence(_Record):
    """What was measured on one split.

    Attributes:
        samples: Number of samples.
        accuracy: Mean over tasks of the pruned model's accuracy, in [0, 1].
        dense_accuracy: The same for the dense model on the same samples.
        relative_accuracy: Mean over tasks of pruned / dense accuracy.
        interval_95: 95 % bootstrap interval of `relative_accuracy` over images, paired.
        tasks: Accuracy of the pruned model per task.
    """

    samples: int = Field(gt=0)
    accuracy: float = Field(ge=0, le=1)
    dense_accuracy: float = Field(ge=0, le=1)
    relative_accuracy: float = Field(ge=0)
    interval_95: tuple[float, float]
    tasks: dict[str, float] = Field(default_factory=dict)


class Evidence(_Record):
    """What is known of a schedule's accuracy.

    Attributes:
        measured_on: The model that was measured, which may differ from the one priced for.
        note: One sentence on how far the measurement carries.
        splits: Evidence by split (search, confirm, report).
    """

    measured_on: str
    note: str = ""
    splits: dict[str, SplitEvidence] = Field(default_factory=dict)


class Provenance(_Record):
    """Where a schedule comes from.

    Attributes:
        origin: How it was made, for example ``"search"`` or ``"published: visiondrop"``.
        study: Name of the study that found it.
        seed: Seed of that study.
        budget: The budget it was made for, with its convention.
        trials: Trials that the study had finished.
        evaluations: Samples that the study had scored.
        command: The command line that ran the study.
        versions: Versions of the libraries that decide the result.
        created: Time of the export, ISO 8601 in UTC.
    """

    origin: str
    study: str | None = None
    seed: int | None = None
    budget: str | None = None
    trials: int | None = None
    evaluations: int | None = None
    command: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    created: str | None = None


class Schedule(_Record):
    """All stages together, plus position handling: everything the runtime needs.

    Attributes:
        format: Always ``"prunetune.schedule"``.
        version: Version of the format.
        stages: Stages by rising layer; retention never rises. Empty means dense.
        positions: ``"compact"`` renumbers the positions after each drop without gaps (VisionDrop,
            PyramidDrop); ``"original"`` keeps those of the dense model (FastV).
        shape: The shape that the layers and the cost refer to.
        cost: Cost on that shape.
        evidence: Measured accuracy.
        provenance: Where the schedule comes from.
    """

    format: Literal["prunetune.schedule"] = FORMAT
    version: Literal[1] = VERSION
    stages: tuple[Stage, ...] = ()
    positions: Literal["compact", "original"] = "compact"
    shape: Shape | None = None
    cost: Cost | None = None
    evidence: Evidence | None = None
    provenance: Provenance | None = None

    @model_validator(mode="after")
    def _check_stages_fit(self) -> Self:
        for earlier, later in pairwise(self.stages):
            if later.layer <= earlier.layer:
                raise ValueError(
                    f"stage layers must rise, but {later.layer} follows {earlier.layer}"
                )
            if later.retention > earlier.retention:
                raise ValueError(
                    "retention must not rise from stage to stage, but "
                    f"{later.retention:g} at layer {later.layer} follows {earlier.retention:g} "
                    f"at layer {earlier.layer}"
                )
        readers = [
            stage.scorer for stage in self.stages if isinstance(stage.scorer, QuestionReader)
        ]
        for other in readers[1:]:
            if (other.text_tower, other.text) != (readers[0].text_tower, readers[0].text):
                raise ValueError(
                    "all scorers of a schedule that read the question need the same text_tower "
                    f"and text, but one has {readers[0].text_tower!r}, {readers[0].text!r} and "
                    f"another {other.text_tower!r}, {other.text!r}"
                )
        if self.stages and self.stages[0].in_tower:
            for stage in self.stages[1:]:
                if isinstance(stage.scorer, VisionScorer):
                    raise ValueError(
                        f"scorer {stage.scorer.kind!r} at layer {stage.layer} reads all patches, "
                        f"but {self.stages[0].scorer.kind!r} leaves fewer in the vision tower"
                    )
        if self.shape is not None and self.stages:
            last = self.stages[-1].layer
            if last >= self.shape.decoder_layers:
                raise ValueError(
                    f"a stage at layer {last} needs more than the {self.shape.decoder_layers} "
                    f"decoder layers of {self.shape.name}"
                )
        return self

    @property
    def content_hash(self) -> str:
        """SHA-256 of what changes behaviour: stages and positions, nothing else.

        Keys of stages that the format gained later count only where they are not the default, so
        that schedules of older files keep their hash.
        """
        content = self.model_dump(mode="json", include={"stages", "positions"})
        for stage, values in zip(self.stages, content["stages"], strict=True):
            for key in ADDED_KEYS:
                if getattr(stage, key) == Stage.model_fields[key].default:
                    del values[key]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def counts(
        self, visual_tokens: int, tiles: Sequence[int] | None = None
    ) -> tuple[StageCounts, ...]:
        """Count the tokens alive after each stage.

        Args:
            visual_tokens: Visual tokens of the dense model.
            tiles: How many of them each tile has, where images go through the vision tower in
                several parts; by default there is one tile.

        Returns:
            One entry per stage, in order. A stage that leaves as many tokens alive as the one
            before it does nothing, so its contextual count is 0.
        """
        counts: list[StageCounts] = []
        previous, retention = visual_tokens, 1.0
        for stage in self.stages:
            if stage.layer == 0 and stage.scope == "tile":
                count = _sum(self.tile_counts(size) for size in tiles or (visual_tokens,))
            elif stage.retention == retention:
                # Nothing is dropped, even where tiles were rounded to more than their sum is.
                count = StageCounts(stage.layer, previous, previous, 0)
            else:
                count = _stage_counts(stage, visual_tokens, previous)
            counts.append(count)
            previous, retention = count.alive, stage.retention
        return tuple(counts)

    def tile_counts(self, tokens: int) -> StageCounts:
        """Count the tokens of one tile alive after the stage at layer 0, whose scope is a tile.

        Args:
            tokens: Visual tokens of the tile.

        Returns:
            The counts; contextual tokens are made only where tokens are dropped.
        """
        return _stage_counts(self.stages[0], tokens, tokens)

    def visual_tokens_per_layer(
        self, decoder_layers: int, visual_tokens: int, tiles: Sequence[int] | None = None
    ) -> tuple[int, ...]:
        """Count the visual tokens alive in each decoder layer.

        Args:
            decoder_layers: Layers of the decoder.
            visual_tokens: Visual tokens of the dense model.
            tiles: How many of them each tile has; by default there is one tile.

        Returns:
            One count per decoder layer.
        """
        alive_from = {count.layer: count.alive for count in self.counts(visual_tokens, tiles)}
        alive, per_layer = visual_tokens, []
        for layer in range(decoder_layers):
            alive = alive_from.get(layer, alive)
            per_layer.append(alive)
        return tuple(per_layer)

    def scaled_to(self, shape: Shape) -> Schedule:
        """Carry the schedule over to a model of another depth.

        Boundaries keep their relative depth, rounded half up to a layer; one above 0 stays above 0.
        Of stages that meet at one layer, the later one remains. Retentions are shares and stay.

        Args:
            shape: Shape of the other model.

        Returns:
            The schedule for `shape`, without a cost (price it anew) and with its evidence.

        Raises:
            ScheduleError: The schedule does not say which shape its layers refer to.
        """
        if self.shape is None:
            raise ScheduleError(
                "this schedule does not say which shape its layers refer to; "
                "set its shape before scaling it to another"
            )
        depth = shape.decoder_layers
        by_layer: dict[int, Stage] = {}
        for stage in self.stages:
            layer = math.floor(stage.layer * depth / self.shape.decoder_layers + 0.5)
            if stage.layer > 0:
                layer = min(max(layer, 1), depth - 1)
            by_layer[layer] = stage.model_copy(update={"layer": layer})
        return self.model_copy(
            update={"stages": tuple(by_layer.values()), "shape": shape, "cost": None}
        )


def _stage_counts(stage: Stage, tokens: int, previous: int) -> StageCounts:
    """Count what one stage leaves of `tokens`, of which `previous` were alive before it."""
    alive = alive_tokens(stage.retention, tokens)
    if isinstance(stage.scorer, Downsampling) and alive < tokens:
        alive = grid_tokens(alive)
    # Whole grids lie below what was asked for, maybe below a later stage's count.
    alive = min(alive, previous)
    contextual = contextual_tokens(stage.contextual, alive) if alive < previous else 0
    return StageCounts(stage.layer, alive, alive - contextual, contextual)


def _sum(counts: Iterable[StageCounts]) -> StageCounts:
    """Add the counts of one stage over tiles."""
    layers, *numbers = zip(*counts, strict=True)
    return StageCounts(layers[0], *map(sum, numbers))
