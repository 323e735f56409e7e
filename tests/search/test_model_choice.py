"""What schedules are priced for, whatever is measured."""

from __future__ import annotations

import pytest

from search.analytic import AnalyticEvaluator
from search.embedded import CHECKPOINT
from search.embedded_evaluator import EmbeddedEvaluator
from search.evaluators import Evaluator
from search.model_choice import target_shape
from space import preset, shape_from_pretrained

EVALUATORS = [AnalyticEvaluator(), EmbeddedEvaluator()]


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=lambda each: each.name)
def test_the_embedded_target_is_the_embedded_model_whatever_is_measured(
    evaluator: Evaluator,
) -> None:
    found = target_shape("embedded", evaluator)
    assert found.name == "embedded"
    assert found.vision == shape_from_pretrained(CHECKPOINT).vision


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=lambda each: each.name)
def test_a_model_that_ships_with_the_program_is_a_proxy_unless_a_target_names_it(
    evaluator: Evaluator,
) -> None:
    assert target_shape(None, evaluator) == preset("llava-1.5-7b")
    assert target_shape(evaluator.name, evaluator) == evaluator.shape
