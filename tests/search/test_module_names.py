from __future__ import annotations

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import search


def test_no_module_hides_another_when_search_is_first_on_the_path() -> None:
    # python search/run.py puts search/ first on sys.path.
    folder = Path(search.__file__).parent
    names = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    names |= {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
    names.discard("run")  # the program itself
    assert {"job", "embedded"} <= names
    importable = set(sys.stdlib_module_names) | set(packages_distributions())
    assert not names & importable
