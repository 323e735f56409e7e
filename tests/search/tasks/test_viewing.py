"""The gallery of a live model: what it answers, and what its stages keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from pruners.published import published
from search.kept_tokens import SPLIT, record_gallery
from search.measured_form import as_measured
from search.tasks.evaluator import TaskEvaluator
from search.tasks.settings import TaskSettings


@pytest.fixture
def evaluator(checkpoint: Path, rows: dict[str, Path], tmp_path: Path) -> TaskEvaluator:
    names = ("gqa", "mme")
    settings = TaskSettings(
        names=names,
        data={name: rows[name] for name in names},
        search_samples=10,
        confirm_samples=10,
        report_samples=10,
        max_new_tokens=2,
        cache=tmp_path / "cache",
        text_tower=str(checkpoint / "clip"),
    )
    return TaskEvaluator(str(checkpoint / "model"), settings)


def test_a_live_models_gallery_is_what_it_answers_and_keeps(evaluator: TaskEvaluator) -> None:
    schedule = published("visiondrop", tokens=192)
    measured = as_measured(schedule, evaluator.shape)
    gallery = record_gallery(evaluator, {"a budget": {"visiondrop": schedule}})
    keys = [key.identifier for key in evaluator.samples(SPLIT)]
    questions = evaluator.questions(SPLIT, [keys.index(one.identifier) for one in gallery.samples])
    answers = evaluator.answering.answers(measured, questions)
    counts = measured.counts(evaluator.shape.visual_tokens)
    assert {sample.task for sample in gallery.samples} == {"gqa", "mme"}
    assert any(counts)
    for sample, (task, row, identifier), answer in zip(
        gallery.samples, questions, answers, strict=True
    ):
        request = task.request(row, identifier)
        assert sample.question == request.text
        assert sample.expected == task.row(row)["answer"]
        (kept,) = sample.kept
        assert kept.answer == answer
        assert [(stage.layer, stage.alive) for stage in kept.stages] == [
            (count.layer, count.alive) for count in counts
        ]
