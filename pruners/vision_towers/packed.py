"""Vision towers that pack the patches of all images into one sequence: Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers.vision_utils import get_vision_window_index

from pruners.saliency import key_norms, patch_saliency
from pruners.transfer import send_together
from pruners.vision_attention import QwenHeads, Rotation
from pruners.vision_outputs import VisionOutputs, VisionParts
from pruners.vision_towers.base import TowerCall, TowerOutputs, VisionTower

PATCHES_AT_ONCE = 16384
"""Patches of frames of one size that are read together, at most; it bounds the memory taken.

A frame that has more is read alone.
"""

Grid = tuple[int, int, int]
"""Frames of an image or video, and rows and columns of patches of each."""


@dataclass(frozen=True)
class Windows:
    """Windows that a tower brings its tokens into the order of, before its first layer.

    Attributes:
        size: Side of a window, in pixels.
        patch_size: Side of a patch, in pixels.
    """

    size: int
    patch_size: int


class PackedTower(VisionTower):
    """A tower called with ``hidden_states``, (patches of all images, pixels), and ``grid_thw``.

    Frames of a video attend to themselves alone, so what stages read is read frame by frame, and an
    image is one frame. There is no CLS token. Keys are those that the layer attends by, rotated.

    Attributes:
        readers: Queries and keys of its layers.
        merge: Patches along each side of the blocks that make one visual token each; the patches of
            a block follow one another in the sequence.
        read_layer: The layer that is read, as a negative index: the last in which patches attend to
            all patches of their frame.
        windows: Its windows; None where tokens stay in order.
    """

    class_token = False
    feature_layer = -1

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[nn.Module],
        readers: Sequence[QwenHeads],
        *,
        width: int,
        merge: int,
        read_layer: int = -1,
        windows: Windows | None = None,
    ) -> None:
        """Describe a tower.

        Args:
            module: The tower.
            layers: Its layers.
            readers: Queries and keys of the layers.
            width: Width of its residual stream.
            merge: Patches along each side of the blocks that make one visual token each.
            read_layer: The last layer of full attention, as a negative index.
            windows: Its windows; None where tokens stay in order.
        """
        self.module = module
        self.layers = layers
        self.readers = readers
        self.width = width
        self.merge = merge
        self.read_layer = read_layer
        self.windows = windows

    def norm(self, hidden: Tensor) -> Tensor:
        raise AssertionError("no text tower is paired with this tower")

    def layers_read(self, parts: VisionParts) -> frozenset[int]:
        reads = parts.keys or parts.key_norms or parts.patch_attention
        return frozenset({self.read_layer} if reads else ())

    def read(
        self, parts: VisionParts, call: TowerCall, embed: Callable[[Tensor], Tensor]
    ) -> TowerOutputs:
        hidden, rotation = call.inputs[self.read_layer], call.rotations[self.read_layer]
        grids = read_grids(call.arguments["grid_thw"])
        frames = [rows * columns for times, rows, columns in grids for _ in range(times)]
        starts = torch.tensor([0, *frames], device="cpu").cumsum(0)
        order = self._order(grids)
        where: dict[int, tuple[int, int]] = {}
        places: list[Tensor] = []
        for size in sorted(set(frames)):
            alike = [frame for frame, own in enumerate(frames) if own == size]
            at_once = max(PATCHES_AT_ONCE // size, 1)
            for first in range(0, len(alike), at_once):
                some = alike[first : first + at_once]
                where |= {frame: (len(places), row) for row, frame in enumerate(some)}
                inside = starts[some].unsqueeze(1) + torch.arange(size, device="cpu")
                places.append(inside if order is None else order[inside])
        batches = [
            self._read_frames(parts, hidden, rotation, own)
            for own in send_together(places, hidden.device)
        ]
        return TowerOutputs(tuple(batches), tuple(where[frame] for frame in range(len(frames))))

    def _order(self, grids: Sequence[Grid]) -> Tensor | None:
        """Find where each patch stands among the windows, on the CPU, (patches,)."""
        if self.windows is None:
            return None
        # The stock function works on the default device, which the caller may have changed.
        with torch.device("cpu"):
            tokens, _ = get_vision_window_index(
                torch.tensor(grids), self.merge, self.windows.size, self.windows.patch_size
            )
        each = self.merge**2
        stood: Tensor = tokens.argsort()
        return (stood.unsqueeze(1) * each + torch.arange(each, device="cpu")).flatten()

    @torch.no_grad()
    def _read_frames(
        self, parts: VisionParts, hidden: Tensor, rotation: Rotation, places: Tensor
    ) -> VisionOutputs:
        """Read frames whose patches stand at `places`, (frames, patches)."""
        reader = self.readers[self.read_layer]
        cos, sin = rotation
        queries, keys = reader.project(hidden[places], "qk", (cos[places], sin[places]))
        return VisionOutputs(
            # What VisionDrop and VisionZip compare patches by.
            keys=normalize(keys.float().mean(dim=1), dim=-1) if parts.keys else None,
            patch_attention=patch_saliency(queries, keys, reader.scale)
            if parts.patch_attention
            else None,
            key_norms=key_norms(keys) if parts.key_norms else None,
        )


def read_grids(grid_thw: Any) -> tuple[Grid, ...]:
    """Read the grids of a call on the host, as the stock towers do.

    Args:
        grid_thw: Frames, rows and columns of patches of each image or video, (count, 3).

    Returns:
        The same, one by one.
    """
    return tuple((times, rows, columns) for times, rows, columns in grid_thw.tolist())
