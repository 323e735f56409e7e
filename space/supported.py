"""Which stages a shape's vision tower cannot run, so that they have no price."""

from __future__ import annotations

from collections.abc import Sequence

from pruners.errors import UnsupportedModelError
from pruners.scorers import ClsAttention, Downsampling, QuestionRelevance, SimilarityFusion
from pruners.selectors import LocalWindows
from pruners.shape import Shape
from space.tower_reads import choosers
from space.working import WorkingStage


def check_supported(stages: Sequence[WorkingStage], shape: Shape) -> None:
    """Refuse stages that a shape's vision tower cannot run.

    Args:
        stages: Stages that drop tokens, by rising layer.
        shape: Shape of the model.

    Raises:
        UnsupportedModelError: A stage makes the image smaller, and the shape has several tiles; or
            it reads a CLS token or prunes inside the tower, and the tower has no CLS token.
    """
    if shape.tiles > 1 and any(isinstance(each.stage.scorer, Downsampling) for each in stages):
        raise UnsupportedModelError(
            f"scorer 'downsampling' shrinks one image to a grid of patches, but shape "
            f"{shape.name!r} has {shape.tiles} tiles, whose tokens together are no whole grid "
            "each; use a shape of one tile, or another scorer"
        )
    if shape.vision.class_token:
        return
    for working in stages:
        part = _needs_class_token(working, shape)
        if part is not None:
            raise UnsupportedModelError(
                f"{part} needs a vision tower with a CLS token, and that of shape {shape.name!r} "
                "has none; use scorers that need none, such as 'visual-self-attention'"
            )


def _needs_class_token(working: WorkingStage, shape: Shape) -> str | None:
    """Name what a stage needs a CLS token for, by the rule that the runtime refuses it."""
    stage = working.stage
    scorer = stage.scorer
    if working.alive == 0:
        return None  # nothing is chosen, so nothing is read
    if (
        stage.in_tower
        or isinstance(scorer, ClsAttention | QuestionRelevance)
        or (isinstance(scorer, SimilarityFusion) and any(choosers(working, shape.tiles)))
    ):
        return f"scorer {scorer.kind!r}"
    return f"selector {stage.selector.kind!r}" if isinstance(stage.selector, LocalWindows) else None
