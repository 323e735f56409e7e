"""What decoding steps must know of the prefill that filled a key-value cache.

Every decoder layer caches the tokens that were alive when it ran, so layers hold different lengths,
while `generate` counts positions and padding as if nothing had been dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pruners.errors import InputError
from pruners.sequence import Layout, last_position


@dataclass(frozen=True)
class CachedStage:
    """What the layers from one boundary to the next hold in the cache.

    Attributes:
        layer: First layer.
        source: Dense position of every cached prompt token, (batch, length).
        shift: What to add to a dense position to get the one used in these layers, (batch, 1).
    """

    layer: int
    source: Tensor
    shift: Tensor

    @classmethod
    def after(cls, layer: int, layout: Layout, dense: Layout, *, compact: bool) -> CachedStage:
        """Describe the layers from `layer` on.

        Args:
            layer: First layer.
            layout: Sequence in these layers.
            dense: Sequence that the call started with.
            compact: Whether positions were counted anew.

        Returns:
            The description.
        """
        shift = last_position(layout) - last_position(dense).to(layout.source.device)
        return cls(layer, layout.source, shift if compact else torch.zeros_like(shift))

    def mask(self, dense: Tensor | None, prompt: int) -> Tensor | None:
        """Turn the dense sequence's padding mask into that of these layers.

        Args:
            dense: Nonzero for tokens, 0 for padding, (batch, prompt + new); None without padding.
            prompt: Length of the dense prompt.

        Returns:
            The mask over cached and new tokens, (batch, length), or None.
        """
        if dense is None:
            return None
        cached = dense[:, :prompt].gather(1, self.source.to(dense.device))
        return torch.cat([cached, dense[:, prompt:]], dim=1)


@dataclass(frozen=True)
class PrunedCache:
    """What the prefill left in a cache.

    Attributes:
        prompt: Length of the dense prompt.
        first: What the layers before the first decoder boundary hold.
        stages: What the layers from each decoder boundary on hold, by rising layer.
    """

    prompt: int
    first: CachedStage
    stages: tuple[CachedStage, ...]

    def dense_length(self, cache: Any) -> int:
        """Count the tokens that a cache would hold had nothing been dropped."""
        dropped = self.prompt - self.first.source.shape[1]
        return int(cache.get_seq_length(0)) + dropped

    def check(self, rows: int, mask: Tensor | None, total: int) -> None:
        """Check that a decoding step belongs to the cache.

        Args:
            rows: Sequences in the step's batch.
            mask: The step's attention mask, or None.
            total: Length of the dense sequence after the step.

        Raises:
            InputError: The step has another batch size or a mask of another length.
        """
        expected = self.first.source.shape[0]
        if rows != expected:
            raise InputError(
                f"the cache was filled by {expected} sequences, but this call has {rows}; continue "
                "with the same batch"
            )
        if mask is not None and (mask.ndim != 2 or mask.shape[1] != total):
            raise InputError(
                f"the attention mask has shape {tuple(mask.shape)}; expected ({rows}, {total}): "
                "the whole sequence as if nothing had been dropped, which is what generate passes"
            )


class CacheMemory:
    """Remembers what is in each cache for as long as the cache lives; any number may be in use."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._caches: WeakKeyDictionary[Any, PrunedCache] = WeakKeyDictionary()

    def remember(self, cache: Any, pruned: PrunedCache) -> None:
        """Remember what a prefill left in a cache."""
        self._caches[cache] = pruned

    def recall(self, cache: Any) -> PrunedCache | None:
        """Recall what a cache holds; None for none, an empty one, or one of an unpruned call."""
        if cache is None or cache.get_seq_length(0) == 0:
            return None
        return self._caches.get(cache)
