"""The settings of one search, checked before anything expensive happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pruners.errors import SettingsError, shortened, shown
from search.strategies import STRATEGIES
from search.tasks.settings import TaskSettings
from search.workers.settings import WorkerSettings
from studies.storage_address import StorageAddress

SpaceSize = Literal["mission", "full"]
"""The two sizes of the search space."""


class SearchSettings(BaseModel):
    """How one budget is searched; budgets searched together share what each of them may spend.

    Attributes:
        strategy: One of `search.strategies.STRATEGIES`, by name.
        trials: Trials of the finished study; a continued study counts those it has.
        timeout: Seconds after which no new trial starts, in this process; None for no limit.
        evaluations: Most samples that trials score; a block that does not fit any more is not
            begun. None for no limit.
        seed: Seed of the sampler and of the order of the samples.
        block_size: Samples per block, after each of which is decided; None for the strategy's own.
        samples: Samples of the search split that are used, the same for every schedule; None for
            all of them.
        confirm_samples: The same for the confirm split.
        samples_per_trial: Samples that every trial is measured on, rounded to whole blocks, for
            strategies that measure all trials alike; None for the whole search split.
        published_first: Whether the first trials are the published schedules at the same budget;
            None means yes, except for the random baseline, which is told nothing.
        candidates: How many of the best trials are scored on the confirm split.
        least_gain: Points of what a search by ``"adaptive"`` compares schedules by, the probability
            of the dense model's answers or, where the model gives none, relative accuracy; it ends
            when more trials are expected to gain less. 0 for no such end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str = "adaptive"
    trials: int = Field(default=500, ge=1)
    timeout: float | None = Field(default=None, gt=0)
    evaluations: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    block_size: int | None = Field(default=None, ge=1)
    samples: int | None = Field(default=None, ge=1)
    confirm_samples: int | None = Field(default=None, ge=1)
    samples_per_trial: int | None = Field(default=None, ge=1)
    published_first: bool | None = None
    candidates: int = Field(default=5, ge=1)
    least_gain: float = Field(default=0.5, ge=0, lt=100)

    @field_validator("strategy")
    @classmethod
    def _check_strategy_exists(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError(f"expected one of {', '.join(STRATEGIES)}")
        return name

    @property
    def limits(self) -> dict[str, int]:
        """Samples used by split, for the splits that are not used as a whole."""
        limits = {"search": self.samples, "confirm": self.confirm_samples}
        return {split: limit for split, limit in limits.items() if limit is not None}

    @property
    def starts_with_published(self) -> bool:
        """Whether the first trials are published schedules."""
        if self.published_first is not None:
            return self.published_first
        return self.strategy != "random"


class CommandSettings(BaseModel):
    """What a user asked for on the command line.

    Attributes:
        budgets: Budgets as `space.parse_budget` reads them, for example ``"2 TFLOPs"``.
        model: ``"embedded"``, ``"analytic"``, a hub name or a folder; None lets the program choose.
        target: Preset or folder that schedules are written and priced for; None for the model's
            default.
        stages: Decoder stages of a schedule.
        space: ``"mission"`` (boundaries, retentions, similarity weight, contextual share) or
            ``"full"`` (also scorers, selector, merge rule and position handling).
        tasks: Benchmarks that a model is measured on, unless it is the embedded one.
        search: How each budget is searched.
        workers: Who measures.
        storage: Shared storage for the study's trials; None for a file in its folder.
        study: Name of the study's folder; None derives it from the target, budgets and seed.
        out: Folder that holds the studies.
        dry_run: Whether to explain the run instead of starting it.
        quiet: Whether to print results only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budgets: tuple[str, ...] = Field(min_length=1)
    model: str | None = None
    target: str | None = None
    stages: int = Field(default=3, ge=0, le=4)
    space: SpaceSize = "mission"
    tasks: TaskSettings = TaskSettings()
    search: SearchSettings = SearchSettings()
    workers: WorkerSettings = WorkerSettings()
    storage: StorageAddress | None = None
    study: str | None = None
    out: Path = Path("runs")
    dry_run: bool = False
    quiet: bool = False

    @field_validator("study")
    @classmethod
    def _check_study_names_a_folder(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError(
                "should be up to 100 letters, digits, dots, hyphens and underscores, starting "
                "with a letter or digit; name the folder around it with --out"
            )
        return name


_MOST_PROBLEMS = 5  # that a message lists
_OPTIONS = {
    "budgets": "--budget-tflops",
    "names": "--tasks",
    "data": "--task-data",
    "number": "--workers",
    "patience": "--worker-timeout",
    "gpus": "--worker-gpus",
}


def checked_settings(**values: Any) -> CommandSettings:
    """Check what the command line says.

    Args:
        **values: Fields of `CommandSettings`; `search`, `tasks` and `workers` as dictionaries.

    Returns:
        The settings.

    Raises:
        SettingsError: A value is wrong; the message names the option and what it accepts.
    """
    if not values.get("budgets"):
        raise SettingsError(
            "no budget was given; pass --budget-tflops 2, or --budget with a share of dense (22%), "
            "mean visual tokens ('64 tokens') or the key-value cache's size (100MB)"
        )
    try:
        settings = CommandSettings.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{shortened(_option(problem['loc']))} is {shown(problem['input'])}: "
            + shortened(problem["msg"].removeprefix("Value error, "))
            for problem in error.errors()[:_MOST_PROBLEMS]
        ]
        raise SettingsError("; ".join(problems)) from error
    device = settings.tasks.device
    if not settings.workers.in_own_process and device is not None and ":" in device:
        raise SettingsError(
            f"--device {device} is one device, but each worker gets its own; pass "
            f"--device {device.partition(':')[0]}, or leave it out"
        )
    return settings


def _option(location: tuple[int | str, ...]) -> str:
    names = [str(part) for part in location if part not in ("search", "tasks", "workers")]
    field = names[0] if names else "settings"
    return _OPTIONS.get(field, f"--{field.replace('_', '-')}")
