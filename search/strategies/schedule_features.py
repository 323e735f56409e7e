"""Schedules as vectors whose distances say how alike schedules are to a model of their accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pruners.schedule import Schedule
from pruners.scorers import SimilarityFusion
from pruners.shape import Shape
from space.parameters import Choice, Dimension, Value

DEPTHS = 8
"""Parts of the decoder whose visual tokens are told apart; as many as the embedded model's layers.
"""

# How far apart schedules are, in units of the surrogate's length scale, that differ in one respect
# alone. Chosen on halves of the embedded model's search split: halving or doubling any one of them
# was not better.
_TOKENS = 2.0  # of the square root of tokens / their mean
_WEIGHT = 3.0
_CONTEXTUAL = 3.5
_BUDGET = 0.7  # of a doubling of the mean tokens
_OPTION = 1.0

_INDIFFERENT_WEIGHT = 0.5  # of a schedule without an encoder stage, which no weight changes


def schedule_features(
    measured: Schedule, point: Mapping[str, Value], dimensions: Sequence[Dimension], shape: Shape
) -> NDArray[np.float64]:
    """Describe a schedule by what is likely to decide its accuracy.

    These are the visual tokens at each depth relative to their mean, on a square-root scale (what
    one more token brings falls with their number), the similarity weight, the contextual share, the
    options that the space leaves open, and the mean tokens themselves, by which schedules of
    different budgets are told apart.

    Args:
        measured: The schedule as the measured model runs it.
        point: Its point, whose choices are read.
        dimensions: The space's dimensions.
        shape: Shape of the measured model.

    Returns:
        The vector, `(features,)`; of the same length for all schedules of a space.
    """
    tokens = np.array(
        measured.visual_tokens_per_layer(
            shape.decoder_layers, shape.visual_tokens, shape.tokens_per_tile
        ),
        dtype=np.float64,
    )
    mean = max(float(tokens.mean()), 1e-9)
    depths = [part.mean() for part in np.array_split(tokens, min(DEPTHS, len(tokens)))]
    options = [
        _OPTION * float(point[dimension.name] == option)
        for dimension in dimensions
        if isinstance(dimension, Choice)
        for option in dimension.options
    ]
    return np.array(
        [
            *(_TOKENS * np.sqrt(np.array(depths) / mean)),
            _WEIGHT * _similarity_weight(measured),
            _CONTEXTUAL * _contextual_share(measured),
            _BUDGET * np.log2(mean / shape.visual_tokens),
            *options,
        ]
    )


def _similarity_weight(schedule: Schedule) -> float:
    """Return the weight of the encoder stage; saliency alone counts as weight 0."""
    for stage in schedule.stages:
        if stage.layer == 0:
            scorer = stage.scorer
            return scorer.weight if isinstance(scorer, SimilarityFusion) else 0.0
    return _INDIFFERENT_WEIGHT


def _contextual_share(schedule: Schedule) -> float:
    shares = [stage.contextual for stage in schedule.stages]
    return sum(shares) / len(shares) if shares else 0.0
