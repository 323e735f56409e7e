"""How often intervals covered the truth: counted, as JSON, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from records import Record
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest

from search.settings import SearchSettings

Over = Literal["images", "questions"]
RESAMPLED: tuple[Over, ...] = ("images", "questions")
"""What an interval resamples: images with all their questions, as the program does, or questions as
if each were about another image."""

HEADERS = ("interval of", "over", "covered, %", "missed above, below, %", "error, points", "width")


class Finding(NamedTuple):
    """One interval of one study.

    Attributes:
        interval: What it is an interval of.
        over: What it resamples.
        estimate: The estimate.
        ends: Lower and upper end.
        truth: What it should cover.
    """

    interval: str
    over: Over
    estimate: float
    ends: tuple[float, float]
    truth: float


class Row(Record):
    """One kind of interval over all studies.

    Attributes:
        interval: What it is an interval of.
        over: What it resamples.
        studies: Studies that have it.
        covered: Those in which it held the truth.
        coverage_interval_95: Exact (Clopper-Pearson) interval of the share that is covered.
        above: Studies in which the truth lay above it.
        below: Studies in which the truth lay below it.
        bias: Mean of estimate minus truth.
        bias_interval_95: Normal interval of that mean.
        width: Mean width.
    """

    interval: str
    over: Over
    studies: int
    covered: int
    coverage_interval_95: tuple[float, float]
    above: int
    below: int
    bias: float
    bias_interval_95: tuple[float, float]
    width: float

    @property
    def coverage(self) -> float:
        """Share of the studies in which it held the truth."""
        return self.covered / self.studies

    def cells(self) -> list[str]:
        """Return what the table says of it, in the order of `HEADERS`."""
        low, high = (100 * end for end in self.coverage_interval_95)
        bias_low, bias_high = (100 * end for end in self.bias_interval_95)
        return [
            self.interval,
            self.over,
            f"{100 * self.coverage:.1f} [{low:.1f}, {high:.1f}]",
            f"{100 * self.above / self.studies:.1f}, {100 * self.below / self.studies:.1f}",
            f"{100 * self.bias:+.2f} [{bias_low:+.2f}, {bias_high:+.2f}]",
            f"{100 * self.width:.1f}",
        ]


class Coverage(Record):
    """What the simulated studies showed.

    Attributes:
        studies: Simulated studies.
        budgets: Their budgets, in turn.
        strategy: Search strategy.
        trials: Trials of each search.
        rows: Each kind of interval.
    """

    studies: int
    budgets: tuple[str, ...]
    strategy: str
    trials: int
    rows: tuple[Row, ...]


def summarise(
    findings: Sequence[Finding], studies: int, budgets: Sequence[str], settings: SearchSettings
) -> Coverage:
    """Count how often intervals covered.

    Args:
        findings: All intervals of all studies.
        studies: Number of studies.
        budgets: Their budgets.
        settings: How they searched.

    Returns:
        The counts, in the order in which kinds of intervals come first.
    """
    kinds = dict.fromkeys((finding.interval, finding.over) for finding in findings)
    return Coverage(
        studies=studies,
        budgets=tuple(budgets),
        strategy=settings.strategy,
        trials=settings.trials,
        rows=tuple(
            _row([each for each in findings if (each.interval, each.over) == kind])
            for kind in kinds
        ),
    )


def read_coverage(path: Path) -> Coverage:
    """Read a coverage that was written as JSON."""
    return Coverage.model_validate_json(path.read_text(encoding="utf-8"))


def print_coverage(coverage: Coverage, console: Console) -> None:
    """Print the table."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title=(
            f"{coverage.studies} simulated studies at {', '.join(coverage.budgets)} in turn, "
            f"{coverage.trials} trials each ({coverage.strategy}). Missed: the truth lay above or "
            "below. Error: estimate minus truth. In brackets 95 % intervals over studies."
        ),
    )
    for header in HEADERS:
        table.add_column(header, justify="left" if header in HEADERS[:2] else "right")
    for row in coverage.rows:
        table.add_row(*map(Text, row.cells()))
    console.print(table)


def _row(findings: Sequence[Finding]) -> Row:
    lows, highs = np.array([finding.ends for finding in findings]).T
    truths = np.array([finding.truth for finding in findings])
    errors = np.array([finding.estimate for finding in findings]) - truths
    above, below = int(np.sum(truths > highs)), int(np.sum(truths < lows))
    covered = len(findings) - above - below
    proportion = binomtest(covered, len(findings)).proportion_ci(0.95, "exact")
    margin = 1.96 * errors.std(ddof=1) / np.sqrt(len(errors))
    return Row(
        interval=findings[0].interval,
        over=findings[0].over,
        studies=len(findings),
        covered=covered,
        coverage_interval_95=(proportion.low, proportion.high),
        above=above,
        below=below,
        bias=float(errors.mean()),
        bias_interval_95=(float(errors.mean() - margin), float(errors.mean() + margin)),
        width=float(np.mean(highs - lows)),
    )
