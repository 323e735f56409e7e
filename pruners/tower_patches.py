"""The patches of one call of the vision tower, while they leave it from layer to layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pruners.flow import accumulate_flow, layer_flow, tokens_to_drop
from pruners.matching import match_tokens, merge_matched
from pruners.selection import gather_tokens
from pruners.tower_counts import flow_layers, matching_rounds, merged_per_layer
from pruners.transfer import send_numbers


class TowerPatches(ABC):
    """The patches in the tower; subclasses know how they leave.

    Attributes:
        projections: Names of the attention projections whose outputs `leave` reads.
        indices: Which dense patch each is, or was merged into, rising, (batch, now).
        sizes: Patches in each, float32, (batch, now).
    """

    projections: ClassVar[tuple[str, ...]]

    def __init__(self, batch: int, patches: int, device: torch.device) -> None:
        """Start with all patches.

        Args:
            batch: Images.
            patches: Patches per image.
            device: Device of the hidden states.
        """
        self.indices = torch.arange(patches, device=device).expand(batch, -1)
        self.sizes = torch.ones(batch, patches, device=device)

    @abstractmethod
    def leave(self, layer: int, hidden: Tensor, projected: Mapping[str, Tensor]) -> Tensor:
        """Let patches leave after a layer.

        Args:
            layer: Index of the layer, before the one that makes the features.
            hidden: Its output, CLS token first, (batch, 1 + now, width).
            projected: Outputs of its `projections`, (batch, heads, 1 + now, head size).

        Returns:
            Input of the next layer.
        """

    @property
    @abstractmethod
    def key_bias(self) -> Tensor | None:
        """What attention adds to the logits of each token, (batch, 1 + now); None for nothing."""


class FlowingPatches(TowerPatches):
    """FlowCut: patches are dropped after every second layer, each sample at its own rate.

    Samples with fewer patches than the longest are padded at the end; attention leaves padding out.
    How many leave is for attention to say, so the host reads it once per layer that drops: without,
    it could not know how long the sequence is. No other scorer makes the host wait.
    """

    projections = ("q_proj", "k_proj", "v_proj")

    def __init__(
        self,
        batch: int,
        patches: int,
        device: torch.device,
        *,
        alive: int,
        feature: int,
        momentum: float,
        scale: float,
    ) -> None:
        """Start with all patches.

        Args:
            batch: Images.
            patches: Patches per image.
            device: Device of the hidden states.
            alive: Patches left in the end.
            feature: Index of the layer that makes the features.
            momentum: Share of the accumulated score that a layer's own score does not replace.
            scale: Factor on the products of queries and keys.
        """
        super().__init__(batch, patches, device)
        self._alive = alive
        self._feature = feature
        self._momentum = momentum
        self._scale = scale
        self._counts = [patches] * batch
        self._present: Tensor | None = None
        self._score: Tensor | None = None

    @torch.no_grad()
    def _keep(self, layer: int, projected: Mapping[str, Tensor]) -> Tensor | None:
        """Choose the patches to keep, then padding, (batch, longest); None to keep all."""
        query, keys, values = (projected[name] for name in self.projections)
        flow = layer_flow(query[:, :, :1], keys, values, self._present, self._scale)
        score = self._score = accumulate_flow(self._score, flow.score, self._momentum)
        if layer not in flow_layers(self._feature):
            return None
        layers_left = self._feature - 1 - layer
        dropped = tokens_to_drop(flow.relation, self._counts, self._alive, layers_left)
        if not any(dropped):
            return None
        self._counts = [now - gone for now, gone in zip(self._counts, dropped, strict=True)]
        counts = send_numbers(self._counts, score.device).unsqueeze(-1)
        if self._present is not None:
            score = score.masked_fill(~self._present, -torch.inf)
        places = torch.arange(score.shape[1], device=score.device)
        by_score = score.argsort(dim=-1, descending=True, stable=True)
        kept = torch.zeros_like(score, dtype=torch.bool).scatter(1, by_score, places < counts)
        longest = max(self._counts)
        # Kept patches first, both parts in raster order.
        order = (~kept).to(torch.uint8).argsort(dim=-1, stable=True)[:, :longest]
        padded = min(self._counts) < longest
        self._present = places[:longest] < counts if padded else None
        self._score = score.gather(1, order)
        return order

    def leave(self, layer: int, hidden: Tensor, projected: Mapping[str, Tensor]) -> Tensor:
        order = self._keep(layer, projected)
        if order is None:
            return hidden
        self.indices = self.indices.gather(1, order)
        self.sizes = self.sizes.gather(1, order)
        return torch.cat([hidden[:, :1], gather_tokens(hidden[:, 1:], order)], dim=1)

    @property
    def key_bias(self) -> Tensor | None:
        if self._present is None:
            return None
        bias = torch.zeros_like(self._present, dtype=torch.float32)
        return _with_cls(bias.masked_fill(~self._present, -torch.inf))


class MergingPatches(TowerPatches):
    """ToMe: patches merge after each layer, and attention counts them by size from then on."""

    projections = ("k_proj",)

    def __init__(
        self, batch: int, patches: int, device: torch.device, *, alive: int, feature: int
    ) -> None:
        """Start with all patches.

        Args:
            batch: Images.
            patches: Patches per image.
            device: Device of the hidden states.
            alive: Patches left in the end.
            feature: Index of the layer that makes the features.
        """
        super().__init__(batch, patches, device)
        self._patches = patches
        self._merged = merged_per_layer(patches, alive, feature)

    def leave(self, layer: int, hidden: Tensor, projected: Mapping[str, Tensor]) -> Tensor:
        keys = projected["k_proj"][:, :, 1:].detach().float().mean(dim=1)
        patches = hidden[:, 1:]
        for count in matching_rounds(patches.shape[1], self._merged[layer]):
            with torch.no_grad():
                matching = match_tokens(keys, count)
                keys, _ = merge_matched(keys, self.sizes, matching)
            patches, sizes = merge_matched(patches, self.sizes, matching)
            self.indices = self.indices.gather(1, matching.kept)
            self.sizes = sizes
        return torch.cat([hidden[:, :1], patches], dim=1)

    @property
    def key_bias(self) -> Tensor | None:
        if self.sizes.shape[1] == self._patches:
            return None
        return _with_cls(self.sizes.log())


class ResizedPatches(TowerPatches):
    """A smaller image: it enters the tower with as many patches as shall be left."""

    projections = ()

    def __init__(self, batch: int, nearest: Tensor) -> None:
        """Start with the smaller image's patches.

        Args:
            batch: Images.
            nearest: For each of its patches, the nearest one of the dense model's, (patches,).
        """
        super().__init__(batch, len(nearest), nearest.device)
        self.indices = nearest.expand(batch, -1)

    def leave(self, layer: int, hidden: Tensor, projected: Mapping[str, Tensor]) -> Tensor:
        return hidden

    @property
    def key_bias(self) -> Tensor | None:
        return None


def _with_cls(bias: Tensor) -> Tensor:
    """Put the CLS token's bias, 0, before that of the patches."""
    return torch.nn.functional.pad(bias, (1, 0))
