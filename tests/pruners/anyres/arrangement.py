"""What stands at placeholders, told by the stock classes.

They arrange features of which each says which patch it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches


class Token(NamedTuple):
    """A visual token as the stock class makes it: of patches of one image of the tower's call."""

    source: int
    patches: frozenset[int]


def is_onevision(model: Any) -> bool:
    return bool(model.config.model_type == "llava_onevision")


def pack(
    model: Any, tiles: Sequence[Tensor], sizes: Sequence[Sequence[int]], newline: Tensor
) -> list[Tensor]:
    """Let the stock class arrange features of tiles, (tiles, patches, width) for each image."""
    arguments: dict[str, Any] = {"vision_feature_select_strategy": "default"}
    if is_onevision(model):
        arguments = {"vision_aspect_ratio": model.config.vision_aspect_ratio}
    packed, _ = model.model.pack_image_features(
        tiles, torch.tensor(sizes), image_newline=newline, **arguments
    )
    return list(packed)


def best_grid(model: Any, size: Sequence[int]) -> int:
    """Count an image's tiles by the stock function."""
    config = model.config
    counted = image_size_to_num_patches(
        list(size), config.image_grid_pinpoints, config.vision_config.image_size
    )
    return int(counted)


def arranged(
    model: Any, sizes: Sequence[Sequence[int]], cut: Sequence[bool] | None = None
) -> list[list[Token | None]]:
    """Say for each image's placeholders which token the stock class puts there; None: a newline."""
    config = model.config.vision_config
    side = config.image_size // config.patch_size
    images, source = [], 0
    for size, is_cut in zip(sizes, cut or [True] * len(sizes), strict=True):
        count = best_grid(model, size) if is_cut else 1
        # Each patch has a channel of its own, so that what interpolation reads stays apart.
        codes = torch.eye(count * side**2).view(count, side**2, -1)
        (packed,) = pack(model, [codes], [size], torch.full(codes.shape[-1:], -1.0))
        images.append([decoded(vector, side**2, source) for vector in packed])
        source += count
    return images


def decoded(vector: Tensor, patches: int, source: int) -> Token | None:
    if vector[0] == -1:
        return None
    weights = vector.view(-1, patches)
    # A token on the border of two tiles has its centre in the second.
    totals = weights.sum(dim=1)
    tile = int((totals > totals.max() - 1e-4).nonzero().max())
    own = (weights[tile] > 1e-4).nonzero()[:, 0].tolist()
    return Token(source + tile, frozenset(own))
