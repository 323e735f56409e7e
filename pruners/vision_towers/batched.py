"""Vision towers whose input is a batch of images of one size: CLIP, SigLIP and InternVL's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pruners.attention_rows import (
    cls_attention,
    decoupled_output,
    key_heads,
    patch_attention,
)
from pruners.saliency import key_norms
from pruners.vision_attention import VisionHeads
from pruners.vision_outputs import VisionOutputs, VisionParts
from pruners.vision_towers.base import TowerCall, TowerOutputs, VisionTower


class BatchedTower(VisionTower):
    """A tower called with ``pixel_values``, (batch, channels, height, width).

    Attributes:
        patches: Patches of an image, without the CLS token.
        readers: Queries, keys and values of its layers.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[nn.Module],
        readers: Sequence[VisionHeads],
        *,
        norm: Callable[[Tensor], Tensor] | None,
        class_token: bool,
        feature_layer: int,
        width: int,
        patches: int,
    ) -> None:
        """Describe a tower.

        Args:
            module: The tower.
            layers: Its layers.
            readers: Queries, keys and values of the layers.
            norm: Norm behind the last layer, which the space shared with a text tower needs; None
                where no text tower is paired with such a tower.
            class_token: Whether its sequence starts with a CLS token.
            feature_layer: Which hidden states the projector reads, counted from the embeddings if
                not negative.
            width: Width of its residual stream.
            patches: Patches of an image.
        """
        self.module = module
        self.layers = layers
        self.readers = readers
        self.class_token = class_token
        # Hidden states are numbered from the embeddings, so there is one more than layers.
        self.feature_layer = (
            feature_layer if feature_layer < 0 else feature_layer - len(self.layers) - 1
        )
        self.width = width
        self.patches = patches
        self.shares_text_space = norm is not None
        self._norm = norm

    def norm(self, hidden: Tensor) -> Tensor:
        assert self._norm is not None
        return self._norm(hidden)

    def layers_read(self, parts: VisionParts) -> frozenset[int]:
        layers = set(parts.saliency_layers)
        if self.feature_layer < -1:
            # The hidden states after a layer are the next layer's input.
            layers.add(self.feature_layer + 1)
        if parts.keys or parts.key_norms or parts.patch_attention:
            layers.add(self.feature_layer)
        if parts.encodings:
            layers.add(-1)
        return frozenset(layers)

    def read(
        self, parts: VisionParts, call: TowerCall, embed: Callable[[Tensor], Tensor]
    ) -> TowerOutputs:
        inputs, feature = call.inputs, self.feature_layer
        features = inputs[feature + 1] if feature < -1 else call.output.last_hidden_state
        with torch.no_grad():
            saliency = {
                layer: cls_attention(self.readers[layer], inputs[layer])
                for layer in sorted(parts.saliency_layers)
            }
            decoupled = {
                encoding: embed(decoupled_output(self.readers[-1], inputs[-1], encoding))
                for encoding in sorted(parts.encodings)
            }
            first = 1 if self.class_token else 0
            joint = embed(features[:, first:]) if parts.joint else None
            attention = None
            if parts.patch_attention:
                attention = patch_attention(self.readers[feature], inputs[feature], first)
            keys = norms = None
            if parts.keys or parts.key_norms:
                heads = key_heads(self.readers[feature], inputs[feature])[:, :, first:]
                # What VisionDrop and VisionZip compare patches by.
                keys = normalize(heads.float().mean(dim=1), dim=-1) if parts.keys else None
                norms = key_norms(heads) if parts.key_norms else None
        outputs = VisionOutputs(
            features=features,
            saliency=saliency,
            keys=keys,
            decoupled=decoupled,
            patch_attention=attention,
            key_norms=norms,
            joint=joint,
            pixels=call.arguments["pixel_values"] if parts.pixels else None,
        )
        return TowerOutputs((outputs,))
