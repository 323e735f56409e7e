"""InternVL: which patches make which visual token, and what stages read of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import InternVLVisionConfig

from pruners import (
    ClsAttention,
    NearestReference,
    Schedule,
    ScheduleMismatchError,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
    apply_schedule,
    encode_images,
)
from pruners.adapters import adapter_for
from pruners.counting import alive_tokens
from pruners.errors import InputError, UnsupportedModelError
from pruners.scorers import Downsampling, InformationFlow, KeyNorm, QuestionRelevance
from pruners.vision import VisionRecorder
from pruners.vision_outputs import VisionParts
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel
from tests.pruners.families.internvl import GRID, PATCH, build_internvl
from tests.pruners.ragged import kept, visual_places

TOKENS = GRID * GRID
SIDE = 2 * GRID
"""Patches along a side of a tile."""


@pytest.fixture(scope="module")
def intern(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return build_internvl(tmp_path_factory.mktemp("internvl"))


def batches(intern: TinyModel) -> list[dict[str, Tensor]]:
    video = intern.video()
    assert video is not None
    return [intern.inputs(["w1", "w2 w3"]), intern.mixed(), video]


def patches_of(token: int) -> list[int]:
    """Patches of a token, counted row by row: a block of two rows and two columns."""
    row, column = divmod(token, GRID)
    corner = 2 * row * SIDE + 2 * column
    return [corner, corner + 1, corner + SIDE, corner + SIDE + 1]


def placeholders(intern: TinyModel, batch: dict[str, Tensor]) -> list[list[int]]:
    marks = batch["input_ids"] == intern.model.config.image_token_id
    return [row.nonzero()[:, 0].tolist() for row in marks]


@contextmanager
def changed_output(module: Any, change: Callable[[Any], Any]) -> Iterator[None]:
    hook = module.register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        hook.remove()


def test_blocks_of_four_patches_make_a_token(intern: TinyModel) -> None:
    """The tower's output is replaced by numbers of patches, and read again at the projector."""
    core, pixels = intern.model.model, intern.mixed()["pixel_values"]
    seen: list[Tensor] = []

    def number(output: Any) -> Any:
        tiles, length, width = output.last_hidden_state.shape
        # The CLS token is -1; patch p of tile t is 1000 t + p.
        codes = torch.arange(length) - 1 + 1000.0 * torch.arange(tiles)[:, None]
        output.last_hidden_state = codes[..., None].expand(-1, -1, width).contiguous()
        return output

    projector = core.multi_modal_projector
    look = projector.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad(), changed_output(core.vision_tower, number):
        features = core.get_image_features(pixels, return_dict=True)
    look.remove()
    width = intern.model.config.vision_config.hidden_size
    codes = seen[0].view(len(pixels), TOKENS, 4, width)
    assert (codes == codes[..., :1]).all()
    media = adapter_for(intern.model).media("image", {}, features)
    assert len(media) == len(pixels)
    for number_of_tile, medium in enumerate(media):
        (tile,) = medium.tiles
        assert medium.placeholders == TOKENS
        assert (tile.grid, tile.source) == ((GRID, GRID), number_of_tile)
        assert tile.places.tolist() == list(range(TOKENS))
        made_of = codes[number_of_tile, :, :, 0] - 1000 * number_of_tile
        assert tile.patches is not None
        assert torch.equal(tile.patches, made_of.long())
        assert tile.patches.tolist() == [patches_of(token) for token in range(TOKENS)]


def test_placeholders_take_the_tiles_in_order(intern: TinyModel) -> None:
    """The projector's output is replaced by numbers, and read again at the first layer."""
    core, model = intern.model.model, intern.model
    for batch in batches(intern):
        seen: list[Tensor] = []

        def number(output: Tensor) -> Tensor:
            codes = torch.arange(output.shape[0] * output.shape[1], dtype=output.dtype)
            return codes.view(*output.shape[:2], 1).expand_as(output)

        look = intern.decoder_layers[0].register_forward_pre_hook(
            lambda module, args, seen=seen: seen.append(args[0])
        )
        with changed_output(core.multi_modal_projector, number):
            logits_of(model, batch)
        look.remove()
        found = [
            seen[0][row, places, 0].long().tolist()
            for row, places in enumerate(placeholders(intern, batch))
        ]
        assert list(chain(*found)) == list(range(len(batch["pixel_values"]) * TOKENS))


def test_what_is_read_of_a_token_is_the_mean_of_its_patches(intern: TinyModel) -> None:
    model = intern.load("eager")
    tower, pixels = adapter_for(model).towers["image"], intern.images(1)
    keys: list[Tensor] = []
    stock = model.model.vision_tower
    hook = stock.encoder.layer[-1].attention.k_norm.register_forward_hook(
        lambda module, args, output: keys.append(output)
    )
    parts = VisionParts(
        saliency_layers=frozenset({-1, -3}), keys=True, patch_attention=True, key_norms=True
    )
    recorder = VisionRecorder(tower, parts, None)
    with torch.no_grad():
        features = model.model.get_image_features(pixels, return_dict=True)
        recorder.remove()
        hook.remove()
        maps = stock(pixels, output_attentions=True).attentions
    media = adapter_for(model).media("image", {}, features)
    recorded = VisionRecorder.recorded(features)
    assert recorded is not None
    tiles = [medium.tiles[0] for medium in media]
    found = recorded.tokens(
        [tile.source for tile in tiles], [tile.patches for tile in tiles], torch.device("cpu")
    )
    for index in range(len(pixels)):
        own = keys[0][index, 1:]
        directions = torch.nn.functional.normalize(own.view(len(own), 2, -1).mean(dim=1), dim=-1)
        for token in range(TOKENS):
            patches = patches_of(token)
            for layer in (-1, -3):
                weights = maps[layer][index, :, 0].mean(dim=0)[1:]
                wanted = sum(float(weights[patch]) for patch in patches) / 4
                assert float(found.saliency[layer][index, token]) == pytest.approx(wanted, rel=1e-5)
            received = maps[-1][index, :, 1:, 1:].mean(dim=(0, 1))
            wanted = sum(float(received[patch]) for patch in patches) / 4
            assert found.patch_attention is not None
            assert float(found.patch_attention[index, token]) == pytest.approx(wanted, rel=1e-5)
            wanted = sum(float(own[patch].abs().sum()) for patch in patches) / 4
            assert found.key_norms is not None
            assert float(found.key_norms[index, token]) == pytest.approx(wanted, rel=1e-5)
            direction = sum(directions[patch] for patch in patches)
            assert found.keys is not None
            torch.testing.assert_close(
                found.keys[index, token], direction / direction.norm(), atol=1e-6, rtol=0
            )


def best(scores: list[float], count: int) -> list[int]:
    order = sorted(range(len(scores)), key=lambda token: -scores[token])
    return sorted(order[:count])


def token_scores(intern: TinyModel, pixels: Tensor, layer: int) -> list[list[float]]:
    """Attention of each tile's CLS token, from the map that the eager tower returns."""
    with torch.no_grad():
        tower = intern.load("eager").model.vision_tower
        rows = tower(pixels, output_attentions=True).attentions[layer][:, :, 0].mean(dim=1)[:, 1:]
    return [
        [sum(float(row[patch]) for patch in patches_of(token)) for token in range(TOKENS)]
        for row in rows
    ]


@pytest.mark.parametrize("scope", ["tile", "global"])
def test_the_best_of_each_tile_or_sample_stay(intern: TinyModel, scope: str) -> None:
    scorer = ClsAttention(layer=-1, keep_cls=False)
    stage = Stage.model_validate({"layer": 0, "retention": 0.3, "scorer": scorer, "scope": scope})
    for batch in batches(intern):
        scores = token_scores(intern, batch["pixel_values"], layer=-1)
        with apply_schedule(intern.model, Schedule(stages=(stage,))) as handle:
            logits_of(intern.model, batch)
            record = handle.last_prefill
        tile = 0
        for row, places in enumerate(placeholders(intern, batch)):
            tiles = len(places) // TOKENS
            own, tile = scores[tile : tile + tiles], tile + tiles
            count = alive_tokens(0.3, TOKENS)
            expected = [
                TOKENS * index + token
                for index, values in enumerate(own)
                for token in best(values, count)
            ]
            if scope == "global":
                expected = best(list(chain(*own)), alive_tokens(0.3, len(places)))
            assert kept(record, row) == ({0: expected} if places else {})
            assert visual_places(record, row) == places


def test_decoder_stages_read_the_tower_by_token(intern: TinyModel) -> None:
    stage = Stage(layer=2, retention=0.25, scorer=ClsAttention(layer=-2, keep_cls=False))
    batch = intern.mixed()
    scores = token_scores(intern, batch["pixel_values"], layer=-2)
    with apply_schedule(intern.model, Schedule(stages=(stage,))) as handle:
        logits_of(intern.model, batch)
        record = handle.last_prefill
    tile = 0
    for row, places in enumerate(placeholders(intern, batch)):
        tiles = len(places) // TOKENS
        own, tile = list(chain(*scores[tile : tile + tiles])), tile + tiles
        expected = best(own, alive_tokens(0.25, len(places))) if places else []
        assert kept(record, row) == ({2: expected} if places else {})


def test_another_feature_layer_is_read_and_scored(intern: TinyModel) -> None:
    model = copy.deepcopy(intern.load("eager"))
    model.config.vision_feature_layer = -3
    inputs = intern.inputs()
    stage = Stage(layer=0, retention=0.5, scorer=VisualSelfAttention())
    with apply_schedule(model, Schedule(stages=(stage,))) as handle:
        logits_of(model, inputs)
        found = kept(handle.last_prefill, 0)[0]
    with torch.no_grad():
        maps = model.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions
    expected = []
    for tile, weights in enumerate(maps[-3]):
        received = weights[:, 1:, 1:].mean(dim=(0, 1))
        scores = [float(received[patches_of(token)].sum()) for token in range(TOKENS)]
        expected += [TOKENS * tile + token for token in best(scores, TOKENS // 2)]
    assert found == expected


def test_larger_tiles_have_more_tokens(intern: TinyModel) -> None:
    """The tower interpolates its positions, so that pixels decide how many tokens there are."""
    pixels = torch.randn(1, 3, 2 * SIDE * PATCH, 2 * SIDE * PATCH)
    image = intern.model.config.image_token_id
    ids = torch.tensor([[1, 5, *[image] * (4 * TOKENS), 10, 6]])
    stage = Stage(layer=0, retention=0.25, scorer=ClsAttention(layer=-1, keep_cls=False))
    with apply_schedule(intern.model, Schedule(stages=(stage,))) as handle:
        logits = logits_of(intern.model, {"input_ids": ids, "pixel_values": pixels})
        assert len(kept(handle.last_prefill, 0)[0]) == TOKENS
    assert logits.shape[1] == TOKENS + 4


def stage_of(scorer: Any, **changes: Any) -> Schedule:
    return Schedule(stages=(Stage(layer=0, retention=0.4, scorer=scorer, **changes),))


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (ClsAttention(), "keeps the CLS token, but a 'internvl' model projects none; set keep_cls"),
        (SimilarityFusion(text_tower="/nowhere"), "no text tower is paired with InternVLVision"),
        (QuestionRelevance(text_tower="/nowhere"), "no text tower is paired with InternVLVision"),
        (InformationFlow(), "inside the vision tower, but a 'internvl' model arranges whole"),
        (Downsampling(), "inside the vision tower, but a 'internvl' model arranges whole images"),
    ],
)
def test_what_the_family_has_not_is_refused(intern: TinyModel, scorer: Any, message: str) -> None:
    with pytest.raises(ScheduleMismatchError, match=message):
        apply_schedule(intern.model, stage_of(scorer), text_tower=intern.text_tower)
    assert not any(module._forward_pre_hooks for module in intern.model.modules())


def test_saliency_alone_needs_no_text_tower(intern: TinyModel) -> None:
    scorer = SimilarityFusion(text_tower="/nowhere", weight=0.0)
    with apply_schedule(intern.model, stage_of(scorer)) as handle:
        logits_of(intern.model, intern.inputs())
        fused = kept(handle.last_prefill, 0)
    with apply_schedule(intern.model, stage_of(ClsAttention(layer=-1, keep_cls=False))) as handle:
        logits_of(intern.model, intern.inputs())
        assert kept(handle.last_prefill, 0) == fused


def test_key_norms_and_merging_run_on_tokens(intern: TinyModel) -> None:
    schedule = stage_of(KeyNorm(), contextual=0.3, merge=NearestReference())
    with apply_schedule(intern.model, schedule) as handle:
        logits_of(intern.model, intern.inputs())
        (record,) = handle.last_prefill.stages
    # Of 16 tokens of each of 3 tiles 6 are left, 2 of them contextual.
    assert record.indices.shape == (1, 18)
    assert record.contextual.sum() == 6


def test_images_are_not_encoded_ahead_of_a_call(intern: TinyModel) -> None:
    with pytest.raises(InputError, match="arranged behind its projector"):
        encode_images(intern.model, intern.images(1))


def test_tiles_that_are_not_square_are_refused(intern: TinyModel) -> None:
    config = copy.deepcopy(intern.model.config)
    config.vision_config = InternVLVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=(32, 16),
        patch_size=(4, 4),
    )
    model = type(intern.model)(config)
    with pytest.raises(UnsupportedModelError, match=r"8 x 4 patches; .* with square tiles"):
        adapter_for(model)
