"""What the page says of an exported schedule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pruners.schedule import Schedule, SplitEvidence
from studies.reading import StoredBudget


@dataclass(frozen=True)
class StageRow:
    """A stage in the table of a schedule.

    Attributes:
        layer: Its boundary.
        retention: Share of the dense model's tokens alive after it, in percent.
        alive: Tokens alive after it.
        dominant: Dominant ones.
        contextual: Contextual ones.
        scorer: What tokens are ordered by.
        selector: How they are chosen.
        merge: What becomes of the others.
    """

    layer: int
    retention: str
    alive: int
    dominant: int
    contextual: int
    scorer: str
    selector: str
    merge: str


@dataclass(frozen=True)
class ScheduleView:
    """An exported schedule.

    Attributes:
        file: Name of its file.
        json: The file's content.
        confirmed: Whether it was reported on.
        priced_for: Name of the shape that its layers and counts refer to.
        visual_tokens: Visual tokens of that shape.
        stages: Its stages.
        content_hash: Hash of what it does.
        note: How far its evidence carries.
        evidence: Split, samples and relative accuracy of what was measured.
        provenance: Where it comes from, by field.
    """

    file: str
    json: str
    confirmed: bool
    priced_for: str
    visual_tokens: int | None
    stages: tuple[StageRow, ...]
    content_hash: str
    note: str
    evidence: tuple[tuple[str, int, str], ...]
    provenance: tuple[tuple[str, str], ...]


def schedule_view(stored: StoredBudget) -> ScheduleView | None:
    """Lay out the schedule of a budget.

    Args:
        stored: What is stored of the budget.

    Returns:
        The view; None where no schedule was exported.
    """
    schedule, path = stored.schedule, stored.schedule_path
    if schedule is None or path is None:
        return None
    evidence = schedule.evidence
    splits = evidence.splits if evidence else {}
    return ScheduleView(
        file=path.name,
        json=schedule_json(schedule),
        confirmed="report" in splits,
        priced_for=schedule.shape.name if schedule.shape else "",
        visual_tokens=schedule.shape.visual_tokens if schedule.shape else None,
        stages=tuple(_stage_rows(schedule)),
        content_hash=schedule.content_hash,
        note=evidence.note if evidence else "",
        evidence=tuple((name, splits[name].samples, interval(splits[name])) for name in splits),
        provenance=tuple(_provenance(schedule)),
    )


def _stage_rows(schedule: Schedule) -> Iterator[StageRow]:
    if schedule.shape is None:
        return
    counts = schedule.counts(schedule.shape.visual_tokens, schedule.shape.tokens_per_tile)
    for stage, count in zip(schedule.stages, counts, strict=True):
        yield StageRow(
            layer=stage.layer,
            retention=f"{100 * stage.retention:.1f}",
            alive=count.alive,
            dominant=count.dominant,
            contextual=count.contextual,
            scorer=stage.scorer.kind,
            selector=stage.selector.kind,
            merge=stage.merge.kind,
        )


def _provenance(schedule: Schedule) -> Iterator[tuple[str, str]]:
    found = schedule.provenance
    if found is None:
        return
    fields = {
        "Budget": found.budget,
        "Command": found.command,
        "Trials": found.trials,
        "Samples scored": found.evaluations,
        "Seed": found.seed,
        "Exported": found.created,
    }
    for name, value in fields.items():
        if value is not None:
            yield name, str(value)


def interval(evidence: SplitEvidence) -> str:
    """Write a relative accuracy with its interval, in percent of dense."""
    low, high = evidence.interval_95
    return f"{100 * evidence.relative_accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def schedule_json(schedule: Schedule) -> str:
    """Write a schedule as its file has it.

    Args:
        schedule: The schedule.

    Returns:
        Sorted, indented JSON.
    """
    return json.dumps(schedule.model_dump(mode="json"), sort_keys=True, indent=2) + "\n"
