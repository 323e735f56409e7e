"""What encoder stages read of images, computed once whatever the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pruners.adapters import ModelAdapter, adapter_for
from pruners.attention_rows import Encoding, cls_attention, decoupled_output, vision_keys
from pruners.errors import InputError, ScheduleMismatchError
from pruners.per_thread import PerThread
from pruners.text_tower import TextTower


@dataclass(frozen=True)
class VisionParts:
    """Which parts of `VisionOutputs` to compute beside the features.

    Attributes:
        saliency_layers: Vision layers whose CLS attention is read, as negative indices.
        keys: Whether the keys that contextual merging compares are computed.
        encodings: Encodings of the decoupled embeddings; these need a text tower.
    """

    saliency_layers: frozenset[int] = frozenset()
    keys: bool = False
    encodings: frozenset[Encoding] = frozenset()


@dataclass(frozen=True)
class VisionOutputs:
    """What encoder stages read of a batch of images.

    Attributes:
        features: Hidden states that the projector reads, CLS token first, (batch, 1 + visual,
            width); without a CLS token, (batch, visual, width).
        saliency: CLS attention by vision layer (negative index), mean over heads, (batch, visual).
        keys: Normalised head-mean keys of the layer that makes the features, (batch, visual, head
            size); None when not computed.
        decoupled: Decoupled embeddings by encoding, normalised, CLS token first, (batch,
            1 + visual, shared width).
    """

    features: Tensor
    saliency: Mapping[int, Tensor] = field(default_factory=dict)
    keys: Tensor | None = None
    decoupled: Mapping[Encoding, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.features.shape[0]

    def select(self, indices: Tensor) -> VisionOutputs:
        """Pick images.

        Args:
            indices: Indices of images, (count,).

        Returns:
            The picked images, in that order.
        """
        return VisionOutputs(
            features=self.features[indices],
            saliency={layer: scores[indices] for layer, scores in self.saliency.items()},
            keys=None if self.keys is None else self.keys[indices],
            decoupled={name: tokens[indices] for name, tokens in self.decoupled.items()},
        )

    def check(self, parts: VisionParts) -> None:
        """Check that parts are there.

        Args:
            parts: What a schedule's encoder stage reads.

        Raises:
            InputError: A part was not computed.
        """
        missing = [
            *(f"saliency of layer {i}" for i in sorted(parts.saliency_layers - set(self.saliency))),
            *(["keys"] if parts.keys and self.keys is None else []),
            *(f"decoupled {name!r}" for name in sorted(parts.encodings - set(self.decoupled))),
        ]
        if missing:
            raise InputError(
                f"the schedule's encoder stage reads {', '.join(missing)}, which these vision "
                "outputs do not have; pass encode_images the text tower and the schedule's parts"
            )


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
        self._handles = [adapter.vision_tower.register_forward_pre_hook(self._start)]
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
        if self._parts.keys:
            layers.add(feature)
        if self._parts.encodings:
            layers.add(-1)
        return frozenset(layers)

    def _start(self, tower: nn.Module, args: Any) -> None:
        self._inputs.value = {}

    def _record(
        self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._inputs.value is not None:
            self._inputs.value[layer] = args[0] if args else kwargs["hidden_states"]

    def _finish(self, tower: nn.Module, args: Any, output: Any) -> None:
        inputs = self._inputs.value
        self._inputs.value = None
        if inputs is None or output is None:  # None: the tower raised an error.
            return
        object.__setattr__(output, self._ATTRIBUTE, self._outputs(inputs, output))

    def _outputs(self, inputs: Mapping[int, Tensor], output: Any) -> VisionOutputs:
        adapter, parts = self._adapter, self._parts
        feature = adapter.feature_layer
        features = inputs[feature + 1] if feature < -1 else output.last_hidden_state
        with torch.no_grad():
            saliency = {
                layer: cls_attention(adapter.vision_layer(layer), inputs[layer])
                for layer in sorted(parts.saliency_layers)
            }
            keys = None
            if parts.keys:
                keys = vision_keys(adapter.vision_layer(feature), inputs[feature])
            decoupled = {
                encoding: self._embed(
                    decoupled_output(adapter.vision_layer(-1), inputs[-1], encoding)
                )
                for encoding in sorted(parts.encodings)
            }
        return VisionOutputs(features, saliency, keys, decoupled)

    def _embed(self, tokens: Tensor) -> Tensor:
        """Bring tokens into the space shared with the text tower, normalised."""
        assert self._text_tower is not None
        projected = self._text_tower.visual_projection(self._adapter.vision_norm(tokens))
        return normalize(cast(Tensor, projected).float(), dim=-1)


def check_layers(adapter: ModelAdapter, parts: VisionParts) -> None:
    """Check that a vision tower has what an encoder stage reads.

    Args:
        adapter: The model.
        parts: What is read.

    Raises:
        ScheduleMismatchError: There is no CLS token, or no such layer.
    """
    if not adapter.class_token:
        raise ScheduleMismatchError(
            f"the encoder stage reads the CLS token, but {type(adapter.vision_tower).__name__} has "
            "none; use a schedule whose stages are all above layer 0"
        )
    layers = len(adapter.vision_layers)
    for layer in sorted(parts.saliency_layers):
        if layer < -layers:
            raise ScheduleMismatchError(
                f"the encoder stage reads vision layer {layer}, but the tower has {layers} layers; "
                f"expected -{layers} to -1"
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
    """Compute everything that encoder stages read of images, once for any number of schedules.

    Args:
        model: A supported vision-language model, with or without a schedule applied.
        pixel_values: Preprocessed images, (batch, channels, height, width).
        text_tower: Text tower paired with the vision tower; needed for similarity.
        parts: What to compute; by default the CLS attention of the last two layers, the keys, and,
            with a text tower, the ``"qq"`` decoupled embeddings.

    Returns:
        The vision outputs, for `PrunedModel.prefill`.

    Raises:
        UnsupportedModelError: The model's family has no adapter.
        ScheduleMismatchError: The parts or the text tower do not fit the model.
        InputError: Decoupled embeddings are asked for without a text tower.
    """
    adapter = adapter_for(model)
    if parts is None:
        encodings: frozenset[Encoding] = frozenset({"qq"}) if text_tower else frozenset()
        parts = VisionParts(frozenset({-1, -2}), keys=True, encodings=encodings)
        if not adapter.class_token:
            parts = VisionParts()
    if parts != VisionParts():
        check_layers(adapter, parts)
    if text_tower is not None:
        check_text_tower(adapter, text_tower)
        text_tower.to(adapter.device, adapter.dtype)
    elif parts.encodings:
        raise InputError(
            f"decoupled embeddings ({', '.join(sorted(parts.encodings))}) need the paired text "
            "tower's projection; pass text_tower=TextTower.load(...)"
        )
    recorder = VisionRecorder(adapter, parts, text_tower)
    try:
        output = adapter.vision_tower(pixel_values.to(adapter.device, adapter.dtype))
    finally:
        recorder.remove()
    outputs = recorder.recorded(output)
    assert outputs is not None
    return outputs
