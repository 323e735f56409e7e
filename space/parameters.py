"""The dimensions of a search space: numbers in a range, and choices among names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pruners.errors import ScheduleError

Value = float | str
"""A coordinate of a point: a number, or the name of an option."""


class Parameter(NamedTuple):
    """A real number in [low, high]."""

    name: str
    low: float
    high: float

    def accepts(self, value: Value) -> bool:
        """Whether a value is a number in the range; NaN is not."""
        return isinstance(value, float | int) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a number in [{self.low:g}, {self.high:g}]"


class Choice(NamedTuple):
    """One of some options, by name."""

    name: str
    options: tuple[str, ...]

    def accepts(self, value: Value) -> bool:
        """Whether a value is one of the options."""
        return value in self.options

    def __str__(self) -> str:
        return f"one of {', '.join(self.options)}"


Dimension = Parameter | Choice


def check_point(point: Mapping[str, Value], dimensions: Sequence[Dimension]) -> None:
    """Refuse what is no point of a space.

    Args:
        point: A value per dimension.
        dimensions: The space's dimensions.

    Raises:
        ScheduleError: A value is missing, unknown or out of range.
    """
    expected = {dimension.name: dimension for dimension in dimensions}
    if point.keys() != expected.keys():
        raise ScheduleError(
            f"a point of this space has the values {', '.join(expected)}; "
            f"given were {', '.join(point) or 'none'}"
        )
    for name, value in point.items():
        if not expected[name].accepts(value):
            raise ScheduleError(f"{name} is {value}; expected {expected[name]}")


def number(point: Mapping[str, Value], name: str) -> float:
    """Read a number off a checked point."""
    value = point[name]
    assert not isinstance(value, str)
    return value


def option(point: Mapping[str, Value], name: str) -> str:
    """Read a choice off a checked point."""
    value = point[name]
    assert isinstance(value, str)
    return value
