"""Caches that a pruned call has filled, and what is done with them between and after calls."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import Fp8QuantizedLayer
from transformers.generation.configuration_utils import STATIC_CACHE_IMPLEMENTATIONS

from pruners import Schedule, Stage, VisualSelfAttention, apply_schedule, dense
from pruners.errors import InputError
from pruners.scorers import KeyNorm, LastTokenAttention
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel
from tests.pruners.two_visual_stages import FIRST, GREEDY, QUESTION, SCHEDULE

OTHER = Schedule(stages=(Stage(layer=2, retention=0.4, scorer=VisualSelfAttention()),))
KEEPING_ALL = Schedule(stages=(FIRST.model_copy(update={"retention": 1.0}),))
REFUSAL = "filled under a schedule that is not applied any more.* or start with a new cache"


def continued(inputs: dict[str, Tensor], tokens: Tensor, *, cropped: int = 0) -> dict[str, Tensor]:
    """Put tokens in the place of the last ones of the prompts."""
    kept = inputs["input_ids"].shape[1] - cropped
    tokens = tokens.expand(len(inputs["input_ids"]), -1)
    longer = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": torch.zeros_like(tokens),
    }
    return {
        name: torch.cat([values[:, :kept], longer[name]], dim=1) if name in longer else values
        for name, values in inputs.items()
    }


def filled(family: TinyModel, inputs: dict[str, Tensor], schedule: Schedule = SCHEDULE) -> Any:
    """Fill a cache whose end can be cropped off, layers that slide included."""
    cache = DynamicCache(config=family.model.config.get_text_config())
    cache.activate_past_recording()
    with apply_schedule(family.model, schedule), torch.no_grad():
        return family.model(**inputs, past_key_values=cache).past_key_values


@pytest.mark.parametrize("kept", [lambda cache: cache, copy.deepcopy, copy.copy])
def test_a_pruned_cache_is_refused_without_a_schedule(
    family: TinyModel, kept: Callable[[Any], Any]
) -> None:
    model, inputs = family.model, family.inputs()
    step = {"input_ids": QUESTION, "past_key_values": kept(filled(family, inputs))}
    with pytest.raises(InputError, match=REFUSAL):
        model(**step)
    with apply_schedule(model, dense(family.shape)), pytest.raises(InputError, match=REFUSAL):
        model(**step)
    with apply_schedule(model, SCHEDULE):
        expected = logits_of(model, continued(inputs, QUESTION))[:, -4:]
    # The cache knows what it holds, whatever schedule is applied when it is continued.
    with apply_schedule(model, OTHER):
        torch.testing.assert_close(logits_of(model, step), expected, atol=1e-4, rtol=0)
    with pytest.raises(InputError, match=REFUSAL):
        model(**step)


def test_a_cache_that_nothing_was_dropped_from_is_the_models_own(family: TinyModel) -> None:
    inputs = family.inputs()
    expected = family.model(**inputs, use_cache=True).past_key_values
    logits = [
        logits_of(family.model, {"input_ids": QUESTION, "past_key_values": cache})
        for cache in (filled(family, inputs, KEEPING_ALL), expected)
    ]
    assert torch.equal(*logits)


def test_an_emptied_cache_is_unlocked(tiny: Any) -> None:
    cache = filled(tiny, tiny.inputs())
    expected = logits_of(tiny.model, {"input_ids": QUESTION})
    cache.reset()
    with apply_schedule(tiny.model, SCHEDULE):
        found = logits_of(tiny.model, {"input_ids": QUESTION, "past_key_values": cache})
    assert torch.equal(found, expected)
    logits_of(tiny.model, {"input_ids": QUESTION, "past_key_values": cache})


def test_an_error_in_a_step_leaves_the_cache_locked(tiny: Any) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    cache = filled(tiny, tiny.inputs())
    hook = tiny.decoder_layers[0].register_forward_pre_hook(fail)
    with apply_schedule(tiny.model, SCHEDULE), pytest.raises(RuntimeError, match="out of memory"):
        tiny.model(input_ids=QUESTION, past_key_values=cache)
    hook.remove()
    with pytest.raises(InputError, match=REFUSAL):
        tiny.model(input_ids=QUESTION, past_key_values=cache)


def test_nothing_refers_back_to_a_locked_cache(tiny: Any) -> None:
    """Else its memory would wait for the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        alive = weakref.ref(filled(tiny, tiny.inputs()))
        assert alive() is None
    finally:
        gc.enable()


class AtThird(StoppingCriteria):
    """Does something after the third token, and never stops."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._calls = 0

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self._calls += 1
        if self._calls == 3:
            self._action()
        return torch.zeros(len(input_ids), dtype=torch.bool)


def test_removing_the_schedule_ends_a_generation_under_way(family: TinyModel) -> None:
    handle = apply_schedule(family.model, SCHEDULE)
    with pytest.raises(InputError, match=REFUSAL):
        family.model.generate(
            **family.inputs(),
            **GREEDY,
            stopping_criteria=StoppingCriteriaList([AtThird(handle.remove)]),
        )


# Prompts whose end has been cropped off, to ask another question of the same images.


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("schedule", [SCHEDULE, OTHER])
def test_another_question_may_take_the_first_ones_place(
    family: TinyModel, schedule: Schedule, count: int
) -> None:
    model, tokens = family.model, torch.arange(9, 9 + count)[None]
    for inputs, cropped in (
        (family.inputs(["w1 w2 w3 w4 w5 w6", "w1 w2 w3"]), 3),
        (family.mixed(), 2),
    ):
        whole = continued(inputs, tokens, cropped=cropped)
        with apply_schedule(model, schedule):
            expected = logits_of(model, whole)[:, -count:]
        cache = filled(family, inputs, schedule)
        cache.crop(-cropped)
        with apply_schedule(model, schedule):
            step = {"input_ids": tokens.expand(len(inputs["input_ids"]), -1)}
            mask = whole["attention_mask"]
            found = logits_of(model, {**step, "attention_mask": mask, "past_key_values": cache})
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("schedule", [SCHEDULE, OTHER])
def test_caches_cropped_within_an_image_are_refused(family: TinyModel, schedule: Schedule) -> None:
    cache = filled(family, family.inputs(["w1"]), schedule)
    cache.crop(-8)
    with (
        apply_schedule(family.model, schedule),
        pytest.raises(InputError, match="last 8 tokens, some of them of images"),
    ):
        family.model(input_ids=QUESTION, past_key_values=cache)


# A second turn in chunks.


@pytest.mark.parametrize(
    ("schedule", "size", "refused"),
    [
        *((SCHEDULE, 1, True), (SCHEDULE, 2, True), (SCHEDULE, 200, False)),
        *((OTHER, 1, False), (OTHER, 2, False), (OTHER, 200, False)),
    ],
)
def test_a_second_turn_in_chunks_is_right_or_refused(
    family: TinyModel, schedule: Schedule, size: int, refused: bool
) -> None:
    """`generate` counts chunks from what the first layer holds, and passes old tokens again."""
    model, inputs = family.model, family.inputs(["w1 w2 w3 w1 w2"])

    def second_turn(**settings: Any) -> Tensor:
        first = model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
        turn = torch.cat([first.sequences, QUESTION], dim=1)
        given = {"attention_mask": torch.ones_like(turn), "past_key_values": first.past_key_values}
        answer: Tensor = model.generate(turn, **given, **GREEDY, **settings)
        return answer

    with apply_schedule(model, schedule):
        if refused:
            with pytest.raises(InputError, match="no prefill_chunk_size"):
                second_turn(prefill_chunk_size=size)
        else:
            assert torch.equal(second_turn(prefill_chunk_size=size), second_turn())


# Quantised caches.


@pytest.mark.parametrize(
    "scorer", [LastTokenAttention(reads="previous"), KeyNorm(), VisualSelfAttention()]
)
def test_a_quantised_cache_changes_nothing_but_by_rounding(
    family: TinyModel, scorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps no keys as they were for the stage that reads the layer before."""
    if "mistral" in family.model.config.text_config.model_type:
        pytest.skip("transformers has no quantised cache for layers that slide")
    monkeypatch.setattr(
        Fp8QuantizedLayer, "_quantize", lambda self, states, scale=None: (states, torch.ones(1))
    )
    monkeypatch.setattr(Fp8QuantizedLayer, "_dequantize", lambda self, quantised: quantised[0])
    model, settings = family.model, {"cache_config": {"backend": "fp8"}}
    schedule = Schedule(stages=(Stage(layer=2, retention=0.4, scorer=scorer),))
    with apply_schedule(model, schedule):
        for inputs in (family.inputs(), family.mixed()):
            expected = model.generate(**inputs, **GREEDY)
            found = model.generate(**inputs, **GREEDY, **settings, cache_implementation="quantized")
            assert torch.equal(found, expected)


def test_generating_with_a_static_cache_is_refused(tiny: Any) -> None:
    inputs = tiny.inputs()
    with apply_schedule(tiny.model, SCHEDULE):
        for name in STATIC_CACHE_IMPLEMENTATIONS:
            with pytest.raises(InputError, match="StaticCache has one length for all layers"):
                tiny.model.generate(**inputs, **GREEDY, cache_implementation=name)
