"""Features that the decoder adds to visual tokens after its first layers (DeepStack)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruners.batch import Batch
from pruners.selection import gather_tokens


class AddedFeatures:
    """What is added after each of the first decoder layers, to the tokens that are left.

    Each token gets the features of the dense token that it is; a contextual one gets those of the
    token that it was merged into.
    """

    def __init__(self, features: Sequence[Tensor], dense: Batch) -> None:
        """Take the features of all visual tokens.

        Args:
            features: One tensor per layer from the first on, (visual tokens of the batch, width),
                sample by sample.
            dense: The sequences that nothing has been dropped from.
        """
        counts = {row: group.visual.shape[1] for group in dense.groups for row in group.rows}
        sizes = [counts[row] for row in sorted(counts)]
        self._layers = []
        for layer in features:
            samples = torch.split(layer, sizes)
            self._layers.append(
                [torch.stack([samples[row] for row in group.rows]) for group in dense.groups]
            )

    def add(self, layer: int, hidden: Tensor, batch: Batch) -> Tensor:
        """Add what follows a layer.

        Args:
            layer: The layer.
            hidden: Its output, (batch, length, width).
            batch: The sequences as they are.

        Returns:
            The next layer's input.
        """
        if not 0 <= layer < len(self._layers):
            return hidden
        features = self._layers[layer]

        def added(number: int, own: Tensor) -> Tensor:
            layout = batch.layouts[number].to(own.device)
            chosen = gather_tokens(features[number].to(own.device), layout.origin)
            places = layout.visual.unsqueeze(-1).expand_as(chosen)
            return own.scatter_add(1, places, chosen.to(own.dtype))

        return batch.mapped(hidden, added)
