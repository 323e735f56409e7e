"""How much attention visual tokens receive in each layer of the dense model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pruners.shape import Shape
from search.evaluators import SampleKey


@dataclass(frozen=True)
class AttentionMass:
    """Attention that visual tokens receive in the dense model, as shares of one.

    Attributes:
        cross: From the text tokens behind the image, `(samples, layers, visual tokens)`; sums to 1
            over the visual tokens of a layer.
        own: From the visual tokens themselves, in the same form.
    """

    cross: NDArray[np.float64]
    own: NDArray[np.float64]


@runtime_checkable
class AttentionEvaluator(Protocol):
    """An evaluator that can also look into the dense model's attention."""

    @property
    def shape(self) -> Shape:
        """Shape of the measured model."""

    def samples(self, split: str) -> Sequence[SampleKey]:
        """List a split's samples, in an order that never changes."""

    def attention_mass(self, split: str, indices: Sequence[int]) -> AttentionMass:
        """Run the dense model and add up the attention that visual tokens receive.

        Args:
            split: One of `studies.identity.SPLITS`.
            indices: Indices into `samples(split)`.

        Returns:
            The attention by sample, layer and visual token.
        """


def shares(received: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scale attention so that that of a layer's visual tokens sums to 1.

    Args:
        received: Attention received, `(..., visual tokens)`.

    Returns:
        The shares, in the same form.
    """
    total: NDArray[np.float64] = received / received.sum(axis=-1, keepdims=True)
    return total
