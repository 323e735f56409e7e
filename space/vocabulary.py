"""Vocabularies: of which parts the stages of a search space are made.

A search space decides where stages stand and how much they keep; its vocabulary decides by which
scorer, selector and merge rule, and how positions are handled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from pruners.merges import Merge, NoMerge
from pruners.scorers import Scorer, SimilarityFusion
from pruners.selectors import Selector, TopScores
from pruners.shape import Shape
from pruners.stages import Stage
from space.fitting import Positions
from space.parameters import Dimension, Parameter, Value

MAX_CONTEXTUAL = 0.5
"""Largest contextual share; VisionDrop's is 1/8, its ablations stay below 1/2."""

RESOLUTION = 200
"""Steps per unit of the similarity weight and the contextual share.

Finer ones move no token at the counts that budgets leave, so that more points are the same schedule
and need no second measurement. DeSAP's 1/2 and VisionDrop's 1/8 lie on the grid, VisionZip's 5/32
becomes 31/200.
"""

DEFAULT_WEIGHT = 0.5
DEFAULT_CONTEXTUAL = 0.125

CONTEXTUAL = Parameter("contextual", 0.0, MAX_CONTEXTUAL)
"""Dimension of every vocabulary."""

SHARES = (CONTEXTUAL, Parameter("similarity_weight", 0.0, 1.0))
"""Dimensions of every vocabulary on models that can compare patches with the question."""


class Vocabulary(Protocol):
    """Makes the stages of a search space from a point's values, and finds values for stages."""

    @property
    def name(self) -> str:
        """What the command line calls it."""

    @property
    def text_tower(self) -> str:
        """Folder or hub name of the paired text tower, as schedules name it."""

    def on(self, shape: Shape) -> Vocabulary:
        """Return the vocabulary of the parts that a shape's model can run.

        Args:
            shape: Shape of the model.
        """

    def dimensions(self, decoder_stages: int) -> tuple[Dimension, ...]:
        """List the dimensions that say what stages are made of.

        Args:
            decoder_stages: Decoder stages of a point.

        Returns:
            Always the same ones in the same order.
        """

    def stages(self, point: Mapping[str, Value], layers: Sequence[int]) -> list[Stage]:
        """Make the stages of a point.

        Args:
            point: A value per dimension, checked.
            layers: Rising boundaries above 0.

        Returns:
            The stage at layer 0 and one per boundary; retentions are still to be decided.
        """

    def positions(self, point: Mapping[str, Value]) -> Positions:
        """Return the position handling of a point."""

    def values(
        self, encoder: Stage | None, decoder: Sequence[Stage | None], positions: Positions
    ) -> dict[str, Value]:
        """Find the values whose stages are nearest to some others.

        Args:
            encoder: The stage at layer 0 that drops tokens, if there is one.
            decoder: By rising layer, those that drop tokens, and None for those that do nothing.
            positions: Position handling.

        Returns:
            A value per dimension, the published default where the stages leave it open.
        """

    def encoder_stages(self) -> Iterator[Stage]:
        """Yield stages at layer 0 among which the dearest to score, select and merge is."""


def rounded(value: float) -> float:
    """Round a share to the space's resolution.

    Args:
        value: A similarity weight or contextual share.

    Returns:
        The nearest multiple of 1/`RESOLUTION`.
    """
    return round(value * RESOLUTION) / RESOLUTION


def fusion(weight: float, text_tower: str) -> SimilarityFusion:
    """Make DeSAP's scorer with VisionDrop's saliency, that of the layer that makes the features.

    Args:
        weight: Similarity weight, in [0, 1].
        text_tower: Folder or hub name of the paired text tower.

    Returns:
        The scorer.
    """
    return SimilarityFusion(weight=weight, text_tower=text_tower, saliency_layer=-2)


def undecided_stage(
    layer: int,
    scorer: Scorer,
    *,
    selector: Selector | None = None,
    contextual: float = 0.0,
    merge: Merge | None = None,
) -> Stage:
    """Make a stage whose retention is still to be decided.

    Args:
        layer: Boundary.
        scorer: What tokens are ordered by.
        selector: How they are chosen; the highest scores by default, and wherever the scorer splits
            the tokens itself.
        contextual: Share of the alive tokens that merging makes.
        merge: What becomes of dropped tokens; they are lost by default.

    Returns:
        The stage, with retention 1.
    """
    if selector is None or isinstance(scorer, SimilarityFusion):
        selector = TopScores()
    return Stage(
        layer=layer,
        retention=1.0,
        contextual=contextual,
        scorer=scorer,
        selector=selector,
        merge=merge or NoMerge(),
    )


def weight_of(stages: Sequence[Stage], default: float) -> float:
    """Find the similarity weight of some stages.

    Args:
        stages: Stages by rising layer.
        default: What to return when none fuses similarity and saliency.

    Returns:
        The weight of the first stage that has one, on the grid of `RESOLUTION`.
    """
    for stage in stages:
        if isinstance(stage.scorer, SimilarityFusion):
            return rounded(stage.scorer.weight)
    return default


def contextual_of(stages: Sequence[Stage]) -> float:
    """Find the contextual share that is nearest to those of some stages.

    Args:
        stages: The stages.

    Returns:
        Their mean, on the grid of `RESOLUTION` and at most `MAX_CONTEXTUAL`; the published default
        without any.
    """
    if not stages:
        return DEFAULT_CONTEXTUAL
    mean = sum(stage.contextual for stage in stages) / len(stages)
    return min(rounded(mean), MAX_CONTEXTUAL)
