"""The schedules that every oracle runs with.

Published methods are all those of `pruners.methods`; other schedules are one line in SCHEDULES.
LLaVA runs all of them, other families by default those of REPRESENTATIVE, and with `-m slow` all
that they support.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pruners import (
    ClusterAverage,
    NearestReference,
    NoMerge,
    Shape,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
)
from pruners.methods import METHODS, Needs
from pruners.methods.base import encoder_saliency
from pruners.scorers import Scorer

FUSION = SimilarityFusion(text_tower="paired")
COMPARED = FUSION.model_copy(update={"weight": 0.3})
OTHER_OPTIONS = SimilarityFusion(
    text_tower="paired",
    weight=0.4,
    encoding="qk",
    order="saliency-first",
    text="prompt",
    clamp_negative=True,
)


def encoder(scorer: Scorer, merge: Any, contextual: float = 0, **settings: Any) -> Stage:
    return Stage(
        layer=0, retention=0.6, contextual=contextual, scorer=scorer, merge=merge, **settings
    )


def decoder(mean: str = "causal") -> tuple[Stage, ...]:
    scorer = VisualSelfAttention.model_validate({"mean": mean})
    merge = NearestReference()
    return (
        Stage(layer=2, retention=0.4, contextual=0.125, scorer=scorer, merge=merge),
        Stage(layer=4, retention=0.2, contextual=0.2, scorer=scorer, merge=merge),
    )


def visiondrop_paper(shape: Shape) -> tuple[Stage, ...]:
    saliency = encoder_saliency(shape, keep_cls=True)
    first = encoder(saliency, NearestReference(combine="mean"), 0.125)
    return (first, *decoder("bidirectional"))


def desap_then_visiondrop(shape: Shape) -> tuple[Stage, ...]:
    return (encoder(COMPARED, NearestReference(), 0.1), *decoder())


def desap_other_options(shape: Shape) -> tuple[Stage, ...]:
    keep = {"keep_cls": shape.prunes_before_projector}
    return (encoder(OTHER_OPTIONS.model_copy(update=keep), NoMerge()),)


def global_scope(shape: Shape) -> tuple[Stage, ...]:
    saliency = encoder_saliency(shape, keep_cls=False)
    return (encoder(saliency, NearestReference(), 0.1, scope="global"), *decoder())


def decoder_only(shape: Shape) -> tuple[Stage, ...]:
    return decoder("attending-queries")


def first_boundary_at_1(shape: Shape) -> tuple[Stage, ...]:
    return (Stage(layer=1, retention=0.5, scorer=VisualSelfAttention(), merge=ClusterAverage()),)


def all_dropped(shape: Shape) -> tuple[Stage, ...]:
    return (
        encoder(encoder_saliency(shape, keep_cls=False), NoMerge()),
        Stage(layer=3, retention=0, scorer=VisualSelfAttention()),
    )


SCHEDULES: dict[str, Callable[[Shape], tuple[Stage, ...]]] = {
    "visiondrop-paper": visiondrop_paper,
    "desap-then-visiondrop": desap_then_visiondrop,
    "desap-other-options": desap_other_options,
    "global-scope": global_scope,
    "decoder-only": decoder_only,
    "first-boundary-at-1": first_boundary_at_1,
    "all-dropped": all_dropped,
}
NEEDS = {
    **{name: method.needs for name, method in METHODS.items()},
    "desap-then-visiondrop": Needs.PAIRED_TEXT_TOWER,
    "desap-other-options": Needs.PAIRED_TEXT_TOWER,
}
REPRESENTATIVE = {
    "visiondrop-paper",
    "desap-then-visiondrop",
    "global-scope",
    "all-dropped",
    "fastv",
    "pyramiddrop",
    "sparsevlm",
    "divprune",
}
"""Encoder and decoder stages with merging, similarity, both scopes, text guidance, diversity."""

SHARE = 0.4
"""Mean share of an image's tokens that published methods are asked for."""
