"""The embedded benchmark in lmms-eval against the embedded evaluator, sample by sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from pruners import Schedule, save_schedule
from pruners.shape import LLAVA_1_5_7B
from search.baselines import published_at
from search.embedded import CHECKPOINT, CLIP
from search.embedded_evaluator import EmbeddedEvaluator
from search.lmms.embedded_tasks import group_name, write_tasks
from search.measured_form import as_measured
from space.budgets import Budget

from .asking import evaluate

SPLIT = "confirm"
PER_TASK = 8
METHODS = ("visiondrop", "desap", "fastv")
ON_THE_CPU = f"pretrained={CHECKPOINT},dtype=float32"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder, [SPLIT], PER_TASK)
    return folder


@pytest.fixture(scope="module")
def dense_answers(tasks: Path) -> dict[str, tuple[str, float]]:
    return evaluate(
        tasks, group_name(SPLIT), "prunetune", model_args=ON_THE_CPU, device="cpu", batch_size=16
    )


@pytest.fixture(scope="module")
def evaluator() -> EmbeddedEvaluator:
    return EmbeddedEvaluator()


def expected(
    evaluator: EmbeddedEvaluator, schedule: Schedule, identifiers: list[str]
) -> dict[str, float]:
    places = {key.identifier: place for place, key in enumerate(evaluator.samples(SPLIT))}
    measured = as_measured(schedule, evaluator.shape)
    scores = evaluator.score(measured, SPLIT, [places[identifier] for identifier in identifiers])
    return dict(zip(identifiers, scores.tolist(), strict=True))


def test_dense_scores_are_the_embedded_evaluators(
    evaluator: EmbeddedEvaluator, dense_answers: dict[str, tuple[str, float]]
) -> None:
    scores = {identifier: score for identifier, (_, score) in dense_answers.items()}
    assert len(scores) == 5 * PER_TASK
    assert 0 < sum(scores.values()) < len(scores)
    assert scores == expected(evaluator, Schedule(shape=LLAVA_1_5_7B), list(scores))


@pytest.mark.parametrize("method", METHODS)
def test_pruned_scores_are_the_embedded_evaluators(
    method: str,
    tasks: Path,
    tmp_path: Path,
    evaluator: EmbeddedEvaluator,
    dense_answers: dict[str, tuple[str, float]],
) -> None:
    # Written for 32 decoder layers, so that both carry it over to the embedded model's depth.
    schedule = published_at(Budget("share", 0.3), LLAVA_1_5_7B, [method])[method]
    file = tmp_path / "schedule.json"
    save_schedule(schedule, file)
    answers = evaluate(
        tasks,
        group_name(SPLIT),
        "prunetune",
        model_args=f"{ON_THE_CPU},schedule={file},text_tower={CLIP}",
        device="cpu",
        batch_size=7,
    )
    assert {identifier: score for identifier, (_, score) in answers.items()} == expected(
        evaluator, schedule, list(answers)
    )
    assert answers != dense_answers


def test_dense_answers_are_those_of_lmms_evals_own_model(
    tasks: Path, dense_answers: dict[str, tuple[str, float]]
) -> None:
    pytest.importorskip("decord")  # which llava_hf imports
    own = evaluate(
        tasks,
        group_name(SPLIT),
        "llava_hf",
        model_args=f"{ON_THE_CPU},device_map=cpu",
        device="cpu",
        batch_size=1,
    )
    assert dense_answers == own


def test_longer_answers_are_those_of_lmms_evals_own_model(tasks: Path) -> None:
    pytest.importorskip("decord")
    longer = {"gen_kwargs": "max_new_tokens=5", "limit": 4, "device": "cpu", "batch_size": 1}
    answers, own = (
        evaluate(tasks, group_name(SPLIT), name, model_args=arguments, **longer)
        for name, arguments in (
            ("prunetune", ON_THE_CPU),
            ("llava_hf", f"{ON_THE_CPU},device_map=cpu"),
        )
    )
    assert answers == own
