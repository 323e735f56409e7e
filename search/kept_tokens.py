"""Recording which patches of sample images a study's schedules keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pruners.errors import DataError
from pruners.published import dense
from pruners.schedule import Schedule
from search.embedded_evaluator import EmbeddedEvaluator
from search.evaluators import Evaluator, SampleKey
from search.measured_form import as_measured
from search.tasks.evaluator import TaskEvaluator
from search.viewing import ShownSample, Viewer
from studies.kept_tokens import Gallery, KeptSample, KeptTokens

SPLIT = "report"
"""Samples are of the split that schedules are reported on, which no search has seen."""

SAMPLES = 6
"""Samples of a gallery: at least one of each of the embedded benchmark's five tasks."""


def record_gallery(
    evaluator: Evaluator, schedules: Mapping[str, Mapping[str, Schedule]], samples: int = SAMPLES
) -> Gallery:
    """Run a study's schedules on a few samples and record what each stage keeps of their images.

    The samples are the first of each task on different images: chosen by the order of the split,
    whatever schedules make of them. Those whose image cannot be shown are left out.

    Args:
        evaluator: What measured the schedules.
        schedules: Schedules for any depth, by budget and name.
        samples: Most samples.

    Returns:
        The gallery.

    Raises:
        DataError: The evaluator has no images to show.
        PrunetuneError: The model cannot be loaded, or a schedule does not fit it.
    """
    viewer = viewer_of(evaluator)
    keys = evaluator.samples(SPLIT)
    shown = _shown(viewer, first_of_each_task(keys, samples))
    indices = list(shown)
    dense_answers = [seen.answer for seen in viewer.look(dense(evaluator.shape), indices)]
    kept: list[list[KeptTokens]] = [[] for _ in indices]
    for budget, by_name in schedules.items():
        for name, schedule in by_name.items():
            seen = viewer.look(as_measured(schedule, evaluator.shape), indices)
            for own, one in zip(kept, seen, strict=True):
                own.append(
                    KeptTokens(budget=budget, schedule=name, answer=one.answer, stages=one.stages)
                )
    return Gallery(
        measured_on=evaluator.measured_on,
        split=SPLIT,
        samples=tuple(
            KeptSample(
                identifier=keys[index].identifier,
                task=keys[index].task,
                question=sample.question,
                expected=sample.expected,
                dense_answer=answer,
                image=sample.image,
                rows=sample.rows,
                columns=sample.columns,
                kept=tuple(own),
            )
            for (index, sample), answer, own in zip(shown.items(), dense_answers, kept, strict=True)
        ),
    )


def _shown(viewer: Viewer, indices: Sequence[int]) -> dict[int, ShownSample]:
    """Return those samples that can be shown, by index."""
    shown, refused = {}, None
    for index in indices:
        try:
            shown[index] = viewer.show(index)
        except DataError as error:
            refused = error
    if refused is not None and not shown:
        raise refused
    return shown


def viewer_of(evaluator: Evaluator) -> Viewer:
    """Find what shows the images of an evaluator.

    Args:
        evaluator: The evaluator.

    Returns:
        Its viewer.

    Raises:
        DataError: It has none.
    """
    if isinstance(evaluator, EmbeddedEvaluator):
        from search.embedded.viewing import EmbeddedViewer

        return EmbeddedViewer(evaluator, SPLIT)
    if isinstance(evaluator, TaskEvaluator):
        from search.tasks.viewing import TaskViewer

        return TaskViewer(evaluator, SPLIT)
    raise DataError(f"what was measured has no images ({evaluator.measured_on})")


def first_of_each_task(keys: Sequence[SampleKey], count: int) -> list[int]:
    """Choose samples: the first of each task, then the second, as far as images are new.

    Args:
        keys: The samples of a split.
        count: Most samples to choose.

    Returns:
        Indices into `keys`, task by task.
    """
    by_task: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        by_task.setdefault(key.task, []).append(index)
    chosen: list[int] = []
    images: set[str] = set()
    while len(chosen) < count and any(by_task.values()):
        for waiting in by_task.values():
            while waiting and keys[waiting[0]].image in images:
                del waiting[0]
            if waiting and len(chosen) < count:
                images.add(keys[waiting[0]].image)
                chosen.append(waiting.pop(0))
    return sorted(chosen, key=lambda index: (list(by_task).index(keys[index].task), index))
