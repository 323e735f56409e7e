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
        The point; None when the course ends before, or when the point is being measured.
    """
    known = {_key(trial.params): trial.value for trial in _finished(state)}
    try:
        point = next(course)
        while (value := known.get(_key(point))) is not None:
            point = course.send(value)
    except StopIteration:
        return None
    return None if _key(point) in _in_flight(state) else point


def next_in_turn(points: Iterable[Point], state: SearchState) -> Point | None:
    """Find the first of some points, to be measured whatever their values are, that is missing.

    Args:
        points: The points.
        state: What is known.

    Returns:
        The first point that is neither measured nor being measured; None when there is none.
    """
    known = {_key(trial.params) for trial in _finished(state)} | _in_flight(state)
    return next((point for point in points if _key(point) not in known), None)


def _key(point: Point) -> frozenset[tuple[str, Value]]:
    return frozenset(point.items())


def _in_flight(state: SearchState) -> set[frozenset[tuple[str, Value]]]:
    return {_key(each.point) for each in state.in_flight}


def _finished(state: SearchState) -> list[optuna.trial.FrozenTrial]:
    from optuna.trial import TrialState

    return state.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
