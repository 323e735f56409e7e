"""What the files of a version mean, in numbers and hashes: the same for every version that reads
them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from pruners import load_schedule
from studies.identity import read_identity
from studies.reading import read_study
from studies.results import read_results
from studies.scores import ScoreCache


def facts(folder: Path) -> dict[str, Any]:
    """Read everything in a version's folder.

    Args:
        folder: The folder, or a copy of it: databases are opened for writing.

    Returns:
        Facts as JSON has them.
    """
    return {
        "schedules": {
            file.stem: schedule_facts(file) for file in sorted((folder / "schedules").iterdir())
        },
        "study": study_facts(folder / "study"),
    }


def schedule_facts(file: Path) -> dict[str, Any]:
    """What a schedule prunes and costs."""
    schedule = load_schedule(file)
    found: dict[str, Any] = {
        "content_hash": schedule.content_hash,
        "positions": schedule.positions,
        "stages": [
            [stage.layer, stage.scorer.kind, stage.selector.kind, stage.merge.kind]
            for stage in schedule.stages
        ],
    }
    if schedule.shape is not None and schedule.cost is not None:
        shape = schedule.shape
        per_layer = schedule.visual_tokens_per_layer(
            shape.decoder_layers, shape.visual_tokens, shape.tokens_per_tile
        )
        assert schedule.cost.visual_tokens_per_layer == per_layer
        found |= {
            "family": shape.family,
            "tokens": sum(per_layer),
            "tflops": round(schedule.cost.tflops, 9),
        }
    if schedule.evidence is not None:
        found["evidence"] = {
            split: [known.samples, round(known.relative_accuracy, 9)]
            for split, known in schedule.evidence.splits.items()
        }
    if schedule.provenance is not None:
        found["origin"] = schedule.provenance.origin
    return found


def study_facts(folder: Path) -> dict[str, Any]:
    """What a study searched, tried, measured and found."""
    study, identity = read_study(folder), read_identity(folder / "identity.json")
    with (folder / "trials.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    samples = json.loads((folder / "samples.json").read_text())
    budgets = {}
    with ScoreCache(folder / "scores.db") as cache:
        for stored in study.budgets:
            assert stored.schedule_path is not None
            searched = [
                cache.get(trial.measured_hash or "", "search", flat(samples["search"]))
                for trial in stored.trials
            ]
            budgets[stored.budget] = {
                "trials": [
                    [trial.number, trial.state, trial.content_hash, rounded(trial.objective)]
                    for trial in stored.trials
                ],
                "rows": sum(row["budget"] == stored.budget for row in rows),
                "scores": [[len(scores), rounded(sum(scores.values()))] for scores in searched],
                "schedule": schedule_facts(stored.schedule_path),
            }
    return {
        "model": identity.model,
        "seed": identity.seed,
        "shape": identity.shape.name,
        "samples": {split: len(flat(tasks)) for split, tasks in samples.items()},
        "budgets": budgets,
        "results": [
            {
                "budget": result.budget,
                "schedules": {
                    entry.name: [rounded(entry.tflops), rounded(entry.evidence.relative_accuracy)]
                    for entry in result.schedules
                },
                "significant": [entry.other for entry in result.comparisons if entry.significant],
            }
            for result in read_results(folder / "results.json")
        ],
    }


def flat(tasks: dict[str, list[str]]) -> list[str]:
    """All samples of a split."""
    return [sample for samples in tasks.values() for sample in samples]


def rounded(number: float | None) -> float | None:
    """A number as files compare it."""
    return None if number is None else round(number, 9)
