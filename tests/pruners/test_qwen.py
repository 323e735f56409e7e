"""Qwen2.5-VL and Qwen3-VL: packed images, windows, frames, M-RoPE, DeepStack, kept caches."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, pad
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

from pruners import (
    BipartiteMatching,
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
from pruners.errors import InputError, UnsupportedModelError
from pruners.vision import VisionRecorder
from pruners.vision_outputs import VisionOutputs, VisionParts
from pruners.vision_towers import packed
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel
from tests.pruners.families.qwen import MERGE, build_qwen2_5_vl, build_qwen3_vl
from tests.pruners.families.tiny import Sample
from tests.pruners.ragged import kept, masked_out, places_left

BUILDERS = {"qwen2_5_vl": build_qwen2_5_vl, "qwen3_vl": build_qwen3_vl}
LAST_FULL_ATTENTION = {"qwen2_5_vl": 1, "qwen3_vl": 3}
"""Qwen2.5-VL is tried with its windows in the last layers, where the order matters most."""
EVERYTHING = VisionParts(keys=True, patch_attention=True, key_norms=True)
GREEDY = {"max_new_tokens": 6, "do_sample": False}
FIRST = Stage(layer=0, retention=0.5, scorer=VisualSelfAttention())
LATER = Stage(layer=3, retention=0.25, scorer=VisualSelfAttention())
PRUNING = Schedule(stages=(FIRST, LATER))


@pytest.fixture(scope="module", params=BUILDERS)
def qwen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return BUILDERS[request.param](tmp_path_factory.mktemp(request.param))


windowed = pytest.mark.parametrize("qwen", ["qwen2_5_vl"], indirect=True)
deep = pytest.mark.parametrize("qwen", ["qwen3_vl"], indirect=True)


def windowed_last(model: Any) -> Any:
    """Copy a model so that its tower ends with windowed layers, if it has any."""
    changed = copy.deepcopy(model)
    tower = changed.model.visual
    if hasattr(tower, "fullatt_block_indexes"):
        tower.fullatt_block_indexes = tower.config.fullatt_block_indexes = [1]
    return changed


def many_frames(qwen: TinyModel) -> dict[str, Tensor]:
    """A long video, and two of other sizes."""
    generator = torch.Generator().manual_seed(3)
    sizes = ((20, 16, 24), (2, 32, 16), (4, 24, 16))
    videos = tuple(torch.randn(n, 3, *side, generator=generator) for n, *side in sizes)
    # Qwen3-VL's times of later frames are not in the tiny vocabulary, and need not be.
    return qwen.prepare([Sample("w1", videos=videos[:1]), Sample("w2", videos=videos[1:])])


def scores_of(model: Any, kind: str, inputs: dict[str, Tensor]) -> list[VisionOutputs]:
    """What is read of each image or frame, by visual token."""
    adapter = adapter_for(model)
    recorder = VisionRecorder(adapter.towers[kind], EVERYTHING, None)
    pixels = inputs["pixel_values" if kind == "image" else "pixel_values_videos"]
    arguments = {f"{kind}_grid_thw": inputs[f"{kind}_grid_thw"]}
    try:
        with torch.no_grad():
            features = getattr(model.model, f"get_{kind}_features")(pixels, **arguments)
    finally:
        recorder.remove()
    outputs = VisionRecorder.recorded(features)
    assert outputs is not None
    tiles = [t for medium in adapter.media(kind, arguments, features) for t in medium.tiles]
    return [outputs.tokens([t.source], [t.patches], torch.device("cpu")) for t in tiles]


def plain_scores(model: Any, layer: int, pixels: Tensor, grid: Tensor) -> list[VisionOutputs]:
    """The same by loops over the segments, heads and queries of the tower's own call."""
    tower = model.model.visual
    seen: dict[str, Any] = {}
    block = tower.blocks[layer]
    handles = [
        block.register_forward_pre_hook(
            lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
        ),
        block.attn.qkv.register_forward_hook(
            lambda module, args, output: seen.update(fused=output)
        ),
        tower.merger.register_forward_hook(lambda module, args, output: seen.update(merged=output)),
    ]
    with torch.no_grad():
        final = tower(pixels, grid_thw=grid).pooler_output
    for handle in handles:
        handle.remove()
    fused = seen["fused"]
    heads = block.attn.num_heads
    queries, keys, _ = fused.view(len(fused), 3, heads, -1).unbind(1)
    queries, keys = apply_rotary_pos_emb_vision(queries, keys, *seen["position_embeddings"])
    attention = torch.zeros(len(fused))
    bounds = seen["cu_seqlens"].tolist()
    for start, end in pairwise(bounds):
        for head in range(heads):
            for query in range(start, end):
                products = keys[start:end, head] @ queries[query, head]
                shares = (products * block.attn.scaling).softmax(dim=0)
                attention[start:end] += shares / (heads * (end - start))
    # Where the merger's blocks are found again in what the tower returns, whatever moved them.
    order = [int((seen["merged"] == token).all(dim=-1).nonzero()) for token in final]
    blocks = torch.arange(len(fused)).view(-1, MERGE**2)[order]
    directions = normalize(keys.mean(dim=1), dim=-1)[blocks].mean(dim=1)
    norms = keys.abs().sum(dim=(1, 2))[blocks].mean(dim=1)
    lengths = [rows * columns // MERGE**2 for t, rows, columns in grid.tolist() for _ in range(t)]
    found = zip(
        attention[blocks].mean(dim=1).split(lengths),
        normalize(directions, dim=-1).split(lengths),
        norms.split(lengths),
        strict=True,
    )
    return [
        VisionOutputs(patch_attention=a[None], keys=k[None], key_norms=n[None]) for a, k, n in found
    ]


@pytest.mark.parametrize("what", ["images", "videos", "many frames"])
def test_scores_are_those_of_plain_loops(
    qwen: TinyModel, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some frames are then read together, in several goes, and those of 100 patches alone.
    monkeypatch.setattr(packed, "PATCHES_AT_ONCE", 80)
    model = windowed_last(qwen.model)
    layer = LAST_FULL_ATTENTION[model.config.model_type]
    inputs = {"images": qwen.mixed, "videos": qwen.video}.get(what, lambda: many_frames(qwen))()
    kind = "image" if what == "images" else "video"
    pixels = inputs["pixel_values" if kind == "image" else "pixel_values_videos"]
    found = scores_of(model, kind, inputs)
    expected = plain_scores(model, layer, pixels, inputs[f"{kind}_grid_thw"])
    assert len({own.patch_attention.shape for own in expected}) > 1
    for own, wanted in zip(found, expected, strict=True):
        for name in ("patch_attention", "keys", "key_norms"):
            torch.testing.assert_close(
                getattr(own, name), getattr(wanted, name), atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("what", ["mixed", "video"])
def test_the_tokens_kept_are_those_with_the_highest_scores(qwen: TinyModel, what: str) -> None:
    batch = getattr(qwen, what)()
    scores: dict[str, Iterator[VisionOutputs]] = {}
    for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if pixels in batch:
            scores[kind] = iter(
                plain_scores(qwen.model, 3, batch[pixels], batch[f"{kind}_grid_thw"])
            )
    schedule = Schedule(stages=(FIRST,))
    with apply_schedule(qwen.model, schedule) as handle:
        logits_of(qwen.model, batch)
        record = handle.last_prefill
    samples = qwen.mixed_samples() if what == "mixed" else qwen.video_samples()
    for row, sample in enumerate(samples):
        expected: list[int] = []
        start = 0
        frames = [*("image" for _ in sample.images)]
        for video in sample.videos:
            frames += ["video"] * (len(video) // 2)
        for kind in frames:
            own = next(scores[kind]).patch_attention[0]
            top = own.topk(schedule.tile_counts(len(own)).alive).indices.sort().values
            expected += (start + top).tolist()
            start += len(own)
        assert kept(record, row).get(0, []) == expected


@pytest.mark.parametrize("what", ["mixed", "video"])
def test_positions_are_kept_whatever_the_schedule_says(qwen: TinyModel, what: str) -> None:
    batch = getattr(qwen, what)()
    found = []
    for positions in ("compact", "original"):
        with apply_schedule(qwen.model, PRUNING.model_copy(update={"positions": positions})):
            found.append(logits_of(qwen.model, batch))
    assert torch.equal(*found)


def test_int8_weights_drop_as_they_mask_out(qwen: TinyModel) -> None:
    model = copy.deepcopy(qwen.model)
    quantize_(model, Int8WeightOnlyConfig())
    batch = qwen.video()
    with apply_schedule(model, PRUNING) as handle:
        pruned = logits_of(model, batch)
        record = handle.last_prefill
    mask = batch["attention_mask"]
    with masked_out(model, record, mask):
        dense = logits_of(model, batch)
    for row in range(len(mask)):
        places = places_left(record, mask, row, len(qwen.decoder_layers))
        found = pruned[row, -len(places) :]
        torch.testing.assert_close(found, dense[row, places], atol=1e-4, rtol=0)


# DeepStack.


@contextmanager
def around(qwen: TinyModel, layer: int) -> Iterator[dict[str, Tensor]]:
    """Record what a decoder layer returns and what the next one computes with."""
    seen: dict[str, Tensor] = {}
    layers = qwen.decoder_layers
    hooks = [
        layers[layer].register_forward_hook(lambda m, args, output: seen.update(out=output)),
        layers[layer + 1].input_layernorm.register_forward_pre_hook(
            lambda m, args: seen.update(into=args[0])
        ),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@deep
@pytest.mark.parametrize("merge", [NearestReference(), BipartiteMatching()])
@pytest.mark.parametrize("after", [0, 1])
def test_what_is_left_gets_its_own_features(qwen: TinyModel, merge: Any, after: int) -> None:
    inputs = qwen.inputs(["w1 w2 w3", "w4"])
    contextual = 0.2 if isinstance(merge, NearestReference) else 0.0
    stage = FIRST.model_copy(update={"merge": merge, "contextual": contextual})
    with torch.no_grad():
        features = qwen.model.model.get_image_features(
            inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
        )
    own = features.deepstack_features[after]
    pruned = apply_schedule(qwen.model, Schedule(stages=(stage,)))
    with pruned as handle, around(qwen, after) as seen:
        logits_of(qwen.model, inputs)
        (group,) = handle.last_prefill.groups
    added = seen["into"] - seen["out"]
    (record,) = group.stages
    for row in range(2):
        visual = set(group.visual[row].tolist())
        places = [p for p, at in enumerate(record.positions[row].tolist()) if at in visual]
        found = added[row, places]
        origins = record.indices[row]
        expected = own[row][origins]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        rest = [place for place in range(added.shape[1]) if place not in places]
        assert (added[row, rest] == 0).all()
    assert own[0].abs().max() > 0.1


@deep
def test_without_drops_in_its_layers_deepstack_is_the_models_own(qwen: TinyModel) -> None:
    """Up to the first layer that drops tokens, every hidden state is the dense model's."""
    batch = qwen.mixed()
    with torch.no_grad():
        dense = qwen.model(**batch, output_hidden_states=True).hidden_states
        with apply_schedule(qwen.model, Schedule(stages=(LATER,))):
            pruned = qwen.model(**batch, output_hidden_states=True).hidden_states
    real = batch["attention_mask"].bool()
    for layer in range(LATER.layer + 1):
        assert torch.equal(pruned[layer][real], dense[layer][real])


@deep
def test_deepstack_features_after_the_last_layer_are_refused(qwen: TinyModel) -> None:
    model = copy.deepcopy(qwen.model)
    model.model.language_model.layers = model.model.language_model.layers[:2]
    with pytest.raises(UnsupportedModelError, match="deepstack_visual_indexes names 2"):
        apply_schedule(model, Schedule(stages=(FIRST,)))


# Caches that are kept.


def turn(inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """Add tokens to prompts that may have images."""
    more = tokens.shape[1]
    return {
        **inputs,
        "input_ids": torch.cat([inputs["input_ids"], tokens], dim=1),
        "attention_mask": pad(inputs["attention_mask"], (0, more), value=1),
        "mm_token_type_ids": pad(inputs["mm_token_type_ids"], (0, more)),
    }


def disturb(qwen: TinyModel, how: str) -> None:
    """Have the model remember another call's positions."""
    if how == "another image":
        logits_of(qwen.model, qwen.prepare([Sample("w9", images=qwen.mixed_samples()[3].images)]))
    elif how == "another batch":
        logits_of(qwen.model, qwen.mixed())
    elif how == "text":
        qwen.model.generate(torch.tensor([[1, 12, 13]]), **GREEDY)


@pytest.mark.parametrize("how", ["nothing", "another image", "another batch", "text"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_kept_cache_has_its_own_positions(
    qwen: TinyModel, how: str, masked: bool, count: int
) -> None:
    """The stock models remember the newest call alone, and fail for one token with a mask."""
    inputs = qwen.inputs(["w1 w2 w3"])
    tokens = torch.tensor([[7, 8, 9]])[:, :count]
    with apply_schedule(qwen.model, PRUNING), torch.no_grad():
        expected = qwen.model(**turn(inputs, tokens)).logits[:, -count:]
        cache = qwen.model(**inputs, use_cache=True).past_key_values
        disturb(qwen, how)
        mask = turn(inputs, tokens)["attention_mask"] if masked else None
        found = qwen.model(input_ids=tokens, attention_mask=mask, past_key_values=cache).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_kept_cache_of_padded_prompts_has_its_own_positions(qwen: TinyModel) -> None:
    inputs = qwen.mixed()
    tokens = torch.tensor([[7, 8]]).expand(4, -1)
    with apply_schedule(qwen.model, PRUNING), torch.no_grad():
        whole = turn(inputs, tokens)
        expected = qwen.model(**whole).logits[:, -2:]
        cache = qwen.model(**inputs, use_cache=True).past_key_values
        disturb(qwen, "another image")
        found = qwen.model(
            input_ids=tokens, attention_mask=whole["attention_mask"], past_key_values=cache
        ).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["nothing", "another image", "text"])
@pytest.mark.parametrize("types", [True, False])
def test_a_second_turn_continues_whatever_came_between(
    qwen: TinyModel, how: str, types: bool
) -> None:
    inputs = qwen.inputs(["w1 w2 w3"])
    question = torch.tensor([[5, 12, 13, 6]])
    with apply_schedule(qwen.model, PRUNING):
        first = qwen.model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
        answer = first.sequences[:, inputs["input_ids"].shape[1] :]
        whole = turn(inputs, torch.cat([answer, question], dim=1))
        expected = qwen.model.generate(**whole, **GREEDY)
        disturb(qwen, how)
        given = {"input_ids", "attention_mask"} | ({"mm_token_type_ids"} if types else set())
        second = qwen.model.generate(
            **{name: whole[name] for name in given},
            past_key_values=first.past_key_values,
            **GREEDY,
        )
    assert torch.equal(second, expected)


def test_a_kept_cache_of_another_batch_size_is_refused_by_its_size(qwen: TinyModel) -> None:
    """The model remembers as many positions as the batch had sequences."""
    inputs = qwen.mixed()
    with apply_schedule(qwen.model, PRUNING):
        first = qwen.model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
        whole = turn(inputs, first.sequences[:, inputs["input_ids"].shape[1] :])
        given = {name: whole[name] for name in ("input_ids", "attention_mask")}
        with pytest.raises(InputError, match="filled by 4 sequences, but this call has 8"):
            qwen.model.generate(
                **given, past_key_values=first.past_key_values, num_beams=2, **GREEDY
            )


def test_given_positions_are_respected(qwen: TinyModel) -> None:
    inputs = qwen.inputs(["w1 w2 w3"])
    with apply_schedule(qwen.model, PRUNING), torch.no_grad():
        found = []
        for shift in (0, 5):
            cache = qwen.model(**inputs, use_cache=True).past_key_values
            positions = torch.full((3, 1, 1), 20 + shift)
            step = {"input_ids": torch.tensor([[7]]), "position_ids": positions}
            found.append(qwen.model(**step, past_key_values=cache).logits)
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_guessed_tokens_are_checked_against_the_cache(qwen: TinyModel) -> None:
    """Several tokens go through the cache at once, and those that were guessed wrong leave it."""
    inputs = qwen.inputs(["w1 w2 w3 w1 w2"])
    with apply_schedule(qwen.model, PRUNING):
        expected = qwen.model.generate(**inputs, max_new_tokens=16, do_sample=False)
        found = qwen.model.generate(
            **inputs, max_new_tokens=16, do_sample=False, prompt_lookup_num_tokens=3
        )
    assert torch.equal(found, expected)


def test_sampling_equals_sampling_without_a_cache(qwen: TinyModel) -> None:
    inputs = qwen.mixed()
    answers = []
    with apply_schedule(qwen.model, PRUNING):
        for cached in (True, False):
            torch.manual_seed(0)
            answers.append(
                qwen.model.generate(
                    **inputs,
                    max_new_tokens=6,
                    do_sample=True,
                    num_return_sequences=2,
                    use_cache=cached,
                )
            )
    assert torch.equal(*answers)


def test_embeddings_beside_ids_give_the_same(qwen: TinyModel) -> None:
    inputs = qwen.inputs(["w1 w2 w3"])
    embeds = qwen.model.get_input_embeddings()(inputs["input_ids"])
    with apply_schedule(qwen.model, PRUNING):
        expected = qwen.model.generate(**inputs, **GREEDY)[:, -6:]
        found = qwen.model.generate(inputs_embeds=embeds, **inputs, **GREEDY)[:, -6:]
    assert torch.equal(found, expected)


# What is refused.


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (ClsAttention(keep_cls=False), "has none; use scorers .* 'visual-self-attention'"),
        (SimilarityFusion(text_tower="none", weight=0.5), "'visual-self-attention'"),
        (SimilarityFusion(text_tower="none", weight=1.0), "'visual-self-attention'"),
    ],
)
def test_scores_that_need_clip_are_refused(qwen: TinyModel, scorer: Any, message: str) -> None:
    stage = Stage(layer=0, retention=0.5, scorer=scorer)
    with pytest.raises(ScheduleMismatchError, match=message):
        apply_schedule(qwen.model, Schedule(stages=(stage,)))


@windowed
def test_a_tower_of_windows_alone_is_refused(qwen: TinyModel) -> None:
    model = copy.deepcopy(qwen.model)
    model.model.visual.config.fullatt_block_indexes = []
    with pytest.raises(UnsupportedModelError, match="fullatt_block_indexes is empty"):
        apply_schedule(model, PRUNING)
