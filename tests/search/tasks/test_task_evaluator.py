"""Scores against those that lmms-eval itself gives the same answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from lmms_eval import evaluator as lmms_evaluator
from lmms_eval.api.model import lmms
from lmms_eval.tasks import TaskManager

from pruners.published import dense
from search.tasks.catalogue import TASKS
from studies.identity import SPLITS
from tests.search.tasks.making import Make

OFFICIAL = {
    "gqa": "exact_match",
    "pope": "pope_f1_score",
    "mmbench_en_dev_static": "gpt_eval_score",
    "scienceqa_img": "exact_match",
    "vqav2_val": "exact_match",
    "textvqa_val": "exact_match",
    "vizwiz_vqa_val": "exact_match",
    "seedbench": "seed_image",
}
"""lmms-eval's metric of each task; MME has two, and MMBench-CN needs a judge there."""


class Repeater(lmms):  # type: ignore[misc]
    """Gives lmms-eval the answers that are put into it, by the row's number."""

    def __init__(self, answers: dict[int, str]) -> None:
        super().__init__()
        self._answers = answers

    def generate_until(self, requests: list[Any]) -> list[str]:
        return [self._answers[request.args[3]] for request in requests]

    def loglikelihood(self, requests: list[Any]) -> Any:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Any]) -> Any:
        raise NotImplementedError

    def clean(self) -> None:
        pass


def official(task: Any, answers: dict[int, str]) -> dict[str, Any]:
    """Run lmms-eval's own evaluation of a task on given answers."""
    results = lmms_evaluator.simple_evaluate(
        model=Repeater(answers),
        tasks=[task],
        # Its own one would index hundreds of benchmarks.
        task_manager=TaskManager("ERROR", include_defaults=False),
        batch_size=1,
        bootstrap_iters=0,
        log_samples=True,
    )
    assert results is not None
    return dict(results)


@pytest.mark.parametrize("name", [*OFFICIAL, "mme"])
def test_scores_and_metrics_are_those_of_lmms_eval(
    name: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some tasks write files into the working folder
    evaluator = make(name, search_samples=60, confirm_samples=1, report_samples=1)
    (loaded,) = evaluator._tasks
    schedule = dense(evaluator.shape)
    chosen = evaluator._chosen_in("search")
    order = [row for each in chosen for row in each.sample.rows]
    asked = [(loaded, row, f"{name}/{row}") for row in order]
    answers = evaluator.answering.answers(schedule, asked)
    assert len(set(answers)) > 1
    scores = evaluator.score(schedule, "search", range(len(chosen)))
    assert 0 < scores.mean() < 1
    metrics = evaluator.paper_metrics(schedule, "search")

    split = loaded.task.config.test_split or loaded.task.config.validation_split
    for held in (loaded.task.dataset, loaded.task.dataset_no_image):
        held[split] = held[split].select(order)
    theirs = official(loaded.task, dict(enumerate(answers)))
    figures = {key.partition(",")[0]: value for key, value in theirs["results"][name].items()}
    if name == "mme":
        total = figures["mme_perception_score"] + figures["mme_cognition_score"]
        assert metrics[name] == pytest.approx(total)
        # Categories have equal shares, so that the mean of samples is the sum, up to a factor.
        assert 200 * 3 * scores.mean() == pytest.approx(total)
        return
    scale = 1 if name.startswith("mmbench") else 100
    assert metrics[name] == pytest.approx(scale * figures[OFFICIAL[name]])
    if name.startswith("mmbench"):
        assert 100 * scores.mean() == pytest.approx(figures[OFFICIAL[name]])
        return
    samples = sorted(theirs["samples"][name], key=lambda sample: sample["doc_id"])
    for score, sample in zip(scores, samples, strict=True):
        value = sample["pope_accuracy" if name == "pope" else OFFICIAL[name]]
        if name == "seedbench":
            value = float(value["pred"].lower() == value["answer"].lower())
        assert score == pytest.approx(value["score"] if isinstance(value, dict) else value)


def test_every_known_task_is_tested_or_has_the_definition_of_one() -> None:
    tested = {*OFFICIAL, "mme"}
    assert set(TASKS) - tested == {"gqa_lite", "mmbench_cn_dev"}


def test_balanced_pairs_of_mme_are_whole(make: Make) -> None:
    evaluator = make("mme")
    for split in SPLITS:
        chosen = evaluator._chosen_in(split)
        assert all(len(each.sample.rows) == 2 for each in chosen)
        scores = evaluator.score(dense(evaluator.shape), split, range(len(chosen)))
        assert set(scores) <= {0.0, 0.25, 1.0}
        assert not math.isnan(scores.mean())
