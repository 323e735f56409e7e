"""What the runtime needs to know of a model family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pruners.attention_rows import DecoderLayer, VisionLayer


@dataclass(frozen=True)
class DecoderCall:
    """The arguments of one call of a vision-language model that pruning reads.

    Attributes:
        input_ids: Token ids with image placeholders, (batch, length), or None.
        inputs_embeds: Token embeddings instead of ids, (batch, length, width), or None.
        has_images: Whether the call brings images, as pixels or encoded.
        encoded_images: Images encoded before the call (`generate` does so), or None.
        cache: Key-value cache that the call continues or fills, or None.
        options: Every other argument that was given, by name.
    """

    input_ids: Tensor | None
    inputs_embeds: Tensor | None
    has_images: bool
    encoded_images: Any
    cache: Any
    options: dict[str, Any]


class ModelAdapter(ABC):
    """Where the parts of one loaded model are; subclasses know one family.

    A family is one file: subclass this, and list the class in `pruners.adapters`.

    Attributes:
        family: The `model_type` of its configurations.
        model: The model, whose calls return logits.
        core: The module inside it whose calls merge image features into token embeddings.
        vision_tower: Called with pixels; its output has `last_hidden_state`.
        vision_layers: Layers of the tower.
        projector: Maps vision features, (batch, tokens, width), to the decoder's width.
        decoder: The language model without its head.
        decoder_layers: Layers of the decoder.
        head: Maps the decoder's output to logits.
        visual_tokens: Image positions per sample of the dense model (N).
        class_token: Whether the tower's sequence starts with a CLS token.
        feature_layer: Which hidden states of the tower the projector reads, as a negative index.
        vision_width: Width of the tower's residual stream.
    """

    family: ClassVar[str]

    model: nn.Module
    core: nn.Module
    vision_tower: nn.Module
    vision_layers: Sequence[nn.Module]
    projector: nn.Module
    decoder: nn.Module
    decoder_layers: Sequence[nn.Module]
    head: nn.Module
    visual_tokens: int
    class_token: bool
    feature_layer: int
    vision_width: int

    @abstractmethod
    def __init__(self, model: nn.Module) -> None:
        """Find the parts of a model.

        Args:
            model: The model.

        Raises:
            UnsupportedModelError: The model is configured in a way that this adapter cannot prune.
        """

    @abstractmethod
    def vision_layer(self, index: int) -> VisionLayer:
        """Return a layer of the tower, typed for scoring; `index` is negative."""

    @abstractmethod
    def vision_norm(self, hidden: Tensor) -> Tensor:
        """Apply the norm that stands between the tower and the space shared with the text tower."""

    @abstractmethod
    def decoder_layer(self, index: int) -> DecoderLayer:
        """Return a decoder layer, typed for scoring."""

    @abstractmethod
    def decoder_norm(self, hidden: Tensor) -> Tensor:
        """Apply the decoder's last norm, (batch, length, width)."""

    @abstractmethod
    def rotation(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the rotary position embedding.

        Args:
            hidden: Hidden states, for their type and device, (batch, length, width).
            position_ids: Positions, (batch, length).

        Returns:
            Cosines and sines, each (batch, length, head size).
        """

    @abstractmethod
    def causal_mask(self, hidden: Tensor, mask: Tensor | None, cache: Any, layer: int) -> Any:
        """Make the mask that a decoder layer's attention implementation expects.

        Args:
            hidden: The layer's input, (batch, new, width).
            mask: True for tokens, False for padding, over cached and new tokens, (batch, length);
                None without padding.
            cache: Key-value cache, or None.
            layer: The layer, whose cached length counts.

        Returns:
            The mask, or None where the implementation needs none.
        """

    @abstractmethod
    def embed(self, input_ids: Tensor) -> Tensor:
        """Embed token ids, (batch, length), as (batch, length, width)."""

    @abstractmethod
    def image_mask(self, call: DecoderCall) -> Tensor:
        """Mark the image placeholders of a call, (batch, length)."""

    @abstractmethod
    def image_token_id(self) -> int:
        """Return the token id of an image placeholder."""

    @abstractmethod
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

    @property
    def device(self) -> torch.device:
        """Device of the vision tower, where a call starts."""
        return next(self.vision_tower.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the vision tower."""
        return next(self.vision_tower.parameters()).dtype
