"""What goes wrong while a model measures: no memory left, and output that is no number."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pruners.errors import ModelError, shortened
from search.evaluators import Probe

Measured = TypeVar("Measured", NDArray[np.float64], Probe, NDArray[np.float64] | Probe)

_NO_MEMORY = ("out of memory", "allocate memory")
"""How torch says so: CUDA's allocator, and the CPU's."""


class NotANumberWarning(UserWarning):
    """A model gave no numbers for a sample."""


@contextmanager
def naming_lack_of_memory(what: str) -> Iterator[None]:
    """Say in plain words that memory ran out.

    Args:
        what: What was measured.

    Yields:
        Nothing.

    Raises:
        ModelError: Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not (isinstance(error, MemoryError) or any(part in text for part in _NO_MEMORY)):
            raise
        reason = f" ({shortened(text.splitlines()[0])})" if text else ""
        raise ModelError(
            f"memory ran out while measuring {what}{reason}; free some, or measure fewer samples "
            "at once. The same command continues"
        ) from error


def counting_no_numbers_as_wrong(measured: Measured, what: str) -> Measured:
    """Score 0 where a model's output was no number, as an overflow in half precision gives.

    The schedule is then a bad one and the search goes on.

    Args:
        measured: Scores, or a probe.
        what: What was measured.

    Returns:
        Finite numbers.

    Warns:
        NotANumberWarning: Some were not.
    """
    columns = measured if isinstance(measured, Probe) else (measured,)
    wrong = ~np.isfinite(np.stack(columns)).all(axis=0)
    if not wrong.any():
        return measured
    warnings.warn(
        f"the model gave no numbers for {wrong.sum()} of {what}; they count as wrong. Where it is "
        "so for the dense model too, choose another --dtype",
        NotANumberWarning,
        stacklevel=2,
    )
    mended = [np.where(wrong, 0.0, column) for column in columns]
    return Probe(*mended) if isinstance(measured, Probe) else mended[0]
