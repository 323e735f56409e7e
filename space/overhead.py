"""What scoring and merging cost on top of the model's own work, in FLOPs.

Counted are matrix products, at 2 FLOPs per multiply-accumulate, as the runtime in `pruners`
executes them: only the rows of attention that a score needs. Sorting, softmax and other elementwise
work is not counted, as in the model's own figures.
"""

from __future__ import annotations

from typing import NamedTuple

from pruners.errors import UnsupportedModelError
from pruners.merges import ClusterAverage, Merge, NearestReference
from pruners.schedule import split_budget
from pruners.scorers import ClsAttention, Scorer, SimilarityFusion, VisualSelfAttention
from pruners.shape import Shape, TextTowerShape, VisionShape


class WorkingStage(NamedTuple):
    """A stage that drops tokens, in counts.

    Attributes:
        layer: Boundary.
        alive: Visual tokens alive after the stage.
        contextual: How many of them are contextual.
        scorer: What decides which tokens stay.
        merge: What becomes of the dropped ones.
    """

    layer: int
    alive: int
    contextual: int
    scorer: Scorer
    merge: Merge


def text_tower_flops(tower: TextTowerShape) -> int:
    """Price one question through the text tower: bidirectional, with its projection per token.

    Args:
        tower: Sizes of the tower and the question's length.

    Returns:
        FLOPs.
    """
    tokens, width = tower.tokens, tower.hidden_size
    layer = 2 * tokens * (4 * width**2 + 2 * width * tower.intermediate_size)
    attention = 4 * tokens**2 * width
    return tower.layers * (layer + attention) + 2 * tokens * width * tower.projection_size


def choosers(stage: WorkingStage) -> tuple[bool, bool]:
    """Say which of its two scores an encoder stage computes.

    Args:
        stage: The stage at layer 0.

    Returns:
        Whether similarity, and whether saliency, chooses at least one token.
    """
    if not isinstance(stage.scorer, SimilarityFusion):
        return False, True
    dominant = stage.alive - stage.contextual - stage.scorer.keep_cls
    by_similarity, by_saliency = split_budget(dominant, stage.scorer.weight)
    return by_similarity > 0, by_saliency > 0


def encoder_scoring_flops(stage: WorkingStage, shape: Shape) -> int:
    """Price the scores of an encoder stage, without the text tower.

    Args:
        stage: The stage at layer 0.
        shape: Shape of the model.

    Returns:
        FLOPs over all tiles.

    Raises:
        UnsupportedModelError: The stage scores by similarity, and the shape has no text tower.
    """
    similarity, saliency = choosers(stage)
    flops = 0
    if similarity and isinstance(stage.scorer, SimilarityFusion):
        if shape.text_tower is None:
            raise UnsupportedModelError(
                f"the schedule scores by similarity to the question, but shape {shape.name!r} "
                "has no text tower to price; pass text_tower to Shape.from_config or "
                "shape_from_pretrained, or set the similarity weight to 0"
            )
        flops += _decoupled_similarity_flops(shape.vision, shape.text_tower, stage.scorer)
    if saliency:
        flops += _cls_attention_flops(shape.vision)
    return shape.tiles * flops


def decoder_scoring_flops(stage: WorkingStage, previous: int, shape: Shape) -> int:
    """Price the scores of a decoder stage.

    The next layer's queries are computed for the visual tokens, its keys for all. (VisionDrop's
    released scorer also projects the other queries and all values, and uses neither; for its
    64-token schedule that would add 1 % to the total.)

    Args:
        stage: The stage, at a layer above 0.
        previous: Visual tokens alive before it.
        shape: Shape of the model.

    Returns:
        FLOPs; 0 for a stage that drops everything, which needs no score.
    """
    if stage.alive == 0 or not isinstance(stage.scorer, VisualSelfAttention):
        return 0
    query_size = shape.attention_heads * shape.head_size
    key_size = shape.key_value_heads * shape.head_size
    sequence = previous + shape.newline_tokens + shape.text_tokens
    projections = 2 * shape.hidden_size * (previous * query_size + sequence * key_size)
    attended = previous if stage.scorer.mean == "bidirectional" else sequence
    return projections + 2 * previous * attended * query_size


def merging_flops(stage: WorkingStage, previous: int, shape: Shape) -> int:
    """Price the keys and similarities by which dropped tokens are merged into others.

    Args:
        stage: The stage.
        previous: Visual tokens alive before it.
        shape: Shape of the model.

    Returns:
        FLOPs over all tiles.
    """
    at_encoder = stage.layer == 0
    tiles = shape.tiles if at_encoder else 1
    vision = shape.vision
    flops = 0
    if isinstance(stage.merge, NearestReference):
        # Compared by keys, averaged over heads; the encoder's are computed for this purpose.
        references = stage.contextual
        width = vision.hidden_size // vision.attention_heads if at_encoder else shape.head_size
        if at_encoder and references:
            flops += tiles * 2 * (vision.patches + vision.class_token) * vision.hidden_size**2
    elif isinstance(stage.merge, ClusterAverage):
        references = stage.alive
        width = vision.hidden_size if at_encoder else shape.hidden_size
    else:
        return 0
    dropped = previous - stage.alive
    if isinstance(stage.scorer, ClsAttention | SimilarityFusion) and stage.scorer.keep_cls:
        dropped += tiles  # the CLS token takes a patch's place
    return flops + 2 * dropped * references * width // tiles


def _cls_attention_flops(vision: VisionShape) -> int:
    """One query row, all keys, one row of attention."""
    tokens = vision.patches + vision.class_token
    width = vision.hidden_size
    return 2 * width**2 * (1 + tokens) + 2 * tokens * width


def _decoupled_similarity_flops(
    vision: VisionShape, tower: TextTowerShape, scorer: SimilarityFusion
) -> int:
    """The last block's decoupled attention output and its alignment (DeSAP, equations 2 and 3)."""
    tokens = vision.patches + vision.class_token
    width, shared = vision.hidden_size, tower.projection_size
    projections = len({*scorer.encoding, "v"}) + 1  # each projection once, and the output's
    flops = 2 * tokens * width * (projections * width + shared)
    flops += 4 * tokens**2 * width
    flops += 2 * vision.patches * tower.tokens * shared
    if scorer.alignment:
        flops += 2 * (vision.patches + tower.tokens) * shared
    return flops
