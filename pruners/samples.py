"""Which visual tokens each sample of a batch has, and which samples are alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruners.encoded_media import EncodedMedia
from pruners.errors import InputError
from pruners.media import Kind, Medium, Tile
from pruners.prompt import Prompt


@dataclass(frozen=True, eq=False)
class SampleTile:
    """A tile of a sample.

    Attributes:
        kind: Whether it is of an image or of a video.
        tile: The tile.
        visual: Which of the sample's visual tokens are its, rising, (tokens,).
    """

    kind: Kind
    tile: Tile
    visual: Tensor

    @property
    def likeness(self) -> tuple[object, ...]:
        """What tiles that can be read together have in common."""
        patches = self.tile.patches
        return self.kind, self.tile.grid, None if patches is None else patches.shape[1]


@dataclass(frozen=True, eq=False)
class Sample:
    """The visual tokens of one sample.

    Attributes:
        visual: Where they are in the prompt, rising, (N,).
        tiles: Its tiles, images before videos.
    """

    visual: Tensor
    tiles: tuple[SampleTile, ...]

    @property
    def in_one_piece(self) -> bool:
        """Whether its visual tokens are one tile without anything in between."""
        if len(self.tiles) != 1:
            return not self.tiles
        return int(self.visual[-1] - self.visual[0]) == len(self.visual) - 1

    @property
    def likeness(self) -> tuple[object, ...]:
        """What samples that can be pruned together have in common."""
        return self.in_one_piece, tuple(tile.likeness for tile in self.tiles)


def samples_of(prompt: Prompt, encoded: Mapping[Kind, EncodedMedia]) -> tuple[Sample, ...]:
    """Hand the images and videos of a call to its prompts, in order.

    Args:
        prompt: The prompts.
        encoded: The images and videos; beam search repeats prompts, but not these.

    Returns:
        One sample per prompt.

    Raises:
        InputError: Prompts and media do not fit each other.
    """
    rows = len(prompt)
    found: list[list[SampleTile]] = [[] for _ in range(rows)]
    for kind, places in prompt.places.items():
        media = encoded[kind].media if kind in encoded else ()
        for row, (own, at) in enumerate(zip(_share(kind, media, places), places, strict=True)):
            start = 0
            for medium in own:
                found[row] += [
                    SampleTile(kind, tile, at[start + tile.places]) for tile in medium.tiles
                ]
                start += medium.placeholders
    return tuple(map(_sample, found))


def _sample(tiles: Sequence[SampleTile]) -> Sample:
    """Number the visual tokens of tiles whose `visual` still says where they are."""
    if not tiles:
        return Sample(torch.zeros(0, dtype=torch.long, device="cpu"), ())
    visual = torch.cat([tile.visual for tile in tiles]).sort().values
    numbered = (
        SampleTile(tile.kind, tile.tile, torch.searchsorted(visual, tile.visual)) for tile in tiles
    )
    return Sample(visual, tuple(numbered))


def _share(
    kind: Kind, media: Sequence[Medium], places: Sequence[Tensor]
) -> Iterator[Sequence[Medium]]:
    """Yield the media of each prompt."""
    wanted = [len(own) for own in places]
    there = sum(medium.placeholders for medium in media)
    repeats, rest = divmod(sum(wanted), there) if there else (1, sum(wanted))
    if rest or not repeats or len(wanted) % repeats:
        raise _mismatch(kind, media, wanted)
    remaining = list(media)
    for row in range(0, len(wanted), repeats):
        own: list[Medium] = []
        while sum(medium.placeholders for medium in own) < wanted[row] and remaining:
            own.append(remaining.pop(0))
        taken = sum(medium.placeholders for medium in own)
        if any(count != taken for count in wanted[row : row + repeats]):
            raise _mismatch(kind, media, wanted)
        yield from [own] * repeats


def _mismatch(kind: Kind, media: Sequence[Medium], wanted: Sequence[int]) -> InputError:
    found = [medium.placeholders for medium in media]
    return InputError(
        f"the prompts have {list(wanted)} {kind} placeholders, but the {kind}s given need {found}; "
        "make prompts and pixel values together with the model's processor, and leave out "
        "prefill_chunk_size"
    )
