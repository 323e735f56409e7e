"""Samples of a batch that have visual tokens alike, and are pruned together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pruners.counting import StageCounts
from pruners.encoded_media import EncodedMedia
from pruners.media import Kind
from pruners.plan import Plan
from pruners.samples import Sample
from pruners.sequence import Selection
from pruners.text_tower import QuestionOutputs
from pruners.transfer import send, send_numbers
from pruners.vision_outputs import VisionOutputs


@dataclass(frozen=True, eq=False)
class TileClass:
    """Tiles of a group that are read together: as many of each of its samples.

    Attributes:
        kind: Whether they are of images or of videos.
        grid: Rows and columns of tokens of each.
        visual: Which of their sample's visual tokens are theirs, (samples, tiles, tokens).
        sources: Which image of the vision tower's call each is, sample by sample.
        patches: Patches of each one's tokens, (tokens, patches of each) or None, sample by sample.
    """

    kind: Kind
    grid: tuple[int, int]
    visual: Tensor
    sources: tuple[int, ...]
    patches: tuple[Tensor | None, ...]

    @property
    def size(self) -> int:
        """Tokens of each."""
        return self.visual.shape[2]

    @property
    def each(self) -> int:
        """Tiles of each sample."""
        return self.visual.shape[1]


@dataclass(frozen=True, eq=False)
class Group:
    """Samples that are pruned together.

    Attributes:
        rows: Which samples of the batch they are, on the host.
        indices: The same on the device, (samples,); None for the whole batch.
        visual: Where their visual tokens are in the prompt, rising, (samples, N).
        classes: Their tiles.
        counts: What the stages leave of each sample, by layer; only stages that drop tokens.
        in_one_piece: Whether the visual tokens are one tile without anything in between.
    """

    rows: tuple[int, ...]
    indices: Tensor | None
    visual: Tensor
    classes: tuple[TileClass, ...]
    counts: Mapping[int, StageCounts]
    in_one_piece: bool

    def of(self, values: Tensor, dim: int = 0) -> Tensor:
        """Pick this group's samples of a tensor of the whole batch."""
        if self.indices is None:
            return values
        # With a model spread over several devices, values may be on another one.
        return values.index_select(dim, self.indices.to(values.device))


def groups_of(samples: Sequence[Sample], plan: Plan, device: torch.device) -> tuple[Group, ...]:
    """Group the samples of a batch.

    Args:
        samples: The samples.
        plan: What is done with them.
        device: Where indices are wanted.

    Returns:
        Groups of samples whose tiles are alike.
    """
    alike: dict[tuple[object, ...], list[int]] = {}
    for row, sample in enumerate(samples):
        alike.setdefault(sample.likeness, []).append(row)
    return tuple(
        _group([samples[row] for row in rows], rows, plan, device, whole=len(alike) == 1)
        for rows in alike.values()
    )


def _group(
    samples: Sequence[Sample],
    rows: Sequence[int],
    plan: Plan,
    device: torch.device,
    *,
    whole: bool,
) -> Group:
    first = samples[0].tiles
    places: dict[tuple[object, ...], list[int]] = {}
    for place, tile in enumerate(first):
        places.setdefault(tile.likeness, []).append(place)
    classes = (_tile_class(samples, own, device) for own in places.values())
    return Group(
        rows=tuple(rows),
        indices=None if whole else send_numbers(rows, device),
        visual=send(torch.stack([sample.visual for sample in samples]), device),
        classes=tuple(classes),
        counts=plan.counts([len(tile.tile) for tile in first]),
        in_one_piece=samples[0].in_one_piece,
    )


def _tile_class(samples: Sequence[Sample], places: list[int], device: torch.device) -> TileClass:
    tiles = [[sample.tiles[place] for place in places] for sample in samples]
    visual = torch.stack([torch.stack([tile.visual for tile in own]) for own in tiles])
    flat = [tile for own in tiles for tile in own]
    return TileClass(
        kind=flat[0].kind,
        grid=flat[0].tile.grid,
        visual=send(visual, device),
        sources=tuple(tile.tile.source for tile in flat),
        patches=tuple(tile.tile.patches for tile in flat),
    )


class GroupReader:
    """What stages read of the images of one group.

    Attributes:
        group: The group.
    """

    def __init__(
        self,
        group: Group,
        encoded: Mapping[Kind, EncodedMedia],
        questions: QuestionOutputs | None,
    ) -> None:
        """Prepare to read.

        Args:
            group: The group.
            encoded: What is known of the images and videos of the batch.
            questions: Questions, one per sample of the batch, or None.
        """
        self.group = group
        self._encoded = encoded
        self._questions = questions

    @cached_property
    def outputs(self) -> tuple[VisionOutputs, ...]:
        """What is known of each class of tiles, sample by sample; nothing if nothing is read."""
        return tuple(map(self._outputs, self.group.classes))

    @cached_property
    def questions(self) -> QuestionOutputs | None:
        """Questions, one per sample of the group."""
        if self._questions is None or self.group.indices is None:
            return self._questions
        return self._questions.select(self.group.indices)

    def questions_of(self, tiles: TileClass) -> QuestionOutputs | None:
        """Return the questions of a class, one per tile."""
        if self.questions is None or tiles.each == 1:
            return self.questions
        rows = torch.arange(len(self.questions), device=tiles.visual.device)
        return self.questions.select(rows.repeat_interleave(tiles.each))

    def left(self, tiles: TileClass) -> Selection | None:
        """Return what a tower that drops tokens left of each tile of a class, or None."""
        left = self._encoded[tiles.kind].left
        if left is None:
            return None
        return left.select(send_numbers(tiles.sources, tiles.visual.device))

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Put what tokens have in the order of the samples' visual tokens.

        Args:
            parts: Values by token of each class, (samples * tiles, tokens, ...).

        Returns:
            Values, (samples, N, ...).
        """
        if len(parts) == 1 and self.group.classes[0].each == 1:
            return parts[0]
        samples, tokens = self.group.visual.shape
        whole = parts[0].new_zeros(samples, tokens, *parts[0].shape[2:])
        for tiles, values in zip(self.group.classes, parts, strict=True):
            places = tiles.visual.flatten(1)
            values = values.reshape(samples, -1, *values.shape[2:])
            if values.ndim == 3:
                places = places.unsqueeze(-1).expand_as(values)
            whole = whole.scatter(1, places, values)
        return whole

    def _outputs(self, tiles: TileClass) -> VisionOutputs:
        outputs = self._encoded[tiles.kind].outputs
        if outputs is None:
            return VisionOutputs()
        return outputs.tokens(tiles.sources, tiles.patches, tiles.visual.device)
