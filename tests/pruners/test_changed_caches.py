"""Pruned caches that their owner empties, reorders, repeats or picks samples of between calls."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from pruners import Schedule, Stage, apply_schedule
from pruners.scorers import LastTokenAttention
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel
from tests.pruners.two_visual_stages import GREEDY, QUESTION, SCHEDULE

CHANGES: dict[str, tuple[Callable[[Cache], None], list[int]]] = {
    "reordered": (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 3, 1])), [2, 0, 3, 1]),
    "picked": (lambda cache: cache.batch_select_indices(torch.tensor([3, 1])), [3, 1]),
    "masked": (lambda cache: cache.batch_select_indices(torch.tensor([0, 1, 1, 0]).bool()), [1, 2]),
    "repeated": (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2, 3, 3]),
}
"""What is done to a cache of four samples, and which of them it holds then."""


def filled(family: TinyModel, inputs: dict[str, Tensor]) -> Any:
    with torch.no_grad():
        return family.model(**inputs, use_cache=True).past_key_values


def asked(model: Any, cache: Any, mask: Tensor) -> Tensor:
    """Ask the samples of a cache one more question; their padding is in the mask."""
    rows = len(mask)
    longer = torch.cat([mask, torch.ones(rows, QUESTION.shape[1], dtype=mask.dtype)], dim=1)
    step = {"input_ids": QUESTION.expand(rows, -1), "attention_mask": longer}
    return logits_of(model, {**step, "past_key_values": cache})


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_what_is_known_of_samples_goes_where_they_go(
    family: TinyModel, change: str, padding: str
) -> None:
    model, inputs = family.model, family.mixed(padding)
    act, rows = CHANGES[change]
    mask = inputs["attention_mask"]
    with apply_schedule(model, SCHEDULE):
        cache = filled(family, inputs)
        other = copy.deepcopy(cache)
        expected = asked(model, cache, mask)
        act(other)
        found = asked(model, other, mask[rows])
        torch.testing.assert_close(found, expected[rows], atol=1e-4, rtol=0)


def test_a_cache_can_be_pickled(tiny: Any) -> None:
    inputs = tiny.mixed()
    with apply_schedule(tiny.model, SCHEDULE):
        cache = filled(tiny, inputs)
        loaded = pickle.loads(pickle.dumps(cache))  # noqa: S301
        first, second = (
            asked(tiny.model, each, inputs["attention_mask"]) for each in (cache, loaded)
        )
    assert torch.equal(first, second)


def test_a_changed_cache_is_still_of_its_own_class(tiny: Any) -> None:
    with apply_schedule(tiny.model, SCHEDULE):
        cache = filled(tiny, tiny.inputs())
    assert isinstance(cache, DynamicCache)
    cache.reset()
    with apply_schedule(tiny.model, SCHEDULE):
        logits_of(tiny.model, {"input_ids": QUESTION, "past_key_values": cache})
    assert type(cache) is DynamicCache


def test_an_emptied_cache_takes_the_next_images(family: TinyModel) -> None:
    model = family.model
    emptied = DynamicCache(config=model.config.get_text_config())
    with apply_schedule(model, SCHEDULE):
        for inputs in (family.inputs(), family.inputs(["w5 w6"], seed=3), family.mixed()):
            expected = model.generate(**inputs, **GREEDY)
            assert torch.equal(
                model.generate(**inputs, **GREEDY, past_key_values=emptied), expected
            )
            emptied.reset()


class SentAway(DynamicLayer):
    """Keeps its keys and values on another device between calls, as offloaded caches do."""

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(*args, **kwargs)
        self.keys, self.values = keys.to("meta"), values.to("meta")
        return keys, values


def test_keys_that_are_kept_on_another_device_are_not_read(family: TinyModel) -> None:
    scorer = LastTokenAttention(reads="previous")
    schedule = Schedule(stages=(Stage(layer=2, retention=0.4, scorer=scorer),))
    for inputs in (family.inputs(), family.mixed()):
        with apply_schedule(family.model, schedule):
            expected = logits_of(family.model, {**inputs, "use_cache": False})
            cache = Cache(layer_class_to_replicate=SentAway)
            found = logits_of(family.model, {**inputs, "past_key_values": cache})
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
