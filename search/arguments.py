"""Command-line arguments: one option may be followed by several values."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pruners.errors import SettingsError, shown


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


def split_list(values: Sequence[str]) -> tuple[str, ...]:
    """Split values at commas, so that ``gqa,pope`` and ``gqa pope`` mean the same."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def in_tflops(values: Sequence[str]) -> tuple[str, ...]:
    """Write budgets that are given as bare numbers with their unit.

    Args:
        values: Texts of numbers.

    Returns:
        The same in TFLOPs, as `space.parse_budget` reads them.

    Raises:
        SettingsError: A text is no number, for example one with a unit.
    """
    for value in values:
        try:
            float(value)
        except ValueError as error:
            raise SettingsError(
                f"--budget-tflops {shown(value)}: expected a number, several with spaces between, "
                "for example 1.5 2 3; a share (22%), tokens ('64 tokens') or bytes (100MB) are "
                "given with --budget"
            ) from error
    return tuple(f"{value} TFLOPs" for value in values)


def named_folders(values: Sequence[str]) -> dict[str, str]:
    """Read folders by name.

    Args:
        values: Texts of the form ``name=folder``.

    Returns:
        Folders by name.

    Raises:
        SettingsError: A text has another form, or a name is given twice.
    """
    folders: dict[str, str] = {}
    for value in values:
        name, separator, folder = value.partition("=")
        if not (name and separator and folder):
            raise SettingsError(
                f"--task-data {value}: expected a task and its folder, for example gqa=rows/gqa"
            )
        if name in folders:
            raise SettingsError(f"--task-data names {name} twice; give each task once")
        folders[name] = folder
    return folders


def _is_option(argument: str) -> bool:
    """Whether an argument starts a new option; a negative number is a (wrong) value instead."""
    return argument.startswith("-") and not argument[1:2].isdigit()
