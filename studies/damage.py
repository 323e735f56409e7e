"""Stored trials whose values are damaged, in files that are otherwise sound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pruners.errors import StudyError, shortened

_WRONG_VALUES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


@contextmanager
def naming_damage(where: str) -> Iterator[None]:
    """Say in plain words that trials cannot be read.

    Optuna trusts what it stored: over a value that something else wrote, it raises whatever comes
    of using it.

    Args:
        where: What messages call the storage of the trials.

    Yields:
        Nothing.

    Raises:
        StudyError: A value is wrong.
        OperationalError: The storage is out of reach or busy, which says nothing of its values; or
            `StorageInternalError` for that reason.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    try:
        yield
    except (*_WRONG_VALUES, SQLAlchemyError, StorageInternalError) as error:
        if isinstance(error.__cause__ or error, OperationalError):
            raise
        reason = shortened(str(error).partition("\n")[0] or type(error).__name__)
        raise StudyError(
            f"{where} holds trials that cannot be read ({reason}); restore it from a copy, or "
            "choose another study folder"
        ) from error
