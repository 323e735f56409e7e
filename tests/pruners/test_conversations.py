"""Calls that go on from a filled cache."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from pruners import apply_schedule
from pruners.errors import InputError
from pruners.noted_cache import recall
from tests.helpers.forwards import logits_of
from tests.pruners.two_stages import QUESTIONS, SCHEDULE


def step(model: Any, cache: Any, token: Tensor, mask: Tensor | None = None) -> Tensor:
    return logits_of(model, {"input_ids": token, "past_key_values": cache, "attention_mask": mask})[
        :, -1
    ]


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_conversations_can_be_interleaved(tiny: Any, positions: str) -> None:
    schedule = SCHEDULE.model_copy(update={"positions": positions})
    prompts = [tiny.inputs(["w1 w2 w3"], seed=1), tiny.inputs(["w4 w5 w6 w7"], seed=2)]
    tokens = [torch.tensor([[10 + index]]) for index in range(4)]
    with apply_schedule(tiny.model, schedule):
        caches, expected = [], []
        for prompt in prompts:
            longer = torch.cat([prompt["input_ids"], *tokens], dim=1)
            inputs = {"input_ids": longer, "pixel_values": prompt["pixel_values"]}
            expected.append(logits_of(tiny.model, inputs)[0, -4:])
        with torch.no_grad():
            for prompt in prompts:
                del prompt["attention_mask"]
                caches.append(tiny.model(**prompt, use_cache=True).past_key_values)
        for index, token in enumerate(tokens):
            for cache, wanted in zip(caches, expected, strict=True):
                logits = step(tiny.model, cache, token)[0]
                torch.testing.assert_close(logits, wanted[index], atol=1e-4, rtol=0)


def test_several_new_tokens_at_once_equal_one_after_the_other(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    new = torch.arange(10, 22).reshape(3, 4)
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 4, dtype=torch.long)], dim=1)
    with apply_schedule(tiny.model, SCHEDULE), torch.no_grad():
        cache = tiny.model(**inputs, use_cache=True).past_key_values
        together = logits_of(
            tiny.model, {"input_ids": new, "past_key_values": cache, "attention_mask": mask}
        )
        cache = tiny.model(**inputs, use_cache=True).past_key_values
        length = inputs["input_ids"].shape[1]
        for index in range(4):
            token = new[:, index : index + 1]
            logits = step(tiny.model, cache, token, mask[:, : length + index + 1])
            torch.testing.assert_close(logits, together[:, index], atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_a_conversation_continues_from_its_cache(tiny: Any, positions: str) -> None:
    schedule = SCHEDULE.model_copy(update={"positions": positions})
    inputs = tiny.inputs(["w1 w2 w3"])
    settings = {"max_new_tokens": 3, "do_sample": False}
    with apply_schedule(tiny.model, schedule):
        first = tiny.model.generate(**inputs, **settings, return_dict_in_generate=True)
        question = torch.tensor([[5, 12, 13, 6]])
        turn = torch.cat([first.sequences, question], dim=1)
        expected = tiny.model.generate(
            input_ids=turn,
            attention_mask=torch.ones_like(turn),
            pixel_values=inputs["pixel_values"],
            **settings,
        )
        second = tiny.model.generate(
            input_ids=turn,
            attention_mask=torch.ones_like(turn),
            past_key_values=first.past_key_values,
            **settings,
        )
    assert torch.equal(second, expected)


def test_another_batch_cannot_continue_a_cache(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    with apply_schedule(tiny.model, SCHEDULE), torch.no_grad():
        cache = tiny.model(**inputs, use_cache=True).past_key_values
        with pytest.raises(InputError, match="filled by 3 sequences, but this call has 1"):
            step(tiny.model, cache, torch.tensor([[10]]))
        short = torch.ones(3, cache.get_seq_length() + 1)
        with pytest.raises(InputError, match=r"expected \(3, \d+\): the whole sequence as if"):
            step(tiny.model, cache, torch.tensor([[10], [10], [10]]), short)


def test_a_cache_that_is_emptied_starts_anew(tiny: Any) -> None:
    text = tiny.tokenizer(["USER: w1 w2 ASSISTANT:"], return_tensors="pt")["input_ids"]
    expected = logits_of(tiny.model, {"input_ids": text})
    with apply_schedule(tiny.model, SCHEDULE), torch.no_grad():
        cache = tiny.model(**tiny.inputs(["w1"]), use_cache=True).past_key_values
        cache.reset()
        inputs = {"input_ids": text, "past_key_values": cache}
        assert torch.equal(logits_of(tiny.model, inputs), expected)


def test_what_is_known_of_a_cache_goes_with_it(tiny: Any) -> None:
    with apply_schedule(tiny.model, SCHEDULE), torch.no_grad():
        output = tiny.model(**tiny.inputs(["w1"]), use_cache=True)
        known = weakref.ref(recall(output.past_key_values))
        assert known() is not None
        del output
        gc.collect()
        assert known() is None


def test_sampling_is_reproducible(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    settings = {"max_new_tokens": 6, "do_sample": True, "num_return_sequences": 2}
    with apply_schedule(tiny.model, SCHEDULE):
        torch.manual_seed(0)
        cached = tiny.model.generate(**inputs, **settings)
        torch.manual_seed(0)
        again = tiny.model.generate(**inputs, **settings, use_cache=False)
    assert torch.equal(cached, again)


def test_prompt_lookup_decoding_equals_greedy(tiny: Any) -> None:
    inputs = tiny.inputs(["w1 w2 w3 w1 w2"])
    settings = {"max_new_tokens": 8, "do_sample": False}
    with apply_schedule(tiny.model, SCHEDULE):
        greedy = tiny.model.generate(**inputs, **settings)
        assisted = tiny.model.generate(**inputs, **settings, prompt_lookup_num_tokens=2)
    assert torch.equal(greedy, assisted)
