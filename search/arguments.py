"""Command-line arguments: one option may be followed by several values."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def repeat_options(arguments: Sequence[str], options: Collection[str]) -> list[str]:
    """Name an option again before each of its values.

    Typer takes one value per option, so ``--budget-tflops 1 2 4`` has to become
    ``--budget-tflops 1 --budget-tflops 2 --budget-tflops 4``.

    Args:
        arguments: Command-line arguments without the program's name.
        options: Options that take several values, for example ``{"--budget-tflops"}``.

    Returns:
        The arguments with such options repeated; all others are left as they are.
    """
    repeated: list[str] = []
    option: str | None = None  # the option whose values are being read
    values = 0
    for argument in arguments:
        if option is not None and not _is_option(argument):
            repeated += [option, argument]
            values += 1
            continue
        if option is not None and values == 0:
            repeated.append(option)  # without a value: typer has the message for that
        option, values = (argument, 0) if argument in options else (None, 0)
        if option is None:
            repeated.append(argument)
    if option is not None and values == 0:
        repeated.append(option)
    return repeated


def _is_option(argument: str) -> bool:
    """Whether an argument starts a new option; a negative number is a (wrong) value instead."""
    return argument.startswith("-") and not argument[1:2].isdigit()
