"""What every schedule of the lattice does, measured once and kept as data.

All schedules of `lattice.py`, at five budgets and at none, run on 500 samples of the search split
and all 2,600 of the report split, or as many as ``--search-samples`` and ``--report-samples`` say.
Kept are whether the answer is right, and on the search split also the probability of the dense
model's answer and the agreement of the last hidden states.

    python benchmarks/ground_truth.py --workers 2

writes ``benchmarks/data/ground-truth-embedded.parquet`` in about two and a half hours. Finished
chunks of samples are kept under ``runs/ground_truth``: the same command continues after an
interruption. ``--model`` also takes the folder of another checkpoint that ``search.embedded.train``
wrote, and ``--benchmark`` that of other questions that ``search.embedded.benchmark`` drew.
``--parts sampled`` runs some of the embedded model's schedules instead, scaled to the other model,
for `transfer.py`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from ground_truth_batches import Results, run_batch
from lattice import (
    LatticePoint,
    dense_point,
    lattice,
    lattice_sample,
    off_budget_lattice,
    scaled,
)
from rich.console import Console
from tabular_data import GROUND_TRUTH_SPLITS, About, GroundTruth, SplitSamples

from pruners.errors import DataError, PrunetuneError
from pruners.shape import Shape
from search.embedded import CHECKPOINT
from search.embedded import DATA as DEFAULT_QUESTIONS
from search.embedded_evaluator import EmbeddedEvaluator
from search.export import versions
from search.sample_limits import equal_shares
from studies.files import atomic_path

DATA = Path(__file__).parent / "data"
MEAN_TOKENS = (72, 48, 32, 16, 8)
"""Budgets: 50, 33, 22, 11 and 5.6 % of the embedded model's 144 visual tokens."""

CHUNK = 25
"""Samples of a chunk; one chunk takes about two minutes."""


class Point(NamedTuple):
    """A point and the budget whose lattice it belongs to, in mean tokens; 0 for none."""

    budget: int
    point: LatticePoint


class Source(NamedTuple):
    """The model, ``"embedded"`` or a checkpoint's folder, and the folder of its questions."""

    model: str
    benchmark: Path


class Chunk(NamedTuple):
    """Samples to run the schedules of a part on, and where the results go."""

    part: str
    split: str
    indices: tuple[int, ...]
    path: Path


def main(
    model: Annotated[str, typer.Option(help="embedded, or a checkpoint's folder.")] = "embedded",
    benchmark: Annotated[
        Path, typer.Option(help="Folder of the questions. Default: the shipped ones.")
    ] = DEFAULT_QUESTIONS,
    search_samples: Annotated[int, typer.Option(min=5, help="Samples of the search split.")] = 500,
    report_samples: Annotated[int, typer.Option(min=5, help="Samples of the report split.")] = 2600,
    parts: Annotated[
        str, typer.Option(help="What to run, by commas: budgets, off-budget, sampled.")
    ] = "budgets,off-budget",
    workers: Annotated[int, typer.Option(min=1, help="Chunks at a time, each on one core.")] = 1,
    work: Annotated[Path, typer.Option(help="Finished chunks are kept here.")] = Path(
        "runs/ground_truth"
    ),
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write. Default: benchmarks/data/ground-truth-MODEL.parquet"),
    ] = None,
) -> None:
    """Run every chunk that is not yet there, and put all together."""
    console = Console()
    path = out or DATA / f"ground-truth-{Path(model).name}.parquet"
    try:
        source = Source(model, benchmark)
        evaluator = make_evaluator(source)
        names = part_names(parts)
        samples = {"search": search_samples, "report": report_samples}
        chunks = make_chunks(evaluator, samples, work / Path(model).name, names)
        run_chunks(source, [chunk for chunk in chunks if not chunk.path.exists()], workers, console)
        truth = assemble(evaluator, chunks, names)
        path.parent.mkdir(parents=True, exist_ok=True)
        truth.write(path)
    except PrunetuneError as error:
        console.print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    console.print(
        f"{len(truth.points)} schedules, {path.stat().st_size / 1e6:.1f} MB written to {path}",
        markup=False,
    )


@cache
def make_evaluator(source: Source) -> EmbeddedEvaluator:
    """One per process: its images are encoded once, for all chunks."""
    checkpoint = CHECKPOINT if source.model == "embedded" else Path(source.model)
    return EmbeddedEvaluator(checkpoint, source.benchmark)


def budget_points(shape: Shape) -> list[Point]:
    """The lattices of all budgets, after the dense model."""
    return [
        Point(0, dense_point(shape)),
        *(Point(tokens, point) for tokens in MEAN_TOKENS for point in lattice(shape, tokens)),
    ]


def off_budget_points(shape: Shape) -> list[Point]:
    """Schedules of no budget, after the dense model."""
    return [Point(0, dense_point(shape)), *(Point(0, point) for point in off_budget_lattice(shape))]


def sampled_points(shape: Shape) -> list[Point]:
    """Some schedules of the embedded model's lattice, scaled to another depth, after dense."""
    embedded = EmbeddedEvaluator().shape
    sample = [
        Point(tokens, scaled(point, embedded, shape))
        for tokens in MEAN_TOKENS
        for point in lattice_sample(embedded, tokens)
    ]
    return [Point(0, dense_point(shape)), *sample]


PARTS: Mapping[str, Callable[[Shape], list[Point]]] = {
    "budgets": budget_points,
    "off-budget": off_budget_points,
    "sampled": sampled_points,
}
"""Points by the part of the table that they make up; each begins with dense."""


def part_names(text: str) -> tuple[str, ...]:
    """Read which parts to run.

    Args:
        text: Names by commas.

    Returns:
        The names.

    Raises:
        DataError: There is no such part.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in PARTS:
            raise DataError(f"there is no part {name!r}; expected some of {', '.join(PARTS)}")
    return names


def make_chunks(
    evaluator: EmbeddedEvaluator, samples: Mapping[str, int], work: Path, parts: Sequence[str]
) -> list[Chunk]:
    """Divide the work; samples of similar length share a chunk, so that little is padding."""
    chunks = []
    for split in GROUND_TRUTH_SPLITS:
        indices = used_samples(evaluator, split, samples[split])
        for part in parts:
            for start in range(0, len(indices), CHUNK):
                path = work / f"{part}-{split}-{len(indices)}-{start}.npz"
                chunks.append(Chunk(part, split, tuple(indices[start : start + CHUNK]), path))
    return chunks


def used_samples(evaluator: EmbeddedEvaluator, split: str, samples: int) -> list[int]:
    """Draw samples in equal shares of the tasks, shortest prompt first."""
    tasks = [key.task for key in evaluator.samples(split)]
    prompts = evaluator.inputs(split).prompts
    drawn = equal_shares(tasks, samples, seed=0)
    return sorted(drawn, key=lambda index: len(prompts[index]))


def run_chunks(source: Source, chunks: Sequence[Chunk], workers: int, console: Console) -> None:
    """Run chunks in processes of their own, and say how long the rest will take."""
    started = time.monotonic()
    # New processes: a fork of one that runs threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        running = [pool.submit(run_chunk, source, chunk) for chunk in chunks]
        try:
            for number, future in enumerate(as_completed(running), start=1):
                future.result()
                elapsed = (time.monotonic() - started) / 60
                left = elapsed * (len(chunks) - number) / number
                console.print(
                    f"{number}/{len(chunks)} chunks; {elapsed:.1f} min, about {left:.0f} min left",
                    highlight=False,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the chunks that run are waited for, others not
            raise


def run_chunk(source: Source, chunk: Chunk) -> None:
    """Run all schedules of a part on a chunk's samples and keep the results."""
    evaluator = make_evaluator(source)
    points = PARTS[chunk.part](evaluator.shape)
    schedules = [point.schedule(evaluator.shape) for _, point in points]
    results = run_batch(evaluator, chunk.split, chunk.indices, schedules)
    chunk.path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(chunk.path) as temporary:
        np.savez_compressed(temporary, identity=identity(evaluator, chunk), **results._asdict())


def identity(evaluator: EmbeddedEvaluator, chunk: Chunk) -> str:
    """Hash of what decides a chunk's results: model, schedules and samples."""
    keys = evaluator.samples(chunk.split)
    hashes = _part(chunk.part, evaluator.shape)[1]
    content = [
        evaluator.fingerprint,
        evaluator.split_fingerprint(chunk.split),
        *hashes,
        *(keys[index].identifier for index in chunk.indices),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@cache
def _part(part: str, shape: Shape) -> tuple[list[Point], list[str]]:
    """The points of a part and their content hashes."""
    points = PARTS[part](shape)
    return points, [point.schedule(shape).content_hash for _, point in points]


def read_chunk(evaluator: EmbeddedEvaluator, chunk: Chunk) -> Results:
    """Read a chunk's results back."""
    try:
        with np.load(chunk.path) as arrays:
            if str(arrays["identity"]) != identity(evaluator, chunk):
                raise DataError(
                    f"{chunk.path} holds results of another model, lattice or benchmark; "
                    "remove it, or give another --work"
                )
            return Results(**{name: arrays[name] for name in Results._fields})
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{chunk.path} is no chunk of results ({error}); remove it") from error


def assemble(
    evaluator: EmbeddedEvaluator, chunks: Sequence[Chunk], parts: Sequence[str]
) -> GroundTruth:
    """Put chunks together; dense, which every part has, is taken from the first."""
    rows: list[Point] = []
    hashes: list[str] = []
    tables: dict[tuple[str, str], list[np.ndarray]] = {}
    for number, part in enumerate(parts):
        new = slice(0 if number == 0 else 1, None)
        points, part_hashes = _part(part, evaluator.shape)
        rows += points[new]
        hashes += part_hashes[new]
        for split in GROUND_TRUTH_SPLITS:
            read = [
                read_chunk(evaluator, chunk)
                for chunk in chunks
                if (chunk.part, chunk.split) == (part, split)
            ]
            for name in Results._fields:
                table = np.concatenate([getattr(results, name)[new] for results in read], axis=1)
                tables.setdefault((split, name), []).append(table)
    whole = {key: np.concatenate(table) for key, table in tables.items()}
    names = {key.identifier: index for index, key in enumerate(evaluator.samples("search"))}
    told = about(evaluator, chunks)
    searched = [names[name] for name in told.splits["search"].identifiers]
    return GroundTruth(
        about=told,
        points=tuple(point for _, point in rows),
        budgets=np.array([budget for budget, _ in rows]),
        hashes=tuple(hashes),
        right={split: whole[split, "right"] for split in GROUND_TRUTH_SPLITS},
        answer_probabilities=whole["search", "answer_probabilities"].astype(np.float32),
        hidden_agreements=whole["search", "hidden_agreements"].astype(np.float32),
        attention=evaluator.attention_mass("search", searched),
    )


def about(evaluator: EmbeddedEvaluator, chunks: Sequence[Chunk]) -> About:
    """Say what the results are of."""
    first = chunks[0].part
    splits = {}
    for split in GROUND_TRUTH_SPLITS:
        keys = evaluator.samples(split)
        used = [
            keys[index]
            for chunk in chunks
            if (chunk.part, chunk.split) == (first, split)
            for index in chunk.indices
        ]
        splits[split] = SplitSamples(
            identifiers=tuple(key.identifier for key in used),
            tasks=tuple(key.task for key in used),
            images=tuple(key.image for key in used),
        )
    return About(
        model=evaluator.name,
        measured_on=evaluator.measured_on,
        fingerprint=evaluator.fingerprint,
        shape=evaluator.shape,
        split_fingerprints={
            split: evaluator.split_fingerprint(split) for split in GROUND_TRUTH_SPLITS
        },
        splits=splits,
        versions=versions(),
    )


if __name__ == "__main__":
    typer.run(main)
