"""What the runtime needs to know of a model family."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from pruners.attention_rows import DecoderLayer
from pruners.errors import InputError, UnsupportedModelError, shown
from pruners.media import KINDS, Kind, Medium
from pruners.tower_features import check_feature_layer
from pruners.vision_towers import VisionTower

_PIXELS = ("pixel_values", "pixel_values_images", "pixel_values_videos")
_DECODERS = ("llama", "mistral", "qwen2", "qwen3", "qwen2_5_vl_text", "qwen3_vl_text")
"""Decoders whose layers `pruners.attention_rows` reads, by `model_type`."""


@dataclass(frozen=True)
class DecoderCall:
    """The arguments of one call of a vision-language model that pruning reads.

    Attributes:
        input_ids: Token ids with placeholders, (batch, length), or None.
        inputs_embeds: Token embeddings instead of ids, (batch, length, width), or None.
        attention_mask: Nonzero for tokens, 0 for padding, (batch, length), or None.
        has_images: Whether the call brings images or videos, as pixels or encoded.
        encoded: Images and videos that were encoded before the call (`generate` does so), by kind.
        cache: Key-value cache that the call continues or fills, or None.
        options: Every argument that was given, by name.
    """

    input_ids: Tensor | None
    inputs_embeds: Tensor | None
    attention_mask: Tensor | None
    has_images: bool
    encoded: Mapping[Kind, Any]
    cache: Any
    options: dict[str, Any]


class ModelAdapter(ABC):
    """Where the parts of one loaded model are; subclasses know one family.

    A family is one file: subclass this, and list the class in `pruners.adapters`. Stock models of
    transformers have a head, a `core` that merges image features into token embeddings, and in it
    a language model with `layers`, `norm` and `rotary_emb`.

    Attributes:
        family: The `model_type` of its configurations.
        position_axes: Axes of the rotary positions: 1, or 3 with M-RoPE (time, height, width).
        fixed_media: Arguments of `get_image_features` that must equal the configuration's.
        model: The model, whose calls return logits.
        core: The module inside it whose calls merge image features into token embeddings.
        towers: The vision tower of each kind of medium; image and video may share one.
        projector: Maps vision features, (images, patches, width), to as many tokens of the
            decoder's width: a stage at layer 0 then runs before it. None where tokens are merged
            or arranged behind it, or where it is part of the tower; stages then work on its output.
        decoder: The language model without its head.
        decoder_layers: Layers of the decoder.
    """

    family: ClassVar[str]
    position_axes: ClassVar[int] = 1
    fixed_media: ClassVar[tuple[str, ...]] = (
        "vision_feature_layer",
        "vision_feature_select_strategy",
    )

    model: nn.Module
    core: nn.Module
    towers: Mapping[Kind, VisionTower]
    projector: nn.Module | None = None
    decoder: nn.Module
    decoder_layers: Sequence[nn.Module]

    def __init__(self, model: nn.Module, expected: type[Any]) -> None:
        """Find the parts that all stock models have; subclasses add `towers` and `projector`.

        Args:
            model: The model.
            expected: The stock class of the family.

        Raises:
            UnsupportedModelError: The model is of another class, or its decoder or its vision
                configuration cannot be pruned.
        """
        if not isinstance(model, expected):
            raise UnsupportedModelError(
                f"expected a {expected.__name__}, got {type(model).__name__}; load the model with "
                "AutoModelForImageTextToText.from_pretrained"
            )
        stock: Any = model
        decoder = stock.config.text_config.model_type
        if decoder not in _DECODERS:
            raise UnsupportedModelError(
                f"the decoder's model_type is {shown(decoder)}; schedules can be applied to models "
                f"with one of these decoders: {', '.join(_DECODERS)}"
            )
        check_feature_layer(getattr(stock.config, "vision_feature_layer", -1))
        self.model = model
        self.core = stock.model
        self.decoder = stock.model.language_model
        self.decoder_layers = list(stock.model.language_model.layers)
        self._signature = inspect.signature(stock.model.forward)

    # The family's own: its vision tower's output as visual tokens of the prompt.

    @abstractmethod
    def media(self, kind: Kind, arguments: Mapping[str, Any], features: Any) -> tuple[Medium, ...]:
        """Describe the images or videos of one call of ``get_image_features`` (or of videos').

        Args:
            kind: Which of the two.
            arguments: What it was called with, by name.
            features: What it returned; `pooler_output` has the projected features.

        Returns:
            The images or videos, in the order in which the prompt's placeholders take them.
        """

    def placeholder_ids(self) -> Mapping[Kind, int]:
        """Return the token id of a placeholder of each kind that the family has."""
        config: Any = self.model.config
        return {kind: getattr(config, f"{kind}_token_id") for kind in self.towers}

    def take_added_features(self, options: dict[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
        """Take features that the decoder adds to visual tokens after its first layers (DeepStack).

        Args:
            options: Arguments of the decoder.

        Returns:
            One tensor per layer from the first on, (visual tokens of the batch, width), sample by
            sample; and the arguments without them. By default there are none.
        """
        return [], options

    def counted_positions(self, position_ids: Tensor) -> Tensor | None:
        """Find the count of tokens in the positions of a call.

        Args:
            position_ids: The positions, as `generate` or a caller gives them.

        Returns:
            Each token's place among its sample's tokens, (batch or 1, count); None where positions
            are a caller's own that count something else.
        """
        return position_ids if position_ids.ndim == 2 else None

    # What stock decoders have in common.

    def decoder_layer(self, index: int) -> DecoderLayer:
        """Return a decoder layer, typed for scoring."""
        return cast(DecoderLayer, self.decoder_layers[index])

    def decoder_norm(self, hidden: Tensor) -> Tensor:
        """Apply the decoder's last norm, (batch, length, width)."""
        return cast(Tensor, cast(Any, self.decoder).norm(hidden))

    def rotation(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the rotary position embedding.

        Args:
            hidden: Hidden states, for their type and device, (batch, length, width).
            position_ids: Positions, (batch, length), or (axes, batch, length) with several axes.

        Returns:
            Cosines and sines, each (batch, length, head size).
        """
        rotary = cast(Any, self.decoder).rotary_emb
        return cast(tuple[Tensor, Tensor], rotary(hidden, position_ids=position_ids))

    def attention_type(self, layer: int) -> str:
        """Say what a decoder layer attends to: ``"full_attention"`` or ``"sliding_attention"``."""
        config: Any = cast(Any, self.decoder).config
        types = getattr(config, "layer_types", None)
        if types is not None:
            return cast(str, types[layer])
        # Mistral names no types: a window, where there is one, is that of every layer.
        slides = getattr(config, "sliding_window", None) is not None
        return "sliding_attention" if slides else "full_attention"

    def causal_mask(self, hidden: Tensor, mask: Tensor | None, cache: Any, layer: int) -> Any:
        """Make the mask that a decoder layer's attention implementation expects.

        Args:
            hidden: The layer's input, (batch, new, width).
            mask: True for tokens, False for padding, over cached and new tokens, (batch, length);
                None without padding.
            cache: Key-value cache, or None.
            layer: The layer, whose cached length and kind of attention count.

        Returns:
            The mask, or None where the implementation needs none.
        """
        slides = self.attention_type(layer) == "sliding_attention"
        make = create_sliding_window_causal_mask if slides else create_causal_mask
        return make(
            config=cast(Any, self.decoder).config,
            inputs_embeds=hidden,
            attention_mask=mask,
            past_key_values=cache,
            layer_idx=layer,
            # With padding a mask is needed; whether there is any would be asked of the device.
            allow_is_causal_skip=mask is None,
        )

    def head(self, hidden: Tensor) -> Tensor:
        """Turn the decoder's output, (batch, width), into logits, (batch, vocabulary)."""
        # Looked up anew: a vocabulary that is resized gets another head.
        return cast(Tensor, cast(Any, self.model).lm_head(hidden))

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embed token ids, (batch, length), as (batch, length, width)."""
        return cast(Tensor, cast(Any, self.model).get_input_embeddings()(input_ids))

    def read_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DecoderCall:
        """Read the arguments of a call of `core`.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.

        Returns:
            What pruning reads of them.

        Raises:
            InputError: The call asks for other vision features than the model's configuration.
        """
        options = dict(self._signature.bind_partial(*args, **kwargs).arguments)
        options.update(options.pop("kwargs", {}))
        for name in self.fixed_media:
            value = options.get(name)
            if value is not None and value != getattr(self.model.config, name):
                raise InputError(
                    f"{name}={value!r} differs from the model's configuration, which the schedule "
                    "was applied to; set it in the configuration before applying the schedule"
                )
        outputs = options.get("mm_encoder_outputs") or {}
        encoded = {kind: outputs[kind] for kind in KINDS if outputs.get(kind) is not None}
        pixels = any(options.get(name) is not None for name in _PIXELS)
        return DecoderCall(
            input_ids=options.get("input_ids"),
            inputs_embeds=options.get("inputs_embeds"),
            attention_mask=options.get("attention_mask"),
            has_images=pixels or bool(encoded),
            encoded=encoded,
            cache=options.get("past_key_values"),
            options=options,
        )

    @property
    def device(self) -> torch.device:
        """Device of the vision tower, where a call starts."""
        return self.towers["image"].device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the vision tower."""
        return self.towers["image"].dtype
