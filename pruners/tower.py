"""Pruning inside the vision tower: tokens leave while it runs, or a smaller image enters it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from pruners.compiling import uncompiled
from pruners.counting import grid_tokens
from pruners.downsampling import image_grid, nearest_patches, resize_images
from pruners.errors import InputError, ScheduleMismatchError
from pruners.parts_in_place import PartsInPlace
from pruners.per_thread import PerThread
from pruners.scorers import Downsampling, InformationFlow, TokenMatching, TowerScorer
from pruners.sequence import Selection
from pruners.stages import Stage
from pruners.tower_counts import feature_index, tower_tokens
from pruners.tower_patches import FlowingPatches, MergingPatches, ResizedPatches, TowerPatches
from pruners.vision_attention import VisionHeads, split_heads
from pruners.vision_towers import VisionTower
from pruners.vision_towers.batched import BatchedTower

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_TAKE_BIAS = ("eager", "sdpa")
"""Attention implementations whose mask argument may be any bias on the logits."""

_PROJECTIONS = {
    InformationFlow: FlowingPatches.projections,
    TokenMatching: MergingPatches.projections,
    Downsampling: ResizedPatches.projections,
}


@dataclass
class _Call:
    """One call of the tower.

    Attributes:
        patches: The patches in it; None before the first layer.
        projected: What the attention projections of the newest layer returned, by name.
        features: The hidden states that the projector reads; None before they are there.
    """

    patches: TowerPatches | None = None
    projected: dict[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None


class TowerPruning:
    """Runs a stage inside a model's vision tower, by hooks.

    Tokens leave between a layer's output and the next one's input, so that from the layer on that
    makes the features, the tower's hidden states are those of the CLS token and `alive` patches.
    Each call attaches what is left to its output object, where `recorded` finds it.
    """

    _ATTRIBUTE = "prunetune_tower"

    def __init__(self, tower: VisionTower, stage: Stage, alive: int) -> None:
        """Install the hooks.

        Args:
            tower: The vision tower.
            stage: The stage at layer 0; its scorer is one of `pruners.scorers.TowerScorer`.
            alive: Patches that leave the tower, counted by `Schedule.counts`.

        Raises:
            ScheduleMismatchError: The stage does not fit the tower.
        """
        self._tower, self._scorer = _tower_scorer(tower, stage)
        self._alive = alive
        layers, patches = len(tower.layers), self._tower.patches
        self._feature = feature_index(layers, tower.feature_layer)
        self._entering = tower_tokens(self._scorer, patches, alive, layers, tower.feature_layer)
        if alive < patches:
            self._check_scorer()
        self._call: PerThread[_Call] = PerThread()
        self._handles: list[Any] = []
        self._install()

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    @classmethod
    def recorded(cls, output: Any) -> Selection | None:
        """Find what a call of the tower left.

        Args:
            output: The output object of a vision tower call, or what `get_image_features` returned.

        Returns:
            The patches left, in raster order, without the CLS token: `tokens` are the features that
            the projector reads, `indices` count the dense model's patches. None when the tower ran
            without these hooks.
        """
        return getattr(output, cls._ATTRIBUTE, None)

    def _check_scorer(self) -> None:
        if isinstance(self._scorer, TokenMatching):
            self._check_bias_is_taken()
        elif isinstance(self._scorer, Downsampling) and grid_tokens(self._alive) != self._alive:
            raise ScheduleMismatchError(
                f"{self._alive} patches are no grid of h x h or h x (h + 1); take the count that "
                "Schedule.counts gives"
            )

    def _check_bias_is_taken(self) -> None:
        implementation = self._vision_config._attn_implementation
        if implementation not in _TAKE_BIAS:
            reason = (
                "weighs tokens by size"
                if isinstance(self._scorer, TokenMatching)
                else "leaves images of a batch different counts"
            )
            raise ScheduleMismatchError(
                f"scorer {self._scorer.kind!r} {reason}, which needs eager or SDPA attention, but "
                f"the vision tower runs {implementation!r}; load the model with "
                "attn_implementation='sdpa'"
            )

    def _install(self) -> None:
        tower, read = self._tower.module, []
        self._handles.append(tower.register_forward_pre_hook(self._start, with_kwargs=True))
        for index, layer in enumerate(self._tower.layers):
            self._handles.append(
                layer.register_forward_pre_hook(partial(self._enter_layer, index), with_kwargs=True)
            )
            # On layers behind the one that makes the features as well, where nothing reads them:
            # torch.compile takes layers that differ in their hooks alone for one another.
            for name in _PROJECTIONS[type(self._scorer)]:
                projection = layer.get_submodule(f"self_attn.{name}")
                hook = projection.register_forward_hook(partial(self._project, name))
                self._handles.append(hook)
                read.append(projection)
        self._in_place = PartsInPlace(tower, read)
        self._handles.append(tower.register_forward_hook(self._finish, always_call=True))

    # On the way of one call: the tower, its layers, their projections.

    @uncompiled
    def _start(
        self, tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        self._call.value = None
        self._in_place.check()
        shrinks = isinstance(self._scorer, Downsampling)
        arguments = self._shrink(args, kwargs) if shrinks else None
        self._call.value = _Call()
        return arguments

    def _shrink(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """Make the images that the tower gets smaller."""
        dense, config = self._tower.patches, self._vision_config
        if self._alive == dense:
            return None
        named = dict(zip(("pixel_values", "interpolate_pos_encoding"), args, strict=False)) | kwargs
        pixel_values: Tensor = named["pixel_values"]
        if pixel_values.shape[-2:] != (config.image_size, config.image_size):
            height, width = pixel_values.shape[-2:]
            raise InputError(
                f"images of {height} x {width} pixels were given, but the vision tower takes "
                f"{config.image_size} x {config.image_size}; preprocess them with the model's "
                "processor"
            )
        grid = image_grid(self._alive)
        named["pixel_values"] = resize_images(pixel_values, grid, config.patch_size)
        named["interpolate_pos_encoding"] = True
        return (), named

    @uncompiled
    def _enter_layer(
        self, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        call = self._call.value
        if call is None:
            return None
        hidden, *rest = args
        if call.patches is None:
            call.patches = self._patches(hidden)
        elif index <= self._feature:
            hidden = call.patches.leave(index - 1, hidden, call.projected)
        call.projected = {}
        if index == self._feature + 1:
            call.features = hidden
        bias = call.patches.key_bias
        if bias is None:
            return (hidden, *rest), kwargs
        self._check_bias_is_taken()
        tokens = hidden.shape[1]
        mask = bias.to(hidden.dtype)[:, None, None].expand(-1, 1, tokens, -1)
        return (hidden, mask, *rest[1:]), kwargs

    @uncompiled
    def _project(self, name: str, projection: nn.Module, args: Any, output: Tensor) -> None:
        call = self._call.value
        if call is not None:
            call.projected[name] = split_heads(output, self._heads.head_size)

    @uncompiled
    def _finish(self, tower: nn.Module, args: Any, output: Any) -> None:
        call = self._call.value
        self._call.value = None
        if call is None or call.patches is None or output is None:  # None: an error was raised.
            return
        features = output.last_hidden_state if call.features is None else call.features
        patches = call.patches
        left = Selection(features[:, 1:], patches.indices, sizes=patches.sizes)
        object.__setattr__(output, self._ATTRIBUTE, left)

    def _patches(self, hidden: Tensor) -> TowerPatches:
        """Start with what enters the first layer, (batch, 1 + patches, width)."""
        dense, batch, device = self._tower.patches, hidden.shape[0], hidden.device
        entering = self._entering[0]
        if hidden.shape[1] != 1 + entering:
            raise InputError(
                f"{hidden.shape[1] - 1} patches enter the vision tower, but the schedule was "
                f"applied to a model of {dense}, of which {entering} should; preprocess images "
                "with the model's processor"
            )
        if isinstance(self._scorer, Downsampling):
            nearest = nearest_patches(image_grid(entering), math.isqrt(dense))
            return ResizedPatches(batch, nearest.to(device))
        if isinstance(self._scorer, TokenMatching):
            return MergingPatches(batch, dense, device, alive=self._alive, feature=self._feature)
        return FlowingPatches(
            batch,
            dense,
            device,
            alive=self._alive,
            feature=self._feature,
            momentum=self._scorer.momentum,
            scale=self._heads.scale,
        )

    @property
    def _heads(self) -> VisionHeads:
        """A layer of the tower; all have the same sizes."""
        return self._tower.readers[-1]

    @property
    def _vision_config(self) -> Any:
        return self._tower.module.config


def _tower_scorer(tower: VisionTower, stage: Stage) -> tuple[BatchedTower, TowerScorer]:
    scorer = stage.scorer
    if not isinstance(scorer, TowerScorer):
        raise ScheduleMismatchError(
            f"scorer {scorer.kind!r} leaves no tokens inside the vision tower; expected "
            "'information-flow', 'token-matching' or 'downsampling'"
        )
    if not isinstance(tower, BatchedTower) or not tower.class_token:
        raise ScheduleMismatchError(
            f"scorer {scorer.kind!r} prunes inside CLIP vision towers, but "
            f"{type(tower.module).__name__} has no CLS token; use a scorer that prunes behind the "
            "tower, such as 'visual-self-attention'"
        )
    return tower, scorer
