"""The vocabulary of the full space: published scorers, selectors and merge rules, recombined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from pruners.merges import (
    BipartiteMatching,
    ClusterAverage,
    ContextualMerge,
    DensityPeaks,
    Merge,
    NearestReference,
    NoMerge,
    SimilarityWeighted,
)
from pruners.methods.base import PAPER_TEXT_TOWER, encoder_saliency
from pruners.scorers import (
    KeyNorm,
    LastTokenAttention,
    QuestionRelevance,
    RaterAttention,
    Scorer,
    VisualSelfAttention,
)
from pruners.selectors import (
    Deduplicated,
    Determinantal,
    LeastDuplication,
    LocalWindows,
    MaxMinDistance,
    Selector,
    TopScores,
)
from pruners.shape import LLAVA_1_5_7B, Shape
from pruners.stages import Stage
from space.fitting import Positions
from space.parameters import Choice, Dimension, Value, number, option
from space.vocabulary import (
    CONTEXTUAL,
    DEFAULT_CONTEXTUAL,
    DEFAULT_WEIGHT,
    SHARES,
    contextual_of,
    fusion,
    rounded,
    undecided_stage,
    weight_of,
)

_CONTEXTUAL: Mapping[str, Merge] = {
    "nearest-reference": NearestReference(),
    "density-peaks": DensityPeaks(),
}
_MERGES: Mapping[str, Merge] = {
    "none": NoMerge(),
    **_CONTEXTUAL,
    "cluster-average": ClusterAverage(),
    "similarity-weighted": SimilarityWeighted(),
    "bipartite-matching": BipartiteMatching(),
}
_SELECTORS: Mapping[str, Selector] = {
    "top-scores": TopScores(),
    "local-windows": LocalWindows(),
    "deduplicated": Deduplicated(),
    "determinantal": Determinantal(),
    "max-min-distance": MaxMinDistance(),
}
_ENCODER_SCORERS = (
    "similarity-fusion",
    "cls-attention",
    "visual-self-attention",
    "question-relevance",
)
_DECODER_SCORERS = (
    "visual-self-attention",
    "last-token-attention",
    "rater-attention",
    "key-norm",
    "similarity-fusion",
)
_POSITIONS: tuple[Positions, ...] = ("compact", "original")


class FullVocabulary:
    """Published scorers per stage, selectors, merge rules and position handling, freely combined.

    In the decoder, tokens with the highest scores are chosen; key norms come with DART's selector,
    whose pivots they are for. Options that a combination does not use are ignored: selectors beside
    the fusion of similarity and saliency, which splits the tokens itself; the contextual share
    beside merge rules that make no contextual tokens; the similarity weight where nothing fuses.
    Parts that a shape's model cannot run are no options: what compares patches with the question,
    and what reads a CLS token.

    Args:
        text_tower: Folder or hub name of the paired text tower, as schedules name it.
        shape: Shape of the model.
    """

    name = "full"

    def __init__(self, text_tower: str = PAPER_TEXT_TOWER, shape: Shape = LLAVA_1_5_7B) -> None:
        self.text_tower = text_tower
        self._shape = shape
        missing = set()
        if not shape.has_paired_text_tower:
            missing |= {"similarity-fusion", "question-relevance"}
        if not shape.vision.class_token:
            missing |= {"cls-attention", "local-windows"}
        self._encoder_scorers = tuple(kind for kind in _ENCODER_SCORERS if kind not in missing)
        self._decoder_scorers = tuple(kind for kind in _DECODER_SCORERS if kind not in missing)
        self._selectors = tuple(kind for kind in _SELECTORS if kind not in missing)

    def on(self, shape: Shape) -> FullVocabulary:
        """Return the vocabulary of the parts that a shape's model can run."""
        return FullVocabulary(self.text_tower, shape)

    def dimensions(self, decoder_stages: int) -> tuple[Dimension, ...]:
        """List the shares and the choices, a scorer per stage among them."""
        return (
            *(SHARES if self._shape.has_paired_text_tower else (CONTEXTUAL,)),
            Choice("encoder_scorer", self._encoder_scorers),
            Choice("encoder_selector", self._selectors),
            *(Choice(f"scorer_{n}", self._decoder_scorers) for n in range(1, decoder_stages + 1)),
            Choice("merge", tuple(_MERGES)),
            Choice("positions", _POSITIONS),
        )

    def stages(self, point: Mapping[str, Value], layers: Sequence[int]) -> list[Stage]:
        """Make the stages of a point."""
        weight = DEFAULT_WEIGHT
        if self._shape.has_paired_text_tower:
            weight = rounded(number(point, "similarity_weight"))
        merge = _MERGES[option(point, "merge")]
        contextual = 0.0
        if isinstance(merge, ContextualMerge):
            contextual = rounded(number(point, "contextual"))
            merge = merge if contextual > 0 else NoMerge()
        kinds = [
            option(point, "encoder_scorer"),
            *(option(point, f"scorer_{index}") for index, _ in enumerate(layers, start=1)),
        ]
        scorers = [self._scorer(kind, weight) for kind in kinds]
        selector = _SELECTORS[option(point, "encoder_selector")]
        return [
            undecided_stage(0, scorers[0], selector=selector, contextual=contextual, merge=merge),
            *(
                undecided_stage(
                    layer,
                    scorer,
                    selector=LeastDuplication() if isinstance(scorer, KeyNorm) else None,
                    contextual=contextual,
                    merge=merge,
                )
                for layer, scorer in zip(layers, scorers[1:], strict=True)
            ),
        ]

    def positions(self, point: Mapping[str, Value]) -> Positions:
        """Return the position handling of a point."""
        return "compact" if option(point, "positions") == "compact" else "original"

    def values(
        self, encoder: Stage | None, decoder: Sequence[Stage | None], positions: Positions
    ) -> dict[str, Value]:
        """Find the nearest values; of stages that merge differently, the first one's rule."""
        stages = [stage for stage in (encoder, *decoder) if stage is not None]
        merge = stages[0].merge.kind if stages else "nearest-reference"
        if merge in _CONTEXTUAL and not any(stage.contextual for stage in stages):
            merge = "none"
        values: dict[str, Value] = {
            "contextual": contextual_of(stages) if merge in _CONTEXTUAL else DEFAULT_CONTEXTUAL,
            "encoder_scorer": self._encoder_scorers[0],
            "encoder_selector": "top-scores",
        }
        if self._shape.has_paired_text_tower:
            values["similarity_weight"] = weight_of(stages, default=DEFAULT_WEIGHT)
        if encoder is not None:
            kind, selector = encoder.scorer.kind, encoder.selector.kind
            # Of the options, saliency is nearest to scorers that do not read the question.
            saliency = encoder_saliency(self._shape, keep_cls=False).kind
            values["encoder_scorer"] = kind if kind in self._encoder_scorers else saliency
            values["encoder_selector"] = selector if selector in self._selectors else "top-scores"
        for index, stage in enumerate(decoder, start=1):
            wanted: str = "" if stage is None else stage.scorer.kind
            known = wanted in self._decoder_scorers
            values[f"scorer_{index}"] = wanted if known else "visual-self-attention"
        return values | {"merge": merge, "positions": positions}

    def encoder_stages(self) -> Iterator[Stage]:
        """Yield every combination of parts, with the weight at which similarity chooses."""
        for kind, selector, merge in product(self._encoder_scorers, self._selectors, _MERGES):
            scorer = self._scorer(kind, 1.0)
            yield undecided_stage(0, scorer, selector=_SELECTORS[selector], merge=_MERGES[merge])

    def _scorer(self, kind: str, weight: float) -> Scorer:
        match kind:
            case "cls-attention":
                return encoder_saliency(self._shape, keep_cls=False)
            case "visual-self-attention":
                return VisualSelfAttention()
            case "question-relevance":
                return QuestionRelevance(text_tower=self.text_tower)
            case "last-token-attention":
                return LastTokenAttention()
            case "rater-attention":
                return RaterAttention()
            case "key-norm":
                return KeyNorm()
            case _:
                return fusion(weight, self.text_tower)
