"""Counting what the tests of this folder try."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fuzz.cases import Cases


@pytest.fixture
def cases(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[Cases]:
    """Cases of this test; ``pytest -m fuzz`` runs all of them, any other run a few hundred."""
    expression = request.config.option.markexpr.replace("not fuzz", "")
    counted = Cases(full="fuzz" in expression)
    yield counted
    kind = request.node.name.removeprefix("test_").replace("_", " ")
    record_property("fuzz", (kind, counted.accepted, counted.refused))
