"""Published pruning methods as schedules."""

from __future__ import annotations

from pruners.errors import ScheduleError, UnsupportedModelError
from pruners.methods import METHODS
from pruners.schedule import Provenance, Schedule
from pruners.shape import LLAVA_1_5_7B, Shape


def dense(shape: Shape | None = None) -> Schedule:
    """Return the schedule that prunes nothing.

    Args:
        shape: The model's shape; LLaVA-1.5-7B by default.

    Returns:
        A schedule without stages.
    """
    return Schedule(shape=shape or LLAVA_1_5_7B, provenance=Provenance(origin="dense"))


def published(name: str, tokens: int | None = None, shape: Shape | None = None) -> Schedule:
    """Return a published method as a schedule.

    Args:
        name: A name of `pruners.methods.METHODS`, such as ``"visiondrop"``, ``"desap"`` or
            ``"fastv"``, one of the controls ``"random"`` and ``"downsampling"``, or ``"dense"``.
        tokens: Visual tokens of a sample, over all of its tiles and as a mean over decoder layers;
            any number that the method can reach. Of several tiles, each keeps whole tokens.
            The papers report 192, 128 and 64, VisionDrop also 32. SparseVLM's settings 192, 128,
            96 and 64 of 576 are its tables, whose means are higher than their names; a smaller
            image has the largest grid within the number. Not used by ``"dense"``.
        shape: The shape whose depth and number of visual tokens the schedule is made for;
            LLaVA-1.5-7B by default.

    Returns:
        The schedule, not priced. Its defaults, and where they come from, are in the docstring of
        the method's function in `pruners.methods`.

    Raises:
        ScheduleError: The name is unknown, or the number of tokens is missing or out of range.
        UnsupportedModelError: The shape lacks what the method needs
            (`pruners.methods.supported_methods` lists those that it can run).
    """
    shape = shape or LLAVA_1_5_7B
    if name == "dense":
        return dense(shape)
    if name not in METHODS:
        known = ", ".join(sorted([*METHODS, "dense"]))
        raise ScheduleError(f"no published method is called {name!r}; known are: {known}")
    method = METHODS[name]
    if not method.needs.met_by(shape):
        raise UnsupportedModelError(
            f"{method.label} needs {method.needs.value}; that is not so of {shape.name!r}, a model "
            f"of family {shape.family!r}. Use another method, such as {method.instead!r}"
        )
    if tokens is None:
        raise ScheduleError(f"published({name!r}) needs tokens, the mean over decoder layers")
    if not 0 < tokens <= shape.visual_tokens:
        raise ScheduleError(
            f"tokens is {tokens}, but {shape.name} has between 1 and {shape.visual_tokens}"
        )
    schedule = method.schedule(tokens, shape)
    return schedule.model_copy(
        update={"provenance": Provenance(origin=f"published: {name}, {tokens} tokens")}
    )
