"""Refusing checkpoints whose files lack weights, which transformers makes at random instead."""

from __future__ import annotations

from collections.abc import Collection

from pruners.errors import ModelError

_POOLING = ".head."
"""SigLIP's pooling of an image to one vector, which neither models nor scorers here read."""


def check_whole(what: str, missing: Collection[str]) -> None:
    """Refuse weights that would be random, and others in each process.

    Args:
        what: The model, as a message names it.
        missing: The weights that its files lack, as `from_pretrained` reports them.

    Raises:
        ModelError: One of them would be read.
    """
    lacking = sorted(weight for weight in missing if _POOLING not in weight)
    if lacking:
        raise ModelError(
            f"{what} lacks {len(lacking)} weights, {lacking[0]} among them, which would be "
            "random; save or download the model again"
        )
