from __future__ import annotations

from pathlib import Path

import pytest

from pruners.errors import SettingsError
from studies.storage_address import VARIABLE, StorageAddress, given_storage, parse_storage

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql+psycopg://me:{SECRET}@host:5432/studies",
        f"postgresql+psycopg://me@host/studies?password={SECRET}",
        f"postgresql+psycopg://me@host/studies?sslmode=require&sslpassword={SECRET}",
    ],
)
def test_a_password_is_taken_from_the_environment_only_and_never_shown(text: str) -> None:
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with pytest.raises(SettingsError, match="holds a password") as caught:
        parse_storage(text)
    assert SECRET not in str(caught.value)
    address = parse_storage(text, from_environment=True)
    assert address.url == text
    assert SECRET not in f"{address} {address!r} {[address]}"
    assert "host" in str(address)
    assert "studies" in str(address)
    error = f"connection to {text} failed: password {SECRET} is wrong\n[SQL: {text}]"
    assert SECRET not in address.masked(error)
    assert address.masked(error).startswith("connection to postgresql+psycopg://me")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SECRET, "is not a URL"),
        (f"postgresql+psycopg//me:{SECRET}@host", "is not a URL"),
        (f"postgresql+psycopg://me:{SECRET}@host:port/studies", "is not a URL"),
        (f"postgresql://me:{SECRET}@host/studies", "begins with postgresql://"),
        (f"mysql://me:{SECRET}@host/studies", "begins with mysql://"),
        (f"postgresql+psycopg://me:{SECRET}@host", "names no database"),
        ("sqlite://", "names no database"),
        ("sqlite:///:memory:", "names no database"),
        ("", "is not a URL"),
    ],
)
def test_other_addresses_are_refused_without_showing_them(text: str, message: str) -> None:
    for from_environment, name in ((False, "--storage"), (True, VARIABLE)):
        with pytest.raises(SettingsError, match=message) as caught:
            parse_storage(text, from_environment=from_environment)
        assert SECRET not in str(caught.value)
        assert str(caught.value).startswith(name)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert given_storage(None) is None
    monkeypatch.setenv(VARIABLE, "")
    assert given_storage(None) is None
    monkeypatch.setenv(VARIABLE, "sqlite:////folder/environment.db")
    found, given = given_storage(None), given_storage("sqlite:////folder/option.db")
    assert found is not None
    assert given is not None
    assert (found.file.name, given.file.name) == ("environment.db", "option.db")


def test_only_the_environment_may_give_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    text = f"postgresql+psycopg://me:{SECRET}@host/studies"
    monkeypatch.setenv(VARIABLE, text)
    assert given_storage(None) == StorageAddress(text)
    with pytest.raises(SettingsError, match=f"holds a password.*{VARIABLE}"):
        given_storage(text)


def test_addresses_of_the_same_database_are_known_as_such() -> None:
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    address = parse_storage("postgresql+psycopg://me@db.cluster:5433/studies")
    assert address.is_postgresql
    assert address.is_same_database("postgresql+psycopg://other@localhost/studies")
    assert not address.is_same_database("postgresql+psycopg://me@db.cluster:5433/others")
    assert not address.is_same_database("sqlite:////studies")
    file = parse_storage("sqlite:////folder/trials.db")
    assert not file.is_postgresql
    assert file.is_same_database("sqlite:////folder/../folder/trials.db")
    assert not file.is_same_database("sqlite:////folder/other.db")


def test_a_file_is_the_same_from_every_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text, name in (
        ("sqlite:///a.db", "a.db"),
        ("sqlite:///in/100%25 \u00fc.db", "in/100% \u00fc.db"),
    ):
        address = parse_storage(text)
        assert address.file == tmp_path / name
        assert parse_storage(str(address)).file == tmp_path / name  # as a study notes it
    absolute = "sqlite:////folder/100% of it.db"
    assert parse_storage(absolute).url == absolute
