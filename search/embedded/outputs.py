"""What the model gives at the end of prompts, and how close the hidden states of two are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


class DenseOutputs(NamedTuple):
    """What the dense model gives at the end of some samples' prompts.

    Attributes:
        tokens: The likeliest next token, `(samples,)`.
        states: Hidden states behind the decoder's last norm, `(samples, width)`.
    """

    tokens: NDArray[np.int64]
    states: NDArray[np.float32]


class Outputs(NamedTuple):
    """What the model gives at the end of some samples' prompts.

    Attributes:
        tokens: The likeliest next token, `(samples,)`.
        logits: Logits of all tokens, `(samples, vocabulary)`.
        states: Hidden states behind the decoder's last norm, `(samples, width)`.
    """

    tokens: NDArray[np.int64]
    logits: NDArray[np.float32]
    states: NDArray[np.float32]


@contextmanager
def head_inputs(model: Any) -> Iterator[list[Tensor]]:
    """Collect what the head gets while the block runs: the states behind the last norm.

    Args:
        model: The model.

    Yields:
        A list that each forward adds its states to.
    """
    states: list[Tensor] = []

    def keep(head: Any, arguments: tuple[Tensor, ...]) -> None:
        states.append(arguments[0])

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield states
    finally:
        hook.remove()


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the cosine between the rows of two arrays.

    Args:
        one: `(rows, width)`.
        other: As many rows of that width.

    Returns:
        The cosines, `(rows,)`.
    """
    mine, theirs = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    found: NDArray[np.float64] = (mine * theirs).sum(axis=1) / norms
    return found
