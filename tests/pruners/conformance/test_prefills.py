"""The same prefill, however it is come by: batches, images encoded ahead, attention, precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from pruners import Schedule, encode_images
from pruners.adapters import adapter_for
from pruners.vision import all_parts
from tests.helpers.forwards import logits_of
from tests.pruners.conformance.prompts import QUESTIONS, counts_of, last_logits
from tests.pruners.conformance.schedules import decoder


@pytest.mark.parametrize("padding", ["left", "right"])
def test_conformance_batch_equals_its_samples(
    family: Any, positioned: Schedule, prune: Any, padding: Literal["left", "right"]
) -> None:
    inputs = family.inputs(QUESTIONS, padding)
    handle = prune(positioned)
    together = last_logits(family.model, inputs, padding)
    batched = handle.last_prefill.stages
    for row, prompt in enumerate(family.rows(QUESTIONS)):
        alone = logits_of(family.model, prompt)[0, -1]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)
        for one, record in zip(handle.last_prefill.stages, batched, strict=True):
            assert torch.equal(one.indices[0], record.indices[row])
            assert torch.equal(one.contextual[0], record.contextual[row])


def test_conformance_encoded_images_give_the_same_prefill(
    family: Any, positioned: Schedule, prune: Any
) -> None:
    adapter = adapter_for(family.model)
    if adapter.projector is None:
        pytest.skip("the family arranges images behind its projector")
    parts = all_parts(adapter, family.text_tower)
    parts = replace(parts, encodings=frozenset({"qq", "qk"}))
    vision = encode_images(family.model, family.images(len(QUESTIONS)), family.text_tower, parts)
    order = torch.tensor([2, 0, 1])
    scorers = [stage.scorer for stage in positioned.stages]
    reads_prompt = any(getattr(scorer, "text", None) == "prompt" for scorer in scorers)
    texts = [f"USER: {question}" if reads_prompt else question for question in QUESTIONS]
    questions = family.text_tower.encode(texts)
    inputs = family.inputs(QUESTIONS)
    handle = prune(positioned)
    expected = logits_of(family.model, inputs)[:, -1]
    for padding in ("left", "right"):
        padded = family.inputs(QUESTIONS, padding)
        logits = handle.prefill(padded["input_ids"], padded["attention_mask"], vision, questions)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    shuffled = handle.prefill(
        inputs["input_ids"][order],
        inputs["attention_mask"][order],
        vision.select(order),
        questions.select(order),
    )
    torch.testing.assert_close(shuffled, expected[order], atol=1e-5, rtol=0)


def test_conformance_attention_implementations_agree(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS)
    eager = family.load("eager")
    prune(schedule)
    prune(schedule, eager)
    expected = last_logits(family.model, inputs, "left")
    torch.testing.assert_close(last_logits(eager, inputs, "left"), expected, atol=1e-5, rtol=1e-5)
    settings = {"max_new_tokens": 4, "do_sample": False}
    answers = [model.generate(**inputs, **settings) for model in (family.model, eager)]
    assert torch.equal(*answers)


def test_conformance_results_are_repeatable(family: Any, schedule: Schedule, prune: Any) -> None:
    inputs = family.inputs(QUESTIONS)
    prune(schedule)
    assert torch.equal(logits_of(family.model, inputs), logits_of(family.model, inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_conformance_half_precision_runs(
    family: Any, schedule: Schedule, prune: Any, dtype: torch.dtype
) -> None:
    inputs = family.inputs(QUESTIONS)
    model = family.load(dtype=dtype)
    handle = prune(schedule, model)
    answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3
    logits = logits_of(model, inputs)
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    alive = counts_of(schedule, family)[-1].alive
    assert handle.last_prefill.stages[-1].indices.shape[1] == alive


def test_conformance_positions_are_compacted_on_one_axis_alone(family: Any, prune: Any) -> None:
    """An image takes as many positions with M-RoPE as its longer side, however many are left."""
    inputs = family.inputs(QUESTIONS)
    found = []
    for positions in ("compact", "original"):
        with prune(Schedule(stages=decoder(), positions=positions)):
            found.append(logits_of(family.model, inputs))
    assert torch.equal(*found) == (adapter_for(family.model).position_axes > 1)
