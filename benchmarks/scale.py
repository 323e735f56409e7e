"""How much of many workers' time a search uses, and what its storage costs per trial.

    python benchmarks/scale.py --storage postgresql+psycopg://user@host/database

simulates searches with 1 to 256 workers whose trials take 30 seconds each. Simulated are the
workers and the clock alone: the driver's code is the program's own, with its strategy, its storage
and its cache of scores, and the clock counts every second that it takes. What workers would do
meanwhile is jumped over, so that an hour of 256 workers takes minutes; as they would be on other
machines or other cores, they take nothing from the driver.

A trial is one block, whose duration is drawn around the mean with a spread of 30 %. Efficiency is
the share of the workers' time that they spend measuring, from the start to the moment when the last
trial begins (then a search that ends leaves workers idle, whoever drives it). The ideal is 1.

The second table is what a storage costs: seconds of the driver per trial of a random search, whose
proposals cost next to nothing, less the same in memory; and the statements that a trial sends, each
of which waits for the network when the storage is on another machine.
Prints both tables, and writes ``benchmarks/results/scale.json``.
"""

from __future__ import annotations

import tempfile
import uuid
import warnings
from pathlib import Path
from typing import Annotated

import optuna
import typer
from rich.console import Console
from scale_simulation import SimulatedPool, Simulation, StatementCount, simulate
from scale_summary import Scaling, StorageCost, print_scaling, write_scaling

from pruners.errors import PrunetuneError
from search.planning import make_plan
from search.settings import checked_settings
from studies.storage import StudyFolder
from studies.storage_address import StorageAddress, parse_storage

RESULTS = Path(__file__).parent / "results" / "scale.json"
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
COST_TRIALS = 100
"""Trials of a random search by which a storage's cost is measured."""


def main(
    storage: Annotated[
        list[str] | None,
        typer.Option(help="A storage to measure beside SQLite; its password from PGPASSWORD."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Mean duration of a trial.")] = 30.0,
    rounds: Annotated[int, typer.Option(min=2, help="Trials per worker.")] = 6,
    workers: Annotated[
        list[int] | None, typer.Option(help="Repeat for several. Default: 1 to 256.")
    ] = None,
    strategy: Annotated[str, typer.Option(help="Strategy of the search.")] = "adaptive",
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = RESULTS,
) -> None:
    """Simulate searches, print both tables, write the JSON."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", message="Heartbeat of storage")
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    console = Console()
    try:
        addresses = [None, *(parse_storage(text) for text in storage or ())]
        scalings = []
        costs = [_storage_cost(address) for address in ("memory", *addresses)]
        for address in addresses:
            for number in workers or WORKERS:
                simulation = _search(address, strategy, number, number * rounds, seconds)
                scalings.append(Scaling.of(_name(address), simulation))
                console.print(f"{_name(address)}, {number} workers: {simulation.efficiency:.1%}")
    except PrunetuneError as error:
        console.print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    print_scaling(scalings, costs, strategy, seconds, console)
    write_scaling(scalings, costs, strategy, seconds, out)


def _storage_cost(address: StorageAddress | str | None) -> StorageCost:
    """Measure what a storage costs; ``"memory"`` is what everything else costs."""
    with StatementCount() as statements:
        simulation = _search(address, "random", 8, COST_TRIALS, 30.0)
    return StorageCost(
        _name(address), simulation.driver_seconds / COST_TRIALS, statements.number / COST_TRIALS
    )


def _search(
    address: StorageAddress | str | None, strategy: str, workers: int, trials: int, seconds: float
) -> Simulation:
    """Run a search in a new study."""
    with tempfile.TemporaryDirectory() as folder:
        settings = checked_settings(
            budgets=("2 TFLOPs",),
            model="analytic",
            study=f"scale-{uuid.uuid4().hex[:8]}",
            out=Path(folder),
            search={"strategy": strategy, "trials": trials, "least_gain": 0, "block_size": 500},
        )
        plan = make_plan(settings)
        pool = SimulatedPool(plan.evaluator, workers, seconds)
        if address == "memory":
            return simulate(plan, settings.search, pool, None)
        shared = address if isinstance(address, StorageAddress) else None
        with StudyFolder.open(plan.folder, plan.identity, shared) as opened:
            return simulate(plan, settings.search, pool, opened)


def _name(address: StorageAddress | str | None) -> str:
    if isinstance(address, StorageAddress):
        return "PostgreSQL" if address.is_postgresql else "shared SQLite"
    return address or "SQLite"


if __name__ == "__main__":
    typer.run(main)
