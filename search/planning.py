"""Everything about a run that can be decided, and refused, before a model is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from pruners.errors import BudgetError, SettingsError, shown
from pruners.shape import Shape
from search.evaluators import Evaluator
from search.export import versions
from search.model_choice import ModelChoice, choose_model, make_evaluator, target_shape
from search.racing import P_THRESHOLD, STARTUP_BLOCKS
from search.settings import CommandSettings, SearchSettings, SpaceSize
from search.strategies import make_strategy
from search.strategies.base import Strategy
from space.budgets import Budget, parse_budget
from space.coding import SearchSpace
from space.full_vocabulary import FullVocabulary
from space.mission_vocabulary import MissionVocabulary
from space.parameters import Choice
from studies.file_names import budget_slug
from studies.identity import SPLITS, SplitIdentity, StudyIdentity

_VOCABULARIES: Mapping[SpaceSize, type[MissionVocabulary] | type[FullVocabulary]] = {
    "mission": MissionVocabulary,
    "full": FullVocabulary,
}

_LONGEST_NAME = 200
"""Bytes; file systems take 255, of which names of temporary files use some."""


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        choice: The measured model, and whether the user chose it.
        evaluator: What measures; its weights are not loaded yet.
        target: What schedules are written and priced for.
        spaces: The search space of each budget.
        identity: What the study is a study of.
        folder: The study's folder.
    """

    choice: ModelChoice
    evaluator: Evaluator
    target: Shape
    spaces: tuple[SearchSpace, ...]
    identity: StudyIdentity
    folder: Path

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets, in the order given."""
        return tuple(space.budget for space in self.spaces)


def make_plan(settings: CommandSettings) -> Plan:
    """Decide what a run will do; small files are read, and nothing is written.

    Args:
        settings: What the user asked for.

    Returns:
        The plan.

    Raises:
        PrunetuneError: A setting cannot be met; the message names it.
    """
    budgets = tuple(parse_budget(text) for text in settings.budgets)
    _check_distinct(budgets)
    choice = choose_model(settings.model, settings.tasks)
    evaluator = make_evaluator(choice, settings.tasks, settings.search.seed)
    target = target_shape(settings.target, evaluator)
    step = max(1, math.ceil(target.decoder_layers / evaluator.shape.decoder_layers))
    vocabulary = _VOCABULARIES[settings.space]()
    spaces = tuple(
        SearchSpace(
            target,
            budget,
            decoder_stages=settings.stages,
            layer_step=step,
            vocabulary=vocabulary,
        )
        for budget in budgets
    )
    strategy = make_strategy(settings.search)
    strategy.prepare(evaluator)  # refuses a model that cannot give what it needs
    for space in spaces:
        strategy.space(space)  # refuses a space that it cannot search
    name = settings.study or _study_name(target, budgets, settings)
    return Plan(
        choice=choice,
        evaluator=evaluator,
        target=target,
        spaces=spaces,
        identity=_identity(settings, strategy, evaluator, target, spaces),
        folder=settings.out / name,
    )


def _check_distinct(budgets: tuple[Budget, ...]) -> None:
    names = [str(budget) for budget in budgets]  # by which their trials and files are known
    for number, budget in enumerate(budgets):
        if names[number] in names[:number]:
            raise BudgetError(f"the budget {budget.label} was given twice; give each budget once")


def _study_name(target: Shape, budgets: tuple[Budget, ...], settings: CommandSettings) -> str:
    """Name a study after what it searches, the same name for the same command."""
    model = re.sub(r"[^A-Za-z0-9.]+", "-", Path(target.name).name).strip("-.") or "model"
    size = "" if settings.space == "mission" else f"-{settings.space}"
    name = f"{model}-{'-'.join(map(budget_slug, budgets))}{size}-seed-{settings.search.seed}"
    if len(name) > _LONGEST_NAME:
        raise SettingsError(
            f"the study's folder would be named {shown(name)}, which is too long for a file "
            "system; name it with --study"
        )
    return name


def _identity(
    settings: CommandSettings,
    strategy: Strategy,
    evaluator: Evaluator,
    target: Shape,
    spaces: tuple[SearchSpace, ...],
) -> StudyIdentity:
    search, space = settings.search, spaces[0]
    samples = {split: evaluator.samples(split) for split in SPLITS}
    return StudyIdentity(
        model=evaluator.name,
        model_fingerprint=evaluator.fingerprint,
        shape=target,
        tasks=tuple(sorted({sample.task for sample in samples["search"]})),
        splits={
            split: SplitIdentity(
                samples=len(samples[split]), fingerprint=evaluator.split_fingerprint(split)
            )
            for split in SPLITS
        },
        budgets=tuple(str(space.budget) for space in spaces),
        space={
            "decoder_stages": space.decoder_stages,
            "layer_step": space.layer_step,
            "text_tower": space.vocabulary.text_tower,
            "vocabulary": space.vocabulary.name,
            "dimensions": {
                dimension.name: list(dimension.options)
                if isinstance(dimension, Choice)
                else [dimension.low, dimension.high]
                for dimension in space.parameters
            },
        },
        strategy={
            **strategy.identity(),
            "published_first": search.starts_with_published,
            "block_size": search.block_size or strategy.block_size,
            "samples": search.samples,
            "confirm_samples": search.confirm_samples,
            **_samples_per_trial(search),
            "p_threshold": P_THRESHOLD,
            "startup_blocks": STARTUP_BLOCKS,
        },
        seed=search.seed,
        versions=versions(),
    )


def _samples_per_trial(search: SearchSettings) -> dict[str, JsonValue]:
    """Name the samples of a trial where they were chosen; older studies lack the field."""
    if search.samples_per_trial is None:
        return {}
    return {"samples_per_trial": search.samples_per_trial}
