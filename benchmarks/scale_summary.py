"""What `scale.py` says: tables and JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scale_simulation import Simulation

from search.export import versions
from studies.files import write_text


@dataclass(frozen=True)
class Scaling:
    """One search of the first table.

    Attributes:
        storage: Where its trials were kept.
        workers: Workers.
        trials: Trials that finished.
        efficiency: Share of the workers' time that they measured.
        trials_per_hour: Trials begun per hour until the last one's beginning.
        driver_milliseconds: What the driver took per trial.
        measured_twice: Samples measured more than once under a schedule.
    """

    storage: str
    workers: int
    trials: int
    efficiency: float
    trials_per_hour: float
    driver_milliseconds: float
    measured_twice: int

    @classmethod
    def of(cls, storage: str, simulation: Simulation) -> Scaling:
        """Sum up a simulation."""
        return cls(
            storage=storage,
            workers=simulation.workers,
            trials=simulation.trials,
            efficiency=simulation.efficiency,
            trials_per_hour=simulation.trials / simulation.seconds * 3600,
            driver_milliseconds=1000 * simulation.driver_seconds / simulation.trials,
            measured_twice=simulation.measured_twice,
        )


@dataclass(frozen=True)
class StorageCost:
    """What a storage costs.

    Attributes:
        storage: Which.
        seconds: Of the driver per trial of a random search.
        statements: That a trial sends.
    """

    storage: str
    seconds: float
    statements: float


def print_scaling(
    scalings: Sequence[Scaling],
    costs: Sequence[StorageCost],
    strategy: str,
    seconds: float,
    console: Console,
) -> None:
    """Print both tables.

    Args:
        scalings: Rows of the first one.
        costs: Rows of the second one; the first of them is the search without a storage.
        strategy: Strategy of the searches in the first table.
        seconds: Mean duration of a trial there.
        console: Where to print.
    """
    table = Table(title=f"{strategy}, trials of {seconds:g} s; the ideal is 100 %")
    for heading in ("Storage", "Workers", "Trials", "Efficiency", "Trials per hour", "Driver, ms"):
        table.add_column(heading, justify="left" if heading == "Storage" else "right")
    for row in scalings:
        table.add_row(
            row.storage,
            str(row.workers),
            str(row.trials),
            f"{row.efficiency:.1%}",
            f"{row.trials_per_hour:,.0f}",
            f"{row.driver_milliseconds:.0f}",
        )
    console.print(table)
    table = Table(title="What a storage costs per trial")
    for heading in ("Storage", "ms", "Statements"):
        table.add_column(heading, justify="left" if heading == "Storage" else "right")
    without, *others = costs
    for cost in others:
        extra = 1000 * (cost.seconds - without.seconds)
        table.add_row(cost.storage, f"{extra:.1f}", f"{cost.statements:.0f}")
    console.print(table)


def write_scaling(
    scalings: Sequence[Scaling],
    costs: Sequence[StorageCost],
    strategy: str,
    seconds: float,
    path: Path,
) -> None:
    """Write what both tables say, and more digits of it.

    Args:
        scalings: Rows of the first one.
        costs: Rows of the second one.
        strategy: Strategy of the searches in the first table.
        seconds: Mean duration of a trial there.
        path: The file.
    """
    content = {
        "strategy": strategy,
        "seconds_per_trial": seconds,
        "clock": "simulated: the driver's seconds as measured, the workers' jumped over",
        "scaling": [asdict(row) for row in scalings],
        "storage_cost": [asdict(cost) for cost in costs],
        "python": platform.python_version(),
        "versions": versions(),
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
