"""What it takes to show what a schedule does to the images of a measured model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pruners.schedule import Schedule
from studies.kept_tokens import KeptStage

if TYPE_CHECKING:
    from pruners.prefill_record import GroupRecord, PrefillRecord


@dataclass(frozen=True)
class ShownSample:
    """What is shown of a sample.

    Attributes:
        question: The question.
        expected: The right answer.
        image: The image as the model sees it, a PNG file.
        rows: Rows of its visual tokens.
        columns: Columns of its visual tokens.
    """

    question: str
    expected: str
    image: bytes
    rows: int
    columns: int


@dataclass(frozen=True)
class Seen:
    """What became of a sample under a schedule.

    Attributes:
        answer: The model's answer.
        stages: What the stages kept.
    """

    answer: str
    stages: tuple[KeptStage, ...]


class Viewer(Protocol):
    """Runs an evaluator's model on samples of one split and looks at what it keeps."""

    def show(self, index: int) -> ShownSample:
        """Return what is shown of a sample.

        Args:
            index: Index into the evaluator's `samples(split)`.

        Returns:
            The image and question.

        Raises:
            DataError: Its visual tokens do not stand on one grid over one image.
        """

    def look(self, schedule: Schedule, indices: Sequence[int]) -> list[Seen]:
        """Run samples under a schedule.

        Args:
            schedule: The schedule, with layers of the measured model's depth.
            indices: Indices into the evaluator's `samples(split)`.

        Returns:
            What became of each, in the order asked.

        Raises:
            PrunetuneError: The schedule does not fit the model, or the model cannot be loaded.
        """


def kept_stages(
    record: PrefillRecord | None, schedule: Schedule, row: int
) -> tuple[KeptStage, ...]:
    """Read off a prefill's record which patches of a sample each stage kept.

    Args:
        record: What the runtime recorded (`PrunedModel.last_prefill`); None where nothing pruned.
        schedule: The schedule that was applied.
        row: The sample's place in the batch.

    Returns:
        The stages that dropped tokens of it.
    """
    if record is None:
        return ()
    merges = {stage.layer: stage.merge.kind for stage in schedule.stages}
    group, place = _group_of(record, row)
    stages = []
    for stage in group.stages:
        indices, contextual = stage.indices[place].tolist(), stage.contextual[place].tolist()
        alive = [pair for pair in zip(indices, contextual, strict=True) if pair[0] >= 0]
        stages.append(
            KeptStage(
                layer=stage.layer,
                dominant=tuple(sorted(index for index, made in alive if not made)),
                contextual=tuple(sorted(index for index, made in alive if made)),
                class_tokens=len(indices) - len(alive),
                merge=merges[stage.layer],
            )
        )
    return tuple(stages)


def _group_of(record: PrefillRecord, row: int) -> tuple[GroupRecord, int]:
    """Find the group that has a sample, and its place there."""
    for group in record.groups:
        if row in group.rows:
            return group, group.rows.index(row)
    raise AssertionError(f"no group has sample {row}")
