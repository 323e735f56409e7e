"""M-RoPE: positions, of prompts and of caches that are kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from pruners import apply_schedule
from pruners.errors import InputError
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel
from tests.pruners.families.tiny import Sample
from tests.pruners.qwen.schedules import GREEDY, PRUNING


@pytest.mark.parametrize("what", ["mixed", "video"])
def test_positions_are_kept_whatever_the_schedule_says(qwen: TinyModel, what: str) -> None:
    batch = getattr(qwen, what)()
    found = []
    for positions in ("compact", "original"):
        with apply_schedule(qwen.model, PRUNING.model_copy(update={"positions": positions})):
            found.append(logits_of(qwen.model, batch))
    assert torch.equal(*found)


def turn(inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """Add tokens to prompts that may have images."""
    more = tokens.shape[1]
    return {
        **inputs,
        "input_ids": torch.cat([inputs["input_ids"], tokens], dim=1),
        "attention_mask": pad(inputs["attention_mask"], (0, more), value=1),
        "mm_token_type_ids": pad(inputs["mm_token_type_ids"], (0, more)),
    }


def disturb(qwen: TinyModel, how: str) -> None:
    """Have the model remember another call's positions."""
    if how == "another image":
        logits_of(qwen.model, qwen.prepare([Sample("w9", images=qwen.mixed_samples()[3].images)]))
    elif how == "another batch":
        logits_of(qwen.model, qwen.mixed())
    elif how == "text":
        qwen.model.generate(torch.tensor([[1, 12, 13]]), **GREEDY)


@pytest.mark.parametrize("how", ["nothing", "another image", "another batch", "text"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_a_kept_cache_has_its_own_positions(
    qwen: TinyModel, how: str, masked: bool, count: int
) -> None:
    """The stock models remember the newest call alone, and fail for one token with a mask."""
    inputs = qwen.inputs(["w1 w2 w3"])
    tokens = torch.tensor([[7, 8, 9]])[:, :count]
    with apply_schedule(qwen.model, PRUNING), torch.no_grad():
        expected = qwen.model(**turn(inputs, tokens)).logits[:, -count:]
        cache = qwen.model(**inputs, use_cache=True).past_key_values
        disturb(qwen, how)
        mask = turn(inputs, tokens)["attention_mask"] if masked else None
        found = qwen.model(input_ids=tokens, attention_mask=mask, past_key_values=cache).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_kept_cache_of_padded_prompts_has_its_own_positions(qwen: TinyModel) -> None:
    inputs = qwen.mixed()
    tokens = torch.tensor([[7, 8]]).expand(4, -1)
    with apply_schedule(qwen.model, PRUNING), torch.no_grad():
        whole = turn(inputs, tokens)
        expected = qwen.model(**whole).logits[:, -2:]
        cache = qwen.model(**inputs, use_cache=True).past_key_values
        disturb(qwen, "another image")
        found = qwen.model(
            input_ids=tokens, attention_mask=whole["attention_mask"], past_key_values=cache
        ).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["nothing", "another image", "text"])
@pytest.mark.parametrize("types", [True, False])
def test_a_second_turn_continues_whatever_came_between(
    qwen: TinyModel, how: str, types: bool
) -> None:
    inputs = qwen.inputs(["w1 w2 w3"])
    question = torch.tensor([[5, 12, 13, 6]])
    with apply_schedule(qwen.model, PRUNING):
        first = qwen.model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
        answer = first.sequences[:, inputs["input_ids"].shape[1] :]
        whole = turn(inputs, torch.cat([answer, question], dim=1))
        expected = qwen.model.generate(**whole, **GREEDY)
        disturb(qwen, how)
        given = {"input_ids", "attention_mask"} | ({"mm_token_type_ids"} if types else set())
        second = qwen.model.generate(
            **{name: whole[name] for name in given},
            past_key_values=first.past_key_values,
            **GREEDY,
        )
    assert torch.equal(second, expected)


def test_a_kept_cache_of_another_batch_size_is_refused_by_its_size(qwen: TinyModel) -> None:
    """The model remembers as many positions as the batch had sequences."""
    inputs = qwen.mixed()
    with apply_schedule(qwen.model, PRUNING):
        first = qwen.model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
        whole = turn(inputs, first.sequences[:, inputs["input_ids"].shape[1] :])
        given = {name: whole[name] for name in ("input_ids", "attention_mask")}
        with pytest.raises(InputError, match="filled by 4 sequences, but this call has 8"):
            qwen.model.generate(
                **given, past_key_values=first.past_key_values, num_beams=2, **GREEDY
            )


def test_given_positions_are_respected(qwen: TinyModel) -> None:
    inputs = qwen.inputs(["w1 w2 w3"])
    with apply_schedule(qwen.model, PRUNING), torch.no_grad():
        found = []
        for shift in (0, 5):
            cache = qwen.model(**inputs, use_cache=True).past_key_values
            positions = torch.full((3, 1, 1), 20 + shift)
            step = {"input_ids": torch.tensor([[7]]), "position_ids": positions}
            found.append(qwen.model(**step, past_key_values=cache).logits)
    assert (found[0] - found[1]).abs().max() > 1e-3
