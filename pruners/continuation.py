"""One step that continues a pruned prefill from its key-value cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pruners.adapters import DecoderCall, ModelAdapter
from pruners.cache import PrunedCache
from pruners.layer_arguments import with_positions


class Continuation:
    """A step under way; its methods are called in the order in which the model runs."""

    def __init__(self, adapter: ModelAdapter, pruned: PrunedCache, cache: Any) -> None:
        """Start a step.

        Args:
            adapter: The model.
            pruned: What the prefill left in the cache.
            cache: The cache.
        """
        self._adapter = adapter
        self._pruned = pruned
        self._cache = cache
        self._stages = {stage.layer: stage for stage in pruned.stages}
        # Positions and padding as if nothing had been dropped.
        self._position_ids: Tensor | None = None
        self._mask: Tensor | None = None
        self._rotation: tuple[Tensor, Tensor] | None = None
        self._attention_mask: Any = None

    def new_tokens_only(self, call: DecoderCall) -> dict[str, Any]:
        """Cut the call's arguments down to the tokens that are not in the cache.

        Given a whole conversation and the cache of its beginning, `generate` skips as many tokens
        as the first layer holds, which is too few when the encoder stage has dropped some.

        Args:
            call: The call.

        Returns:
            Its arguments by name.
        """
        options = dict(call.options)
        given = call.input_ids if call.input_ids is not None else call.inputs_embeds
        mask, position_ids = options.get("attention_mask"), options.get("position_ids")
        if given is None or given.shape[1] == 1:
            return options
        if mask is not None:
            total = mask.shape[1]
        elif position_ids is not None:
            total = int(position_ids.max()) + 1
        else:
            return options
        new = total - self._pruned.dense_length(self._cache)
        if not 0 < new < given.shape[1]:
            return options
        for name in ("input_ids", "inputs_embeds", "position_ids"):
            if options.get(name) is not None:
                options[name] = options[name][:, -new:]
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
        start = self._pruned.dense_length(self._cache)
        self._mask = kwargs.get("attention_mask")
        self._pruned.check(rows, self._mask, start + new)
        position_ids = kwargs.get("position_ids")
        if position_ids is None:
            device = kwargs["inputs_embeds"].device
            position_ids = torch.arange(start, start + new, device=device).unsqueeze(0)
        self._position_ids = position_ids
        first = self._pruned.first
        return {
            **kwargs,
            "position_ids": position_ids + first.shift.to(position_ids.device),
            "attention_mask": first.mask(self._mask, self._pruned.prompt),
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
            mask = stage.mask(self._mask, self._pruned.prompt)
            self._rotation = self._adapter.rotation(hidden, position_ids)
            self._attention_mask = self._adapter.causal_mask(hidden, mask, self._cache, index)
        return hidden, with_positions(kwargs, self._rotation, self._attention_mask)
