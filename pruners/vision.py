"""What encoder stages read of images, computed once whatever the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pruners.adapters import ModelAdapter, adapter_for
from pruners.attention_rows import (
    cls_attention,
    decoupled_output,
    key_heads,
    patch_attention,
)
from pruners.errors import InputError, ScheduleMismatchError
from pruners.per_thread import PerThread
from pruners.saliency import key_norms
from pruners.text_tower import TextTower
from pruners.tower import TowerPruning
from pruners.vision_outputs import VisionOutputs, VisionParts


class VisionRecorder:
    """Computes `VisionOutputs` while a model's vision tower runs, by hooks.

    Each call of the tower attaches them to its output object, where `recorded` finds them: the
    tower may run long before the decoder, as it does in `generate`.
    """

    _ATTRIBUTE = "prunetune_vision"

    def __init__(
        self, adapter: ModelAdapter, parts: VisionParts, text_tower: TextTower | None
    ) -> None:
        """Install the hooks.

        Args:
            adapter: The model.
            parts: What to compute.
            text_tower: Owner of the projection into the shared space; needed for encodings.
        """
        self._adapter = adapter
        self._parts = parts
        self._text_tower = text_tower
        # Inputs of the vision layers in the tower call that is under way.
        self._inputs: PerThread[dict[int, Tensor]] = PerThread()
        self._pixels: PerThread[Tensor] = PerThread()
        self._handles = [
            adapter.vision_tower.register_forward_pre_hook(self._start, with_kwargs=True)
        ]
        self._handles += [
            adapter.vision_layers[layer].register_forward_pre_hook(
                partial(self._record, layer), with_kwargs=True
            )
            for layer in sorted(self._layers)
        ]
        self._handles.append(
            adapter.vision_tower.register_forward_hook(self._finish, always_call=True)
        )

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    @classmethod
    def recorded(cls, output: Any) -> VisionOutputs | None:
        """Find what was recorded.

        Args:
            output: The output object of a vision tower call, or what `get_image_features` returned.

        Returns:
            The vision outputs, or None when the tower ran without these hooks.
        """
        return getattr(output, cls._ATTRIBUTE, None)

    @property
    def _layers(self) -> frozenset[int]:
        """Layers whose input is needed."""
        layers = set(self._parts.saliency_layers)
        feature = self._adapter.feature_layer
        if feature < -1:
            layers.add(feature + 1)  # The hidden states after a layer are the next layer's input.
        if self._parts.keys or self._parts.key_norms or self._parts.patch_attention:
            layers.add(feature)
        if self._parts.encodings:
            layers.add(-1)
        return frozenset(layers)

    def _start(self, tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inputs.value = {}
        self._pixels.value = args[0] if args else kwargs["pixel_values"]

    def _record(
        self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._inputs.value is not None:
            self._inputs.value[layer] = args[0] if args else kwargs["hidden_states"]

    def _finish(self, tower: nn.Module, args: Any, output: Any) -> None:
        inputs = self._inputs.value
        self._inputs.value = None
        if inputs is not None and output is not None:  # None: the tower raised an error.
            object.__setattr__(output, self._ATTRIBUTE, self._outputs(inputs, output))
        self._pixels.value = None

    def _outputs(self, inputs: Mapping[int, Tensor], output: Any) -> VisionOutputs:
        adapter, parts = self._adapter, self._parts
        feature = adapter.feature_layer
        features = inputs[feature + 1] if feature < -1 else output.last_hidden_state
        with torch.no_grad():
            saliency = {
                layer: cls_attention(adapter.vision_layer(layer), inputs[layer])
                for layer in sorted(parts.saliency_layers)
            }
            decoupled = {
                encoding: self._embed(
                    decoupled_output(adapter.vision_layer(-1), inputs[-1], encoding)
                )
                for encoding in sorted(parts.encodings)
            }
            first = 1 if adapter.class_token else 0
            joint = self._embed(features[:, first:]) if parts.joint else None
            attention = None
            if parts.patch_attention:
                attention = patch_attention(adapter.vision_layer(feature), inputs[feature], first)
            keys = norms = None
            if parts.keys or parts.key_norms:
                heads = key_heads(adapter.vision_layer(feature), inputs[feature])[:, :, first:]
                # What VisionDrop and VisionZip compare patches by.
                keys = normalize(heads.float().mean(dim=1), dim=-1) if parts.keys else None
                norms = key_norms(heads) if parts.key_norms else None
        return VisionOutputs(
            features=features,
            saliency=saliency,
            keys=keys,
            decoupled=decoupled,
            patch_attention=attention,
            key_norms=norms,
            joint=joint,
            pixels=self._pixels.value if parts.pixels else None,
        )

    def _embed(self, tokens: Tensor) -> Tensor:
        """Bring tokens into the space shared with the text tower, normalised."""
        assert self._text_tower is not None
        projected = self._text_tower.visual_projection(self._adapter.vision_norm(tokens))
        return normalize(cast(Tensor, projected).float(), dim=-1)


def check_layers(adapter: ModelAdapter, parts: VisionParts) -> None:
    """Check that a vision tower has what a schedule reads.

    Args:
        adapter: The model.
        parts: What is read.

    Raises:
        ScheduleMismatchError: There is no CLS token, or no such layer.
    """
    if parts.need_class_token and not adapter.class_token:
        raise ScheduleMismatchError(
            f"the schedule reads the CLS token, but {type(adapter.vision_tower).__name__} has "
            "none; use scorers that need none, such as 'visual-self-attention'"
        )
    layers = len(adapter.vision_layers)
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
    cls = adapter.class_token
    return VisionParts(
        saliency_layers=frozenset(range(-len(adapter.vision_layers), 0)) if cls else frozenset(),
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
    width, expected = text_tower.visual_projection.in_features, adapter.vision_width
    if width != expected:
        raise ScheduleMismatchError(
            f"the text tower {text_tower.name!r} is paired with a vision tower of width {width}, "
            f"but the model's has width {expected}; pass text_tower= the paired CLIP checkpoint"
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
        model: A supported vision-language model, with or without a schedule applied.
        pixel_values: Preprocessed images, (batch, channels, height, width).
        text_tower: Text tower paired with the vision tower; needed for similarity.
        parts: What to compute; by default all that scorers with their default options read (without
            a text tower, all but similarity).

    Returns:
        The vision outputs, for `PrunedModel.prefill`.

    Raises:
        UnsupportedModelError: The model's family has no adapter.
        ScheduleMismatchError: The parts or the text tower do not fit the model.
        InputError: Similarity is asked for without a text tower, or the model has a schedule that
            drops tokens inside the vision tower.
    """
    adapter = adapter_for(model)
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
    recorder = VisionRecorder(adapter, parts, text_tower)
    try:
        output = adapter.vision_tower(pixel_values.to(adapter.device, adapter.dtype))
    finally:
        recorder.remove()
    if TowerPruning.recorded(output) is not None:
        raise InputError(
            "the model's schedule drops tokens inside the vision tower; encode images before it is "
            "applied"
        )
    outputs = recorder.recorded(output)
    assert outputs is not None
    return outputs
