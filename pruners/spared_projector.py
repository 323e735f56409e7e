"""Sparing the projector what a stage before it will drop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pruners.adapters import ModelAdapter
from pruners.compiling import uncompiled
from pruners.continuation import Continuation
from pruners.parts_in_place import PartsInPlace
from pruners.per_thread import PerThread, UnderWay
from pruners.prefill import Prefill
from pruners.vision_towers.batched import BatchedTower


class SparedProjector:
    """Keeps the projector from running on everything, by hooks; a stage runs it on what it keeps.

    Until then zeros stand for the placeholders.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        current: UnderWay[Prefill | Continuation],
        *,
        in_tower: bool,
    ) -> None:
        """Install the hooks.

        Args:
            adapter: The model, whose family has a projector of patches.
            current: The call that is under way.
            in_tower: Whether tokens leave inside the vision tower.
        """
        assert adapter.projector is not None
        self._adapter = adapter
        self._current = current
        self._in_tower = in_tower
        # What the projector has been spared in the call that is under way.
        self._spared: PerThread[torch.Size] = PerThread()
        self._in_place = PartsInPlace(adapter.core, [adapter.projector])
        self._handles = [
            adapter.projector.register_forward_pre_hook(self._enter),
            adapter.projector.register_forward_hook(self._leave),
        ]

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    @uncompiled
    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor] | None:
        call = self._current.value
        self._spared.value = None
        self._in_place.check()
        if not isinstance(call, Prefill) or not call.skips_projector:
            return None
        features: Tensor = args[0]
        self._spared.value = features.shape
        return (features[:, :1],)

    @uncompiled
    def _leave(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        shape, self._spared.value = self._spared.value, None
        tower = self._adapter.towers["image"]
        tokens = tower.patches if isinstance(tower, BatchedTower) else output.shape[1]
        if shape is not None:
            call = self._current.value
            assert isinstance(call, Prefill)
            call.spared = True
            return output.new_zeros(1, 1, 1).expand(shape[0], tokens, output.shape[-1])
        if self._in_tower and self._current.value is None:
            # Images encoded ahead of a call: the model counts them against the placeholders.
            return torch.nn.functional.pad(output, (0, 0, 0, tokens - output.shape[1]))
        return None
