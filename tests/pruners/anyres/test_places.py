"""How tiles stand in prompts: as the stock classes arrange them."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch

from pruners import Schedule, Stage, VisualSelfAttention, apply_schedule
from pruners.adapters import adapter_for
from pruners.errors import InputError
from pruners.media import Medium
from tests.pruners.anyres.arrangement import Token, arranged, decoded, is_onevision
from tests.pruners.families import TinyModel


def described(medium: Medium, patches: int) -> list[Token | None]:
    """Say the same of a medium as an adapter describes it."""
    found: list[Token | None] = [None] * medium.placeholders
    for tile in medium.tiles:
        assert tile.grid[0] * tile.grid[1] == len(tile)
        made_of = torch.arange(patches)[:, None] if tile.patches is None else tile.patches
        for place, own in zip(tile.places.tolist(), made_of.tolist(), strict=True):
            assert found[place] is None
            found[place] = Token(tile.source, frozenset(own))
    return found


def with_tile_side(model: Any, side: int) -> Any:
    """Copy a model and give it tiles of another size; it can no longer run."""
    model = copy.deepcopy(model)
    pixels = side * model.config.vision_config.patch_size
    pinpoints = torch.tensor(model.config.image_grid_pinpoints)
    before = model.config.vision_config.image_size
    model.config.image_grid_pinpoints = (pinpoints // before * pixels).tolist()
    model.config.vision_config.image_size = pixels
    model.model.vision_tower.config.image_size = pixels
    return model


def sizes_for(model: Any) -> list[list[int]]:
    """Sizes of images that fit each resolution exactly, or need padding on either side."""
    generator = random.Random(0)
    sizes = [[16, 200], [200, 16], [1, 1], [7, 90]]
    for height, width in model.config.image_grid_pinpoints:
        sizes.append([height, width])
        for _ in range(3):
            sizes.append(
                [generator.randint(height // 2, height), generator.randint(width // 2, width)]
            )
    return sizes


@pytest.mark.parametrize("side", [4, 5])
def test_tiles_stand_as_the_stock_class_arranges_them(tiled: TinyModel, side: int) -> None:
    model = with_tile_side(tiled.model, side)
    sizes = sizes_for(model)
    media = adapter_for(model).media("image", {"image_sizes": torch.tensor(sizes)}, None)
    kinds = set()
    for medium, expected in zip(media, arranged(model, sizes), strict=True):
        found = described(medium, side**2)
        assert found == expected
        kinds.add(max(len(token.patches) for token in found if token))
        for tile in medium.tiles:
            # Rows and columns of a tile lie one below and beside the other.
            rows = tile.places.view(tile.grid)
            assert (rows.diff(dim=1) == 1).all()
            assert len(set(rows.diff(dim=0).flatten().tolist())) <= 1
    # OneVision's largest grids are interpolated, LLaVA-NeXT's never are.
    assert kinds == ({1, 4} if is_onevision(model) else {1})


def test_padding_is_in_no_tile(next_model: TinyModel) -> None:
    """By hand: of 1 x 2 tiles of 4 x 4 patches, an image four times as wide has two rows left."""
    sizes = torch.tensor([[16, 64]])
    (medium,) = adapter_for(next_model.model).media("image", {"image_sizes": sizes}, None)
    whole, left, right = medium.tiles
    assert medium.placeholders == 16 + 2 * (8 + 1)
    assert (whole.grid, left.grid, right.grid) == ((4, 4), (2, 4), (2, 4))
    assert left.places.tolist() == [16, 17, 18, 19, 25, 26, 27, 28]
    assert right.places.tolist() == [20, 21, 22, 23, 29, 30, 31, 32]
    assert [tile.source for tile in medium.tiles] == [0, 1, 2]
    assert left.patches is not None
    assert left.patches.flatten().tolist() == [4, 5, 6, 7, 8, 9, 10, 11]


def test_a_shrunk_token_is_made_of_the_patches_of_its_tile_that_are_read(
    onevision: TinyModel,
) -> None:
    """By hand: 6 x 6 tiles shrink to half their side, so that 2 x 2 patches make a token."""
    sizes = torch.tensor([[96, 96]])
    (medium,) = adapter_for(onevision.model).media("image", {"image_sizes": sizes}, None)
    assert medium.placeholders == 16 + 12 * 13
    assert len(medium.tiles) == 37
    for tile in medium.tiles[1:]:
        assert tile.grid == (2, 2)
        assert tile.patches is not None
        assert tile.patches.tolist() == [
            [0, 1, 4, 5],
            [2, 3, 6, 7],
            [8, 9, 12, 13],
            [10, 11, 14, 15],
        ]


def test_images_of_a_sample_with_several_are_not_cut(onevision: TinyModel) -> None:
    sizes = [[16, 32], [32, 32], [16, 16], [90, 90]]
    arguments = {"image_sizes": torch.tensor(sizes), "batch_num_images": torch.tensor([1, 2, 1])}
    media = adapter_for(onevision.model).media("image", arguments, None)
    expected = arranged(onevision.model, sizes, [True, False, False, True])
    assert [described(medium, 16) for medium in media] == expected


@pytest.mark.parametrize("side", [4, 5, 7])
def test_frames_are_pooled_and_end_in_one_newline(onevision: TinyModel, side: int) -> None:
    model = with_tile_side(onevision.model, side)
    videos, frames = 2, 3
    pixels = torch.zeros(videos, frames, 3, 1, 1)
    media = adapter_for(model).media("video", {"pixel_values_videos": pixels}, None)
    codes = torch.eye(frames * side**2).view(frames, side**2, -1)
    pooled = model.model.apply_pooling(codes)
    for video, medium in enumerate(media):
        expected = [decoded(token, side**2, frames * video) for token in pooled.flatten(0, 1)]
        assert described(medium, side**2) == [*expected, None]
        assert [tile.grid for tile in medium.tiles] == [((side + 1) // 2,) * 2] * frames
    assert len(media) == videos


def test_sizes_of_fewer_images_than_were_given_are_refused(onevision: TinyModel) -> None:
    inputs = onevision.inputs(["w1", "w2"])
    inputs["image_sizes"] = inputs["image_sizes"][:1]
    stage = Stage(layer=3, retention=0.5, scorer=VisualSelfAttention())
    with (
        apply_schedule(onevision.model, Schedule(stages=(stage,))),
        pytest.raises(InputError, match="image_sizes has 1 images, but batch_num_images 2"),
    ):
        onevision.model(**inputs)
