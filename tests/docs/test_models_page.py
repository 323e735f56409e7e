"""Every cell of the page on models rests on a test of that family."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from pruners.adapters import FAMILIES
from pruners.methods import METHODS, supported_methods
from pruners.shape import Shape
from space import PRESETS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
TESTED = ("yes", "refused")
UNTESTED = ("\N{EN DASH}", "not run", "not tested")
NO_TESTS = "no test of {family} for {feature!r}: {function}"


def table(first: str) -> list[dict[str, str]]:
    """Read the table whose first column has this heading: one row each, by heading."""
    lines = TEXT.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    heading, _, *body = rows
    return [dict(zip(heading, row, strict=True)) for row in body]


LABELS = {row["family"]: row["`model_type`"].strip("`") for row in table("family")}
"""The family's `model_type` by what the page calls it."""


def cells(first: str) -> dict[tuple[str, str], str]:
    """Read a table of families: the cell by row and `model_type`."""
    return {
        (row[first], LABELS[label]): cell
        for row in table(first)
        for label, cell in row.items()
        if label != first
    }


FEATURES = cells("feature")


def functions() -> dict[str, dict[str, list[str]]]:
    """Read which tests the page names, by feature and family."""
    match = re.search(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert match
    return tomllib.loads(match.group(1))


class Claim(NamedTuple):
    """A cell that says that a test holds, and one of the functions that it rests on."""

    feature: str
    family: str
    function: str

    def rests_on(self, identifier: str) -> bool:
        """Whether a test is a case of the function, and of the family."""
        path, _, parameters = identifier.partition("[")
        wanted, _, only = self.function.partition("[")
        if path != f"tests/{wanted}":
            return False
        given = parameters.removesuffix("]").split("-")
        families = [name for name in given if name in FAMILIES]
        # A test without a family among its parameters is that of a family's own file.
        own = self.family in families if families else self.is_own
        return own and (not only or only.removesuffix("]") in given)

    @property
    def is_own(self) -> bool:
        return self.family in functions()[self.feature]

    def __str__(self) -> str:
        return NO_TESTS.format(**self._asdict())


def claims() -> Iterator[Claim]:
    named = functions()
    for (feature, family), cell in FEATURES.items():
        if cell in TESTED:
            for function in named[feature].get(family) or named[feature]["every"]:
                yield Claim(feature, family, function)


def pytest_of(*arguments: str) -> str:
    """Run pytest in another process and return what it prints."""
    command = [sys.executable, "-m", "pytest", "-m", "", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return run.stdout


@pytest.fixture(scope="module")
def collected() -> list[str]:
    """The tests of all functions that the page names, slow ones too."""
    named = sorted({claim.function.partition("[")[0] for claim in claims()})
    printed = pytest_of("--collect-only", "-q", *(f"tests/{name}" for name in named))
    return [line for line in printed.splitlines() if line.startswith("tests/")]


def test_every_family_is_on_the_page() -> None:
    assert set(LABELS.values()) == set(FAMILIES)
    for first in ("feature", "method"):
        assert all(set(row) == {first, *LABELS} for row in table(first))
    for row in table("family"):
        assert FAMILIES[row["`model_type`"].strip("`")]


def test_cells_say_what_they_may_say() -> None:
    assert set(FEATURES.values()) <= {*TESTED, *UNTESTED}
    tested = {feature for (feature, _), cell in FEATURES.items() if cell in TESTED}
    named = functions()
    assert set(named) == tested
    for feature, by_family in named.items():
        held = {family for family in LABELS.values() if FEATURES[feature, family] in TESTED}
        assert set(by_family) - {"every"} <= held, feature
        assert "every" in by_family or set(by_family) == held, feature
        assert all(by_family.values())


def test_every_cell_rests_on_a_test_of_its_family(collected: list[str]) -> None:
    missing = [
        str(claim) for claim in claims() if not any(claim.rests_on(test) for test in collected)
    ]
    assert not missing


def cases(claim: Claim, collected: list[str]) -> list[str]:
    return [test for test in collected if claim.rests_on(test)]


def passing(tests: Iterable[str], report: Path) -> set[str]:
    """Run tests, of which none may fail, and find those that are not skipped."""
    pytest_of("-q", f"--junitxml={report}", *sorted(set(tests)))
    return {
        f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}"
        for case in ElementTree.parse(report).iter("testcase")
        if case.find("skipped") is None
    }


def without(left: dict[Claim, list[str]], passed: set[str]) -> dict[Claim, list[str]]:
    """Leave the claims of which no case has passed yet."""
    return {claim: own for claim, own in left.items() if not passed.intersection(own)}


def spread(own: list[str], most: int) -> list[str]:
    """Choose so many cases far from each other in order, all of them where there are fewer."""
    number = min(most, len(own))
    return [own[(2 * i + 1) * len(own) // (2 * number)] for i in range(number)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tests_that_cells_rest_on_pass(collected: list[str], tmp_path: Path) -> None:
    """One case of each; some more, and then all of them, where these are skipped."""
    left = {claim: cases(claim, collected) for claim in claims()}
    for most in (1, 3, len(collected)):
        chosen = chain.from_iterable(spread(own, most) for own in left.values())
        left = without(left, passing(chosen, tmp_path / f"{most}.xml"))
        if not left:
            break
    assert not list(map(str, left))


def test_methods_are_those_that_published_makes() -> None:
    shapes: dict[str, Shape] = {}
    for shape in PRESETS.values():
        shapes.setdefault(shape.family, shape)
    assert set(shapes) == set(FAMILIES)
    expected = {
        (f"`{name}`", family): "yes"
        if name in supported_methods(shape)
        else f"use `{method.instead}`"
        for name, method in METHODS.items()
        for family, shape in shapes.items()
    }
    assert cells("method") == expected
