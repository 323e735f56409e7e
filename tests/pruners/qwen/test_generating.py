"""Generating: guessed tokens, sampling, embeddings beside ids."""

from __future__ import annotations

import torch

from pruners import apply_schedule
from tests.pruners.families import TinyModel
from tests.pruners.qwen.schedules import GREEDY, PRUNING


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
