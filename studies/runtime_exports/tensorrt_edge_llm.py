"""TensorRT Edge-LLM: DART on the decoder's input embeddings, for Qwen-VL models.

Source: "Visual-Token Pruning (DART)" of its user guide, version 0.11.0
(https://nvidia.github.io/TensorRT-Edge-LLM/0.11.0/user_guide/features/visual-token-pruning.html):
flags ``--visualPrune``, ``--dartReductionRatio`` in (0, 1), ``--dartPivotImageTokens`` and
``--dartPivotTextTokens``; every image keeps ``ceil(tokens * (1 - ratio))``, at least 1, and tokens
keep their positions. Text pivots may be 0 (``dartPruner.cpp``).
"""

from __future__ import annotations

import math

from pruners.errors import RuntimeExportError
from pruners.schedule import Schedule
from pruners.selectors import LeastDuplication
from studies.runtime_exports.settings import RuntimeSettings, encoder_stage, shape_of

NAME = "tensorrt-edge-llm"
READ = (
    "https://nvidia.github.io/TensorRT-Edge-LLM/0.11.0/user_guide/features/"
    "visual-token-pruning.html",
)
_FAMILIES = ("qwen2_5_vl", "qwen3_vl")
_MOST_PIVOTS = 64  # dartSelectorKernels.h
_FEWEST_TOKENS = 16  # of a request; fewer are not pruned (minVisualTokens)


def export(schedule: Schedule) -> RuntimeSettings:
    """Spell a schedule that drops duplicates as DART's settings.

    Args:
        schedule: The schedule: one stage at layer 0 with selector ``"least-duplication"``, scope
            ``"tile"`` and original positions.

    Returns:
        The settings.

    Raises:
        RuntimeExportError: The schedule cannot be had there; the message says why.
    """
    shape = shape_of(schedule, "TensorRT Edge-LLM", _FAMILIES)
    stage = encoder_stage(schedule, "TensorRT Edge-LLM")
    selector = stage.selector
    if not isinstance(selector, LeastDuplication):
        raise RuntimeExportError(
            "TensorRT Edge-LLM drops duplicates of pivot tokens (DART); the schedule's selector is "
            f"{selector.kind!r}"
        )
    if selector.image_pivots + selector.text_pivots > _MOST_PIVOTS:
        raise RuntimeExportError(
            f"TensorRT Edge-LLM takes {_MOST_PIVOTS} pivots at most; the schedule has "
            f"{selector.image_pivots} image and {selector.text_pivots} text pivots"
        )
    if schedule.positions != "original":
        raise RuntimeExportError(
            "TensorRT Edge-LLM leaves tokens their positions; the schedule has positions 'compact'"
        )
    if stage.scope != "tile":
        raise RuntimeExportError(
            "TensorRT Edge-LLM gives each image its own share of the tokens; the schedule has "
            f"scope {stage.scope!r}"
        )
    if not stage.retention < 1 or shape.visual_tokens < _FEWEST_TOKENS:
        raise RuntimeExportError(
            f"TensorRT Edge-LLM drops a share in (0, 1) of at least {_FEWEST_TOKENS} tokens; the "
            f"schedule keeps {100 * stage.retention:.3g} % of {shape.visual_tokens}"
        )
    sizes = shape.tokens_per_tile
    wanted = [schedule.tile_counts(size).alive for size in sizes]
    # Half a token less than wanted of the smallest image, so that rounding up gives the count back.
    shares = [(count - 0.5) / size for count, size in zip(wanted, sizes, strict=True)]
    ratio = round(1 - max(shares), 6)
    kept = [max(1, math.ceil(size * (1 - ratio))) for size in sizes]
    differences = [
        "Pivots are the tokens whose input embeddings have the highest L1 norm, and embeddings are "
        f"compared; the schedule scores by {stage.scorer.kind} and compares {stage.features} "
        "features."
    ]
    if kept != wanted:
        differences.append(f"It keeps {sum(kept)} tokens instead of {sum(wanted)}.")
    return RuntimeSettings(
        runtime=NAME,
        read=READ,
        arguments=(
            "--visualPrune",
            *("--dartReductionRatio", f"{ratio:g}"),
            *("--dartPivotImageTokens", str(selector.image_pivots)),
            *("--dartPivotTextTokens", str(selector.text_pivots)),
        ),
        options={
            "enabled": True,
            "algorithm": "dart",
            "reductionRatio": ratio,
            "pivotImageTokens": selector.image_pivots,
            "pivotTextTokens": selector.text_pivots,
        },
        kept_tokens=sum(kept),
        differences=tuple(differences),
    )
