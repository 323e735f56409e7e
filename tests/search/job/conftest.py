"""Runs of the search command, each in an empty folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.strategies.base import Proposal, SearchState, Strategy


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class _Sharing(Strategy):
    """Measures points on 2 blocks each, several budgets in turn."""

    name = "sharing"
    signal = "answer-probability"
    shares_budgets = True

    def propose(self, state: SearchState) -> Proposal | None:
        generator = np.random.default_rng(state.trials)
        dimensions = state.space.parameters
        return Proposal({each.name: generator.uniform(*each[1:]) for each in dimensions}, 2)


@pytest.fixture
def _share(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("job", "planning"):
        monkeypatch.setattr(f"search.{module}.make_strategy", lambda settings: _Sharing())
