"""What is known of studies as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pruners.schedule import Schedule
from space.budgets import budget_label
from studies.progress import BudgetProgress, StudyProgress
from studies.reading import StoredStudy
from studies.study_comparison import ComparedBudget, ComparedStudy, StudyComparison

_STYLES = {"running": "bold green", "stopped": "yellow", "new": "dim", "finished": ""}


def studies_table(studies: Sequence[StudyProgress]) -> Table:
    """Draw the list of studies.

    Args:
        studies: Progress of each.

    Returns:
        A table with a row per study and budget.
    """
    table = _table("Study", "State", "Measured", "Budget", right=("Trials", *_ACCURACIES))
    for study in studies:
        for number, budget in enumerate(study.budgets):
            first = number == 0
            table.add_row(
                Text(study.name if first else ""),
                Text(study.state if first else "", style=_STYLES[study.state]),
                Text(study.model if first else ""),
                Text(budget_label(budget.budget)),
                str(budget.complete),
                *_accuracies(budget),
            )
    return table


def progress_panel(study: StudyProgress) -> RenderableType:
    """Draw how far a study has come.

    Args:
        study: Its progress.

    Returns:
        A headline, a table with a row per budget, and what has been measured.
    """
    table = _table(
        "Budget", right=("Trials", "Failed", "Under way", "Best trial", "Samples", *_ACCURACIES)
    )
    for budget in study.budgets:
        limit = "" if study.trials_limit is None else f" of {study.trials_limit}"
        table.add_row(
            Text(budget_label(budget.budget)),
            f"{budget.complete}{limit}",
            str(budget.failed),
            str(budget.under_way),
            "" if budget.best_trial is None else str(budget.best_trial),
            str(budget.best_samples or ""),
            *_accuracies(budget),
        )
    headline = Text.assemble(
        study.name,
        ": ",
        (study.state, _STYLES[study.state]),
        f"; {study.model} measured, priced for {study.target}",
    )
    return Group(headline, table, Text(_measured(study)))


def identity_table(study: StoredStudy) -> Table:
    """Draw what a study is a study of.

    Args:
        study: The study.

    Returns:
        A table with a row per property.
    """
    identity = study.identity
    table = _table("", "")
    table.show_header = False
    rows = {
        "Study": str(study.path),
        "Measured model": identity.model,
        "Priced for": identity.shape.name,
        "Tasks": ", ".join(identity.tasks),
        "Samples": ", ".join(f"{each.samples} {split}" for split, each in identity.splits.items()),
        "Space": _words(identity.space, ("vocabulary", "decoder_stages", "layer_step")),
        "Strategy": str(identity.strategy.get("sampler", "")),
        "Seed": str(identity.seed),
        "Versions": ", ".join(f"{name} {number}" for name, number in identity.versions.items()),
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def schedule_table(schedule: Schedule) -> Table:
    """Draw a schedule as users of the runtime think of it.

    Args:
        schedule: A schedule that is priced for a shape.

    Returns:
        A table with a row per stage.
    """
    table = _table(right=("Layer", "Kept", "Dominant", "Contextual"))
    for column in ("Scorer", "Selector", "Merge rule"):
        table.add_column(column, overflow="fold")
    if schedule.shape is None:
        return table
    counts = schedule.counts(schedule.shape.visual_tokens, schedule.shape.tokens_per_tile)
    for stage, count in zip(schedule.stages, counts, strict=True):
        numbers = (count.layer, count.alive, count.dominant, count.contextual)
        parts = (stage.scorer.kind, stage.selector.kind, stage.merge.kind)
        table.add_row(*map(str, numbers), *parts)
    return table


def comparison_panel(comparison: StudyComparison) -> RenderableType:
    """Draw how studies compare.

    Args:
        comparison: The comparison, of at least one budget.

    Returns:
        A table with a row per budget and study, and in what the studies differ.
    """
    leading = {budget.studies[0].study for budget in comparison.budgets}
    first = leading.pop() if len(leading) == 1 else "The budget's first"
    table = _table(
        "Budget",
        "Study",
        right=("TFLOPs", "Mean tokens", "Relative accuracy, %", f"{first} minus this, %"),
    )
    for budget in comparison.budgets:
        for number, study in enumerate(budget.studies):
            table.add_row(*_comparison_row(budget, study, number == 0))
        table.add_section()
    explained = (
        "In brackets: 95 % bootstrap intervals over images, paired; significance is Holm-corrected "
        "over each budget's studies."
    )
    return Group(table, *map(Text, [*comparison.notes, explained]))


_ACCURACIES = ("Search, %", "Report, %")


def _accuracies(budget: BudgetProgress) -> tuple[str, str]:
    best = "" if budget.best is None else f"{100 * budget.best:.1f}"
    return best, _with_interval(budget.reported, budget.interval_95)


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return ""
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _comparison_row(budget: ComparedBudget, study: ComparedStudy, first: bool) -> list[str | Text]:
    difference = study.why_not
    if study.comparison is not None:
        low, high = study.comparison.interval_95
        difference = (
            f"{100 * study.comparison.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        )
        if not study.comparison.significant:
            difference += ", not significant"
    return [
        Text(budget_label(budget.budget) if first else ""),
        Text(study.study),
        "" if study.tflops is None else f"{study.tflops:.3f}",
        "" if study.mean_visual_tokens is None else f"{study.mean_visual_tokens:.1f}",
        _with_interval(study.relative_accuracy, study.interval_95),
        Text(difference),
    ]


def _measured(study: StudyProgress) -> str:
    """Say what has been measured, and how long the search goes on."""
    counts = [f"{count:,} {split}" for split, count in study.samples.items()]
    text = f"Samples measured: {', '.join(counts) or 'none'}."
    if study.state != "running":
        return text
    if study.seconds_left is None:
        return f"{text} No search under way: it begins, or its result is being measured."
    left = timedelta(seconds=round(study.seconds_left))
    return f"{text} The search ends in {left} at the latest."


def _words(values: Mapping[str, object], names: Sequence[str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {values[name]}" for name in names if name in values)


def _table(*left: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in left:
        table.add_column(Text(column), overflow="fold")
    for column in right:  # folded, so that no digit is left out
        table.add_column(Text(column), justify="right", overflow="fold")
    return table
