"""Rows and samples that cannot be asked or scored are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pruners.errors import DataError
from pruners.published import dense
from search.tasks.catalogue import TASKS
from search.tasks.evaluator import TaskEvaluator
from search.tasks.loading import load_task
from tests.search.tasks.making import Make
from tests.search.tasks.rows import MAKERS


def test_a_failing_sample_fails_the_trial_by_name(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = make("gqa")
    model = evaluator.answering._live.model
    stock = model.generate
    evaluator.answering._encoder._encodes = False  # the model sees pixels, as of most families
    victim = evaluator.samples("search")[5].identifier
    marked = evaluator.answering._prepared(
        [
            (each.task, each.sample.rows[0], f"{each.identifier}:0")
            for each in evaluator._chosen_in("search")
        ]
    )[5].inputs["pixel_values"]

    def generate(**inputs: Any) -> Any:
        if any((image == marked[0]).all() for image in inputs["pixel_values"]):
            raise ValueError("broken on purpose")
        return stock(**inputs)

    monkeypatch.setattr(model, "generate", generate)
    with pytest.raises(DataError, match=f"{victim}:0 .*broken on purpose"):
        evaluator.score(dense(evaluator.shape), "search", range(24))


def test_an_unscorable_row_fails_by_name_at_once(
    make: Make, rows: dict[str, Path], tmp_path: Path
) -> None:
    import datasets

    from tests.search.tasks.rows import pope

    broken = [{**pope(number), "answer": "maybe"} for number in range(12)]
    datasets.Dataset.from_list(broken).to_parquet(tmp_path / "rows.parquet")
    evaluator = make("pope")
    evaluator._settings.data["pope"] = tmp_path
    with pytest.raises(DataError, match=r"pope/\w+/\d+ cannot be scored"):
        evaluator.score(dense(evaluator.shape), "search", [0])


def test_data_sets_of_the_hub_that_are_open_need_no_login(
    rows: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import huggingface_hub

    asked = []
    stock = datasets.load_dataset

    def load_dataset(path: str, name: str | None = None, **options: Any) -> Any:
        asked.append((path, options.get("token")))
        return stock("parquet", data_files={"test": str(rows["pope"] / "rows.parquet")})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *args: None)  # it is here
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    loaded = load_task(TASKS["pope"])
    assert asked == [("lmms-lab-encoder/POPE", None)]
    assert len(loaded.samples) == 60


def test_a_data_set_that_offline_mode_lacks_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets
    import huggingface_hub

    def retried(*args: Any, **options: Any) -> None:
        raise AssertionError("lmms-eval was asked, which tries for many seconds")

    monkeypatch.setattr(datasets, "load_dataset", retried)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"has not been downloaded.*--task-data pope=FOLDER"):
        load_task(TASKS["pope"])


def test_a_damaged_file_of_rows_is_named(make: Make, tmp_path: Path) -> None:
    evaluator = make("pope")
    (tmp_path / "rows.parquet").write_bytes(b"half a file")
    settings = evaluator._settings.model_copy(update={"data": {"pope": tmp_path}})
    with pytest.raises(DataError, match=r"rows.parquet is no parquet file"):
        TaskEvaluator(evaluator.name, settings)


@pytest.mark.parametrize("name", ["textvqa_val", "vqav2_val", "vizwiz_vqa_val"])
def test_rows_without_answers_are_refused_where_lmms_eval_scores_0(
    name: str, make: Make, tmp_path: Path
) -> None:
    import datasets

    for kept in (False, True):
        made = [MAKERS[name](number) for number in range(12)]
        for row in made:
            answers = row.pop("answers")
            row |= {"answers": None if row["question_id"] % 3 else answers} if kept else {}
        datasets.Dataset.from_list(made).to_parquet(tmp_path / "rows.parquet")
        evaluator = make(name)
        evaluator._settings.data[name] = tmp_path
        with pytest.raises(DataError, match="8 rows .* no answers" if kept else "column answers"):
            evaluator.samples("search")


@pytest.mark.parametrize(
    ("name", "column", "emptied", "expected"),
    [
        ("pope", "image", 4, "4 rows of pope have no image"),
        ("mme", "question", 4, "4 rows of mme have no question"),
        ("gqa", "image", 12, "the rows of gqa have no column image"),
    ],
)
def test_rows_without_what_every_task_reads_are_refused_before_any_is_asked(
    name: str, column: str, emptied: int, expected: str, make: Make, tmp_path: Path
) -> None:
    import datasets

    made = [MAKERS[name](number) for number in range(12)]
    for row in made[1 : 1 + emptied]:  # lmms-eval itself looks at the first
        row[column] = None
    features = datasets.Dataset.from_list([MAKERS[name](0)]).features
    written = datasets.Dataset.from_list(made, features=features)
    written = written.remove_columns([column] if emptied == len(made) else [])
    written.to_parquet(tmp_path / "rows.parquet")
    evaluator = make(name)
    evaluator._settings.data[name] = tmp_path
    with pytest.raises(DataError, match=expected):
        evaluator.samples("search")
