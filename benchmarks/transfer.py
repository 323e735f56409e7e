"""Are schedules that are good on the embedded model good on others?

Some schedules of the embedded model's lattice, scaled to models of another depth, width and seed,
are measured there by

    python -m search.embedded.train --out FOLDER --seed 2 --decoder-layers 16 --decoder-width 64
    python benchmarks/ground_truth.py --model FOLDER/checkpoint --parts sampled --out TABLE

once per model (docs/search-quality.md has the exact commands), and

    python benchmarks/transfer.py --tables TABLE,TABLE

prints how their ranks agree and what choosing by the embedded model costs, and writes
``benchmarks/results/transfer.json`` and the table of ``docs/search-quality.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ground_truth import MEAN_TOKENS
from lattice import lattice_sample, scaled
from numpy.typing import NDArray
from records import Record
from rich import box
from rich.console import Console
from rich.table import Table
from search_quality_page import replace_between
from tabular_data import GroundTruth, read_ground_truth
from transfer_summary import Estimate, OtherModel, other_model

from pruners.errors import DataError, PrunetuneError
from studies.files import write_text

HERE = Path(__file__).parent
PROXY = HERE / "data" / "ground-truth-embedded.parquet"
RESULTS = HERE / "results" / "transfer.json"
PAGE = HERE.parent / "docs" / "search-quality.md"
MARKS = ("<!-- transfer: begin -->", "<!-- transfer: end -->")

_COLUMNS = (
    "model",
    "tokens here",
    "tokens there",
    "rank correlation",
    "of the model itself",
    "regret, points",
    "of chance, points",
)


class Results(Record):
    """What `transfer.py` found."""

    proxy: str
    models: tuple[OtherModel, ...]


def main(
    tables: Annotated[str, typer.Option(help="Tables of the other models, by commas.")],
    proxy: Annotated[Path, typer.Option(help="The embedded model's table.")] = PROXY,
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = RESULTS,
    page: Annotated[Path, typer.Option(help="The page whose table is replaced.")] = PAGE,
) -> None:
    """Compare tables, print the comparison, write JSON and page."""
    console = Console(width=140)
    try:
        truth = read_ground_truth(proxy)
        others = [read_ground_truth(Path(name.strip())) for name in tables.split(",")]
        models = tuple(other_model(truth, carried_rows(truth, each), each) for each in others)
        results = Results(proxy=truth.about.measured_on, models=models)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, results.model_dump_json(indent=1) + "\n")
        replace_between(page, *MARKS, markdown(models))
    except PrunetuneError as error:
        console.print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    shown = Table(*_COLUMNS, box=box.SIMPLE_HEAD)
    for row in rows(models):
        shown.add_row(*row)
    console.print(shown)
    console.print(f"Written to {out} and {page}", markup=False)


def carried_rows(proxy: GroundTruth, other: GroundTruth) -> NDArray[np.int64]:
    """Find the schedules that another table has in the embedded model's.

    Args:
        proxy: The embedded model's table.
        other: A table that ``ground_truth.py --parts sampled`` wrote.

    Returns:
        Row in `proxy` of each row of `other` after dense.

    Raises:
        DataError: `other` holds other schedules.
    """
    here, there = proxy.about.shape, other.about.shape
    carried = [(tokens, point) for tokens in MEAN_TOKENS for point in lattice_sample(here, tokens)]
    expected = [(tokens, scaled(point, here, there)) for tokens, point in carried]
    if expected != list(zip(other.budgets[1:].tolist(), other.points[1:], strict=True)):
        raise DataError(
            f"the table of {other.about.measured_on} does not hold the schedules that are carried "
            "over; make it with benchmarks/ground_truth.py --parts sampled"
        )
    return np.array([proxy.rows[point.schedule(here).content_hash] for _, point in carried])


def rows(models: Sequence[OtherModel]) -> list[tuple[str, ...]]:
    """Spell the results, one row per model and budget."""
    return [
        (
            f"{model.decoder_layers} layers, dense {model.dense_accuracy:.1%}",
            str(budget.mean_tokens),
            f"{budget.tokens_there:.1f}",
            correlation(budget.correlation),
            correlation(budget.own_correlation),
            points(budget.regret),
            points(budget.regret_of_chance),
        )
        for model in models
        for budget in model.budgets
    ]


def correlation(estimate: Estimate) -> str:
    """Spell a correlation with its interval."""
    low, high = estimate.interval_95
    return f"{estimate.value:.2f} [{low:.2f}, {high:.2f}]"


def points(estimate: Estimate) -> str:
    """Spell a share in points with its interval."""
    low, high = (100 * end for end in estimate.interval_95)
    return f"{100 * estimate.value:.1f} [{low:.1f}, {high:.1f}]"


def markdown(models: Sequence[OtherModel]) -> str:
    """Spell the results as a markdown table."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "| --- |" + " ---: |" * (len(_COLUMNS) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in rows(models)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    typer.run(main)
