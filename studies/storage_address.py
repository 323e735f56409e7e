"""Where a storage for the trials of several studies is, and saying so without its password."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pruners.errors import SettingsError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

VARIABLE = "PRUNETUNE_STORAGE"
"""Environment variable that may hold the address, with a password if need be."""

POSTGRESQL = "postgresql+psycopg"
SQLITE = "sqlite"
_EXAMPLES = f"{POSTGRESQL}://user@host/database or sqlite:////folder/trials.db"


@dataclass(frozen=True)
class StorageAddress:
    """The address of a storage; printed, it shows no password.

    Attributes:
        url: The address as SQLAlchemy takes it, with its password if it has one.
    """

    url: str = field(repr=False)

    @property
    def is_postgresql(self) -> bool:
        """Whether it is a PostgreSQL server's, not a SQLite file's."""
        return self.url.startswith(POSTGRESQL)

    @property
    def file(self) -> Path:
        """The SQLite file."""
        assert not self.is_postgresql  # servers have no file
        return Path(_parsed(self.url).database or "")

    @property
    def is_there(self) -> bool:
        """Whether its SQLite file exists; of a server only connecting tells, so yes."""
        return self.is_postgresql or self.file.exists()

    def __str__(self) -> str:
        return _without_secrets(_parsed(self.url)).render_as_string(hide_password=True)

    def is_same_database(self, shown: str) -> bool:
        """Whether another address, as printed, may lead to the same database.

        Hosts are not compared: a server has another name from another machine.
        """
        mine, other = _parsed(self.url), _parsed(shown)
        if mine.drivername != other.drivername:
            return False
        if self.is_postgresql:
            return mine.database == other.database
        return self.file.resolve() == Path(other.database or "").resolve()

    def masked(self, text: str) -> str:
        """Take the address's secrets out of a text, such as a library's error message.

        Args:
            text: The text.

        Returns:
            Its first line, without the address and its password; what libraries add below repeats
            statements.
        """
        line = text.partition("\n")[0].replace(self.url, str(self))
        for secret in _secrets(_parsed(self.url)):
            line = line.replace(secret, "***")
        return line


def given_storage(text: str | None) -> StorageAddress | None:
    """Read the address that a user gives, by an option or in the environment.

    Args:
        text: What the option was given, which holds no password; None to look in `VARIABLE`, which
            may hold one.

    Returns:
        The address; None where there is none.

    Raises:
        SettingsError: It cannot be used; the message does not show it.
    """
    if text is not None:
        return parse_storage(text)
    found = os.environ.get(VARIABLE)
    return parse_storage(found, from_environment=True) if found else None


def parse_storage(text: str, *, from_environment: bool = False) -> StorageAddress:
    """Read the address of a storage; nothing is connected to.

    Args:
        text: A URL as SQLAlchemy and Optuna take it.
        from_environment: Whether it comes from where other users cannot read it, so that it may
            hold a password.

    Returns:
        The address; of a SQLite file, from the root.

    Raises:
        SettingsError: It is no such URL, holds a password that others can see, or psycopg is not
            installed. The message does not show the address.
    """
    from sqlalchemy.exc import ArgumentError

    source = VARIABLE if from_environment else "--storage"
    try:
        url = _parsed(text)
    except (ArgumentError, ValueError):
        raise SettingsError(f"{source} is not a URL; expected {_EXAMPLES}") from None
    if url.drivername not in (POSTGRESQL, SQLITE):
        raise SettingsError(
            f"{source} begins with {url.drivername}://, which is not supported; expected "
            f"{_EXAMPLES}"
        )
    if not url.database or url.database == ":memory:":
        raise SettingsError(f"{source} names no database; expected {_EXAMPLES}")
    if _secrets(url) and not from_environment:
        raise SettingsError(
            "--storage holds a password, which other users see in the list of processes; leave it "
            f"out, and give it in PGPASSWORD, in ~/.pgpass, or in a whole address in {VARIABLE}"
        )
    if url.drivername == POSTGRESQL and find_spec("psycopg") is None:
        raise SettingsError(
            f"{source} is on PostgreSQL, which needs the package psycopg; "
            "pip install 'prunetune[postgres]'"
        )
    if url.drivername == SQLITE and not Path(url.database).is_absolute():
        # A study notes its address, and is looked at from other working directories.
        url = url.set(database=str(Path(url.database).absolute()))
        text = url.render_as_string(hide_password=False)
    return StorageAddress(text)


def _parsed(text: str) -> URL:
    from sqlalchemy.engine import make_url

    return make_url(text)


def _secret_options(url: URL) -> list[str]:
    """Names of the query's options that hold secrets, such as libpq's ``sslpassword``."""
    return [name for name in url.query if "password" in name.lower()]


def _secrets(url: URL) -> list[str]:
    values = [url.query[name] for name in _secret_options(url)]
    texts = [text for value in values for text in ([value] if isinstance(value, str) else value)]
    return [text for text in (str(url.password or ""), *texts) if text]


def _without_secrets(url: URL) -> URL:
    return url.difference_update_query(_secret_options(url))
