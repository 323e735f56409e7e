"""A PostgreSQL server for tests: real, on loopback, and to be killed at will."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

PASSWORD = "s3cret{brace"
"""A password that shows in any text that holds it, and that Optuna's template must not touch."""

_QUOTED = "s3cret%7Bbrace"


def find_programs() -> Path | None:
    """Find the folder of the server's programs."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class PostgresqlServer:
    """A server with a superuser named tests, in a folder that goes with it."""

    def __init__(self) -> None:
        programs = find_programs()
        assert programs is not None  # the caller has looked
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="prunetune-postgresql-"))
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            user = pwd.getpwnam("postgres" if _exists("postgres") else "nobody")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "-U", "tests", "-A", "scram-sha-256", f"--pwfile={password}", "-N")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.start()

    def start(self) -> None:
        """Start it, also after it was killed, and wait until it answers."""
        import psycopg

        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",  # what is written outlives the server's death, if not the machine's
            "max_connections": "40",
        }
        settings = [part for pair in options.items() for part in ("-c", "=".join(pair))]
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self._data, "-p", str(self.port), *settings],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **self._as_user,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "the server does not start"
                assert self._process.poll() is None, "the server has ended"
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """Kill it at once, with all its processes, as when memory runs out."""
        assert self._process is not None  # it was started
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        victims = [self._process.pid, *map(int, children.read_text().split())]
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows if it has any."""
        import psycopg

        with psycopg.connect(self.address(database).replace("+psycopg", "")) as connection:
            connection.autocommit = True
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def address(self, database: str, *, password: bool = True) -> str:
        """Return the address of a database, as Optuna takes it."""
        secret = f":{_QUOTED}" if password else ""
        return f"postgresql+psycopg://tests{secret}@127.0.0.1:{self.port}/{database}"

    def finished_trials(self, database: str) -> int:
        """Count the trials that have finished, 0 before there are tables."""
        if self.execute("SELECT to_regclass('trials')", database) == [(None,)]:
            return 0
        counted = "SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
        return int(self.execute(counted, database)[0][0])

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        self._databases += 1
        name = f"studies_{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # "fast shutdown"
            self._process.wait()
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self._data, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **self._as_user,
        )


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
