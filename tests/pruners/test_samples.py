"""How images and videos are handed to prompts, against plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruners.encoded_media import EncodedMedia
from pruners.errors import InputError
from pruners.media import Medium, Tile, whole_images
from pruners.prompt import Prompt
from pruners.samples import Sample, samples_of


def medium(tiles: list[int], separators: int, source: int) -> Medium:
    """Make a medium with a line of tokens per tile, separators alternating with tiles."""
    found, place = [], 0
    for number, tokens in enumerate(tiles):
        found.append(Tile(place + torch.arange(tokens), (1, tokens), source + number))
        place += tokens + (number < separators)
    return Medium(place, tuple(found))


def prompt_of(rows: list[list[str]]) -> Prompt:
    """Make prompts of "text", "image" and "video" tokens."""
    places: dict[Any, Any] = {
        kind: tuple(
            torch.tensor([at for at, own in enumerate(row) if own == kind], dtype=torch.long)
            for row in rows
        )
        for kind in ("image", "video")
    }
    return Prompt(len(rows[0]), places, None, None)


@st.composite
def calls(draw: st.DrawFn) -> tuple[Any, ...]:
    """For each sample its media in order, as (kind, tiles, separators), and how often it repeats.

    Text may stand before each of them and within: placeholders count, not what is between.
    """
    kinds, sizes = st.sampled_from(["image", "video"]), st.lists(st.integers(1, 3), max_size=3)
    media = st.lists(st.tuples(kinds, sizes, st.integers(0, 2)), max_size=3)
    samples = draw(st.lists(media, min_size=1, max_size=3))
    return samples, draw(st.integers(1, 3)), draw(st.randoms(use_true_random=False))


@given(call=calls())
@settings(max_examples=100)
def test_media_go_to_prompts_in_order(call: tuple[Any, ...]) -> None:
    samples, repeats, random = call
    encoded: dict[Any, list[Medium]] = {"image": [], "video": []}
    sources = {"image": 0, "video": 0}
    rows, expected = [], []
    for media in samples:
        row, tiles = [], []
        for kind, sizes, separators in media:
            made = medium(sizes, separators, sources[kind])
            encoded[kind].append(made)
            at = []
            for _ in range(made.placeholders):
                row += ["text"] * random.randint(0, 1)
                at.append(len(row))
                row.append(kind)
            for tile in made.tiles:
                tiles.append((kind, sources[kind], [at[place] for place in tile.places.tolist()]))
                sources[kind] += 1
        rows += [row] * repeats
        expected += [tiles] * repeats
    # Media without a placeholder of their own go to whichever prompt; none is made by a model.
    if any(not made.placeholders for own in encoded.values() for made in own):
        return
    length = max(map(len, rows)) + 1
    rows = [row + ["text"] * (length - len(row)) for row in rows]
    found = samples_of(
        prompt_of(rows),
        {kind: EncodedMedia(tuple(own)) for kind, own in encoded.items() if own},
    )
    assert len(found) == len(rows)
    for sample, tiles in zip(found, expected, strict=True):
        assert sample.visual.tolist() == sorted(place for *_, places in tiles for place in places)
        told = [
            (tile.kind, tile.tile.source, sample.visual[tile.visual].tolist())
            for tile in sample.tiles
        ]
        # Images before videos, each in order.
        assert told == sorted(tiles, key=lambda tile: tile[0])


def only(rows: list[list[str]], media: tuple[Medium, ...]) -> tuple[Sample, ...]:
    return samples_of(prompt_of(rows), {"image": EncodedMedia(media)})


def test_pieces_are_told_from_scattered_tokens() -> None:
    image, text = "image", "text"
    one, two = whole_images(1, (1, 3)), whole_images(2, (1, 3))
    assert only([[text, image, image, image, text]], one)[0].in_one_piece
    assert not only([[text, image, text, image, image]], one)[0].in_one_piece
    assert not only([[image] * 6], two)[0].in_one_piece
    assert not only([[image] * 4], (medium([2, 1], 1, 0),))[0].in_one_piece
    assert samples_of(prompt_of([[text]]), {})[0].in_one_piece


def test_samples_are_alike_that_can_be_read_together() -> None:
    image, text = "image", "text"
    first, moved, *others = only(
        [
            [image] * 4 + [text] * 2,
            [text] * 2 + [image] * 4,
            [text, image, text] + [image] * 3,
        ],
        whole_images(3, (2, 2)),
    )
    assert first.likeness == moved.likeness
    assert first.likeness != others[0].likeness
    for other in (whole_images(1, (1, 4)), (medium([2, 2], 0, 0),)):
        assert only([[image] * 4], other)[0].likeness != first.likeness
    (video,) = samples_of(
        prompt_of([["video"] * 4]), {"video": EncodedMedia(whole_images(1, (2, 2)))}
    )
    assert video.likeness != first.likeness


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ([4], [3]),  # too few pixels
        ([3], [3, 3]),  # too many
        ([3, 3], [6]),  # an image across two prompts
        ([2, 4], [3, 3]),  # the right sum alone
        ([3, 0], []),  # none at all
        ([0, 0], [3]),  # images that no prompt asks for
        ([3, 3, 3], [3, 3]),  # no whole number of repeats
    ],
)
def test_what_does_not_fit_is_refused(wanted: list[int], given: list[int]) -> None:
    length = max(wanted)
    rows = [["image"] * count + ["text"] * (length + 1 - count) for count in wanted]
    media = tuple(Medium(count, (Tile(torch.arange(count), (1, count), 0),)) for count in given)
    told = rf"prompts have \{wanted} image placeholders, but the images given need \{given}"
    with pytest.raises(InputError, match=told):
        only(rows, media)
