"""A task that lmms-eval ships, on local rows: the prompts, stopping and scores are its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from datasets import Dataset
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager, get_task_dict
from PIL import Image

from pruners import LastTokenAttention, Schedule, Stage, apply_schedule
from search.lmms.loading import LoadedModel
from search.lmms.model import BenchmarkedModel
from tests.pruners.families import TinyModel
from tests.pruners.families.tiny import picture

ROWS = 7


@pytest.fixture(scope="module")
def pope(tmp_path_factory: pytest.TempPathFactory) -> object:
    rows = [
        {
            "question_id": str(number),
            "question": " ".join(f"w{word}" for word in range(1, 2 + number)),
            "answer": ("yes", "no")[number % 2],
            "image": Image.fromarray(picture((30, 40), number)),
        }
        for number in range(ROWS)
    ]
    file = tmp_path_factory.mktemp("pope") / "rows.parquet"
    Dataset.from_list(rows).to_parquet(file)
    local = {
        "task": "pope",
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
    }
    # A task from a dictionary asks as for a simple model.
    return get_task_dict([local], TaskManager("ERROR"), "chat")["pope"]


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen3_vl"])
def test_pope_runs_pruned_in_batches(
    name: str, pope: object, build_family: Callable[[str], TinyModel]
) -> None:
    family = build_family(name)
    schedule = Schedule(stages=(Stage(layer=2, retention=0.4, scorer=LastTokenAttention()),))
    answers = {}
    for size in (1, 3):
        model = BenchmarkedModel(LoadedModel(family.model, family.processor), batch_size=size)
        with apply_schedule(family.model, schedule, processor=family.processor):
            results = simple_evaluate(
                model,
                tasks=[pope],
                bootstrap_iters=0,
                gen_kwargs="max_new_tokens=8",
                task_manager=TaskManager("ERROR", include_defaults=False),
            )
        samples = results["samples"]["pope"]
        assert [sample["doc"]["question_id"] for sample in samples] == list(map(str, range(ROWS)))
        answers[size] = [sample["filtered_resps"][0] for sample in samples]
        assert all(0 < sample["token_counts"][0]["output_tokens"] <= 8 for sample in samples)
        assert results["results"]["pope"]["pope_accuracy,none"] == 0  # no answer is yes or no
    assert answers[1] == answers[3]
    assert len(set(answers[1])) > 1
