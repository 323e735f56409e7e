"""What Qwen2.5-VL and Qwen3-VL have in common: packed images, blocks of patches, M-RoPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from pruners.adapters.base import ModelAdapter
from pruners.media import Kind, Medium, Tile, consecutive_patches
from pruners.vision_towers.packed import PackedTower, read_grids


class QwenVLAdapter(ModelAdapter):
    """Parts of a Qwen-VL model; subclasses add the vision tower.

    The tower's merger makes one visual token of each block of patches, so a stage at layer 0 works
    on its output. Tokens that are left keep the three positions that the model gave them, whatever
    the schedule says of positions: an image takes as many as its longer side has tokens, however
    many of these are left. (``"compact"`` has nothing to compact.)
    """

    position_axes = 3
    fixed_media = ()

    def media(self, kind: Kind, arguments: Mapping[str, Any], features: Any) -> tuple[Medium, ...]:
        tower = self.towers[kind]
        assert isinstance(tower, PackedTower)
        found: list[Medium] = []
        frames = 0
        for times, rows, columns in read_grids(arguments[f"{kind}_grid_thw"]):
            grid = (rows // tower.merge, columns // tower.merge)
            size = grid[0] * grid[1]
            patches = consecutive_patches(size, tower.merge**2)
            places = torch.arange(size, device="cpu")
            tiles = tuple(
                Tile(frame * size + places, grid, frames + frame, patches) for frame in range(times)
            )
            found.append(Medium(times * size, tiles))
            frames += times
        return tuple(found)

    def counted_positions(self, position_ids: Tensor) -> Tensor | None:
        if position_ids.ndim != 3 or position_ids.shape[0] == self.position_axes:
            return None
        if position_ids.shape[0] > self.position_axes:
            return position_ids[0]
        # To a kept cache, `generate` adds what the model remembers of whichever call came last.
        ahead: Tensor | None = cast(Any, self.core).rope_deltas
        if ahead is None or 1 != len(ahead) != position_ids.shape[1]:
            return None
        return position_ids[0] - ahead.to(position_ids.device)
