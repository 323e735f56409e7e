"""One step that continues a pruned prefill from its key-value cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pruners.adapters import DecoderCall, ModelAdapter
from pruners.cache import CachedStage, PrunedCache
from pruners.errors import InputError
from pruners.layer_arguments import with_positions

_BY_TOKEN = ("input_ids", "inputs_embeds", "mm_token_type_ids")
"""Arguments of a call that have an entry by token of the sequence."""


class Continuation:
    """A step under way; its methods are called in the order in which the model runs.

    Attributes:
        cache: The cache.
        padded: Whether the sequences have padding, once the decoder has been entered.
    """

    def __init__(self, adapter: ModelAdapter, pruned: PrunedCache, cache: Any) -> None:
        """Start a step.

        Args:
            adapter: The model.
            pruned: What the prefill left in the cache.
            cache: The cache.
        """
        self.padded = pruned.padded
        self._adapter = adapter
        self._pruned = pruned
        self.cache = cache
        self._stages = {stage.layer: stage for stage in pruned.stages}
        # Positions and padding as if nothing had been dropped.
        self._position_ids: Tensor | None = None
        self._mask: Tensor | None = None
        self._rotation: tuple[Tensor, Tensor] | None = None
        self._stage: CachedStage | None = None
        self._masks: dict[str, Any] = {}
        self._total = 0

    def new_tokens_only(self, call: DecoderCall) -> dict[str, Any]:
        """Cut the call's arguments down to the tokens that are not in the cache.

        Given a whole conversation and the cache of its beginning, `generate` skips as many tokens
        as the first layer holds, which is too few when the encoder stage has dropped some.

        Args:
            call: The call.

        Returns:
            Its arguments by name.

        Raises:
            InputError: None of them is new.
        """
        options = dict(call.options)
        given = call.input_ids if call.input_ids is not None else call.inputs_embeds
        if given is None:
            return options
        start = self._pruned.dense_length(self.cache)
        mask, position_ids = options.get("attention_mask"), options.get("position_ids")
        counted = None if position_ids is None else self._adapter.counted_positions(position_ids)
        total = None
        if mask is not None:
            total = mask.shape[1]
        elif counted is not None and (given.shape[1] > 1 or _is_slice(position_ids)):
            total = int(counted.max()) + 1
        count = given.shape[1]
        if mask is None and total is not None and total <= start:
            raise InputError(
                f"the call's tokens have positions up to {total - 1}, but the cache goes on from "
                f"{start}, counted as if nothing had been dropped; pass new tokens with such "
                "positions, and no prefill_chunk_size, with which generate passes old ones"
            )
        if total is not None and 0 < total - start < count:
            count = total - start
            for name in _BY_TOKEN:
                if options.get(name) is not None:
                    options[name] = options[name][:, -count:]
            if position_ids is not None:
                options["position_ids"] = position_ids[..., -count:]
        if self._pruned.ahead is not None and (position_ids is None or counted is not None):
            # The model itself adds what it remembers of whichever call came last.
            axes, device = self._adapter.position_axes, given.device
            positions = self._pruned.positions(mask, start, count).to(device).expand(axes, -1, -1)
            if position_ids is not None and position_ids.shape[0] > axes:
                positions = _of_generate(position_ids[..., -count:], positions)
            options["position_ids"] = positions
        return options

    def enter_decoder(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Bring positions and mask to what the layers before the first decoder boundary hold.

        Args:
            kwargs: Arguments of the decoder.

        Returns:
            Its arguments with those.

        Raises:
            InputError: The step does not belong to the cache.
        """
        rows, new = kwargs["inputs_embeds"].shape[:2]
        start = self._pruned.dense_length(self.cache)
        self._total = start + new
        mask = kwargs.get("attention_mask")
        self._pruned.check(self.cache, rows, mask, self._total)
        # A mask says nothing of sequences without padding. New turns may bring padding.
        self.padded = self._pruned.padded or (mask is not None and new > 1 and not bool(mask.all()))
        self._mask = mask if self.padded else None
        position_ids = kwargs.get("position_ids")
        if position_ids is None:
            device = kwargs["inputs_embeds"].device
            position_ids = torch.arange(start, start + new, device=device).unsqueeze(0)
        self._position_ids = position_ids
        first = self._pruned.first
        return {
            **kwargs,
            "position_ids": position_ids + first.shift.to(position_ids.device),
            "attention_mask": first.mask(self._mask, self._pruned.prompt, self._total),
        }

    def enter_layer(
        self, index: int, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Bring positions and mask to what a decoder layer holds.

        Args:
            index: The layer.
            hidden: Its input, (batch, new, width).
            kwargs: Its other arguments.

        Returns:
            What the layer gets instead.
        """
        stage = self._stages.get(index)
        if stage is not None:
            assert self._position_ids is not None
            position_ids = self._position_ids.to(hidden.device) + stage.shift.to(hidden.device)
            self._rotation = self._adapter.rotation(hidden, position_ids)
            self._stage, self._masks = stage, {}
        if self._rotation is None:
            return hidden, with_positions(kwargs, None, None)
        return hidden, with_positions(kwargs, self._rotation, self._attention_mask(index, hidden))

    def _attention_mask(self, index: int, hidden: Tensor) -> Any:
        """Return what a layer's attention gets, made once for all layers of a kind."""
        assert self._stage is not None
        kind = self._adapter.attention_type(index)
        if kind not in self._masks:
            mask = self._stage.mask(self._mask, self._pruned.prompt, self._total)
            self._masks[kind] = self._adapter.causal_mask(hidden, mask, self.cache, index)
        return self._masks[kind]


def _is_slice(position_ids: Tensor | None) -> bool:
    """Say whether positions were cut out of longer ones, as chunks of a prompt are.

    To look at the values of each new token's own would keep the host waiting for the device.
    """
    if position_ids is None:
        return False
    return position_ids.untyped_storage().nbytes() > position_ids.nbytes


def _of_generate(given: Tensor, positions: Tensor) -> Tensor:
    """Take the positions that `generate` gives the tokens it makes, where they are any use.

    It goes on from the prompt's last position, which the frames of a long video may be ahead of;
    between calls, stock models go on from the highest position of all. What was pruned `generate`
    may take for images still to come: then it gives the count of tokens on each axis.

    Args:
        given: What it gives, count of tokens first, (1 + axes, batch, count).
        positions: Positions that follow the highest of all, (axes, batch, count).

    Returns:
        Positions, (axes, batch, count).
    """
    counts = (given[1:] == given[:1]).all(dim=2).all(dim=0)
    return positions.where(counts.unsqueeze(-1), given[1:])
