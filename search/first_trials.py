"""The first trials of a search: published schedules, and the points nearest to others."""

from __future__ import annotations

from pruners.methods import METHODS
from pruners.schedule import Schedule
from pruners.shape import Shape
from search.baselines import MISSION_METHODS, compared_methods, published_at
from space.coding import SearchSpace
from space.parameters import Value
from space.working import working_stages
from studies.records import NEAR

_ROUNDING = 1
"""Tokens by which a stage may differ from the published one and still be called it."""


def first_points(space: SearchSpace) -> dict[str, dict[str, Value]]:
    """List the points that a search of a space begins with.

    A point bears a method's name where it decodes to the method's own schedule (`is_same`). Where
    only layers and the kinds of scorers are the method's (`is_near`), it is called near to it;
    where they are not, it is no first trial. The two methods that the mission's space is made of
    always are one, also where a space has fewer stages than they do.

    Args:
        space: The search space.

    Returns:
        Points by origin, such as ``"vispruner"`` or ``"near visiondrop"``. Controls, and methods
        whose tokens leave inside the vision tower, where the space has no stage, are not among
        them.
    """
    methods = [name for name in compared_methods(space) if not METHODS[name].control]
    points = {}
    for name, schedule in published_at(space.budget, space.shape, methods).items():
        if any(stage.in_tower for stage in schedule.stages):
            continue
        point = space.encode(schedule)
        decoded = space.decode(point)
        if is_same(decoded, schedule, space.shape):
            points[name] = point
        elif name in MISSION_METHODS or is_near(decoded, schedule, space.shape):
            points[f"{NEAR}{name}"] = point
    return points


def is_same(decoded: Schedule, schedule: Schedule, shape: Shape) -> bool:
    """Say whether a point stands for a schedule itself.

    Args:
        decoded: What the point decodes to.
        schedule: The schedule that the point is nearest to.
        shape: Shape that the layers of both refer to.

    Returns:
        Whether both have the same position handling and the same stages in everything (layers,
        scorers, selectors, features, merge rules, contextual shares, with all their options), but
        for one token per stage, by which whole tokens may round.
    """
    mine, theirs = working_stages(decoded, shape), working_stages(schedule, shape)
    return (
        decoded.positions == schedule.positions
        and len(mine) == len(theirs)
        and all(
            one.stage.model_copy(update={"retention": other.stage.retention}) == other.stage
            and abs(one.alive - other.alive) <= _ROUNDING
            for one, other in zip(mine, theirs, strict=True)
        )
    )


def is_near(decoded: Schedule, schedule: Schedule, shape: Shape) -> bool:
    """Say whether a point drops tokens at the layers of a schedule, by scorers of the same kinds.

    Args:
        decoded: What the point decodes to.
        schedule: The schedule that the point is nearest to.
        shape: Shape that the layers of both refer to.

    Returns:
        Whether it does; options of the scorers, selectors, features and merging may differ.
    """
    mine, theirs = (
        [(working.layer, working.stage.scorer.kind) for working in working_stages(each, shape)]
        for each in (decoded, schedule)
    )
    return mine == theirs
