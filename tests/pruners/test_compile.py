"""Models under torch.compile: what is compiled gives what is not compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pruners import apply_schedule, published
from tests.helpers.forwards import logits_of

QUESTIONS = ("w1 w2 w3", "w4")
TOKENS = 8
METHODS = ("visiondrop", "sparsevlm", "vscan", "flowcut")
"""Between them they read all that hooks read: tower, layer before, text, inside the tower."""


def _whole(model: Any, backend: str) -> Any:
    return torch.compile(model, backend=backend)


def _forward(model: Any, backend: str) -> Any:
    model.forward = torch.compile(model.forward, backend=backend)
    return model


def _in_place(model: Any, backend: str) -> Any:
    model.compile(backend=backend)
    return model


WAYS: dict[str, Callable[[Any, str], Any]] = {
    "torch.compile(model)": _whole,
    "model.forward = torch.compile(model.forward)": _forward,
    "model.compile()": _in_place,
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def check(tiny: Any, method: str, way: str, backend: str) -> None:
    inputs = tiny.inputs(QUESTIONS)
    model = copy.deepcopy(tiny.model)
    handle = apply_schedule(
        model,
        published(method, TOKENS, tiny.shape),
        processor=tiny.tokenizer,
        text_tower=tiny.text_tower,
    )
    settings = {"max_new_tokens": 3, "do_sample": False}
    expected = logits_of(model, inputs)
    kept = [stage.indices for stage in handle.last_prefill.stages]
    answer = model.generate(**inputs, **settings)
    compiled = WAYS[way](model, backend)
    for _ in range(2):  # the second call runs what the first has compiled
        torch.testing.assert_close(logits_of(compiled, inputs), expected, atol=1e-4, rtol=0)
        found = [stage.indices for stage in handle.last_prefill.stages]
        assert all(torch.equal(one, other) for one, other in zip(found, kept, strict=True))
        assert torch.equal(compiled.generate(**inputs, **settings), answer)


def test_compiled_models_give_the_same(tiny: Any) -> None:
    check(tiny, "desap", "torch.compile(model)", "eager")


@pytest.mark.slow
def test_compiled_models_of_every_family_give_the_same(family: Any) -> None:
    check(family, "visiondrop", "torch.compile(model)", "eager")


@pytest.mark.slow
def test_a_schedule_can_be_applied_to_and_removed_from_a_compiled_model(tiny: Any) -> None:
    inputs, model = tiny.inputs(QUESTIONS), copy.deepcopy(tiny.model)
    dense = logits_of(model, inputs)
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(logits_of(compiled, inputs), dense)
    schedule = published("fastv", TOKENS, tiny.shape)
    with apply_schedule(model, schedule):
        pruned = logits_of(compiled, inputs)
    with apply_schedule(tiny.model, schedule):
        torch.testing.assert_close(pruned, logits_of(tiny.model, inputs), atol=1e-5, rtol=0)
    assert torch.equal(logits_of(compiled, inputs), dense)


@pytest.mark.slow
@pytest.mark.parametrize("way", list(WAYS)[1:])
def test_compiled_in_other_ways_models_give_the_same(tiny: Any, way: str) -> None:
    check(tiny, "desap", way, "eager")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_methods_of_every_kind_compile(tiny: Any, method: str) -> None:
    check(tiny, method, "torch.compile(model)", "aot_eager")


@pytest.mark.slow
def test_generated_code_gives_the_same(tiny: Any) -> None:
    check(tiny, "visiondrop", "torch.compile(model)", "inductor")
