"""What stages read of images: which parts, and their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pruners.attention_rows import Encoding
from pruners.errors import InputError
from pruners.selection import gather_tokens


@dataclass(frozen=True)
class VisionParts:
    """Which parts of `VisionOutputs` to compute beside the features.

    Attributes:
        saliency_layers: Vision layers whose CLS attention is read, as negative indices.
        keys: Whether the keys that merging compares are computed.
        encodings: Encodings of the decoupled embeddings; these need a text tower.
        patch_attention: Whether the attention that patches pay each other is computed.
        key_norms: Whether the norms of keys are computed.
        joint: Whether patches are brought into the joint space; this needs a text tower.
        pixels: Whether pixels are kept, for stages inside the vision tower.
    """

    saliency_layers: frozenset[int] = frozenset()
    keys: bool = False
    encodings: frozenset[Encoding] = frozenset()
    patch_attention: bool = False
    key_norms: bool = False
    joint: bool = False
    pixels: bool = False

    @property
    def need_text_tower(self) -> bool:
        """Whether some part lies in the space shared with the text tower."""
        return self.joint or bool(self.encodings)

    @property
    def need_class_token(self) -> bool:
        """Whether some part comes from a tower with a CLS token only."""
        return bool(self.saliency_layers) or self.need_text_tower


_SINGLE = ("features", "keys", "patch_attention", "key_norms", "joint", "pixels")
"""Fields of `VisionOutputs` that are one tensor."""


@dataclass(frozen=True)
class VisionOutputs:
    """What stages read of a batch of images.

    Attributes:
        features: Hidden states that the projector reads, CLS token first, (batch, 1 + visual,
            width); without a CLS token, (batch, visual, width). None where tokens are made of
            several patches.
        saliency: CLS attention by vision layer (negative index), mean over heads, (batch, visual).
        keys: Normalised head-mean keys of the layer that makes the features, (batch, visual, head
            size); this and the following are None when not computed.
        decoupled: Decoupled embeddings by encoding, normalised, CLS token first, (batch,
            1 + visual, shared width).
        patch_attention: Mean attention that each patch receives from all patches in the layer that
            makes the features, (batch, visual).
        key_norms: L1 norms of that layer's keys over all heads, (batch, visual).
        joint: Patches in the space shared with the text tower, normalised, (batch, visual, shared
            width).
        pixels: Preprocessed images, (batch, channels, height, width).
    """

    features: Tensor | None = None
    saliency: Mapping[int, Tensor] = field(default_factory=dict)
    keys: Tensor | None = None
    decoupled: Mapping[Encoding, Tensor] = field(default_factory=dict)
    patch_attention: Tensor | None = None
    key_norms: Tensor | None = None
    joint: Tensor | None = None
    pixels: Tensor | None = None

    def __len__(self) -> int:
        parts = (self.features, self.keys, self.patch_attention, self.key_norms, self.joint)
        every = (*parts, self.pixels, *self.saliency.values(), *self.decoupled.values())
        return next((len(part) for part in every if part is not None), 0)

    @property
    def parts(self) -> VisionParts:
        """Which parts are there."""
        return VisionParts(
            saliency_layers=frozenset(self.saliency),
            keys=self.keys is not None,
            encodings=frozenset(self.decoupled),
            patch_attention=self.patch_attention is not None,
            key_norms=self.key_norms is not None,
            joint=self.joint is not None,
            pixels=self.pixels is not None,
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Name every tensor, for a file; `from_tensors` reads the names."""
        named = {name: getattr(self, name) for name in _SINGLE}
        named |= {f"saliency.{layer}": scores for layer, scores in self.saliency.items()}
        named |= {f"decoupled.{encoding}": tokens for encoding, tokens in self.decoupled.items()}
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> VisionOutputs:
        """Read what `to_tensors` named.

        Args:
            tensors: Tensors by name.

        Returns:
            The outputs.
        """
        saliency, decoupled = (
            {name.partition(".")[2]: each for name, each in tensors.items() if kind in name}
            for kind in ("saliency.", "decoupled.")
        )
        return cls(
            saliency={int(layer): scores for layer, scores in saliency.items()},
            decoupled=cast(dict[Encoding, Tensor], decoupled),
            **{name: tensors[name] for name in _SINGLE if name in tensors},
        )

    def to(self, device: torch.device | str) -> VisionOutputs:
        """Move all tensors to a device."""
        moved = {name: value.to(device) for name, value in self.to_tensors().items()}
        return VisionOutputs.from_tensors(moved)

    def select(self, indices: Tensor) -> VisionOutputs:
        """Pick images.

        Args:
            indices: Indices of images, (count,).

        Returns:
            The picked images, in that order.
        """

        def pick(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[indices]

        return VisionOutputs(
            features=pick(self.features),
            saliency={layer: scores[indices] for layer, scores in self.saliency.items()},
            keys=pick(self.keys),
            decoupled={name: tokens[indices] for name, tokens in self.decoupled.items()},
            patch_attention=pick(self.patch_attention),
            key_norms=pick(self.key_norms),
            joint=pick(self.joint),
            pixels=pick(self.pixels),
        )

    def of_tokens(self, patches: Tensor) -> VisionOutputs:
        """Turn outputs by patch into outputs by token, which is made of one or several patches.

        Args:
            patches: Patches of each token, (batch, tokens, patches of each).

        Returns:
            Means over the patches of each token, normalised again where patches are; `features`
            and `pixels` are left out.
        """
        batch, tokens, each = patches.shape
        places = patches.flatten(1)

        def mean(values: Tensor) -> Tensor:
            if values.ndim == 2:
                return values.gather(1, places).view(batch, tokens, each).mean(dim=-1)
            return gather_tokens(values, places).view(batch, tokens, each, -1).mean(dim=2)

        def direction(values: Tensor | None) -> Tensor | None:
            return None if values is None else normalize(mean(values), dim=-1)

        return VisionOutputs(
            saliency={layer: mean(scores) for layer, scores in self.saliency.items()},
            keys=direction(self.keys),
            decoupled={
                name: torch.cat([tokens[:, :1], normalize(mean(tokens[:, 1:]), dim=-1)], dim=1)
                for name, tokens in self.decoupled.items()
            },
            patch_attention=None if self.patch_attention is None else mean(self.patch_attention),
            key_norms=None if self.key_norms is None else mean(self.key_norms),
            joint=direction(self.joint),
        )

    @classmethod
    def joined(cls, batches: Sequence[VisionOutputs]) -> VisionOutputs:
        """Join batches of images.

        Args:
            batches: Batches for which the same parts were computed, at least one.

        Returns:
            One batch of all images, in order.
        """
        first = batches[0]

        def join(pick: Callable[[VisionOutputs], Tensor | None]) -> Tensor | None:
            values = [value for batch in batches if (value := pick(batch)) is not None]
            return torch.cat(values) if values else None

        return cls(
            features=join(lambda batch: batch.features),
            saliency={
                layer: torch.cat([batch.saliency[layer] for batch in batches])
                for layer in first.saliency
            },
            keys=join(lambda batch: batch.keys),
            decoupled={
                encoding: torch.cat([batch.decoupled[encoding] for batch in batches])
                for encoding in first.decoupled
            },
            patch_attention=join(lambda batch: batch.patch_attention),
            key_norms=join(lambda batch: batch.key_norms),
            joint=join(lambda batch: batch.joint),
            pixels=join(lambda batch: batch.pixels),
        )

    def check(self, needed: VisionParts) -> None:
        """Check that parts are there.

        Args:
            needed: What a schedule reads.

        Raises:
            InputError: A part was not computed.
        """
        here = self.parts
        missing = [
            *(
                f"saliency of layer {i}"
                for i in sorted(needed.saliency_layers - set(self.saliency))
            ),
            *(f"decoupled {name!r}" for name in sorted(needed.encodings - set(self.decoupled))),
            *(
                name
                for name in ("keys", "patch_attention", "key_norms", "joint", "pixels")
                if getattr(needed, name) and not getattr(here, name)
            ),
        ]
        if missing:
            raise InputError(
                f"the schedule reads {', '.join(missing)}, which these vision outputs do not have; "
                "pass encode_images the text tower and the schedule's parts"
            )
