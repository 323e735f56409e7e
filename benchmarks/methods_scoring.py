"""Scoring many schedules on the report split, in several processes, none of them twice."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from pruners.schedule import Schedule
from pruners.shape import Shape
from search.display import Display
from search.evaluators import Evaluator
from search.export import versions
from search.interruption import SIGNALS, Interruption, SearchInterruptedError
from search.measured_form import as_measured
from search.measuring import Measurements
from search.model_choice import choose_model, make_evaluator
from search.selection import score_split
from studies.identity import SplitIdentity, StudyIdentity
from studies.scores import ScoreCache
from studies.storage import StudyFolder

SPLIT = "report"
POLL_SECONDS = 0.5  # how often a signal is looked for while processes score


def scores_identity(evaluator: Evaluator, target: Shape) -> StudyIdentity:
    """What kept scores must have in common; methods, budgets and samples may be added later."""
    return StudyIdentity(
        model=evaluator.name,
        model_fingerprint=evaluator.fingerprint,
        shape=target,
        tasks=tuple(sorted({sample.task for sample in evaluator.samples(SPLIT)})),
        splits={
            SPLIT: SplitIdentity(
                samples=len(evaluator.samples(SPLIT)),
                fingerprint=evaluator.split_fingerprint(SPLIT),
            )
        },
        budgets=(),
        space={},
        seed=0,
        versions=versions(),
    )


def kept_scores(evaluator: Evaluator, scores: ScoreCache, limit: int | None) -> Measurements:
    """Open the kept scores.

    Args:
        evaluator: The measured model.
        scores: The cache.
        limit: Most samples to use, in equal shares of the tasks; all when None.

    Returns:
        The scores, measuring what is missing.
    """
    return Measurements(evaluator, scores, limits={SPLIT: limit} if limit else None)


def scores_of(schedule: Schedule, kept: Measurements) -> NDArray[np.float64]:
    """Return a schedule's score on every used sample of the report split, `(samples,)`."""
    measured = as_measured(schedule, kept.evaluator.shape)
    return kept.scores(measured, SPLIT, range(len(kept.samples(SPLIT))))


@contextmanager
def all_scored(
    schedules: Iterable[Schedule],
    evaluator: Evaluator,
    target: Shape,
    work: Path,
    limit: int | None,
    workers: int,
    display: Display,
) -> Iterator[Measurements]:
    """Score what is missing, and hand out the scores while their folder is open.

    Args:
        schedules: The schedules.
        evaluator: The measured model.
        target: What schedules are priced for.
        work: Folder that scores are kept in.
        limit: Most samples to use; all when None.
        workers: Processes.
        display: Shows progress.

    Yields:
        The scores, all of which are known.

    Raises:
        typer.Exit: The user asked to stop; what is scored is kept.
        PrunetuneError: A schedule cannot be measured, or the folder holds other scores.
    """
    with (
        Interruption() as interruption,
        StudyFolder.open(work, scores_identity(evaluator, target)) as folder,
    ):
        try:
            score_missing(
                schedules, evaluator, folder.scores, limit, workers, display, interruption
            )
        except SearchInterruptedError:
            display.show("Stopped; the same command continues.")
            raise typer.Exit(interruption.exit_status) from None
        yield kept_scores(evaluator, folder.scores, limit)


def score_missing(
    schedules: Iterable[Schedule],
    evaluator: Evaluator,
    scores: ScoreCache,
    limit: int | None,
    workers: int,
    display: Display,
    interruption: Interruption,
) -> None:
    """Score every schedule that is not yet known on all samples.

    Args:
        schedules: The schedules; those that behave alike on the measured model are scored once.
        evaluator: The measured model; each process makes its own.
        scores: Where scores are kept, block by block.
        limit: Most samples to use; all when None.
        workers: Processes.
        display: Shows progress.
        interruption: Asked now and then whether to stop.

    Raises:
        SearchInterruptedError: The user asked to stop; what is scored is kept.
        PrunetuneError: A schedule cannot be measured.
    """
    missing = _missing(schedules, kept_scores(evaluator, scores, limit), scores)
    if not missing:
        return
    context = get_context("spawn")  # a fork of a process that runs threads may hang
    stop = context.Event()
    started = time.monotonic()
    with (
        display.bar("schedules", len(missing)) as advance,
        ProcessPoolExecutor(workers, context, _start_worker, (stop,)) as pool,
    ):
        pending = {
            pool.submit(_score, scores.path, evaluator.name, schedule, limit)
            for schedule in missing
        }
        finished = 0
        try:
            while pending:
                interruption.check()
                done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                    finished += 1
                    minutes = (time.monotonic() - started) / 60
                    left = minutes * (len(missing) - finished) / finished
                    advance(1, f"{minutes:.1f} min, about {left:.0f} min left")
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _missing(
    schedules: Iterable[Schedule], kept: Measurements, scores: ScoreCache
) -> list[Schedule]:
    names = [sample.identifier for sample in kept.samples(SPLIT)]
    measured = [as_measured(schedule, kept.evaluator.shape) for schedule in schedules]
    return [
        schedule
        for content_hash, schedule in {each.content_hash: each for each in measured}.items()
        if len(scores.get(content_hash, SPLIT, names)) < len(names)
    ]


_stop: Event  # set in each process as it starts


def _start_worker(stop: Event) -> None:
    import signal

    import torch
    from transformers.utils.logging import disable_progress_bar

    global _stop
    _stop = stop
    torch.set_num_threads(1)
    disable_progress_bar()  # bars of several processes would mix
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the terminal's Ctrl-C reaches all processes


@cache
def _evaluator(model: str) -> Evaluator:
    """One per process: its images are encoded once, for all schedules."""
    return make_evaluator(choose_model(model))


def _score(path: Path, model: str, schedule: Schedule, limit: int | None) -> None:
    evaluator = _evaluator(model)
    with ScoreCache(path) as scores:
        kept = Measurements(
            evaluator, scores, check=_check_stop, limits={SPLIT: limit} if limit else None
        )
        score_split(kept, {"schedule": schedule}, SPLIT)


def _check_stop() -> None:
    if _stop.is_set():
        raise SearchInterruptedError
