"""Every error that this distribution raises on purpose."""


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
