"""As many tokens are left as the schedule says, none of them twice."""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from typing import Any

import torch

from pruners import Schedule
from tests.helpers.forwards import logits_of
from tests.pruners.conformance.prompts import QUESTIONS, counts_of


def test_conformance_token_counts_are_the_schedules(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS)
    handle = prune(schedule)
    logits = logits_of(family.model, inputs)
    counts = counts_of(schedule, family)
    text = inputs["input_ids"].shape[1] - family.visual_tokens
    assert logits.shape[1] == text + counts[-1].alive
    records = handle.last_prefill.stages
    assert [record.layer for record in records] == [count.layer for count in counts]
    for record, count in zip(records, counts, strict=True):
        assert record.indices.shape == (len(QUESTIONS), count.alive)
        assert record.positions.shape == (len(QUESTIONS), text + count.alive)
        for indices in record.indices.tolist():
            assert len(set(indices)) == count.alive
            assert all(-family.visual_tokens <= index < family.visual_tokens for index in indices)
    for earlier, later in pairwise(records):
        for before, after in zip(earlier.indices.tolist(), later.indices.tolist(), strict=True):
            assert set(after) <= set(before)


def test_conformance_cache_holds_what_is_alive(family: Any, schedule: Schedule, prune: Any) -> None:
    inputs = family.inputs(QUESTIONS)
    prune(schedule)
    with torch.no_grad():
        cache = family.model(**inputs, use_cache=True).past_key_values
    text = inputs["input_ids"].shape[1] - family.visual_tokens
    layers = len(cache)
    alive = {count.layer: count.alive for count in counts_of(schedule, family)}
    expected, left = [], family.visual_tokens
    for layer in range(layers):
        left = alive.get(layer, left)
        expected.append(text + left)
    assert [cache.get_seq_length(layer) for layer in range(layers)] == expected


def test_conformance_one_token_is_enough(family: Any, schedule: Schedule, prune: Any) -> None:
    one = [
        stage.model_copy(update={"retention": 1 / family.visual_tokens, "contextual": 0.0})
        for stage in schedule.stages[:1]
    ]
    inputs = family.inputs(QUESTIONS)
    handle = prune(schedule.model_copy(update={"stages": tuple(one)}))
    assert logits_of(family.model, inputs).isfinite().all()
    tiles = len(family.shape.tokens_per_tile) if one[0].layer == 0 and one[0].scope == "tile" else 1
    assert handle.last_prefill.stages[0].indices.shape == (len(QUESTIONS), tiles)


def test_conformance_tied_tokens_are_chosen_once(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    """Patches that are all the same: a blank image, and no learnt embedding of positions."""
    model = copy.deepcopy(family.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if re.search(r"(vision|visual|image)\w*\..*pos(ition)?_embed", name):
                parameter.zero_()
    inputs = {
        name: torch.zeros_like(value) if name.startswith("pixel_values") else value
        for name, value in family.inputs(QUESTIONS).items()
    }
    handle = prune(schedule, model)
    assert logits_of(model, inputs).isfinite().all()
    counts = counts_of(schedule, family)
    for record, count in zip(handle.last_prefill.stages, counts, strict=True):
        for indices in record.indices.tolist():
            assert len(set(indices)) == count.alive
