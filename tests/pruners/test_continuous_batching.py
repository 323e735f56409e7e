"""Continuous batching, which passes a model token ids alone."""

from __future__ import annotations

from typing import Any

import pytest

from pruners import Schedule, Stage, VisualSelfAttention, apply_schedule, dense
from pruners.errors import InputError

SCHEDULE = Schedule(stages=(Stage(layer=0, retention=0.5, scorer=VisualSelfAttention()),))


def test_continuous_batching_is_refused(tiny: Any) -> None:
    model, inputs = tiny.model, tiny.inputs()
    with apply_schedule(model, SCHEDULE):
        for start in (
            lambda: model.generate(**inputs, cache_implementation="paged", max_new_tokens=2),
            lambda: model.generate_batch(inputs["input_ids"].tolist(), max_new_tokens=2),
            lambda: model.init_continuous_batching(),
        ):
            with pytest.raises(InputError, match="answers without its images"):
                start()


def test_models_that_are_not_pruned_may_batch_continuously(tiny: Any) -> None:
    method = "init_continuous_batching"
    with apply_schedule(tiny.model, SCHEDULE):
        assert method in vars(tiny.model)
    assert method not in vars(tiny.model)
    with apply_schedule(tiny.model, dense(tiny.shape)):
        assert method not in vars(tiny.model)
