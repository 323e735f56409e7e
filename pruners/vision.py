"""What encoder stages read of images, computed once whatever the schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import get_ident
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pruners.adapters import ModelAdapter, adapter_for
from pruners.compiling import uncompiled
from pruners.errors import InputError, ScheduleMismatchError
from pruners.per_thread import PerThread
from pruners.text_tower import TextTower
from pruners.tower import TowerPruning
from pruners.vision_outputs import VisionOutputs, VisionParts
from pruners.vision_towers import TowerCall, TowerOutputs, VisionTower

_Rotation = tuple[Tensor, Tensor]


@dataclass
class _Record:
    """What was seen of the tower call that is under way."""

    arguments: Mapping[str, Any]
    inputs: dict[int, Tensor] = field(default_factory=dict)
    rotations: dict[int, _Rotation] = field(default_factory=dict)


class VisionRecorder:
    """Computes `TowerOutputs` while a vision tower runs, by hooks.

    Each call of the tower attaches them to its output object, where `recorded` finds them: the
    tower may run long before the decoder, as it does in `generate`.
    """

    _ATTRIBUTE = "prunetune_vision"

    def __init__(
        self,
        tower: VisionTower,
        parts: VisionParts,
        text_tower: TextTower | None,
        *,
        thread: int | None = None,
    ) -> None:
        """Install the hooks.

        Args:
            tower: The vision tower.
            parts: What to compute.
            text_tower: Owner of the projection into the shared space; needed for encodings.
            thread: The thread whose calls are recorded; None for all.
        """
        self._thread = thread
        self._tower = tower
        self._parts = parts
        self._text_tower = text_tower
        self._call: PerThread[_Record] = PerThread()
        self._signature = inspect.signature(tower.module.forward)
        self._handles = [tower.module.register_forward_pre_hook(self._start, with_kwargs=True)]
        self._wanted = tower.layers_read(parts)
        # Every layer gets a hook: torch.compile takes layers that differ in hooks alone for alike.
        self._handles += [
            tower.layers[layer].register_forward_pre_hook(
                partial(self._record, layer), with_kwargs=True
            )
            for layer in range(-len(tower.layers), 0)
        ]
        self._handles.append(tower.module.register_forward_hook(self._finish, always_call=True))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    @classmethod
    def recorded(cls, output: Any) -> TowerOutputs | None:
        """Find what was recorded.

        Args:
            output: The output object of a vision tower call, or what `get_image_features` returned.

        Returns:
            The outputs, or None when the tower ran without these hooks.
        """
        return getattr(output, cls._ATTRIBUTE, None)

    @uncompiled
    def _start(self, tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._thread not in (None, get_ident()):
            return
        self._call.value = _Record(self._signature.bind_partial(*args, **kwargs).arguments)

    @uncompiled
    def _record(
        self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        call = self._call.value
        if call is None or layer not in self._wanted:
            return
        call.inputs[layer] = args[0] if args else kwargs["hidden_states"]
        if kwargs.get("position_embeddings") is not None:
            call.rotations[layer] = kwargs["position_embeddings"]

    @uncompiled
    def _finish(self, tower: nn.Module, args: Any, output: Any) -> None:
        call = self._call.value
        self._call.value = None
        if call is None or output is None:  # None: the tower raised an error.
            return
        seen = TowerCall(call.arguments, call.inputs, call.rotations, output)
        outputs = self._tower.read(self._parts, seen, self._embed)
        object.__setattr__(output, self._ATTRIBUTE, outputs)

    def _embed(self, tokens: Tensor) -> Tensor:
        """Bring tokens into the space shared with the text tower, normalised."""
        assert self._text_tower is not None
        # The model may have been moved since the schedule was applied.
        text_tower = self._text_tower.to(tokens.device, tokens.dtype)
        projected = text_tower.visual_projection(self._tower.norm(tokens))
        return normalize(cast(Tensor, projected).float(), dim=-1)


def check_layers(adapter: ModelAdapter, parts: VisionParts) -> None:
    """Check that the vision towers have what a schedule reads.

    Args:
        adapter: The model.
        parts: What is read.

    Raises:
        ScheduleMismatchError: There is no paired text tower, no CLS token, or no such layer.
    """
    for tower in adapter.towers.values():
        name = type(tower.module).__name__
        if parts.need_text_tower and not tower.shares_text_space:
            instead = "cls-attention" if tower.class_token else "visual-self-attention"
            raise ScheduleMismatchError(
                "the schedule compares patches with the question, but no text tower is paired "
                f"with {name} as CLIP's is; use scorers that read no question, such as {instead!r}"
            )
        if parts.need_class_token and not tower.class_token:
            raise ScheduleMismatchError(
                f"the schedule reads the CLS token, but {name} has none; use scorers that need "
                "none, such as 'visual-self-attention'"
            )
        layers = len(tower.layers)
        for layer in sorted(parts.saliency_layers):
            if layer < -layers:
                raise ScheduleMismatchError(
                    f"the schedule reads vision layer {layer}, but the tower has {layers} layers; "
                    f"expected -{layers} to -1"
                )


def all_parts(adapter: ModelAdapter, text_tower: TextTower | None) -> VisionParts:
    """List what scorers with their default options read of images.

    Args:
        adapter: The model.
        text_tower: The paired text tower, or None to leave similarity out.

    Returns:
        The parts.
    """
    tower = adapter.towers["image"]
    layers = frozenset(range(-len(tower.layers), 0)) if tower.class_token else frozenset()
    return VisionParts(
        saliency_layers=layers,
        keys=True,
        encodings=frozenset({"qq"}) if text_tower else frozenset(),
        patch_attention=True,
        key_norms=True,
        joint=text_tower is not None,
        pixels=True,
    )


def check_text_tower(adapter: ModelAdapter, text_tower: TextTower) -> None:
    """Check that a text tower is paired with a vision tower of the model's width.

    Args:
        adapter: The model.
        text_tower: The text tower.

    Raises:
        ScheduleMismatchError: The widths differ.
    """
    width = text_tower.visual_projection.in_features
    for tower in adapter.towers.values():
        if width != tower.width:
            raise ScheduleMismatchError(
                f"the text tower {text_tower.name!r} is paired with a vision tower of width "
                f"{width}, but the model's has width {tower.width}; pass text_tower= the paired "
                "CLIP checkpoint"
            )


@torch.no_grad()
def encode_images(
    model: nn.Module,
    pixel_values: Tensor,
    text_tower: TextTower | None = None,
    parts: VisionParts | None = None,
) -> VisionOutputs:
    """Compute everything that stages read of images, once for any number of schedules.

    Args:
        model: A supported vision-language model in which a stage at layer 0 runs before the
            projector (LLaVA-1.5), with or without a schedule applied.
        pixel_values: Preprocessed images, (batch, channels, height, width).
        text_tower: Text tower paired with the vision tower; needed for similarity.
        parts: What to compute; by default all that scorers with their default options read (without
            a text tower, all but similarity).

    Returns:
        The vision outputs, for `PrunedModel.prefill`.

    Raises:
        UnsupportedModelError: The model's family has no adapter.
        ScheduleMismatchError: The parts or the text tower do not fit the model.
        InputError: Similarity is asked for without a text tower, the model has a schedule that
            drops tokens inside the vision tower, or is of another family.
    """
    adapter = adapter_for(model)
    if adapter.projector is None:
        raise InputError(
            f"images of a {adapter.family!r} model are arranged behind its projector and cannot be "
            "encoded ahead of a call; call the model, or generate, with pixel values"
        )
    if parts is None:
        parts = all_parts(adapter, text_tower)
    check_layers(adapter, parts)
    if text_tower is not None:
        check_text_tower(adapter, text_tower)
        text_tower.to(adapter.device, adapter.dtype)
    elif parts.need_text_tower:
        raise InputError(
            "embeddings in the space shared with the text tower need its projection; pass "
            "text_tower=TextTower.load(...)"
        )
    tower = adapter.towers["image"]
    # Calls of other threads that are under way read what their schedule says.
    recorder = VisionRecorder(tower, parts, text_tower, thread=get_ident())
    try:
        output = tower.module(pixel_values.to(adapter.device, adapter.dtype))
    finally:
        recorder.remove()
    if TowerPruning.recorded(output) is not None:
        raise InputError(
            "the model's schedule drops tokens inside the vision tower; encode images before it is "
            "applied"
        )
    outputs = recorder.recorded(output)
    assert outputs is not None
    return outputs.batches[0]
