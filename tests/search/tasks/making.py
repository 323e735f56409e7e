"""The type of what makes evaluators; the fixture is in the conftest, which needs no extra."""

from __future__ import annotations

from collections.abc import Callable

from search.tasks.evaluator import TaskEvaluator

Make = Callable[..., TaskEvaluator]
