"""Every error that this distribution raises on purpose."""

_LONGEST_VALUE, _LONGEST_TEXT = 80, 400  # characters that a message shows


def shown(value: object) -> str:
    """Spell a value as a message shows it: escaped, and cut where it is long.

    Args:
        value: What was given.

    Returns:
        One short line.
    """
    return shortened(repr(value), _LONGEST_VALUE)


def shortened(text: object, longest: int = _LONGEST_TEXT) -> str:
    """Cut a text where it is long, as other libraries' messages are that repeat values.

    Args:
        text: The text, or another library's error.
        longest: Characters that may be shown.

    Returns:
        Its beginning.
    """
    whole = str(text)
    return whole if len(whole) <= longest else f"{whole[: longest - 3]}..."


class PrunetuneError(Exception):
    """Root of all errors raised on purpose; its message says what was given, expected and to do."""


class ScheduleError(PrunetuneError):
    """A schedule, or a file that should hold one, has a wrong value."""


class ScheduleMismatchError(ScheduleError):
    """A valid schedule does not fit the model that it should be applied to."""


class UnsupportedModelError(PrunetuneError):
    """A model's family or configuration has no adapter."""


class ModelError(PrunetuneError):
    """A model, or a piece of it, cannot be loaded or used."""


class InputError(PrunetuneError):
    """A call of a pruned model has inputs that cannot be pruned."""


class DataError(PrunetuneError):
    """Benchmark data is missing or malformed."""


class BudgetError(PrunetuneError):
    """A budget cannot be read, or no schedule can meet it."""


class StudyError(PrunetuneError):
    """A study's folder or stored state cannot be created, read or continued."""


class SettingsError(PrunetuneError):
    """A command-line setting has a wrong value."""


class WorkerError(PrunetuneError):
    """Processes that measure were lost, and nothing suggests that others would fare better."""


class RuntimeExportError(PrunetuneError):
    """A schedule cannot be said in the settings of another inference runtime."""
