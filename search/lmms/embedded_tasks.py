"""The embedded benchmark as tasks of lmms-eval.

``python -m search.lmms.embedded_tasks FOLDER`` writes them; lmms-eval finds them there with
``--include_path FOLDER``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pruners.atomic import atomic_path
from pruners.errors import DataError, PrunetuneError
from search.embedded.benchmark import TASKS, Sample, load_split
from search.embedded.scoring import ANSWER_TOKENS, score
from search.tasks.extra import HOW_TO_INSTALL
from studies.identity import SPLITS

METRIC = "accuracy"
"""Name of the tasks' one metric: the mean of the samples' scores."""

TASK_VERSION = 1
"""Raised whenever the questions or their scores change."""


_MODULE = "search.lmms.embedded_tasks"


def task_name(task: str, split: str) -> str:
    """Return what lmms-eval calls one task on one split, for example ``prunetune_reading_report``.

    Args:
        task: One of `search.embedded.benchmark.TASKS`.
        split: One of `studies.identity.SPLITS`.
    """
    return f"prunetune_{task}_{split}"


def group_name(split: str) -> str:
    """Return what lmms-eval calls all tasks on one split together, ``prunetune_report``.

    Args:
        split: One of `studies.identity.SPLITS`.
    """
    return f"prunetune_{split}"


def write_tasks(
    folder: Path, splits: Sequence[str] = SPLITS, samples: int | None = None
) -> list[Path]:
    """Write the benchmark as tasks of lmms-eval: a YAML and a parquet file for each.

    Rows keep their order and their `id`, by which scores can be compared with the embedded
    evaluator's. The folder can be moved, as the YAML files name the parquet files beside them.

    Args:
        folder: Where to write; made where it does not exist.
        splits: Which splits, by default all.
        samples: How many samples of each task and split, from the first on; None for all.

    Returns:
        The YAML files.

    Raises:
        DataError: A split is unknown, or the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split in splits:
            for task in TASKS:
                name = task_name(task, split)
                _write_rows(load_split(split, [task])[:samples], folder / f"{name}.parquet")
                written.append(folder / f"{name}.yaml")
                written[-1].write_text(_task_file(name), encoding="utf-8")
            written.append(folder / f"{group_name(split)}.yaml")
            written[-1].write_text(_group_file(split), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"the tasks cannot be written to {folder}: {error.strerror or error}; name a folder "
            "that can be written"
        ) from error
    return written


def messages(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Ask one question, for lmms-eval's chat models.

    Args:
        row: A row of a task.

    Returns:
        The conversation up to the answer.
    """
    content = [{"type": "image", "url": row["image"]}, {"type": "text", "text": row["question"]}]
    return [{"role": "user", "content": content}]


def images(row: Mapping[str, Any]) -> list[Any]:
    """Return the image of one question, for lmms-eval's simple models.

    Args:
        row: A row of a task.

    Returns:
        The image alone.
    """
    return [row["image"]]


def scores(row: Mapping[str, Any], answers: Sequence[str]) -> dict[str, float]:
    """Score one answer as the embedded evaluator does.

    Args:
        row: A row of a task.
        answers: The answer alone, without white space around it.

    Returns:
        The score by the metric's name.
    """
    return {METRIC: score(answers[0], row["answer"])}


def _task_file(name: str) -> str:
    """Write a task's YAML, by hand where its tags are not YAML's own."""
    return f"""\
task: {name}
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {name}.parquet
test_split: test
output_type: generate_until
doc_to_messages: !function {_MODULE}.messages
doc_to_visual: !function {_MODULE}.images
doc_to_text: question
doc_to_target: answer
process_results: !function {_MODULE}.scores
generation_kwargs:
  until: []
  max_new_tokens: {ANSWER_TOKENS}
  do_sample: false
metric_list:
- metric: {METRIC}
  aggregation: mean
  higher_is_better: true
score_key: {METRIC}
metadata:
  version: {TASK_VERSION}
"""


def _group_file(split: str) -> str:
    """Write the YAML of all tasks on one split; their mean counts each task alike."""
    tasks = "\n".join(f"- {task_name(task, split)}" for task in TASKS)
    return f"""\
group: {group_name(split)}
task:
{tasks}
aggregate_metric_list:
- metric: {METRIC}
  aggregation: mean
  weight_by_size: false
"""


def _write_rows(samples: Sequence[Sample], path: Path) -> None:
    from datasets import Dataset, Features, Image, Value

    text = Value("string")
    features = Features(
        {
            "id": text,
            "question_type": text,
            "image": Image(),
            "question": text,
            "answer": text,
        }
    )
    rows = [
        {
            "id": sample.id,
            "question_type": sample.question_type,
            "image": {"bytes": sample.png, "path": None},
            "question": sample.question,
            "answer": sample.answer,
        }
        for sample in samples
    ]
    with atomic_path(path) as temporary:
        Dataset.from_list(rows, features=features).to_parquet(temporary)


def main() -> None:
    """Write all tasks into the folder that the one argument names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m search.lmms.embedded_tasks FOLDER")
    try:
        written = write_tasks(Path(sys.argv[1]))
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}; run {HOW_TO_INSTALL}")
    except PrunetuneError as error:
        sys.exit(f"error: {error}")
    print(
        f"{len(written)} files; python -m lmms_eval --include_path {sys.argv[1]} "
        f"--tasks {group_name('report')} ..."
    )


if __name__ == "__main__":
    main()
