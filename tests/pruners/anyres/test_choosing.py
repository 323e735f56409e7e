"""What is chosen of tiles and frames."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from pruners import (
    ClsAttention,
    Schedule,
    ScheduleMismatchError,
    Stage,
    VisualSelfAttention,
    apply_schedule,
)
from pruners.adapters import adapter_for
from pruners.counting import alive_tokens
from pruners.selectors import LocalWindows
from tests.helpers.forwards import logits_of
from tests.pruners.anyres.arrangement import Token, arranged, is_onevision
from tests.pruners.anyres.loops import best, chosen_by_loop, images_by_row, tower_rows
from tests.pruners.families import TinyModel
from tests.pruners.ragged import kept, visual_places


@pytest.mark.parametrize("scope", ["tile", "global"])
@pytest.mark.parametrize("what", ["inputs", "mixed"])
def test_the_best_of_each_tile_or_sample_stay(tiled: TinyModel, what: str, scope: str) -> None:
    own = is_onevision(tiled.model)
    scorer = VisualSelfAttention() if own else ClsAttention(layer=-2, keep_cls=False)
    stage = Stage.model_validate({"layer": 0, "retention": 0.3, "scorer": scorer, "scope": scope})
    batch = getattr(tiled, what)()
    values = tower_rows(tiled, batch, layer=-1 if own else -2)
    with apply_schedule(tiled.model, Schedule(stages=(stage,))) as handle:
        logits_of(tiled.model, batch)
        record = handle.last_prefill
    for row, images in enumerate(images_by_row(tiled, batch)):
        tokens = [token for token in chain(*images) if token]
        expected = chosen_by_loop(tokens, values, 0.3, scope) if tokens else []
        assert kept(record, row) == ({0: expected} if tokens else {})
        # What stands between, newlines as well as text, is all left.
        marks = batch["input_ids"][row] == tiled.model.config.image_token_id
        places = marks.nonzero()[:, 0].tolist()
        standing = [place for place, token in zip(places, chain(*images), strict=True) if token]
        assert visual_places(record, row) == standing


def test_tiles_with_a_cls_token_may_be_scored_by_their_patches(next_model: TinyModel) -> None:
    stage = Stage(layer=0, retention=0.3, scorer=VisualSelfAttention())
    batch = next_model.inputs()
    with torch.no_grad():
        tower = next_model.load("eager").model.vision_tower
        output = tower(batch["pixel_values"].flatten(0, 1), output_attentions=True)
    values = output.attentions[-2][:, :, 1:, 1:].mean(dim=(1, 2))
    with apply_schedule(next_model.model, Schedule(stages=(stage,))) as handle:
        logits_of(next_model.model, batch)
        found = kept(handle.last_prefill, 0)
    tokens = [token for token in chain(*images_by_row(next_model, batch)[0]) if token]
    assert found == {0: chosen_by_loop(tokens, values, 0.3, "tile")}


def test_newlines_and_text_are_never_dropped(tiled: TinyModel) -> None:
    batch = tiled.mixed()
    stages = [
        Stage(layer=layer, retention=0.02 / (layer + 1), scorer=VisualSelfAttention())
        for layer in (0, 2)
    ]
    with apply_schedule(tiled.model, Schedule(stages=tuple(stages))) as handle:
        logits_of(tiled.model, batch)
        record = handle.last_prefill
    for group in record.groups:
        for place, row in enumerate(group.rows):
            real = set(batch["attention_mask"][row].nonzero()[:, 0].tolist())
            other = real - set(group.visual[place].tolist())
            for stage in group.stages:
                left = set(stage.positions[place].tolist())
                assert other <= left
                assert len(left & real) == len(other) + stage.indices.shape[1]


def test_frames_are_chosen_from_one_by_one_or_together(onevision: TinyModel) -> None:
    batch = onevision.video()
    assert batch is not None
    frames = batch["pixel_values_videos"].shape[1]
    image_rows = len(batch["pixel_values"].flatten(0, 1)) if "pixel_values" in batch else 0
    values = tower_rows(onevision, batch, layer=-1)[image_rows:]
    blocks = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    for scope in ("tile", "global"):
        stage = Stage.model_validate(
            {"layer": 0, "retention": 0.5, "scorer": VisualSelfAttention(), "scope": scope}
        )
        with apply_schedule(onevision.model, Schedule(stages=(stage,))) as handle:
            logits_of(onevision.model, batch)
            record = handle.last_prefill
        for row in range(2):  # the third sample has an image as well
            tokens = [
                Token(frames * row + frame, frozenset(block))
                for frame in range(frames)
                for block in blocks
            ]
            assert kept(record, row) == {0: chosen_by_loop(tokens, values, 0.5, scope)}


WINDOWS = Stage(
    layer=0,
    retention=0.7,
    scorer=ClsAttention(layer=-1, keep_cls=False),
    selector=LocalWindows(windows=2, share=0.9),
)


def test_windows_cut_each_tile_as_its_rows_and_columns_are(next_model: TinyModel) -> None:
    """An image much wider than high: its tiles have two rows and four columns left."""
    batch = next_model.prepare([next_model.mixed_samples()[3]])
    early, late = (tower_rows(next_model, batch, layer=layer) for layer in (-3, -1))
    with apply_schedule(next_model.model, Schedule(stages=(WINDOWS,))) as handle:
        logits_of(next_model.model, batch)
        found = kept(handle.last_prefill, 0)[0]
    sizes = batch["image_sizes"]
    (medium,) = adapter_for(next_model.model).media("image", {"image_sizes": sizes}, None)
    assert sorted(tile.grid for tile in medium.tiles) == [(2, 4), (2, 4), (4, 4)]
    (expected_tokens,) = arranged(next_model.model, sizes.tolist())
    tokens = [token for token in expected_tokens if token]
    expected = []
    for source, (rows, columns) in enumerate(tile.grid for tile in medium.tiles):
        own = [index for index, token in enumerate(tokens) if token.source == source]
        patch = {index: next(iter(tokens[index].patches)) for index in own}
        count = alive_tokens(0.7, len(own))
        taken: list[int] = []
        for down in range(2):
            for across in range(2):
                window = {
                    index: float(early[source, patch[index]])
                    for number, index in enumerate(own)
                    if (number // columns * 2 // rows, number % columns * 2 // columns)
                    == (down, across)
                }
                taken += best(window, int(0.9 * count) // 4)
        others = {index: float(late[source, patch[index]]) for index in own if index not in taken}
        expected += taken + best(others, count - len(taken))
    assert found == sorted(expected)


def test_siglip_has_no_cls_token_to_read(onevision: TinyModel) -> None:
    schedule = Schedule(
        stages=(Stage(layer=2, retention=0.4, scorer=ClsAttention(keep_cls=False)),)
    )
    with pytest.raises(ScheduleMismatchError, match="CLS token, but SiglipVisionModel has none"):
        apply_schedule(onevision.model, schedule)
