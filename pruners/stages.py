"""Stages: where a schedule prunes, how much, and by which scorer, selector and merge rule."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pruners.merges import BipartiteMatching, ContextualMerge, Merge, NoMerge
from pruners.part import Part
from pruners.scorers import (
    ClsAttention,
    DecoderScorer,
    Scorer,
    SimilarityFusion,
    TokenMatching,
    TowerScorer,
)
from pruners.selectors import LeastDuplication, LocalWindows, Selector, TopScores


class Stage(Part):
    """One boundary with its retention, scorer, selector and merge rule.

    Attributes:
        layer: Boundary: decoder layer before which tokens are dropped; 0 is the encoder's output,
            before the first decoder layer.
        retention: Visual tokens alive after the stage as a share of the dense model's, in (0, 1],
            or 0 at boundaries above 0.
        contextual: Share of the alive tokens that are made by merging dropped ones, in [0, 1).
        scorer: What tokens are ordered by.
        selector: How tokens are chosen by their scores.
        features: What the stage at layer 0 compares and merges: ``"vision"`` features, which the
            projector then gets fewer of, or ``"projected"`` ones, for which it sees them all. In
            families that merge or arrange tokens behind the projector both mean projected ones.
        scope: What the stage at layer 0 chooses among: ``"tile"``, the tokens of each image, part
            of an image or frame that goes through the vision tower on its own (VisionZip and others
            on LLaVA-NeXT), or ``"global"``, all visual tokens of a sample.
        merge: What becomes of the dropped ones.
    """

    layer: int = Field(ge=0)
    retention: float = Field(ge=0, le=1)
    contextual: float = Field(default=0.0, ge=0, lt=1)
    scorer: Scorer
    selector: Selector = TopScores()
    features: Literal["vision", "projected"] = "vision"
    scope: Literal["tile", "global"] = "tile"
    merge: Merge = NoMerge()

    @property
    def keeps_cls(self) -> bool:
        """Whether the CLS token is fed to the decoder as one of the dominant tokens."""
        return isinstance(self.scorer, ClsAttention | SimilarityFusion) and self.scorer.keep_cls

    @property
    def in_tower(self) -> bool:
        """Whether tokens leave inside the vision tower."""
        return isinstance(self.scorer, TowerScorer)

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        scorer, selector = self.scorer.kind, self.selector.kind
        if self.layer == 0:
            if isinstance(self.scorer, DecoderScorer):
                raise ValueError(
                    f"scorer {scorer!r} reads a decoder layer and needs a layer above 0"
                )
            if self.retention == 0:
                raise ValueError("retention 0 at layer 0 would leave the decoder without an image")
            if isinstance(self.selector, LeastDuplication) and self.selector.text_pivots > 0:
                raise ValueError(
                    f"selector {selector!r} has text pivots, which only decoder stages see; set "
                    "text_pivots to 0 at layer 0"
                )
            return self
        if self.in_tower:
            raise ValueError(
                f"scorer {scorer!r} drops tokens inside the vision tower and belongs to layer 0, "
                f"not to layer {self.layer}"
            )
        if isinstance(self.selector, LocalWindows):
            raise ValueError(
                f"selector {selector!r} cuts the image's grid of patches and belongs to layer 0, "
                f"not to layer {self.layer}"
            )
        if self.features != "vision":
            raise ValueError(
                f"features {self.features!r} belong to layer 0; a decoder stage at layer "
                f"{self.layer} compares hidden states"
            )
        if self.scope != "tile":
            raise ValueError(
                f"scope {self.scope!r} belongs to layer 0; a decoder stage at layer {self.layer} "
                "chooses among all visual tokens anyway"
            )
        if self.keeps_cls:
            raise ValueError(
                "keep_cls feeds the CLS token to the decoder, which has happened before layer "
                f"{self.layer}; set it to False above layer 0"
            )
        return self

    @model_validator(mode="after")
    def _check_parts_fit(self) -> Self:
        scorer, merge = self.scorer.kind, self.merge.kind
        if isinstance(self.scorer, SimilarityFusion) and not isinstance(self.selector, TopScores):
            raise ValueError(
                f"scorer {scorer!r} splits the tokens between two scores itself and needs selector "
                f"'top-scores', not {self.selector.kind!r}"
            )
        if self.keeps_cls and self.features == "projected":
            raise ValueError(
                "keep_cls needs features 'vision': models project no CLS token of their own"
            )
        if self.keeps_cls and self.scope == "global":
            raise ValueError(
                "keep_cls needs scope 'tile': every tile has a CLS token, a sample has none"
            )
        if self.scope == "global" and isinstance(self.selector, LocalWindows):
            raise ValueError(
                f"selector {self.selector.kind!r} cuts the grid of one tile and needs scope 'tile'"
            )
        if self.contextual > 0 and not isinstance(self.merge, ContextualMerge):
            raise ValueError(
                f"contextual is {self.contextual:g}, but only merge rules 'nearest-reference' and "
                f"'density-peaks' make contextual tokens; {merge!r} needs contextual 0"
            )
        if self.in_tower:
            self._check_tower_scorer()
        return self

    def _check_tower_scorer(self) -> None:
        scorer = self.scorer.kind
        plain = (self.features, self.scope) == ("vision", "tile")
        if not isinstance(self.selector, TopScores) or not plain:
            raise ValueError(
                f"scorer {scorer!r} drops tokens inside the vision tower and needs selector "
                "'top-scores', features 'vision' and scope 'tile'"
            )
        expected = BipartiteMatching if isinstance(self.scorer, TokenMatching) else NoMerge
        if not isinstance(self.merge, expected):
            raise ValueError(
                f"scorer {scorer!r} drops tokens inside the vision tower and needs merge rule "
                f"{expected().kind!r}, not {self.merge.kind!r}"
            )
