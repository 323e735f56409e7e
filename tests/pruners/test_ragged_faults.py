"""What once went wrong: caches that are copied or emptied, models that are moved or patched."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pruners import NearestReference, Schedule, Stage, VisualSelfAttention, apply_schedule
from pruners.errors import InputError
from pruners.methods.base import encoder_saliency
from pruners.published import published
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel, build_llava
from tests.pruners.families.qwen import build_qwen2_5_vl, build_qwen3_vl
from tests.pruners.families.tiny import Sample, picture
from tests.pruners.ragged import visual_places


def schedule_of(family: TinyModel) -> Schedule:
    first = encoder_saliency(family.shape, keep_cls=False)
    return Schedule(
        stages=(
            Stage(layer=0, retention=0.5, scorer=first, contextual=0.2, merge=NearestReference()),
            Stage(layer=3, retention=0.2, scorer=VisualSelfAttention()),
        )
    )


def prefilled(family: TinyModel) -> tuple[Any, dict[str, Tensor]]:
    """Run a ragged batch, and return its cache and two new tokens for each sample."""
    inputs = family.mixed()
    new = torch.arange(10, 18).view(4, 2)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(new)], dim=1)
    with torch.no_grad():
        cache = family.model(**inputs, use_cache=True).past_key_values
    return cache, {"input_ids": new, "attention_mask": mask}


@pytest.mark.parametrize("replaced", [False, True], ids=["same-schedule", "schedule-replaced"])
def test_a_copied_cache_continues_as_the_original(family: TinyModel, replaced: bool) -> None:
    model, schedule = family.model, schedule_of(family)
    handle = apply_schedule(model, schedule)
    try:
        cache, new = prefilled(family)
        twin = copy.deepcopy(cache)
        expected = logits_of(model, {**new, "past_key_values": cache})
        if replaced:
            handle.remove()
            handle = apply_schedule(model, Schedule(stages=schedule.stages[1:]))
        assert torch.equal(logits_of(model, {**new, "past_key_values": twin}), expected)
    finally:
        handle.remove()


def test_an_emptied_cache_may_be_filled_by_text(tiny: TinyModel) -> None:
    text = tiny.tokenizer(["USER: w1 w2 w3 w4 ASSISTANT:"] * 4, return_tensors="pt")["input_ids"]
    expected = logits_of(tiny.model, {"input_ids": text})[:, 3:]
    with apply_schedule(tiny.model, schedule_of(tiny)), torch.no_grad():
        cache, _ = prefilled(tiny)
        cache.reset()
        tiny.model(input_ids=text[:, :3], past_key_values=cache)
        found = logits_of(tiny.model, {"input_ids": text[:, 3:], "past_key_values": cache})
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_the_record_tells_added_padding_from_the_prompts_own(
    family: TinyModel, padding: str
) -> None:
    """A long text beside images: what is left of these is padded beyond what they had before."""
    text = Sample(" ".join(["w1"] * 300))
    samples = [
        Sample("w2", images=(picture(family.standard, 1),)),
        text,
        Sample("w3 w4", images=(picture(family.other, 2), picture(family.standard, 3))),
    ]
    batch = family.prepare(samples, padding)
    with apply_schedule(family.model, schedule_of(family)) as handle:
        logits_of(family.model, batch)
        record = handle.last_prefill
    assert record is not None
    own = batch["attention_mask"].sum(dim=1).tolist()
    for group in record.groups:
        for stage in group.stages:
            for row, positions in zip(group.rows, stage.positions.tolist(), strict=True):
                dense = [place for place in positions if place >= 0]
                assert len(set(dense)) == len(dense)
                gone = len(visual_places(record, row)) - stage.indices.shape[1]
                real = [place for place in dense if batch["attention_mask"][row, place]]
                assert len(real) == own[row] - gone
                assert -1 in positions


def test_a_model_moved_to_half_precision_takes_its_text_tower_along(tmp_path: Path) -> None:
    family = build_llava(tmp_path)
    schedule = published("desap", family.visual_tokens // 2, family.shape)
    inputs = family.mixed()
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    model = copy.deepcopy(family.model)
    with apply_schedule(model, schedule, processor=family.tokenizer, text_tower=family.clip_folder):
        model.to(torch.bfloat16)
        found = logits_of(model, inputs)
    with apply_schedule(model, schedule, processor=family.tokenizer, text_tower=family.clip_folder):
        assert torch.equal(logits_of(model, inputs), found)


def test_another_librarys_patch_of_a_method_is_given_back(tiny: TinyModel) -> None:
    core = tiny.model.model
    original: Callable[..., Any] = core.get_image_features
    patch = functools.wraps(original)(lambda *args, **kwargs: original(*args, **kwargs))
    core.get_image_features = patch
    try:
        with apply_schedule(tiny.model, schedule_of(tiny)) as handle:
            logits_of(tiny.model, tiny.mixed())
            assert handle.last_prefill is not None
        assert core.get_image_features is patch
    finally:
        del core.get_image_features
    assert "get_image_features" not in vars(core)


def test_a_pruned_model_can_be_pickled(tmp_path: Path) -> None:
    """As processes do that pass it on; LLaVA's stock models cannot be once they have run."""
    family = build_qwen3_vl(tmp_path)
    inputs = family.mixed()
    with apply_schedule(family.model, schedule_of(family)):
        prefilled(family)
        expected = logits_of(family.model, inputs)
        twin = pickle.loads(pickle.dumps(family.model))  # noqa: S301
    assert torch.equal(logits_of(twin, inputs), expected)


def test_masks_by_kind_of_layer_are_refused(tiny: TinyModel) -> None:
    inputs: dict[str, Any] = tiny.mixed()
    inputs["attention_mask"] = {"full_attention": None}
    with (
        apply_schedule(tiny.model, schedule_of(tiny)),
        pytest.raises(InputError, match=r"mask is a dict; pruning needs a padding mask, a tensor"),
    ):
        tiny.model(**inputs)


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_follow_the_prompt_where_a_long_video_is_ahead_of_it(
    tmp_path: Path, beams: int
) -> None:
    """Of Qwen2.5-VL, whose frames are as many positions apart as tokens would pass in that time."""
    family = build_qwen2_5_vl(tmp_path)
    generator = torch.Generator().manual_seed(0)
    inputs = family.prepare(
        [
            Sample("w1", videos=(torch.randn(8, 3, 16, 16, generator=generator),)),
            Sample("w2 w3", images=(picture(family.standard, 1),)),
            Sample("w4 w5 w6"),
        ]
    )
    settings = {"max_new_tokens": 4, "do_sample": False, "num_beams": beams}
    settings |= {"return_dict_in_generate": True, "output_logits": True}
    with apply_schedule(family.model, schedule_of(family)):
        cached = family.model.generate(**inputs, **settings)
        again = family.model.generate(**inputs, **settings, use_cache=False)
    assert torch.equal(cached.sequences, again.sequences)
    for found, expected in zip(cached.logits, again.logits, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
