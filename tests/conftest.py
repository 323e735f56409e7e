"""What holds for all tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from postgresql_server import PostgresqlServer, find_programs

# Set before anything imports torch, and inherited by the programs that tests start: the models here
# are so small that threads wait for each other longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


_MANY_SHORT_ONES = Path(__file__).parent / "pruners"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the thousands of short tests last, so that no process waits for a long one at the end."""
    items.sort(key=lambda item: item.path.is_relative_to(_MANY_SHORT_ONES))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many inputs and faults were tried, where a run has such tests.

    They note it on their reports, which also come from the processes of pytest-xdist. All of it is
    on each test's last one, that of its teardown.
    """
    reports = [
        report
        for kind in terminalreporter.stats.values()
        for report in kind
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
    ]
    noted = [entry for report in reports for entry in report.user_properties]
    fuzzed = [value for name, value in noted if name == "fuzz"]
    if fuzzed:
        terminalreporter.section("fuzzing")
        for kind, accepted, refused in sorted(map(tuple, fuzzed)):
            line = f"{kind:28} {accepted + refused:7,} cases: {accepted:6,} accepted"
            terminalreporter.write_line(f"{line}, {refused:6,} refused in words")
        total = sum(accepted + refused for _, accepted, refused in fuzzed)
        terminalreporter.write_line(f"{'together':28} {total:7,} cases")
    faults = Counter(value for name, value in noted if name == "fault")
    if faults:
        terminalreporter.section("faults")
        for kind, count in sorted(faults.items()):
            terminalreporter.write_line(f"{kind:28} {count:7,} survived")
        terminalreporter.write_line(f"{'together':28} {faults.total():7,}")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL server of the tests' own, on loopback."""
    if find_programs() is None:
        if "PRUNETUNE_TEST_SERVERS" in os.environ:
            pytest.fail("PostgreSQL is not installed, but PRUNETUNE_TEST_SERVERS asks for it")
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with PostgresqlServer() as server:
        yield server
