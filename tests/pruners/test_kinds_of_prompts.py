"""Prompts of every kind: several images, none, embeddings, an image at the end, no mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pruners import ClsAttention, NearestReference, NoMerge, Schedule, Stage, apply_schedule
from tests.helpers.forwards import logits_of
from tests.pruners.two_stages import QUESTIONS, SCHEDULE, fusion


def alone(tiny: Any, prompt: str, pixel_values: Tensor | None) -> dict[str, Tensor]:
    ids = tiny.tokenizer([prompt], return_tensors="pt")["input_ids"]
    return (
        {"input_ids": ids}
        if pixel_values is None
        else {"input_ids": ids, "pixel_values": pixel_values}
    )


@pytest.mark.parametrize("contextual", [0.0, 0.3])
def test_each_of_several_images_is_pruned_as_if_alone(tiny: Any, contextual: float) -> None:
    image, pixel_values = "<image> " * tiny.visual_tokens, tiny.images(2)
    merge = NearestReference() if contextual else NoMerge()
    stage = Stage(layer=0, retention=0.4, contextual=contextual, scorer=ClsAttention(), merge=merge)
    with apply_schedule(tiny.model, Schedule(stages=(stage,))) as handle:

        def kept(prompt: str, pixels: Tensor) -> list[tuple[int, bool]]:
            logits = logits_of(tiny.model, alone(tiny, prompt, pixels))
            assert handle.last_prefill is not None
            (record,) = handle.last_prefill.stages
            assert logits.shape[1] == record.positions.shape[1]
            return list(zip(record.indices[0].tolist(), record.contextual[0].tolist(), strict=True))

        first, second = (kept(f"USER: {image} w1 ASSISTANT:", own) for own in pixel_values.split(1))
        both = kept(f"USER: {image} w2 {image} w1 ASSISTANT:", pixel_values)
    count = tiny.visual_tokens
    moved = [(index + count if index >= 0 else index - count, made) for index, made in second]
    assert sum(made for _, made in first) == (3 if contextual else 0)
    # Tokens of several images stand where they stood; of one, contextual ones are the last.
    assert sorted(both) == sorted(first + moved)
    places = [index if index >= 0 else -1.5 - index for index, _ in both]
    assert places == sorted(places)


def test_a_text_alone_may_stand_beside_images(tiny: Any) -> None:
    image, pixel_values = "<image> " * tiny.visual_tokens, tiny.images(1)
    prompts = [f"USER: {image} w1 ASSISTANT:", "USER: w1 w2 ASSISTANT:"]
    tokens = tiny.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    batch = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    dense = logits_of(tiny.model, alone(tiny, prompts[1], None))
    with apply_schedule(tiny.model, SCHEDULE):
        together = logits_of(tiny.model, {**batch, "pixel_values": pixel_values})
        expected = logits_of(tiny.model, alone(tiny, prompts[0], pixel_values))
    torch.testing.assert_close(together[0, -1], expected[0, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(together[1, -1], dense[0, -1], atol=1e-5, rtol=0)


def test_given_questions_win_over_the_prompt(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    tower = {"text_tower": tiny.text_tower, "processor": tiny.tokenizer}
    with apply_schedule(tiny.model, fusion(weight=1.0), **tower) as handle:
        logits_of(tiny.model, inputs)
        read = handle.last_prefill.stages[0].indices
        with handle.questions(QUESTIONS):
            logits_of(tiny.model, inputs)
        assert torch.equal(handle.last_prefill.stages[0].indices, read)
        with handle.questions(["w20 w21", "w22", "w23 w24 w25"]):
            logits_of(tiny.model, inputs)
            assert not torch.equal(handle.last_prefill.stages[0].indices, read)
            beams = tiny.model.generate(**inputs, max_new_tokens=2, num_beams=2, do_sample=False)
            assert beams.shape[0] == 3
        logits_of(tiny.model, inputs)
        assert torch.equal(handle.last_prefill.stages[0].indices, read)


def test_embeddings_instead_of_ids_give_the_same(tiny: Any) -> None:
    inputs = tiny.inputs(QUESTIONS)
    with apply_schedule(tiny.model, SCHEDULE):
        expected = logits_of(tiny.model, inputs)
        inputs["inputs_embeds"] = tiny.model.get_input_embeddings()(inputs.pop("input_ids"))
        assert torch.equal(logits_of(tiny.model, inputs), expected)


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_neither_cache_nor_mask_is_needed(tiny: Any, positions: str) -> None:
    inputs = tiny.inputs(["w1 w2"])
    with apply_schedule(tiny.model, SCHEDULE.model_copy(update={"positions": positions})):
        expected = logits_of(tiny.model, inputs)
        del inputs["attention_mask"]
        for use_cache in (True, False):
            logits = logits_of(tiny.model, inputs, use_cache=use_cache)
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", ["compact", "original"])
def test_an_image_may_end_the_prompt(tiny: Any, positions: Any) -> None:
    """Answers follow the dense prompt's last position, whether that token is kept or not."""
    prompts = [f"USER: {question} " + "<image> " * tiny.visual_tokens for question in QUESTIONS]
    tokens = tiny.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    inputs = {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "pixel_values": tiny.images(len(QUESTIONS)),
    }
    settings = {"max_new_tokens": 6, "do_sample": False, "output_logits": True}
    with apply_schedule(tiny.model, SCHEDULE.model_copy(update={"positions": positions})) as handle:
        found, expected = (
            tiny.model.generate(
                **inputs, **settings, return_dict_in_generate=True, use_cache=use_cache
            )
            for use_cache in (True, False)
        )
    assert handle.last_prefill is not None
    last = inputs["input_ids"].shape[1] - 1
    assert not (handle.last_prefill.stages[-1].positions == last).any(dim=-1).all()
    assert torch.equal(found.sequences, expected.sequences)
    for step, wanted in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(step, wanted, atol=1e-4, rtol=0)
