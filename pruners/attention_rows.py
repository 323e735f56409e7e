"""The few rows of attention that scores need, recomputed from a layer's own projections.

Asking a model for its attention maps would force it onto eager attention and cost a full map per
layer. Scores need one row (CLS) or the rows of the visual tokens of one layer, whatever attention
implementation the model runs.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pruners.saliency import cls_saliency, patch_saliency
from pruners.selection import gather_tokens
from pruners.vision_attention import (
    ClipHeads,
    Projection,
    Rotation,
    VisionHeads,
)
from pruners.vision_attention import (
    Encoding as Encoding,
)
from pruners.vision_attention import (
    VisionLayer as VisionLayer,
)


class DecoderAttention(Protocol):
    """What is read of a decoder's attention block.

    Blocks that norm queries and keys by head have `q_norm` and `k_norm` as well (Qwen3).
    """

    q_proj: Projection
    k_proj: Projection
    head_dim: int
    scaling: float


class DecoderLayer(Protocol):
    """What is read of a decoder layer."""

    input_layernorm: Projection
    self_attn: DecoderAttention


def cls_attention(layer: VisionHeads | VisionLayer, hidden: Tensor) -> Tensor:
    """Score patches by a vision layer's attention from the CLS token.

    Args:
        layer: The layer, of a tower without rotary position embedding.
        hidden: The layer's input, CLS token first, (batch, 1 + patches, width).

    Returns:
        Scores, float32, (batch, patches); see `pruners.saliency.cls_saliency`.
    """
    heads = _heads(layer)
    hidden = hidden.detach()  # choosing has no gradient
    return cls_saliency(heads.queries(hidden[:, :1]), heads.keys(hidden), heads.scale)


def key_heads(
    layer: VisionHeads | VisionLayer, hidden: Tensor, rotation: Rotation | None = None
) -> Tensor:
    """Compute a vision layer's keys.

    Args:
        layer: The layer.
        hidden: The layer's input, (batch, tokens, width).
        rotation: Cosines and sines of the tower's rotary position embedding, each (batch or 1,
            tokens, head size); None for a tower without.

    Returns:
        Keys, (batch, heads, tokens, head size).
    """
    return _heads(layer).keys(hidden, rotation)


def patch_attention(
    layer: VisionHeads | VisionLayer,
    hidden: Tensor,
    first: int = 0,
    rotation: Rotation | None = None,
) -> Tensor:
    """Score patches by the attention that they pay each other in a vision layer.

    Args:
        layer: The layer.
        hidden: The layer's input, (batch, tokens, width).
        first: Place of the first patch: 1 behind a CLS token, else 0.
        rotation: Cosines and sines of the tower's rotary position embedding, each (batch or 1,
            tokens, head size); None for a tower without.

    Returns:
        Scores, float32, (batch, patches); see `pruners.saliency.patch_saliency`.
    """
    heads = _heads(layer)
    queries, keys = heads.project(hidden, "qk", rotation)
    return patch_saliency(queries[:, :, first:], keys, heads.scale)


def decoupled_output(
    layer: VisionHeads | VisionLayer,
    hidden: Tensor,
    encoding: Encoding,
    rotation: Rotation | None = None,
) -> Tensor:
    """Compute a vision layer's attention output without residual and feed-forward parts.

    DeSAP's equation 2, after ClearCLIP: the softmax is taken over one projection against itself.
    No attention map is kept: in half precision, sums are float32 inside torch's fused attention,
    and the shares of the softmax are rounded to half precision, as in the tower itself.

    Args:
        layer: The vision tower's last layer.
        hidden: The layer's input, (batch, tokens, width).
        encoding: Which projections attend to which: ``"qq"`` (the paper's default, its table 4b),
            ``"kk"``, ``"vv"``, or ``"qk"``, which is plain attention.
        rotation: Cosines and sines of the tower's rotary position embedding, each (batch or 1,
            tokens, head size); None for a tower without.

    Returns:
        The output projection of the attended values, (batch, tokens, width).
    """
    heads = _heads(layer)
    # Sorted, so that the order of operations does not depend on the hash seed.
    letters = "".join(sorted({*encoding, "v"}))
    projected = dict(zip(letters, heads.project(hidden, letters, rotation), strict=True))
    left, right = (projected[letter] for letter in encoding)
    attended = scaled_dot_product_attention(left, right, projected["v"], scale=heads.scale)
    return heads.output(attended)


def _heads(layer: VisionHeads | VisionLayer) -> VisionHeads:
    return layer if isinstance(layer, VisionHeads) else ClipHeads(layer)


class LayerAttention:
    """Attention of one decoder layer over a sequence: its keys once, queries of a few rows.

    Attributes:
        scale: Factor on the dot products of queries and keys.
        window: How many places of the sequence a row sees, its own included; None for all before.
    """

    def __init__(self, layer: DecoderLayer, hidden: Tensor, rotation: Rotation) -> None:
        """Take what the layer is given.

        Args:
            layer: The layer.
            hidden: Its input, (batch, length, width).
            rotation: Cosines and sines of the rotary position embedding, each (batch or 1, length,
                head size); where positions have several axes, put together over these already.
        """
        self.scale = layer.self_attn.scaling
        self.window = sliding_window(layer.self_attn)
        self._attention = layer.self_attn
        self._layer = layer
        self._hidden = hidden
        self._rotation = tuple(part.expand(hidden.shape[0], -1, -1) for part in rotation)

    def with_keys(self, keys: Tensor) -> LayerAttention:
        """Take over keys that the layer has computed already.

        Args:
            keys: Rotated keys, (batch, key-value heads, length, head size), such as the layer's
                cache holds once it has run. Others are no use, and nothing is taken over: those of
                a sliding-window layer, of a cache that an earlier turn has filled, or of one that
                is kept on another device.

        Returns:
            The same attention, which computes no keys of its own but those of `keys_rotated`.
        """
        if keys.shape[2] != self._hidden.shape[1] or keys.device != self._hidden.device:
            return self
        other = copy(self)
        other.keys = keys
        return other

    def to(self, device: torch.device) -> LayerAttention:
        """Compute keys and move them, for models that are spread over several devices."""
        if device == self._hidden.device:
            return self
        moved = copy(self)
        moved.keys = self.keys.to(device)
        return moved

    @cached_property
    def keys(self) -> Tensor:
        """Rotated keys of all tokens, (batch, key-value heads, length, head size)."""
        return _rotate(self._key_heads, *self._rotation)

    def keys_rotated(self, rotation: Rotation) -> Tensor:
        """Rotate the keys of all tokens by other positions.

        Args:
            rotation: Cosines and sines, each (batch, length, head size).

        Returns:
            Keys, (batch, key-value heads, length, head size).
        """
        cos, sin = (part.to(self._hidden.device) for part in rotation)
        return _rotate(self._key_heads, cos, sin).to(rotation[0].device)

    def keys_of(self, places: Tensor) -> Tensor:
        """Compute the rotated keys of some tokens only.

        Args:
            places: Where they are in the sequence, (batch, count).

        Returns:
            Keys, (batch, key-value heads, count, head size).
        """
        return self._rotated(self._keys_by_head, places)

    def queries(self, places: Tensor) -> Tensor:
        """Compute the rotated queries of some tokens.

        Args:
            places: Where they are in the sequence, (batch, count).

        Returns:
            Queries, (batch, heads, count, head size).
        """
        return self._rotated(self._queries_by_head, places)

    @cached_property
    def _key_heads(self) -> Tensor:
        return self._keys_by_head(self._layer.input_layernorm(self._hidden))

    def _keys_by_head(self, normed: Tensor) -> Tensor:
        return self._by_head(self._attention.k_proj(normed), "k_norm")

    def _queries_by_head(self, normed: Tensor) -> Tensor:
        return self._by_head(self._attention.q_proj(normed), "q_norm")

    def _by_head(self, states: Tensor, norm: str) -> Tensor:
        heads = states.view(*states.shape[:-1], -1, self._attention.head_dim)
        by_head: Projection | None = getattr(self._attention, norm, None)
        if by_head is not None:
            heads = by_head(heads)
        return heads.transpose(1, 2)

    def _rotated(self, by_head: Callable[[Tensor], Tensor], places: Tensor) -> Tensor:
        wanted, places = places.device, places.to(self._hidden.device)
        # Picked before the norm, which works token by token: a few rows cost a few rows.
        chosen = self._layer.input_layernorm(gather_tokens(self._hidden, places))
        cos, sin = (gather_tokens(part, places) for part in self._rotation)
        return _rotate(by_head(chosen), cos, sin).to(wanted)


def sliding_window(attention: Any) -> int | None:
    """Find how far back an attention block of a decoder sees.

    Args:
        attention: An attention block of transformers.

    Returns:
        How many places a row sees, its own included; None for all before it.
    """
    if hasattr(attention, "sliding_window"):  # Qwen2 and its kin: None in layers that do not slide
        window: int | None = attention.sliding_window
        return window
    if hasattr(attention, "layer_type"):  # Qwen3-VL: knows kinds of layers, and none that slides
        return None
    # Mistral: all layers slide, or none; Llama's configuration has no such entry.
    return getattr(getattr(attention, "config", None), "sliding_window", None)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotated: tuple[Tensor, Tensor] = apply_rotary_pos_emb(states, states, cos, sin)
    return rotated[0]
