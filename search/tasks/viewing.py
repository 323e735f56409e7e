"""What schedules do to the images of real benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

from pruners.schedule import Schedule
from search.tasks.evaluator import TaskEvaluator
from search.tasks.loading import LoadedTask
from search.tasks.seen_images import seen_image
from search.viewing import Seen, ShownSample, kept_stages


class TaskViewer:
    """Runs a live model on a few samples, one by one, and looks at what it keeps.

    Of samples with several questions on an image, the first question is asked.

    Args:
        evaluator: The evaluator whose model runs.
        split: The split that samples are of.
    """

    def __init__(self, evaluator: TaskEvaluator, split: str) -> None:
        self._evaluator = evaluator
        self._split = split

    def show(self, index: int) -> ShownSample:
        """Return a sample's image, as the processor cut and resized it, and question."""
        (question,) = self._evaluator.questions(self._split, [index])
        task, row, identifier = question
        answering = self._evaluator.answering
        image = seen_image(answering.live, answering.inputs(question), identifier)
        text = task.request(row, identifier).text
        return ShownSample(text, _expected(task, row), image.png, image.rows, image.columns)

    def look(self, schedule: Schedule, indices: Sequence[int]) -> list[Seen]:
        """Run samples under a schedule."""
        questions = self._evaluator.questions(self._split, indices)
        return [
            Seen(answer, kept_stages(record, schedule, 0))
            for answer, record in self._evaluator.answering.watched(schedule, questions)
        ]


def _expected(task: LoadedTask, row: int) -> str:
    """Tell the right answer of a row, in the task's words; empty where it names none."""
    try:
        return str(task.task.doc_to_target(task.row(row)))
    except Exception:  # any task's own code; its score does not rest on this
        return ""
