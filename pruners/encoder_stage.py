"""The stage at the encoder's output: choosing and merging image features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pruners.choosing import choose_tokens
from pruners.counting import StageCounts
from pruners.groups import GroupReader, TileClass
from pruners.merge_rules import merge_dropped
from pruners.merges import ClusterAverage, SimilarityWeighted
from pruners.plan import Plan, patches_chosen
from pruners.reads import window_layer
from pruners.scorers import (
    ClsAttention,
    KeyNorm,
    QuestionRelevance,
    Random,
    SimilarityFusion,
    Uniform,
    VisionScorer,
    VisualSelfAttention,
)
from pruners.scores import Scores
from pruners.selection import gather_tokens, random_scores
from pruners.selectors import LocalWindows
from pruners.sequence import Selection
from pruners.stages import Stage
from pruners.text_tower import QuestionOutputs
from pruners.vision_outputs import VisionOutputs
from pruners.vision_scores import patch_scores
from pruners.vision_towers import VisionTower
from pruners.windows import GridScores


def run_encoder_stage(
    plan: Plan, reader: GroupReader, features: Tensor | None, tower: VisionTower
) -> Selection:
    """Choose and merge the visual tokens of a group of samples.

    Args:
        plan: A plan with a stage at layer 0.
        reader: The samples, and what is known of their images.
        features: What is chosen from: projected features of the visual tokens, (samples, N,
            width); None for the vision tower's features, or what a tower that drops tokens left.
        tower: The vision tower.

    Returns:
        The tokens alive of each sample, (samples, alive): for each tile the CLS token if kept and
        dominant tokens in raster order; then the contextual ones of all tiles.

    Raises:
        InputError: The scorer reads the question, and there is none.
    """
    stage = plan.encoder
    assert stage is not None
    if plan.in_tower:
        return _joined(
            [(tiles, _left(reader, tiles), 0) for tiles in reader.group.classes],
        )
    if stage.scope == "global":
        if features is None:
            features = reader.joined([_patches(vision, tower) for vision in reader.outputs])
        counts = reader.group.counts.get(0)
        if counts is None:
            return _all_of(features)
        scores = _sample_scores(stage, counts, reader, features)
        return _choose(
            stage,
            counts,
            features,
            scores,
            keys=lambda: reader.joined(list(map(_keys, reader.outputs))),
            local=_no_windows,
        )
    parts = []
    for tiles, vision in zip(reader.group.classes, reader.outputs, strict=True):
        own = _patches(vision, tower) if features is None else _of_tiles(features, tiles)
        counts = plan.schedule.tile_counts(tiles.size)
        if counts.alive == tiles.size:
            parts.append((tiles, _all_of(own), 0))
            continue
        questions = reader.questions_of(tiles)

        def local(
            selector: LocalWindows, tiles: TileClass = tiles, vision: VisionOutputs = vision
        ) -> GridScores:
            scores = vision.saliency[window_layer(selector, len(tower.layers))]
            return GridScores(scores, *tiles.grid)

        def keys(vision: VisionOutputs = vision) -> Tensor:
            return _keys(vision)

        selection = _choose(
            stage,
            counts,
            own,
            _tile_scores(stage, counts, vision, questions, own),
            keys=keys,
            local=local,
            cls_token=_cls_token(vision) if stage.keeps_cls else None,
        )
        parts.append((tiles, selection, counts.contextual))
    return _joined(parts)


def sample_patch_scores(stage: Stage, counts: StageCounts, reader: GroupReader) -> Scores:
    """Score all visual tokens of each sample by what the vision tower says of them.

    Args:
        stage: A stage with a `VisionScorer`.
        counts: Its token counts.
        reader: The samples, and what is known of their images.

    Returns:
        Scores, (samples, N).

    Raises:
        InputError: The scorer reads the question, and there is none.
    """

    scores = [
        patch_scores(stage, counts, vision, reader.questions_of(tiles))
        for tiles, vision in zip(reader.group.classes, reader.outputs, strict=True)
    ]
    first = reader.joined([own.first for own in scores])
    seconds = [own.second for own in scores if own.second is not None]
    second = reader.joined(seconds) if seconds else None
    return Scores(first, second, scores[0].first_count)


def _patches(vision: VisionOutputs, tower: VisionTower) -> Tensor:
    """Return the vision tower's features of patches, (batch, patches, width)."""
    assert vision.features is not None
    return vision.features[:, 1:] if tower.class_token else vision.features


def _cls_token(vision: VisionOutputs) -> Tensor:
    assert vision.features is not None
    return vision.features[:, :1]


def _keys(vision: VisionOutputs) -> Tensor:
    assert vision.keys is not None
    return vision.keys


def _left(reader: GroupReader, tiles: TileClass) -> Selection:
    left = reader.left(tiles)
    assert left is not None
    return left


def _of_tiles(features: Tensor, tiles: TileClass) -> Tensor:
    """Pick the tokens of a class of tiles: (samples * tiles, tokens, width)."""
    if tiles.each == 1 and tiles.size == features.shape[1]:
        return features
    chosen = gather_tokens(features, tiles.visual.flatten(1))
    return chosen.view(-1, tiles.size, features.shape[-1])


def _all_of(tokens: Tensor) -> Selection:
    everything = torch.arange(tokens.shape[1], device=tokens.device)
    return Selection(tokens, everything.expand(len(tokens), -1))


def _joined(parts: list[tuple[TileClass, Selection, int]]) -> Selection:
    """Put the selections of tiles together, one sample after the other.

    Args:
        parts: Classes of tiles, their selections (samples * tiles, alive), and how many of each
            are contextual, at the end.

    Returns:
        Selections of samples: what is contextual stands at the end again.
    """
    if len(parts) == 1 and parts[0][0].each == 1:
        return parts[0][1]
    dominant, contextual = [], []
    with_sizes = any(selection.sizes is not None for _, selection, _ in parts)
    for tiles, selection, made in parts:
        own = _of_samples(tiles, selection, with_sizes=with_sizes)
        alive = selection.indices.shape[1]
        dominant.append([values[:, :, : alive - made].flatten(1, 2) for values in own])
        contextual.append([values[:, :, alive - made :].flatten(1, 2) for values in own])
    tokens, indices, *sizes = (
        torch.cat(values, dim=1) for values in zip(*dominant, *contextual, strict=True)
    )
    total = sum(made * tiles.each for tiles, _, made in parts)
    return Selection(tokens, indices, total, sizes[0] if sizes else None)


def _of_samples(tiles: TileClass, selection: Selection, *, with_sizes: bool) -> list[Tensor]:
    """Return tokens, indices among the sample's tokens, and sizes, (samples, tiles, alive, ...)."""
    split = (*tiles.visual.shape[:2], selection.indices.shape[1])
    indices = selection.indices.reshape(split)
    own = tiles.visual.gather(2, indices.clamp(min=0))
    indices = own.where(indices >= 0, -1 - tiles.visual[:, :, :1])
    values = [selection.tokens.reshape(*split, selection.tokens.shape[-1]), indices]
    if with_sizes:
        sizes = selection.sizes
        if sizes is None:
            sizes = torch.ones_like(selection.indices, dtype=torch.float32)
        values.append(sizes.reshape(split))
    return values


def _choose(
    stage: Stage,
    counts: StageCounts,
    tokens: Tensor,
    scores: Scores,
    *,
    keys: Callable[[], Tensor],
    local: Callable[[LocalWindows], GridScores],
    cls_token: Tensor | None = None,
) -> Selection:
    """Choose and merge the tokens of tiles or samples, (batch, tokens, width)."""
    with torch.no_grad():
        chosen = choose_tokens(
            stage.selector,
            scores,
            lambda: tokens,
            patches_chosen(stage, counts),
            local=local,
            text_pivots=lambda count: None,
        )
    if cls_token is not None and isinstance(stage.merge, ClusterAverage | SimilarityWeighted):
        # Patches may join the CLS token as well, which is compared by the same features.
        with_cls = torch.cat([cls_token, tokens], dim=1)
        first = torch.cat([scores.first[:, :1], scores.first], dim=1)
        kept = torch.cat([torch.zeros_like(chosen[:, :1]), chosen + 1], dim=1)
        alive = merge_dropped(stage.merge, with_cls, kept, 0, scores=first, keys=keys)
        return replace(alive, indices=alive.indices - 1)
    alive = merge_dropped(
        stage.merge, tokens, chosen, counts.contextual, scores=scores.first, keys=keys
    )
    return alive if cls_token is None else alive.behind_cls(cls_token)


def _sample_scores(
    stage: Stage, counts: StageCounts, reader: GroupReader, features: Tensor
) -> Scores:
    """Score the tokens of whole samples."""
    scorer = stage.scorer
    if isinstance(scorer, VisionScorer):
        return sample_patch_scores(stage, counts, reader)
    if isinstance(scorer, VisualSelfAttention | KeyNorm):
        parts = (_tile_scores(stage, counts, own, None, features) for own in reader.outputs)
        return Scores(reader.joined([own.first for own in parts]))
    return _tile_scores(stage, counts, VisionOutputs(), None, features)


def _tile_scores(
    stage: Stage,
    counts: StageCounts,
    vision: VisionOutputs,
    questions: QuestionOutputs | None,
    tokens: Tensor,
) -> Scores:
    rows, count = tokens.shape[:2]
    with torch.no_grad():
        match stage.scorer:
            case ClsAttention() | SimilarityFusion() | QuestionRelevance():
                return patch_scores(stage, counts, vision, questions)
            case VisualSelfAttention():
                assert vision.patch_attention is not None
                return Scores(vision.patch_attention)
            case KeyNorm():
                assert vision.key_norms is not None
                return Scores(vision.key_norms)
            case Random(seed=seed):
                return Scores(random_scores(count, seed, tokens.device).expand(rows, -1))
            case Uniform():
                return Scores(tokens.new_zeros(rows, count, dtype=torch.float32))
    raise AssertionError(f"no stage at layer 0 has scorer {stage.scorer.kind!r}")


def _no_windows(selector: LocalWindows) -> GridScores:
    raise AssertionError(f"no stage with scope 'global' has selector {selector.kind!r}")
