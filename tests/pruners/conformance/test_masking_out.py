"""Dropping tokens equals masking them out of the stock model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pruners import NoMerge, Schedule
from pruners.adapters import adapter_for
from tests.helpers.forwards import logits_of
from tests.pruners.conformance.prompts import QUESTIONS, continued
from tests.pruners.families import TinyModel
from tests.pruners.ragged import masked_out


def without_merging(schedule: Schedule) -> Schedule:
    """The same choices of tokens, with no vector changed and every position kept."""
    plain = []
    for stage in schedule.stages:
        scorer = stage.scorer
        if stage.keeps_cls:
            scorer = scorer.model_copy(update={"keep_cls": False})
        changes = {"scorer": scorer, "merge": NoMerge(), "contextual": 0.0}
        plain.append(stage.model_copy(update=changes))
    return Schedule(stages=tuple(plain), positions="original")


@pytest.fixture
def dropping(family: TinyModel, schedule: Schedule) -> Schedule:
    adapter = adapter_for(family.model)
    if schedule.stages[0].in_tower:
        pytest.skip("tokens leave inside the tower, which has its own oracles")
    if any(
        adapter.attention_type(layer) != "full_attention"
        for layer in range(len(family.decoder_layers))
    ):
        pytest.skip("windows reach further back once tokens are dropped, so masking out differs")
    return without_merging(schedule)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_conformance_dropping_is_masking_out(
    family: Any, dropping: Schedule, prune: Any, padding: str
) -> None:
    inputs = family.inputs(QUESTIONS, padding)
    handle = prune(dropping)
    pruned = logits_of(family.model, inputs)
    record = handle.last_prefill
    handle.remove()
    with masked_out(family.model, record, inputs["attention_mask"]):
        dense = logits_of(family.model, inputs)
    positions = record.stages[-1].positions
    expected = dense.gather(1, positions[..., None].expand(-1, -1, dense.shape[-1]))
    real = inputs["attention_mask"].gather(1, positions).bool()
    torch.testing.assert_close(pruned[real], expected[real], atol=1e-5, rtol=0)
    # Masking something out must matter, or the comparison above shows nothing.
    unpruned = logits_of(family.model, inputs)
    kept = unpruned.gather(1, positions[..., None].expand(-1, -1, dense.shape[-1]))
    assert (kept[real] - expected[real]).abs().max() > 1e-3


def test_conformance_generate_equals_masking_out(
    family: Any, dropping: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS)
    handle = prune(dropping)
    settings = {"max_new_tokens": 6, "do_sample": False}
    answer = family.model.generate(
        **inputs, **settings, output_logits=True, return_dict_in_generate=True
    )
    record = handle.last_prefill
    handle.remove()
    length = inputs["input_ids"].shape[1]
    new = answer.sequences.shape[1] - length
    whole = continued(inputs, answer.sequences[:, length:-1])
    with masked_out(family.model, record, whole["attention_mask"]):
        dense = logits_of(family.model, whole)
    expected = dense[:, -new:].unbind(dim=1)
    for step, wanted in zip(answer.logits, expected, strict=True):
        torch.testing.assert_close(step, wanted, atol=1e-4, rtol=0)


def test_conformance_choosing_adds_nothing_to_gradients(
    family: Any, dropping: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS[:2])
    weights = [layer.self_attn.k_proj.weight for layer in family.decoder_layers]

    def gradients() -> tuple[Tensor, ...]:
        logits = family.model(**inputs).logits[:, -1]
        return torch.autograd.grad(logits.square().sum(), weights)

    handle = prune(dropping)
    pruned = gradients()
    record = handle.last_prefill
    handle.remove()
    with masked_out(family.model, record, inputs["attention_mask"]):
        expected = gradients()
    for found, wanted in zip(pruned, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)
