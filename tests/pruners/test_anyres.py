"""LLaVA-NeXT and LLaVA-OneVision: how tiles stand in prompts, and what is chosen of them.

What is expected comes from the stock classes: they arrange features of which each says which patch
it is, and the tower's attention is what its eager implementation returns.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from pruners import (
    ClsAttention,
    NearestReference,
    Schedule,
    ScheduleMismatchError,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
    apply_schedule,
)
from pruners.adapters import adapter_for
from pruners.counting import alive_tokens
from pruners.errors import InputError
from pruners.media import Medium
from pruners.scorers import QuestionRelevance
from pruners.selectors import LocalWindows
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel, llava_next, llava_onevision, parts
from tests.pruners.ragged import kept, visual_places, without_padding

BUILDERS: dict[str, Callable[[Path], TinyModel]] = {
    "llava_next": llava_next.build_llava_next,
    "llava_onevision": llava_onevision.build_llava_onevision,
}


@pytest.fixture(scope="module")
def next_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return llava_next.build_llava_next(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return llava_next.build_llava_next_mistral(tmp_path_factory.mktemp("mistral"))


@pytest.fixture(scope="module")
def onevision(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return llava_onevision.build_llava_onevision(tmp_path_factory.mktemp("onevision"))


@pytest.fixture(params=BUILDERS)
def tiled(request: pytest.FixtureRequest, next_model: TinyModel, onevision: TinyModel) -> TinyModel:
    return next_model if request.param == "llava_next" else onevision


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


# What is chosen.


def tower_rows(tiled: TinyModel, batch: dict[str, Tensor], *, layer: int) -> Tensor:
    """Score the patches that the tower gets by its eager implementation's map: (images, patches).

    With a CLS token by its attention, else by what patches receive on average.
    """
    seen: list[Any] = []
    model = tiled.load("eager")
    tower = model.model.vision_tower
    look = tower.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    logits_of(model, batch)
    look.remove()
    rows = []
    with torch.no_grad():
        for pixels in seen:
            maps = tower(pixels, output_attentions=True).attentions[layer].mean(dim=1)
            rows.append(maps.mean(dim=1) if is_onevision(model) else maps[:, 0, 1:])
    return torch.cat(rows)


def images_by_row(tiled: TinyModel, batch: dict[str, Tensor]) -> list[list[list[Token | None]]]:
    """Say for each sample what stands at the placeholders of each of its images."""
    sizes = batch["image_sizes"].tolist()
    numbers = batch.get("batch_num_images")
    counts = [1] * len(sizes) if numbers is None else numbers.tolist()
    cut = (
        [count == 1 for count in counts for _ in range(count)]
        if is_onevision(tiled.model)
        else None
    )
    images = arranged(tiled.model, sizes, cut)
    rows = []
    for ids in batch["input_ids"]:
        left = int((ids == tiled.model.config.image_token_id).sum())
        rows.append([])
        while left:
            rows[-1].append(images.pop(0))
            left -= len(rows[-1][-1])
    assert not images
    return rows


def best(scores: dict[int, float], count: int) -> list[int]:
    return sorted(sorted(scores, key=lambda token: -scores[token])[:count])


def chosen_by_loop(
    tokens: Sequence[Token], values: Tensor, retention: float, scope: str
) -> list[int]:
    """Choose of a sample's visual tokens those with the best mean over their patches."""
    scores = {
        index: sum(float(values[token.source, patch]) for patch in token.patches)
        / len(token.patches)
        for index, token in enumerate(tokens)
    }
    if scope == "global":
        return best(scores, alive_tokens(retention, len(tokens)))
    found = []
    for source in sorted({token.source for token in tokens}):
        own = {index: scores[index] for index, token in enumerate(tokens) if token.source == source}
        found += best(own, alive_tokens(retention, len(own)))
    return sorted(found)


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


def whole_image_model(next_model: TinyModel) -> Any:
    """A LLaVA-1.5 with the same vision tower, whose images are as large as one tile."""
    config = LlavaConfig(
        vision_config=next_model.model.config.vision_config,
        text_config=LlamaConfig(**parts.decoder_sizes(parts.WORDS)),
        image_token_index=next_model.model.config.image_token_id,
        image_seq_length=16,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.model.vision_tower.load_state_dict(next_model.model.model.vision_tower.state_dict())
    return model


@pytest.mark.parametrize(
    "scorer",
    [
        SimilarityFusion(text_tower="paired", weight=0.5, keep_cls=False),
        SimilarityFusion(text_tower="paired", weight=1.0, encoding="qk", keep_cls=False),
        QuestionRelevance(text_tower="paired"),
    ],
)
def test_questions_are_compared_with_each_tile_as_with_an_image(
    next_model: TinyModel, scorer: Any
) -> None:
    """Tiles given one by one to a LLaVA-1.5 with the same tower keep the same tokens."""
    stage = Stage(layer=0, retention=0.4, scorer=scorer)
    schedule, settings = Schedule(stages=(stage,)), {"processor": next_model.tokenizer}
    batch = next_model.inputs(["w1 w2 w3"])
    other = whole_image_model(next_model)
    tower = next_model.clip_folder
    with apply_schedule(next_model.model, schedule, text_tower=tower, **settings) as handle:
        logits_of(next_model.model, batch)
        record = handle.last_prefill
    found = [visual_places(record, 0)[index] for index in kept(record, 0)[0]]
    sizes = batch["image_sizes"]
    (medium,) = adapter_for(next_model.model).media("image", {"image_sizes": sizes}, None)
    image = other.config.image_token_id
    start = batch["input_ids"][0].tolist().index(image)
    question = next_model.tokenizer("w1 w2 w3 ASSISTANT:", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[1, 5, *[image] * 16, *question]])
    expected = []
    with apply_schedule(other, schedule, text_tower=tower, **settings) as handle:
        for tile in medium.tiles:
            pixels = batch["pixel_values"][0][tile.source][None]
            logits_of(other, {"input_ids": ids, "pixel_values": pixels})
            own = kept(handle.last_prefill, 0)[0]
            expected += [start + int(tile.places[index]) for index in own]
    assert found == sorted(expected)


@pytest.mark.parametrize("text_tower", ["paired", None])
@pytest.mark.parametrize(
    "scorer",
    [
        SimilarityFusion(text_tower="/nowhere", keep_cls=False),
        QuestionRelevance(text_tower="/nowhere"),
    ],
)
def test_questions_are_not_compared_with_patches_of_siglip(
    onevision: TinyModel, scorer: Any, text_tower: str | None
) -> None:
    schedule = Schedule(stages=(Stage(layer=0, retention=0.4, scorer=scorer),))
    tower = onevision.text_tower if text_tower else None
    message = "no text tower is paired with SiglipVisionModel .* such as 'visual-self-attention'"
    with pytest.raises(ScheduleMismatchError, match=message):
        apply_schedule(onevision.model, schedule, text_tower=tower)
    assert not hasattr(onevision.model, "_prunetune_handle")


def test_siglip_has_no_cls_token_to_read(onevision: TinyModel) -> None:
    schedule = Schedule(
        stages=(Stage(layer=2, retention=0.4, scorer=ClsAttention(keep_cls=False)),)
    )
    with pytest.raises(ScheduleMismatchError, match="CLS token, but SiglipVisionModel has none"):
        apply_schedule(onevision.model, schedule)


# Decoders whose layers see fewer tokens than an image has.

SLIDING = {
    "encoder": Schedule(
        stages=(Stage(layer=0, retention=0.5, scorer=ClsAttention(keep_cls=False)),)
    ),
    "both": Schedule(
        stages=(
            Stage(layer=0, retention=0.7, scorer=ClsAttention(keep_cls=False)),
            Stage(
                layer=2,
                retention=0.4,
                contextual=0.2,
                scorer=ClsAttention(keep_cls=False),
                merge=NearestReference(),
            ),
        )
    ),
}


def test_the_window_counts_the_tokens_that_are_left(mistral: TinyModel) -> None:
    """The stock decoder on the shorter prompt alone does the same."""
    model, batch = mistral.model, mistral.inputs(["w1 w2 w3"])
    seen: list[Tensor] = []

    def look(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["inputs_embeds"])

    hook = model.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    logits_of(model, batch)
    hook.remove()
    with apply_schedule(model, SLIDING["encoder"]) as handle:
        pruned = logits_of(model, batch)
        left = handle.last_prefill.stages[0].positions[0]
    assert len(left) > llava_next.SLIDING_WINDOW
    with torch.no_grad():
        hidden = model.model.language_model(inputs_embeds=seen[0][:, left]).last_hidden_state
        torch.testing.assert_close(pruned, model.lm_head(hidden), atol=1e-5, rtol=0)


def windowed(length: int) -> Tensor:
    """Mask attention by a loop: each token sees itself and those shortly before it."""
    seen = [
        [0 <= query - key < llava_next.SLIDING_WINDOW for key in range(length)]
        for query in range(length)
    ]
    bias = torch.zeros(1, 1, length, length)
    return bias.masked_fill(~torch.tensor(seen), torch.finfo(torch.float32).min)


def test_the_window_counts_what_is_left_from_each_stage_on(mistral: TinyModel) -> None:
    """Layers one by one, on what each of them has left, with masks made by a loop."""
    model, batch = mistral.model, mistral.inputs(["w1 w2 w3"])
    stages = [
        Stage(layer=layer, retention=retention, scorer=VisualSelfAttention())
        for layer, retention in [(1, 0.7), (4, 0.4)]
    ]
    with apply_schedule(model, Schedule(stages=tuple(stages), positions="original")) as handle:
        pruned = logits_of(model, batch)
        record = handle.last_prefill
    places = {stage.layer: stage.positions[0] for stage in record.stages}
    assert len(places[4]) > llava_next.SLIDING_WINDOW
    decoder, seen = model.model.language_model, list[Tensor]()
    hook = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    logits_of(model, batch)
    hook.remove()
    hidden, left = seen[0], torch.arange(seen[0].shape[1])
    with torch.no_grad():
        for index, layer in enumerate(decoder.layers):
            if index in places:
                hidden = hidden[:, torch.isin(left, places[index])]
                left = places[index]
            rotation = decoder.rotary_emb(hidden, position_ids=left[None])
            hidden = layer(hidden, attention_mask=windowed(len(left)), position_embeddings=rotation)
        expected = model.lm_head(decoder.norm(hidden))
    torch.testing.assert_close(pruned, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SLIDING)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_batch_with_windows_equals_its_samples(
    mistral: TinyModel, name: str, padding: str
) -> None:
    batch = mistral.mixed(padding)
    with apply_schedule(mistral.model, SLIDING[name]):
        together = logits_of(mistral.model, batch)
        for row, inputs in enumerate(mistral.mixed_rows()):
            alone = logits_of(mistral.model, inputs)[0]
            found = without_padding(together, row, len(alone), padding)
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", SLIDING)
def test_generating_with_windows_equals_running_the_prefill_again(
    mistral: TinyModel, name: str, beams: int
) -> None:
    settings = {"max_new_tokens": 6, "do_sample": False, "num_beams": beams}
    batch = mistral.mixed()
    dense = mistral.model.generate(**batch, **settings)
    with apply_schedule(mistral.model, SLIDING[name]):
        cached = mistral.model.generate(**batch, **settings)
        again = mistral.model.generate(**batch, **settings, use_cache=False)
    assert torch.equal(cached, again)
    assert not torch.equal(cached, dense)


def test_sizes_of_fewer_images_than_were_given_are_refused(onevision: TinyModel) -> None:
    inputs = onevision.inputs(["w1", "w2"])
    inputs["image_sizes"] = inputs["image_sizes"][:1]
    stage = Stage(layer=3, retention=0.5, scorer=VisualSelfAttention())
    with (
        apply_schedule(onevision.model, Schedule(stages=(stage,))),
        pytest.raises(InputError, match="image_sizes has 1 images, but batch_num_images 2"),
    ):
        onevision.model(**inputs)
