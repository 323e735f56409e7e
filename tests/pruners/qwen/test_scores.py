"""What is read of packed images, windows and frames, and what is kept by it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

from pruners import (
    ClsAttention,
    Schedule,
    ScheduleMismatchError,
    SimilarityFusion,
    Stage,
    apply_schedule,
)
from pruners.adapters import adapter_for
from pruners.errors import UnsupportedModelError
from pruners.vision import VisionRecorder
from pruners.vision_outputs import VisionOutputs, VisionParts
from pruners.vision_towers import packed
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel
from tests.pruners.families.qwen import MERGE
from tests.pruners.families.tiny import Sample
from tests.pruners.qwen.schedules import FIRST, PRUNING
from tests.pruners.ragged import kept, masked_out, places_left

LAST_FULL_ATTENTION = {"qwen2_5_vl": 1, "qwen3_vl": 3}
"""Qwen2.5-VL is tried with its windows in the last layers, where the order matters most."""
EVERYTHING = VisionParts(keys=True, patch_attention=True, key_norms=True)
windowed = pytest.mark.parametrize("qwen", ["qwen2_5_vl"], indirect=True)


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
