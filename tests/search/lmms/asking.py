"""Asking models as lmms-eval does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

GREEDY = {"max_new_tokens": 6, "do_sample": False, "until": []}


def chat_messages(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One user's message: a row's images and videos, then its question."""
    content = [{"type": "image", "url": image} for image in row.get("images", ())]
    content += [{"type": "video", "url": video} for video in row.get("videos", ())]
    return [{"role": "user", "content": [*content, {"type": "text", "text": row["question"]}]}]


def ask(model: Any, rows: Sequence[Mapping[str, Any]], **settings: Any) -> list[str]:
    """Answers of a model of lmms-eval's to rows of a task."""
    model.task_dict["asked"] = {"test": rows}
    requests = [
        Instance(
            request_type="generate_until",
            arguments=(
                row["question"],
                chat_messages,
                {**GREEDY, **settings},
                number,
                "asked",
                "test",
            ),
            idx=0,
            metadata={"task": "asked", "doc_id": number, "repeats": 1},
        )
        for number, row in enumerate(rows)
    ]
    return [answer.text for answer in model.generate_until(requests)]


def evaluate(
    folder: Path, group: str, model: Any, **arguments: Any
) -> dict[str, tuple[str, float]]:
    """Answer and score of each sample by its id, from lmms-eval's own loop over local tasks."""
    results = simple_evaluate(
        model,
        tasks=[group],
        task_manager=TaskManager("ERROR", include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        verbosity="ERROR",
        **arguments,
    )
    return {
        sample["doc"]["id"]: (sample["filtered_resps"][0], sample["accuracy"])
        for samples in results["samples"].values()
        for sample in samples
    }
