"""The few rows of attention that scores need, recomputed from a layer's own projections.

Asking a model for its attention maps would force it onto eager attention and cost a full map per
layer. Scores need one row (CLS) or the rows of the visual tokens of one layer, whatever attention
implementation the model runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from torch import Tensor
from torch.nn.functional import normalize
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pruners.saliency import cls_saliency
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


def vision_keys(layer: VisionLayer, hidden: Tensor) -> Tensor:
    """Compute what VisionDrop and VisionZip compare patches by: head-mean keys, L2-normalised.

    Args:
        layer: The vision layer whose output reaches the projector.
        hidden: The layer's input, CLS token first, (batch, 1 + patches, width).

    Returns:
        Keys of the patches, float32, (batch, patches, head size).
    """
    attention = layer.self_attn
    keys = split_heads(attention.k_proj(layer.layer_norm1(hidden)), attention.head_dim)
    return normalize(keys[:, :, 1:].float().mean(dim=1), dim=-1)


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


def decoder_queries_and_keys(
    layer: DecoderLayer, hidden: Tensor, rotation: tuple[Tensor, Tensor], visual: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute a decoder layer's rotated queries of the visual tokens, and keys of all tokens.

    Args:
        layer: The layer before which tokens are dropped.
        hidden: The layer's input, (batch, length, width).
        rotation: Cosines and sines of the rotary position embedding, each (batch or 1, length,
            head size).
        visual: Where the visual tokens are in the sequence, (batch, visual).

    Returns:
        Queries, (batch, heads, visual, head size), and keys, (batch, key-value heads, length,
        head size).
    """
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    cos, sin = (part.expand(hidden.shape[0], -1, -1) for part in rotation)
    queries = split_heads(attention.q_proj(gather_tokens(normed, visual)), attention.head_dim)
    keys = split_heads(attention.k_proj(normed), attention.head_dim)
    queries = _rotate(queries, gather_tokens(cos, visual), gather_tokens(sin, visual))
    return queries, _rotate(keys, cos, sin)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotated: tuple[Tensor, Tensor] = apply_rotary_pos_emb(states, states, cos, sin)
    return rotated[0]
