"""What the page's gallery of kept tokens shows."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from studies.figure_data import label
from studies.kept_tokens import Gallery, KeptSample, KeptStage, KeptTokens

MERGES = {
    "none": "dropped tokens are lost",
    "nearest-reference": "dropped tokens are merged into the contextual ones",
    "density-peaks": "some of the dropped tokens are merged into the contextual ones",
    "cluster-average": "dropped tokens are averaged into the kept ones",
    "similarity-weighted": "dropped tokens are averaged into the kept ones",
    "bipartite-matching": "dropped tokens are averaged into the kept ones",
}
"""What merge rules do with dropped tokens, in words."""


@dataclass(frozen=True)
class StageView:
    """One stage's picture.

    Attributes:
        title: Its boundary.
        text: The picture in words.
        alive: Visual tokens alive after it.
        dropped: The dropped patches as an SVG path, a patch one unit wide.
        contextual: The contextual ones.
    """

    title: str
    text: str
    alive: int
    dropped: str
    contextual: str


@dataclass(frozen=True)
class RowView:
    """What one schedule keeps of an image.

    Attributes:
        budget: Number of its budget on the page.
        label: What the schedule is called.
        answer: The pruned model's answer.
        right: Whether it is the expected one.
        merge: What becomes of the tokens that it drops, in words.
        stages: Its stages.
    """

    budget: int
    label: str
    answer: str
    right: bool
    merge: str
    stages: tuple[StageView, ...]


@dataclass(frozen=True)
class SampleView:
    """A sample of the gallery.

    Attributes:
        sample: The sample.
        source: Its image as a data URL.
        dense_right: Whether the dense model answers right.
        rows: What schedules keep of it.
    """

    sample: KeptSample
    source: str
    dense_right: bool
    rows: tuple[RowView, ...]


def gallery_views(gallery: Gallery, budgets: Sequence[str]) -> tuple[SampleView, ...]:
    """Lay out a gallery.

    Args:
        gallery: The gallery.
        budgets: The page's budgets; what the gallery has of others is left out.

    Returns:
        One view per sample.
    """
    return tuple(
        SampleView(
            sample=sample,
            source=f"data:image/png;base64,{base64.b64encode(sample.image).decode()}",
            dense_right=_same(sample.dense_answer, sample.expected),
            rows=tuple(
                _row(sample, kept, budgets.index(kept.budget))
                for kept in sample.kept
                if kept.budget in budgets
            ),
        )
        for sample in gallery.samples
    )


def _row(sample: KeptSample, kept: KeptTokens, budget: int) -> RowView:
    return RowView(
        budget=budget,
        label=label(kept.schedule),
        answer=kept.answer,
        right=_same(kept.answer, sample.expected),
        merge="; ".join(
            dict.fromkeys(
                MERGES.get(stage.merge, f"merge rule {stage.merge}") for stage in kept.stages
            )
        ),
        stages=tuple(_stage(sample, stage) for stage in kept.stages),
    )


def _stage(sample: KeptSample, stage: KeptStage) -> StageView:
    dropped = sample.dropped(stage)
    cls = f", {stage.class_tokens} CLS" if stage.class_tokens else ""
    return StageView(
        title="encoder output" if stage.layer == 0 else f"before layer {stage.layer}",
        text=(
            f"{len(stage.dominant)} dominant, {len(stage.contextual)} contextual{cls}, "
            f"{len(dropped)} of {sample.patches} dropped"
        ),
        alive=stage.alive,
        dropped=patch_path(dropped, sample.columns),
        contextual=patch_path(stage.contextual, sample.columns, apart=True),
    )


def patch_path(patches: Iterable[int], columns: int, *, apart: bool = False) -> str:
    """Outline patches as an SVG path.

    Args:
        patches: Patches, counted row by row, rising.
        columns: Patches of a row.
        apart: Whether neighbours in a row have outlines of their own.

    Returns:
        The path; a patch is one unit wide and high.
    """
    runs: list[list[int]] = []
    for patch in patches:
        if runs and patch == sum(runs[-1]) and patch % columns and not apart:
            runs[-1][1] += 1
        else:
            runs.append([patch, 1])
    return "".join(
        f"M{start % columns} {start // columns}h{length}v1h-{length}z" for start, length in runs
    )


def _same(answer: str, expected: str) -> bool:
    return answer.strip().lower() == expected.strip().lower()
