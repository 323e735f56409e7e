"""Schedules on models whose weights are int8, as torchao makes them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torchao.quantization import Int8Tensor, Int8WeightOnlyConfig, quantize_

from pruners import Schedule, Stage, VisualSelfAttention, apply_schedule, published
from pruners.adapters import adapter_for
from pruners.merges import NoMerge
from tests.helpers.forwards import logits_of

METHODS = ["visiondrop", "desap", "fastv", "pyramiddrop", "sparsevlm", "flowcut", "dart"]
TOKENS = 8
QUESTIONS = ("w1 w2 w3", "w4 w5 w6")
"""As long as one another: nothing is padded."""


def quantise(model: Any) -> Any:
    quantize_(model, Int8WeightOnlyConfig())
    return model


@pytest.fixture
def quantised(tiny: Any) -> Any:
    return quantise(copy.deepcopy(tiny.model))


def schedule_of(method: str, tiny: Any, **changes: Any) -> Schedule:
    schedule = published(method, TOKENS, tiny.shape)
    stages = tuple(stage.model_copy(update=changes) for stage in schedule.stages)
    return schedule.model_copy(update={"stages": stages})


def apply(model: Any, schedule: Schedule, tiny: Any) -> Any:
    return apply_schedule(model, schedule, processor=tiny.tokenizer, text_tower=tiny.text_tower)


@contextmanager
def seeing_only(model: Any, stages: Any, length: int) -> Iterator[None]:
    """Keep a dense model's layers from seeing what each stage before them dropped."""
    hooks = []
    for index, layer in enumerate(model.model.language_model.layers):
        visible = torch.ones(len(QUESTIONS), length, dtype=torch.bool)
        for stage in stages:
            if stage.layer <= index:
                visible &= torch.zeros_like(visible).scatter(1, stage.positions, True)
        allowed = torch.ones(length, length, dtype=torch.bool).tril() & visible[:, None, None]
        bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)

        def mask_out(module: Any, args: Any, kwargs: Any, bias: Tensor = bias) -> Any:
            return args, {**kwargs, "attention_mask": bias}

        hooks.append(layer.register_forward_pre_hook(mask_out, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def test_the_model_is_quantised(tiny: Any, quantised: Any) -> None:
    core = quantised.model
    for module in (core.vision_tower, core.multi_modal_projector, core.language_model):
        assert any(isinstance(weight, Int8Tensor) for weight in module.parameters())
    inputs = tiny.inputs(QUESTIONS)
    difference = (logits_of(quantised, inputs) - logits_of(tiny.model, inputs)).abs().max()
    assert 1e-4 < difference < 1  # quantised, and still the same model


@pytest.mark.parametrize("method", METHODS)
def test_quantising_before_or_after_gives_the_same(method: str, tiny: Any, quantised: Any) -> None:
    inputs, schedule = tiny.inputs(QUESTIONS), schedule_of(method, tiny)
    before = apply(quantised, schedule, tiny)
    expected = logits_of(quantised, inputs)
    after = copy.deepcopy(tiny.model)
    handle = apply(after, schedule, tiny)
    quantise(after)
    found = logits_of(after, inputs)
    assert torch.equal(found, expected)
    assert found.isfinite().all()
    pairs = zip(before.last_prefill.stages, handle.last_prefill.stages, strict=True)
    assert all(torch.equal(one.positions, other.positions) for one, other in pairs)


# FlowCut's tokens leave inside the tower, which masking in the decoder does not show.
@pytest.mark.parametrize("method", [method for method in METHODS if method != "flowcut"])
def test_dropping_is_masking_out_of_the_quantised_model(
    method: str, tiny: Any, quantised: Any
) -> None:
    schedule = schedule_of(method, tiny, merge=NoMerge(), contextual=0.0)
    changed = []
    for stage in schedule.stages:
        scorer = stage.scorer
        if stage.keeps_cls:
            scorer = scorer.model_copy(update={"keep_cls": False})
        changed.append(stage.model_copy(update={"scorer": scorer}))
    schedule = Schedule(stages=tuple(changed), positions="original")
    inputs = tiny.inputs(QUESTIONS)
    handle = apply(quantised, schedule, tiny)
    pruned = logits_of(quantised, inputs)
    stages = handle.last_prefill.stages
    handle.remove()
    with seeing_only(quantised, stages, inputs["input_ids"].shape[1]):
        dense = logits_of(quantised, inputs)
    places = stages[-1].positions[..., None].expand(-1, -1, dense.shape[-1])
    assert pruned.shape[1] < dense.shape[1]
    torch.testing.assert_close(pruned, dense.gather(1, places), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["visionzip", "desap", "flowcut", "divprune"])
def test_an_unquantised_tower_keeps_the_same_tokens(method: str, tiny: Any) -> None:
    inputs, schedule = tiny.inputs(QUESTIONS), schedule_of(method, tiny)
    model = copy.deepcopy(tiny.model)
    kept = []
    for part in (None, model.model.language_model):
        if part is not None:
            quantise(part)
        with apply(model, schedule, tiny) as handle:
            logits_of(model, inputs)
            kept.append(handle.last_prefill.stages[0].indices)
    assert torch.equal(*kept)


@pytest.mark.parametrize("method", METHODS)
def test_generate_works_and_remove_restores(method: str, tiny: Any, quantised: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    dense = logits_of(quantised, inputs)
    handle = apply(quantised, schedule_of(method, tiny), tiny)
    answer = quantised.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 4
    logits = logits_of(quantised, inputs)
    assert logits.isfinite().all()
    assert torch.equal(logits[:, -1].argmax(dim=-1), answer[:, -4])
    handle.remove()
    assert torch.equal(logits_of(quantised, inputs), dense)


STAGES = tuple(
    Stage(layer=layer, retention=retention, scorer=VisualSelfAttention())
    for layer, retention in ((0, 0.5), (3, 0.25))
)


def test_every_familys_quantised_model_is_pruned_as_it_masks_out(family: Any) -> None:
    model = quantise(copy.deepcopy(family.model))
    inputs = family.inputs(QUESTIONS)
    settings = {"max_new_tokens": 4, "do_sample": False}
    unpruned = logits_of(model, inputs)
    assert (unpruned - logits_of(family.model, inputs)).abs().max() > 1e-4
    with apply_schedule(model, Schedule(stages=STAGES, positions="original")) as handle:
        pruned = logits_of(model, inputs)
        stages = handle.last_prefill.stages
        answer = model.generate(**inputs, **settings)
        assert torch.equal(answer, model.generate(**inputs, **settings, use_cache=False))
    assert pruned.shape[1] < unpruned.shape[1]
    adapter = adapter_for(model)
    if adapter.attention_type(0) != "full_attention":
        return  # windows reach further back once tokens are dropped, so masking out differs
    with seeing_only(model, stages, inputs["input_ids"].shape[1]):
        dense = logits_of(model, inputs)
    places = stages[-1].positions[..., None].expand(-1, -1, dense.shape[-1])
    torch.testing.assert_close(pruned, dense.gather(1, places), atol=1e-4, rtol=0)
