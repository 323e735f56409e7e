"""Which stages a shape's model cannot run, so that they have no price."""

from __future__ import annotations

from collections.abc import Sequence

from pruners.errors import UnsupportedModelError
from pruners.scorers import ClsAttention, Downsampling, QuestionRelevance, SimilarityFusion
from pruners.selectors import LocalWindows
from pruners.shape import Shape
from space.tower_reads import choosers
from space.working import WorkingStage


def check_supported(stages: Sequence[WorkingStage], shape: Shape) -> None:
    """Refuse stages that a shape's model cannot run.

    Args:
        stages: Stages that drop tokens, by rising layer.
        shape: Shape of the model.

    Raises:
        UnsupportedModelError: A stage makes the image smaller, and the shape has several tiles; it
            reads a CLS token or prunes inside the tower, and the tower has no CLS token; or the
            family does not let it: to prune inside the tower or keep the CLS token (LLaVA-1.5
            alone), or to compare patches with the question (towers that are CLIP's alone).
    """
    if shape.tiles > 1 and any(isinstance(each.stage.scorer, Downsampling) for each in stages):
        raise UnsupportedModelError(
            f"scorer 'downsampling' shrinks one image to a grid of patches, but shape "
            f"{shape.name!r} has {shape.tiles} tiles, whose tokens together are no whole grid "
            "each; use a shape of one tile, or another scorer"
        )
    for working in stages:
        if working.alive > 0:  # else nothing is chosen, so nothing is read
            _check_class_token(working, shape)
            _check_family(working, shape)


def _check_class_token(working: WorkingStage, shape: Shape) -> None:
    part = _needs_class_token(working, shape)
    if part is not None and not shape.vision.class_token:
        raise UnsupportedModelError(
            f"{part} needs a vision tower with a CLS token, and that of shape {shape.name!r} "
            "has none; use scorers that need none, such as 'visual-self-attention'"
        )


def _needs_class_token(working: WorkingStage, shape: Shape) -> str | None:
    """Name what a stage needs a CLS token for, by the rule that the runtime refuses it."""
    stage = working.stage
    if stage.in_tower or isinstance(stage.scorer, ClsAttention) or _reads_pairs(working, shape):
        return f"scorer {stage.scorer.kind!r}"
    return f"selector {stage.selector.kind!r}" if isinstance(stage.selector, LocalWindows) else None


def _check_family(working: WorkingStage, shape: Shape) -> None:
    stage = working.stage
    if stage.in_tower and shape.family != "llava":
        raise UnsupportedModelError(
            f"scorer {stage.scorer.kind!r} drops tokens inside the vision tower, which family "
            f"{shape.family!r} of shape {shape.name!r} does not let it; use a scorer that reads "
            "the tower, such as 'visual-self-attention'"
        )
    if stage.keeps_cls and not shape.prunes_before_projector:
        raise UnsupportedModelError(
            f"keep_cls feeds the CLS token to the decoder, but in family {shape.family!r} of shape "
            f"{shape.name!r} it does not pass the projector; set keep_cls to False"
        )
    if _reads_pairs(working, shape) and not shape.shares_text_space:
        raise UnsupportedModelError(
            f"scorer {stage.scorer.kind!r} compares patches with the question in CLIP's joint "
            f"space, but the vision tower of shape {shape.name!r}, family {shape.family!r}, is not "
            "CLIP's; use a scorer that does not look at the question, such as "
            "'visual-self-attention'"
        )


def _reads_pairs(working: WorkingStage, shape: Shape) -> bool:
    """Whether a stage's scorer reads CLIP's tower as one that is paired with a text tower."""
    scorer = working.stage.scorer
    if isinstance(scorer, SimilarityFusion):
        return any(choosers(working, shape.tiles))
    return isinstance(scorer, QuestionRelevance)
