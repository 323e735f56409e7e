"""Queries, keys and values of a vision layer, however its attention block lays them out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, Protocol

from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

Encoding = Literal["qq", "qk", "vv", "kk"]
Letter = Literal["q", "k", "v"]
Projection = Callable[[Tensor], Tensor]
Rotation = tuple[Tensor, Tensor]


class VisionAttention(Protocol):
    """What is read of a CLIP or SigLIP tower's attention block."""

    q_proj: Projection
    k_proj: Projection
    v_proj: Projection
    out_proj: Projection
    head_dim: int
    scale: float


class VisionLayer(Protocol):
    """What is read of a CLIP or SigLIP tower's layer."""

    layer_norm1: Projection
    self_attn: VisionAttention


class InternVisionAttention(Protocol):
    """What is read of an InternVL tower's attention block."""

    q_proj: Projection
    k_proj: Projection
    v_proj: Projection
    q_norm: Projection
    k_norm: Projection
    projection_layer: Projection
    head_dim: int
    scale: float


class InternVisionLayer(Protocol):
    """What is read of an InternVL tower's layer."""

    layernorm_before: Projection
    attention: InternVisionAttention


class QwenVisionAttention(Protocol):
    """What is read of a Qwen-VL tower's attention block."""

    qkv: Projection
    proj: Projection
    head_dim: int
    scaling: float


class QwenVisionLayer(Protocol):
    """What is read of a Qwen-VL tower's layer."""

    norm1: Projection
    attn: QwenVisionAttention


def split_heads(states: Tensor, head_size: int) -> Tensor:
    """Bring (batch, tokens, heads * head size) into the form (batch, heads, tokens, head size)."""
    return states.view(*states.shape[:-1], -1, head_size).transpose(1, 2)


class VisionHeads(ABC):
    """One vision layer's projections by head; subclasses know one layout of attention blocks.

    Attributes:
        head_size: Width of a head.
        scale: Factor on the dot products of queries and keys.
    """

    head_size: int
    scale: float

    @abstractmethod
    def project(
        self, hidden: Tensor, letters: str, rotation: Rotation | None = None
    ) -> tuple[Tensor, ...]:
        """Compute several projections of the same tokens.

        Args:
            hidden: The layer's input, before its norm, (batch, tokens, width).
            letters: Which, in the order wanted: ``"q"``, ``"k"`` and ``"v"``.
            rotation: Cosines and sines of the tower's rotary position embedding, each (batch or 1,
                tokens, head size), for towers that have one; None for others.

        Returns:
            One tensor per letter, as attention takes it, (batch, heads, tokens, head size).
        """

    @abstractmethod
    def output(self, values: Tensor) -> Tensor:
        """Apply the block's last projection.

        Args:
            values: Attended values, (batch, heads, tokens, head size).

        Returns:
            The block's output, (batch, tokens, width).
        """

    def queries(self, hidden: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Compute queries; arguments and result are those of `project`."""
        return self.project(hidden, "q", rotation)[0]

    def keys(self, hidden: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Compute keys; arguments and result are those of `project`."""
        return self.project(hidden, "k", rotation)[0]

    def values(self, hidden: Tensor) -> Tensor:
        """Compute values; argument and result are those of `project`."""
        return self.project(hidden, "v")[0]


class ClipHeads(VisionHeads):
    """CLIP and SigLIP: one projection each, and no positions in attention."""

    def __init__(self, layer: VisionLayer) -> None:
        """Take a layer of the tower."""
        self._norm = layer.layer_norm1
        self._attention = layer.self_attn
        self.head_size = layer.self_attn.head_dim
        self.scale = layer.self_attn.scale

    def project(
        self, hidden: Tensor, letters: str, rotation: Rotation | None = None
    ) -> tuple[Tensor, ...]:
        normed, block = self._norm(hidden), self._attention
        projections = {"q": block.q_proj, "k": block.k_proj, "v": block.v_proj}
        return tuple(split_heads(projections[letter](normed), self.head_size) for letter in letters)

    def output(self, values: Tensor) -> Tensor:
        return self._attention.out_proj(values.transpose(1, 2).flatten(2))


class InternHeads(VisionHeads):
    """InternVL: queries and keys are normed over all heads at once, where the tower norms them."""

    def __init__(self, layer: InternVisionLayer) -> None:
        """Take a layer of the tower."""
        self._norm = layer.layernorm_before
        self._attention = layer.attention
        self.head_size = layer.attention.head_dim
        self.scale = layer.attention.scale

    def project(
        self, hidden: Tensor, letters: str, rotation: Rotation | None = None
    ) -> tuple[Tensor, ...]:
        normed, block = self._norm(hidden), self._attention
        projections: dict[str, Projection] = {
            "q": lambda states: block.q_norm(block.q_proj(states)),
            "k": lambda states: block.k_norm(block.k_proj(states)),
            "v": block.v_proj,
        }
        return tuple(split_heads(projections[letter](normed), self.head_size) for letter in letters)

    def output(self, values: Tensor) -> Tensor:
        return self._attention.projection_layer(values.transpose(1, 2).flatten(2))


class QwenHeads(VisionHeads):
    """Qwen2.5-VL and Qwen3-VL: one fused projection, and rotated queries and keys.

    The tower packs the patches of all images into one sequence without a batch; give the patches of
    one image, or of several images of the same size, as a batch. Patches attend to all others of
    their image in blocks of full attention alone; others see windows, which nothing here knows of.
    """

    def __init__(self, layer: QwenVisionLayer) -> None:
        """Take a block of the tower."""
        self._norm = layer.norm1
        self._attention = layer.attn
        self.head_size = layer.attn.head_dim
        self.scale = layer.attn.scaling

    def project(
        self, hidden: Tensor, letters: str, rotation: Rotation | None = None
    ) -> tuple[Tensor, ...]:
        fused = self._attention.qkv(self._norm(hidden)).chunk(3, dim=-1)
        by_letter = dict(zip("qkv", fused, strict=True))
        heads = {letter: self._by_head(by_letter[letter]) for letter in sorted(set(letters))}
        if rotation is not None:
            for letter in sorted({"q", "k"} & heads.keys()):
                heads[letter] = _rotate(heads[letter], rotation)
        return tuple(heads[letter].transpose(1, 2) for letter in letters)

    def output(self, values: Tensor) -> Tensor:
        return self._attention.proj(values.transpose(1, 2).flatten(2))

    def _by_head(self, states: Tensor) -> Tensor:
        """Split into (batch, tokens, heads, head size)."""
        return states.view(*states.shape[:-1], -1, self.head_size)


def _rotate(states: Tensor, rotation: Rotation) -> Tensor:
    """Rotate (batch, tokens, heads, head size) in float32, as the towers do."""
    exact, (cos, sin) = states.float(), (part.float() for part in rotation)
    rotated: tuple[Tensor, Tensor] = apply_rotary_pos_emb(exact, exact, cos, sin, unsqueeze_dim=2)
    return rotated[0].to(states.dtype)
