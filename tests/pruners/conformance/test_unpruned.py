"""Where nothing may be dropped, all is the model's own, to the bit."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from pruners import Schedule
from tests.helpers.forwards import logits_of
from tests.pruners.conformance.prompts import QUESTIONS
from tests.pruners.families import TinyModel


class Dense(NamedTuple):
    """What a family's model gives that no schedule is applied to: logits, and tokens generated."""

    logits: Tensor
    answer: Tensor


@pytest.fixture(scope="session")
def dense(family: TinyModel) -> Dense:
    inputs = family.inputs(QUESTIONS)
    answer = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return Dense(logits_of(family.model, inputs), answer)


def test_conformance_full_retention_changes_nothing(
    family: Any, schedule: Schedule, prune: Any, dense: Dense
) -> None:
    inputs = family.inputs(QUESTIONS)
    kept = [stage.model_copy(update={"retention": 1.0}) for stage in schedule.stages]
    prune(schedule.model_copy(update={"stages": tuple(kept)}))
    assert torch.equal(logits_of(family.model, inputs), dense.logits)
    answer = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(answer, dense.answer)


def hooks_of(model: Any) -> dict[str, Any]:
    return {
        f"{name}.{attribute}": copy.copy(value)
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if "hook" in attribute
    }


def test_conformance_remove_restores_the_model(
    family: Any, schedule: Schedule, prune: Any, dense: Dense
) -> None:
    inputs = family.inputs(QUESTIONS)
    attributes, hooks = set(vars(family.model)), hooks_of(family.model)
    state = copy.deepcopy(family.model.state_dict())
    handle = prune(schedule)
    pruned = logits_of(family.model, inputs)
    assert pruned.shape[1] < dense.logits.shape[1]
    handle.remove()
    assert set(vars(family.model)) == attributes
    assert hooks_of(family.model) == hooks
    assert all(torch.equal(value, state[name]) for name, value in family.model.state_dict().items())
    assert torch.equal(logits_of(family.model, inputs), dense.logits)


def text_alone(family: TinyModel) -> dict[str, Tensor]:
    tokens = family.tokenizer(["USER: w1 w2 ASSISTANT:"], return_tensors="pt")
    return {name: tokens[name] for name in ("input_ids", "attention_mask")}


@pytest.fixture(scope="session")
def dense_text_alone(family: TinyModel) -> Dense:
    inputs = text_alone(family)
    answer = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return Dense(logits_of(family.model, inputs), answer)


def test_conformance_text_alone_passes_through(
    family: Any, schedule: Schedule, prune: Any, dense_text_alone: Dense
) -> None:
    inputs = text_alone(family)
    prune(schedule)
    assert torch.equal(logits_of(family.model, inputs), dense_text_alone.logits)
    answer = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(answer, dense_text_alone.answer)
