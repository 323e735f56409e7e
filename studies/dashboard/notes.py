"""What the notes in the dashboard say, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from pruners.schedule import Schedule
from space.budgets import budget_label
from studies.progress import best_trial
from studies.reading import StoredBudget, StoredStudy
from studies.report import markdown_report

OURS = "*Written anew whenever prunetune starts the dashboard, unless this line is removed.*"
"""Last line of every note; notes without it are the user's."""


def study_note(study: StoredStudy, stored: StoredBudget, figures: Mapping[str, str]) -> str:
    """Write the note on a budget's study.

    Args:
        study: The study.
        stored: One of its budgets.
        figures: Address of each figure by its name.

    Returns:
        What was searched, what came out, the figures, and how to use the schedule.
    """
    identity = study.identity
    lines = [
        f"# {study.name}: {budget_label(stored.budget)}",
        "",
        f"Strategy {identity.strategy.get('sampler', 'unknown')}, seed {identity.seed}; accuracy "
        f"measured on {identity.model}, cost of {identity.shape.name}. Values are what the "
        "strategy compares schedules by, on the search split.",
        "",
        *_result(stored),
    ]
    for name, address in figures.items():
        lines += ["", f"![{name}]({address})"]
    if stored.schedule_path is not None:
        lines += ["", "## Use the schedule", "", *_use(stored)]
    return "\n".join([*lines, "", OURS]) + "\n"


def trial_note(schedule: Schedule) -> str:
    """Write the note on the trial whose schedule was exported.

    Args:
        schedule: The schedule, priced for its shape.

    Returns:
        Its stages as a table.
    """
    lines = ["# The exported schedule", ""]
    if schedule.shape is not None:
        lines += ["| layer | kept | contextual | scorer | merge rule |", "|---:|---:|---:|---|---|"]
        counts = schedule.counts(schedule.shape.visual_tokens, schedule.shape.tokens_per_tile)
        lines += [
            f"| {count.layer} | {count.alive} | {count.contextual} | {stage.scorer.kind} "
            f"| {stage.merge.kind} |"
            for stage, count in zip(schedule.stages, counts, strict=True)
        ]
    return "\n".join([*lines, "", OURS]) + "\n"


def _result(stored: StoredBudget) -> list[str]:
    if stored.result is not None:
        return markdown_report([stored.result])
    best = best_trial(stored.trials)
    if best is None or best.accuracy is None:
        return ["No trial has finished yet."]
    return [
        f"Not reported yet. Best so far: trial {best.number}, {best.accuracy:.1%} relative "
        f"accuracy on {best.samples} samples of the search split."
    ]


def _use(stored: StoredBudget) -> list[str]:
    return [
        "```python",
        "from pruners import apply_schedule, load_schedule",
        "",
        f'apply_schedule(model, load_schedule("{stored.schedule_path}"))',
        "```",
    ]
