"""Strategies written as a course of questions and answers, replayed from what is known.

A strategy keeps nothing between its proposals, so that a continued study goes on as it would have.
One that is a fixed procedure, such as a bisection, is written as a generator here: it yields the
points that it needs a value of and is sent the values. It is run anew for every proposal, with the
study's values, up to the first point that has none.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING

from search.strategies.base import SearchState
from space.parameters import Value

if TYPE_CHECKING:
    import optuna

Point = Mapping[str, Value]

Course = Generator[Point, float, None]
"""Yields points to measure; is sent the value of each."""


def next_point(course: Course, state: SearchState) -> Point | None:
    """Run a course up to the first point whose value is not known.

    Args:
        course: The course, not begun.
        state: What is known.

    Returns:
        The point; None when the course ends before.
    """
    known = {_key(trial.params): trial.value for trial in _finished(state)}
    try:
        point = next(course)
        while (value := known.get(_key(point))) is not None:
            point = course.send(value)
    except StopIteration:
        return None
    return point


def in_turn(points: Iterable[Point]) -> Course:
    """Make the course that measures some points whatever their values are."""
    # Not `yield from`: a plain iterator cannot be sent values.
    for point in points:  # noqa: UP028
        yield point


def _key(point: Point) -> frozenset[tuple[str, Value]]:
    return frozenset(point.items())


def _finished(state: SearchState) -> list[optuna.trial.FrozenTrial]:
    from optuna.trial import TrialState

    return state.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
