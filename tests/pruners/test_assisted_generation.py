"""Tokens behind the prompt that are only checked: guesses of an assistant, or a given answer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from pruners import Schedule, Stage, VisualSelfAttention, apply_schedule
from pruners.scorers import KeyNorm, LastTokenAttention, RaterAttention
from pruners.selectors import LeastDuplication
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel

GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
FIRST = Stage(layer=0, retention=0.6, scorer=VisualSelfAttention())
READING_TEXT = {
    "last token before": LastTokenAttention(reads="previous"),
    "last token after": LastTokenAttention(),
    "raters": RaterAttention(),
}
SCHEDULES = {
    name: Schedule(stages=(FIRST, Stage(layer=2, retention=0.25, scorer=scorer)))
    for name, scorer in READING_TEXT.items()
}
SCHEDULES["text pivots"] = Schedule(
    stages=(Stage(layer=2, retention=0.25, scorer=KeyNorm(), selector=LeastDuplication()),)
)


@pytest.mark.parametrize("name", SCHEDULES)
def test_assisted_generation_equals_greedy(family: TinyModel, name: str) -> None:
    """Its first call has guesses behind the prompt, which must not choose tokens."""
    model, inputs = family.model, family.inputs(["w1 w2 w3 w1 w2"])
    assistant = copy.deepcopy(model)
    # It is sure of itself, so that there are guesses; others than the model's own, so that
    # choosing by them shows.
    assistant.generation_config.num_assistant_tokens = 3
    assistant.generation_config.assistant_confidence_threshold = 0
    with apply_schedule(model, SCHEDULES[name]):
        expected = model.generate(**inputs, **GREEDY)
        found = model.generate(**inputs, **GREEDY, assistant_model=assistant)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_answers_logits_are_those_of_generating_it(family: TinyModel, name: str) -> None:
    model, inputs = family.model, family.inputs(["w1 w2 w3", "w4"])
    with apply_schedule(model, SCHEDULES[name]):
        answer = model.generate(
            **inputs, **GREEDY, output_logits=True, return_dict_in_generate=True
        )
        tokens = answer.sequences[:, inputs["input_ids"].shape[1] : -1]
        whole = {**inputs, "input_ids": answer.sequences[:, :-1]}
        for other in ("attention_mask", "mm_token_type_ids"):
            if other in inputs:
                value = torch.full_like(tokens, int(other == "attention_mask"))
                whole[other] = torch.cat([inputs[other], value], dim=1)
        found = logits_of(model, {**whole, "logits_to_keep": tokens.shape[1] + 1})
    torch.testing.assert_close(found, torch.stack(answer.logits, dim=1), atol=1e-4, rtol=0)


def test_logits_of_images_do_not_change_what_is_chosen(tiny: Any) -> None:
    inputs = tiny.inputs()
    with apply_schedule(tiny.model, SCHEDULES["last token after"]) as handle:
        kept = []
        for count in (0, 1, 12, 1000):
            logits_of(tiny.model, {**inputs, "logits_to_keep": count})
            kept.append(handle.last_prefill.stages[-1].indices)
    for indices in kept[1:]:
        assert torch.equal(indices, kept[0])
