"""The few rows of attention that scores need, recomputed from a layer's own projections.

Asking a model for its attention maps would force it onto eager attention and cost a full map per
layer. Scores need one row (CLS) or the rows of the visual tokens of one layer, whatever attention
implementation the model runs.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pruners.saliency import cls_saliency, patch_saliency
from pruners.selection import gather_tokens

Encoding = Literal["qq", "qk", "vv", "kk"]
Projection = Callable[[Tensor], Tensor]


class VisionAttention(Protocol):
    """What is read of a vision tower's attention block."""

    q_proj: Projection
    k_proj: Projection
    v_proj: Projection
    out_proj: Projection
    head_dim: int
    scale: float


class VisionLayer(Protocol):
    """What is read of a vision tower's layer."""

    layer_norm1: Projection
    self_attn: VisionAttention


class DecoderAttention(Protocol):
    """What is read of a decoder's attention block."""

    q_proj: Projection
    k_proj: Projection
    head_dim: int
    scaling: float


class DecoderLayer(Protocol):
    """What is read of a decoder layer."""

    input_layernorm: Projection
    self_attn: DecoderAttention


def split_heads(states: Tensor, head_size: int) -> Tensor:
    """Bring (batch, tokens, heads * head size) into the form (batch, heads, tokens, head size)."""
    return states.view(*states.shape[:-1], -1, head_size).transpose(1, 2)


def cls_attention(layer: VisionLayer, hidden: Tensor) -> Tensor:
    """Score patches by a vision layer's attention from the CLS token.

    Args:
        layer: The layer.
        hidden: The layer's input, CLS token first, (batch, 1 + patches, width).

    Returns:
        Scores, float32, (batch, patches); see `pruners.saliency.cls_saliency`.
    """
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    query = split_heads(attention.q_proj(normed[:, :1]), attention.head_dim)
    keys = split_heads(attention.k_proj(normed), attention.head_dim)
    return cls_saliency(query, keys, attention.scale)


def key_heads(layer: VisionLayer, hidden: Tensor) -> Tensor:
    """Compute a vision layer's keys.

    Args:
        layer: The layer.
        hidden: The layer's input, (batch, tokens, width).

    Returns:
        Keys, (batch, heads, tokens, head size).
    """
    attention = layer.self_attn
    return split_heads(attention.k_proj(layer.layer_norm1(hidden)), attention.head_dim)


def patch_attention(layer: VisionLayer, hidden: Tensor, first: int) -> Tensor:
    """Score patches by the attention that they pay each other in a vision layer.

    Args:
        layer: The layer.
        hidden: The layer's input, (batch, tokens, width).
        first: Place of the first patch: 1 behind a CLS token, else 0.

    Returns:
        Scores, float32, (batch, patches); see `pruners.saliency.patch_saliency`.
    """
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    queries = split_heads(attention.q_proj(normed[:, first:]), attention.head_dim)
    keys = split_heads(attention.k_proj(normed), attention.head_dim)
    return patch_saliency(queries, keys, attention.scale)


def decoupled_output(layer: VisionLayer, hidden: Tensor, encoding: Encoding) -> Tensor:
    """Compute a vision layer's attention output without residual and feed-forward parts.

    DeSAP's equation 2, after ClearCLIP: the softmax is taken over one projection against itself.

    Args:
        layer: The vision tower's last layer.
        hidden: The layer's input, (batch, tokens, width).
        encoding: Which projections attend to which: ``"qq"`` (the paper's default, its table 4b),
            ``"kk"``, ``"vv"``, or ``"qk"``, which is plain attention.

    Returns:
        The output projection of the attended values, (batch, tokens, width).
    """
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    projections = {"q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj}
    # Sorted, so that the order of operations does not depend on the hash seed.
    heads = {
        letter: split_heads(projections[letter](normed), attention.head_dim)
        for letter in sorted({*encoding, "v"})
    }
    values = heads["v"]
    left, right = (heads[letter].float() for letter in encoding)
    weights = (left @ right.mT * attention.scale).softmax(dim=-1).to(values.dtype)
    return attention.out_proj((weights @ values).transpose(1, 2).flatten(2))


class LayerAttention:
    """Attention of one decoder layer over a sequence: its keys once, queries of a few rows.

    Attributes:
        scale: Factor on the dot products of queries and keys.
    """

    def __init__(
        self, layer: DecoderLayer, hidden: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> None:
        """Take what the layer is given.

        Args:
            layer: The layer.
            hidden: Its input, (batch, length, width).
            rotation: Cosines and sines of the rotary position embedding, each (batch or 1, length,
                head size).
        """
        self.scale = layer.self_attn.scaling
        self._attention = layer.self_attn
        self._layer = layer
        self._hidden = hidden
        self._rotation = tuple(part.expand(hidden.shape[0], -1, -1) for part in rotation)

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

    def keys_rotated(self, rotation: tuple[Tensor, Tensor]) -> Tensor:
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
        return self._rotated(self._attention.k_proj, places)

    def queries(self, places: Tensor) -> Tensor:
        """Compute the rotated queries of some tokens.

        Args:
            places: Where they are in the sequence, (batch, count).

        Returns:
            Queries, (batch, heads, count, head size).
        """
        return self._rotated(self._attention.q_proj, places)

    @cached_property
    def _key_heads(self) -> Tensor:
        return split_heads(self._attention.k_proj(self._normed), self._attention.head_dim)

    @cached_property
    def _normed(self) -> Tensor:
        return self._layer.input_layernorm(self._hidden)

    def _rotated(self, projection: Projection, places: Tensor) -> Tensor:
        wanted, places = places.device, places.to(self._hidden.device)
        chosen = projection(gather_tokens(self._normed, places))
        cos, sin = (gather_tokens(part, places) for part in self._rotation)
        return _rotate(split_heads(chosen, self._attention.head_dim), cos, sin).to(wanted)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotated: tuple[Tensor, Tensor] = apply_rotary_pos_emb(states, states, cos, sin)
    return rotated[0]
