"""Strategies asked one proposal after the other, with a formula for what they propose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import optuna
import pytest

from pruners.schedule import Schedule
from search.strategies.base import SearchState, Strategy
from space.coding import SearchSpace
from space.parameters import Parameter

BLOCKS = (25,) * 20


@dataclass(frozen=True)
class Played:
    """A proposal, as a formula values it."""

    schedule: Schedule
    value: float
    blocks: int


Play = Callable[..., list[Played]]


@pytest.fixture
def play() -> Play:
    """Propose and value until nothing more is proposed, or the samples are used up."""

    def played(
        strategy: Strategy,
        space: SearchSpace,
        formula: Callable[[Schedule], float],
        limit: int | None = None,
        trials: int = 400,
    ) -> list[Played]:
        own = strategy.space(space)
        study = optuna.create_study(direction="maximize")
        known: dict[str, Played] = {}
        every: list[Played] = []
        for number in range(trials):
            samples = sum(each.blocks * BLOCKS[0] for each in known.values())
            state = SearchState(own, study, 0, number, BLOCKS, samples, limit, ())
            proposal = strategy.propose(state)
            if proposal is None:
                break
            if isinstance(proposal, optuna.Trial):
                trial, blocks = proposal, strategy.blocks_of_a_trial(state)
            else:
                study.enqueue_trial(dict(proposal.point))
                trial, blocks = study.ask(), proposal.blocks
            for dimension in own.parameters:
                assert isinstance(dimension, Parameter)
                trial.suggest_float(dimension.name, dimension.low, dimension.high)
            schedule = own.decode(trial.params)
            each = known.get(schedule.content_hash)
            if each is None:
                if limit is not None and samples + blocks * BLOCKS[0] > limit:
                    break
                each = known[schedule.content_hash] = Played(schedule, formula(schedule), blocks)
            every.append(each)
            study.tell(trial, each.value)
        return every

    return played
