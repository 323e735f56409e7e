"""What decoding steps must know of the prefill that filled a key-value cache.

Every decoder layer caches the tokens that were alive when it ran, so layers hold different lengths,
while `generate` counts positions and padding as if nothing had been dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pruners.batch import Batch
from pruners.errors import InputError
from pruners.positions import last_position


@dataclass(frozen=True)
class CachedStage:
    """What the layers from one boundary to the next hold in the cache.

    Attributes:
        layer: First layer.
        source: Dense position of every cached prompt token, (batch, length).
        added: True where padding was added, because samples kept different numbers of tokens,
            (batch, length); None where none was.
        shift: What to add to a dense position to get the one used in these layers, (batch, 1).
    """

    layer: int
    source: Tensor
    added: Tensor | None
    shift: Tensor

    @classmethod
    def after(cls, layer: int, batch: Batch, dense: Batch, *, compact: bool) -> CachedStage:
        """Describe the layers from `layer` on.

        Args:
            layer: First layer.
            batch: Sequences in these layers.
            dense: Sequences that the call started with.
            compact: Whether positions were counted anew.

        Returns:
            The description.
        """
        source, mask = batch.source, batch.mask
        device = source.device
        if compact:
            before = last_position(dense.position_ids, dense.mask).to(device)
            shift = last_position(batch.position_ids, mask) - before
        else:
            shift = torch.zeros_like(source[:, :1])
        added = source < 0 if len(batch.groups) > 1 and mask is not None else None
        return cls(layer, source.clamp(min=0), added, shift)

    def mask(self, dense: Tensor | None, prompt: int, total: int) -> Tensor | None:
        """Turn the dense sequence's padding mask into that of these layers.

        Args:
            dense: Nonzero for tokens, 0 for padding, (batch, total); None without padding.
            prompt: Length of the dense prompt.
            total: Length of the dense sequence.

        Returns:
            The mask over cached and new tokens, (batch, length), or None.
        """
        if dense is None:
            if self.added is None:
                return None
            return pad(~self.added, (0, total - prompt), value=True)
        dense = dense.to(self.source.device).bool()
        # Shorter than the prompt, whose end has been cropped off, and less has come since.
        left = self.source.shape[1] - max(prompt - total, 0)
        cached = dense[:, :prompt].gather(1, self.source[:, :left])
        if self.added is not None:
            cached = cached & ~self.added[:, :left]
        return torch.cat([cached, dense[:, prompt:]], dim=1)

    def of(self, rows: Tensor) -> CachedStage:
        """Describe the same layers once their sequences have been picked or repeated.

        Args:
            rows: Which sequence each one was, or True for each that is left, (batch,).

        Returns:
            The description.
        """
        rows = rows.to(self.source.device)
        added = None if self.added is None else self.added[rows]
        return CachedStage(self.layer, self.source[rows], added, self.shift[rows])

    def ends_with(self, places: Tensor) -> bool:
        """Say whether these layers held some tokens of the dense prompt last.

        Args:
            places: Where the tokens are in the dense prompt, (count,).

        Returns:
            Whether all sequences did.
        """
        ends = self.source[:, -len(places) :]
        return ends.shape[1] == len(places) and bool((ends == places.to(ends.device)).all())


@dataclass(frozen=True)
class PrunedCache:
    """What the prefill left in a cache.

    Attributes:
        prompt: Length of the dense prompt.
        first: What the layers before the first decoder boundary hold.
        stages: What the layers from each decoder boundary on hold, by rising layer.
        padded: Whether the sequences have padding; else masks need not be looked at.
        dropped: Whether tokens have been dropped; else the model alone can go on, too.
        ahead: How far the positions behind the prompt are ahead of the count of tokens, (batch, 1);
            None where positions have one axis, which counts them.
    """

    prompt: int
    first: CachedStage
    stages: tuple[CachedStage, ...]
    padded: bool
    dropped: bool
    ahead: Tensor | None = None

    def positions(self, mask: Tensor | None, start: int, count: int) -> Tensor:
        """Return the positions of tokens that continue the cache, where they have several axes.

        Args:
            mask: Nonzero for tokens, 0 for padding, of the whole sequence, (batch, length), or
                None.
            start: Tokens that precede them, as if nothing had been dropped.
            count: How many there are.

        Returns:
            Positions, the same on each axis, (batch, count).
        """
        assert self.ahead is not None
        if mask is None:
            counted = torch.arange(start, start + count, device=self.ahead.device)
        else:
            counted = mask.to(self.ahead.device).long().cumsum(dim=-1)[:, -count:] - 1
        return counted + self.ahead

    def of(self, rows: Tensor) -> PrunedCache:
        """Say what is left once the sequences of the cache have been picked or repeated.

        Args:
            rows: Which sequence each one was, or True for each that is left, (batch,).

        Returns:
            What the cache holds then.
        """
        ahead = None if self.ahead is None else self.ahead[rows.to(self.ahead.device)]
        stages = tuple(stage.of(rows) for stage in self.stages)
        return replace(self, first=self.first.of(rows), stages=stages, ahead=ahead)

    def dense_length(self, cache: Any) -> int:
        """Count the tokens that a cache would hold had nothing been dropped."""
        dropped = self.prompt - self.first.source.shape[1]
        return int(cache.get_seq_length(0)) + dropped

    def check(self, cache: Any, rows: int, mask: Tensor | None, total: int) -> None:
        """Check that a decoding step belongs to the cache.

        Args:
            cache: The cache.
            rows: Sequences in the step's batch.
            mask: The step's attention mask, or None.
            total: Length of the dense sequence after the step.

        Raises:
            InputError: The step has another batch size or a mask of another length, or the cache
                has been cropped by more than text behind the images.
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
                "the whole sequence as if nothing had been dropped, which is what generate passes "
                "without prefill_chunk_size"
            )
        cropped = self.first.source.shape[1] - int(cache.get_seq_length(0))
        if cropped > 0:
            places = torch.arange(self.prompt - cropped, self.prompt, device="cpu")
            if not all(stage.ends_with(places) for stage in (self.first, *self.stages)):
                raise InputError(
                    f"the cache was cropped by the prompt's last {cropped} tokens, some of them of "
                    "images that have been pruned; crop the text behind the images only"
                )


def positions_ahead(dense: Batch) -> Tensor:
    """Say how far the positions behind prompts are ahead of the count of their tokens.

    With M-RoPE an image takes other numbers of positions than of tokens; text that follows counts
    on from the highest position of any axis (Qwen2-VL, arXiv 2409.12191, section 2.1).

    Args:
        dense: The prompts, before anything is dropped.

    Returns:
        Differences, (batch, 1).
    """
    position_ids, mask = dense.position_ids, dense.mask
    last = last_position(position_ids, mask)
    if last.ndim == 3:
        last = last.amax(dim=0)
    tokens = position_ids.shape[-1] if mask is None else mask.sum(dim=-1, keepdim=True)
    return last + 1 - tokens
