"""How many trials an hour the search runs, against other ways to measure schedules by lmms-eval.

    python benchmarks/trial_throughput.py --samples 100 --trials 6

measures the same schedules on the same samples (yes-no questions of the embedded benchmark as rows
of lmms-eval's task `pope`, on the embedded model) in three ways:

- plain: a new process of ``python -m lmms_eval --model prunetune`` for each schedule;
- one model: a loop in one process that keeps the model and calls lmms-eval's `simple_evaluate`;
- prunetune: the search's own evaluator, first with an empty cache, then as trials after the first
  find it.

It prints a table, and where a trial's time goes in the evaluator, and writes
``benchmarks/results/trial-throughput.json``. Ways take turns schedule by schedule, so that other
load on the machine falls on all of them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from pruners.files import save_schedule
from pruners.schedule import Schedule
from search.embedded import CHECKPOINT, CLIP
from search.embedded.benchmark import load_split
from search.measured_form import as_measured
from search.tasks.evaluator import TaskEvaluator
from search.tasks.settings import TaskSettings
from space.budgets import parse_budget
from space.coding import SearchSpace
from space.parameters import Parameter
from studies.files import write_text

RESULTS = Path(__file__).parent / "results" / "trial-throughput.json"
TASK = "pope_embedded"
BATCH = 16
ANSWER_TOKENS = 2
"""A word and the end token, as real models answer POPE; the embedded one has no end token."""


def main(
    samples: Annotated[int, typer.Option(min=3, help="Samples per trial, at most 400.")] = 100,
    trials: Annotated[int, typer.Option(min=2, help="Schedules.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the schedules.")] = 0,
    out: Annotated[Path, typer.Option(help="The file with the results.")] = RESULTS,
) -> None:
    """Measure trials per hour."""
    with tempfile.TemporaryDirectory() as work:
        figures = measure(Path(work), samples, trials, seed)
    show(figures)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(figures, indent=2) + "\n")


def measure(work: Path, samples: int, trials: int, seed: int) -> dict[str, Any]:
    """Time every way on the same schedules and samples."""
    write_rows(work / "rows", samples)
    write_task(work)
    evaluator = TaskEvaluator(
        str(CHECKPOINT),
        TaskSettings(
            names=("pope",),
            data={"pope": work / "rows"},
            search_samples=samples - 2,
            confirm_samples=1,
            report_samples=1,
            batch_size=BATCH,
            max_new_tokens=ANSWER_TOKENS,
            text_tower=str(CLIP),
            cache=work / "cache",
        ),
    )
    schedules = draw_schedules(evaluator, trials, seed)
    loop = make_loop(work)
    parts: dict[str, float] = defaultdict(float)
    splits = {name: range(len(evaluator.samples(name))) for name in ("search", "confirm", "report")}

    def own(schedule: Schedule) -> float:
        scores = [evaluator.score(schedule, split, places) for split, places in splits.items()]
        return float(np.concatenate(scores).mean())

    own(schedules[0])  # loads model and tasks, and fills the cache with what trials share
    seconds: dict[str, list[float]] = defaultdict(list)
    accuracies: dict[str, list[float | None]] = defaultdict(list)
    with timed_parts(evaluator, parts):
        for number, schedule in enumerate(schedules[1:]):
            path = work / f"schedule-{number}.json"
            save_schedule(schedule, path)
            for name, way in (
                ("plain", lambda path=path: run_plain(work, path)),
                ("one model", lambda schedule=schedule: loop(schedule)),
                ("prunetune", lambda schedule=schedule: own(schedule)),
            ):
                started = time.perf_counter()
                accuracies[name].append(way())
                seconds[name].append(time.perf_counter() - started)
    own_time = sum(seconds["prunetune"])
    shares = {name: value / own_time for name, value in parts.items()}
    shares["the rest"] = 1 - sum(shares.values())
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "samples": samples,
        "batch_size": BATCH,
        "seconds": dict(seconds),
        "accuracies": dict(accuracies),
        "trials_per_hour": {name: 3600 / value for name, value in medians.items()},
        "times_as_many": {name: value / medians["prunetune"] for name, value in medians.items()},
        "parts": shares,
    }


def write_rows(folder: Path, samples: int) -> None:
    """Write yes-no questions of the embedded benchmark with POPE's columns."""
    import datasets

    chosen = [each for each in load_split("search") if each.answer in ("yes", "no")][:samples]
    rows = []
    for number, each in enumerate(chosen):
        buffer = BytesIO()
        each.pil().save(buffer, format="png")
        rows.append(
            {
                "id": each.id,
                "question_id": str(number),
                "question": each.question,
                "answer": each.answer,
                "category": "random",
                # Not the image's: questions on one would all go to the same split, of other sizes.
                "image_source": each.id,
                "image": {"bytes": buffer.getvalue(), "path": None},
            }
        )
    folder.mkdir(parents=True)
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    table.to_parquet(folder / "rows.parquet")


def write_task(folder: Path) -> None:
    """Write lmms-eval's task `pope` under another name, on the rows."""
    import lmms_eval

    source = Path(lmms_eval.__file__).parent / "tasks" / "pope"
    lines = (source / "pope.yaml").read_text(encoding="utf-8").splitlines()
    kept = lines[lines.index("test_split: test") :]
    start = [
        "dataset_path: parquet",
        "dataset_kwargs:",
        "  data_files:",
        f"    test: {folder / 'rows' / 'rows.parquet'}",
        f'task: "{TASK}"',
    ]
    text = "\n".join(start + kept) + "\n"
    text = text.replace("max_new_tokens: 128", f"max_new_tokens: {ANSWER_TOKENS}")
    (folder / f"{TASK}.yaml").write_text(text, encoding="utf-8")
    (folder / "utils.py").write_text((source / "utils.py").read_text(encoding="utf-8"))


def draw_schedules(evaluator: TaskEvaluator, trials: int, seed: int) -> list[Schedule]:
    """Draw random schedules at 60 % of the model's dense cost."""
    space = SearchSpace(evaluator.shape, parse_budget("60%"), decoder_stages=2)
    generator = np.random.default_rng(seed)
    points = [
        {
            each.name: float(generator.uniform(each.low, each.high))
            for each in space.parameters
            if isinstance(each, Parameter)
        }
        for _ in range(trials + 1)
    ]
    return [as_measured(space.decode(point), evaluator.shape) for point in points]


def run_plain(folder: Path, schedule: Path) -> float:
    """Measure a schedule in a new process of lmms-eval: its accuracy as printed."""
    model = f"pretrained={CHECKPOINT},schedule={schedule},text_tower={CLIP},device=cpu"
    command = [sys.executable, "-m", "lmms_eval", "--model", "prunetune", "--model_args", model]
    command += ["--include_path", str(folder), "--tasks", TASK, "--batch_size", str(BATCH)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    for line in done.stdout.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if "pope_accuracy" in cells:
            return float(next(cell for cell in cells if re.fullmatch(r"[01]\.\d+", cell)))
    raise RuntimeError(f"lmms-eval printed no result:\n{done.stderr[-2000:]}")


def make_loop(folder: Path) -> Callable[[Schedule], float]:
    """Load a model once, for lmms-eval's own evaluation of one schedule after the other."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from pruners.runtime import apply_schedule
    from search.lmms.loading import ModelSettings, load
    from search.lmms.model import BenchmarkedModel

    loaded = load(ModelSettings(pretrained=str(CHECKPOINT)))
    model = BenchmarkedModel(loaded, batch_size=BATCH)
    manager = TaskManager("ERROR", include_path=str(folder), include_defaults=False)

    def measure_schedule(schedule: Schedule) -> float:
        with apply_schedule(
            loaded.model, schedule, processor=loaded.processor, text_tower=str(CLIP)
        ):
            results = simple_evaluate(
                model=model, tasks=[TASK], task_manager=manager, batch_size=BATCH, bootstrap_iters=0
            )
        return float(results["results"][TASK]["pope_accuracy,none"])

    return measure_schedule


@contextmanager
def timed_parts(evaluator: TaskEvaluator, parts: dict[str, float]) -> Iterator[None]:
    """Add up what the evaluator's parts take."""
    answering = evaluator.answering
    places = [
        (answering, "_sample_key", "hashing of rows"),
        (answering, "_prepared", "prepared inputs from the cache"),
        (answering._encoder, "encoded", "vision outputs from the cache"),
        (answering._generator, "answers", "generation"),
    ]

    def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                parts[name] += time.perf_counter() - started

        return call

    for owner, attribute, name in places:
        setattr(owner, attribute, timed(getattr(owner, attribute), name))
    try:
        yield
    finally:
        for owner, attribute, _ in places:
            delattr(owner, attribute)


def show(figures: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console()
    table = Table("way", "seconds per trial", "trials per hour", "prunetune is faster by")
    for name, rate in figures["trials_per_hour"].items():
        factor = figures["times_as_many"][name]
        table.add_row(name, f"{3600 / rate:.2f}", f"{rate:.0f}", f"{factor:.1f} x")
    console.print(table)
    parts = Table("part of a trial", "share")
    for name, share in figures["parts"].items():
        parts.add_row(name, f"{share:.0%}")
    console.print(parts)


if __name__ == "__main__":
    typer.run(main)
