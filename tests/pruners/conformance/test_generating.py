"""Answers are those of the pruned prefill, with caches, beams and pipelines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pruners import Schedule
from pruners.scorers import DecoderScorer
from pruners.selectors import LeastDuplication
from tests.helpers.forwards import logits_of
from tests.pruners.conformance.prompts import QUESTIONS, continued, counts_of, repeated


def reads_last_tokens(schedule: Schedule) -> bool:
    """Whether answers, were they part of the prompt, would change what is chosen."""
    return any(
        isinstance(stage.scorer, DecoderScorer) or isinstance(stage.selector, LeastDuplication)
        for stage in schedule.stages
    )


def rerun(model: Any, inputs: dict[str, Tensor], steps: int) -> tuple[Tensor, list[Tensor]]:
    """Decode greedily without a cache: the whole pruned prefill at every step."""
    seen = []
    for _ in range(steps):
        logits = logits_of(model, inputs)[:, -1]
        seen.append(logits)
        suppressed = torch.tensor(model.generation_config.suppress_tokens)
        token = logits.index_fill(1, suppressed, -torch.inf).argmax(dim=-1, keepdim=True)
        inputs = continued(inputs, token)
    return inputs["input_ids"], seen


def test_conformance_generate_equals_rerunning_the_prefill(
    family: Any, positioned: Schedule, prune: Any
) -> None:
    if reads_last_tokens(positioned):
        pytest.skip("with its answers in the prompt, other tokens would be chosen")
    inputs = family.inputs(QUESTIONS)
    prune(positioned)
    expected, logits = rerun(family.model, inputs, steps=8)
    answer = family.model.generate(
        **inputs,
        max_new_tokens=8,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert torch.equal(answer.sequences, expected)
    for step, wanted in zip(answer.logits, logits, strict=True):
        torch.testing.assert_close(step, wanted, atol=1e-4, rtol=0)


def test_conformance_beam_search_equals_beam_search_without_cache(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    if reads_last_tokens(schedule):
        pytest.skip("with its answers in the prompt, other tokens would be chosen")
    inputs = family.inputs(QUESTIONS)
    prune(schedule)
    settings = {"max_new_tokens": 6, "do_sample": False, "num_beams": 3}
    cached = family.model.generate(**inputs, **settings)
    assert torch.equal(cached, family.model.generate(**inputs, **settings, use_cache=False))


def log_probability(
    model: Any, prompt: dict[str, Tensor], answers: Tensor, *, at_once: bool
) -> Tensor:
    """Sum the log-probabilities of answers to one prompt, fed through the cache: (answers,)."""
    count, length = answers.shape
    with torch.no_grad():
        output = model(**repeated(prompt, count), use_cache=True)
        logits = [output.logits[:, -1:]]
        for tokens in [answers[:, :-1]] if at_once else answers[:, :-1].chunk(length - 1, dim=1):
            output = model(input_ids=tokens, past_key_values=output.past_key_values)
            logits.append(output.logits)
    found = torch.cat(logits, dim=1).log_softmax(dim=-1)
    assert found.shape[1] == length
    return found.gather(-1, answers[..., None])[..., 0].sum(dim=-1)


def test_conformance_beams_score_what_their_answers_do(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    """Beams swap caches; an answer has the score that it has when nothing but it is decoded."""
    inputs, beams, new = family.inputs(QUESTIONS), 3, 6
    prune(schedule)
    found = family.model.generate(
        **inputs,
        max_new_tokens=new,
        do_sample=False,
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=1.5,
        output_scores=True,
        return_dict_in_generate=True,
    )
    answers = found.sequences[:, -new:].unflatten(0, (-1, beams))
    scores = found.sequences_scores.unflatten(0, (-1, beams))
    swapped = found.beam_indices[:, :new].unflatten(0, (-1, beams))
    assert (swapped[..., 1:] != swapped[..., :-1]).any()
    for row, prompt in enumerate(family.rows(QUESTIONS)):
        assert len(set(map(tuple, answers[row].tolist()))) == beams
        for at_once in (False, True):
            expected = log_probability(family.model, prompt, answers[row], at_once=at_once)
            torch.testing.assert_close(scores[row] * new**1.5, expected, atol=1e-4, rtol=0)


def test_conformance_pipelines_answer_as_generate_does(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    inputs = family.prepare(family.samples(["w1 w2 w3"]))
    settings = {"max_new_tokens": 6, "do_sample": False}
    handle = prune(schedule)
    tokens = family.model.generate(**inputs, **settings)[0, inputs["input_ids"].shape[1] :]
    generated = handle.last_prefill
    answer = family.pipeline(
        text=family.chat("w1 w2 w3"), generate_kwargs=settings, return_full_text=False
    )
    expected = family.tokenizer.decode(tokens, skip_special_tokens=True)
    assert answer[0]["generated_text"].split() == expected.split()
    record = handle.last_prefill
    assert record is not generated
    counts = counts_of(schedule, family)
    for stage, other, count in zip(record.stages, generated.stages, counts, strict=True):
        assert torch.equal(stage.indices, other.indices)
        assert stage.indices.shape == (1, count.alive)
