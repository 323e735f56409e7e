"""A schedule from the program, measured again by a program that knows only the runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pruners import load_schedule
from search.command_line import run_settings
from search.embedded import CHECKPOINT, CLIP, DATA
from search.settings import checked_settings

MEASURE = """
import io, json, sys
import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from pruners import Shape, apply_schedule, load_schedule

path, checkpoint, clip, data = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(checkpoint)
processor = AutoProcessor.from_pretrained(checkpoint, backend="pil")
schedule = load_schedule(path).scaled_to(Shape.from_config(model.config))
apply_schedule(model, schedule, text_tower=clip)
rows = pq.read_table(data).to_pylist()
right, total = {}, {}
for start in range(0, len(rows), 40):
    batch = rows[start : start + 40]
    inputs = processor(
        images=[Image.open(io.BytesIO(row["image"])).convert("RGB") for row in batch],
        text=[f"USER: <image>\\n{row['question']} ASSISTANT:" for row in batch],
        return_tensors="pt", padding=True,
    )
    generated = model.generate(**inputs, max_new_tokens=1, do_sample=False)
    for row, token in zip(batch, generated[:, -1].tolist()):
        answer = processor.tokenizer.decode([token]).strip()
        right[row["task"]] = right.get(row["task"], 0) + (answer == row["answer"])
        total[row["task"]] = total.get(row["task"], 0) + 1
assert not {"search", "space", "studies", "optuna"} & set(sys.modules)
print(json.dumps({task: right[task] / total[task] for task in total}))
"""


@pytest.mark.slow
def test_report_accuracy_is_reproduced_exactly_from_the_exported_file(tmp_path: Path) -> None:
    settings = checked_settings(
        budgets=["2 TFLOPs"],
        model="embedded",
        search={"trials": 4, "samples": 200, "confirm_samples": 200, "candidates": 2},
        out=tmp_path,
        study="small",
        quiet=True,
    )
    assert run_settings(settings, "test") == 0
    path = tmp_path / "small" / "schedule.json"
    measured = subprocess.run(
        [
            *(sys.executable, "-c", MEASURE),
            *(str(path), str(CHECKPOINT), str(CLIP), str(DATA / "report.parquet")),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    accuracies = json.loads(measured.stdout.splitlines()[-1])
    evidence = load_schedule(path).evidence
    assert evidence is not None
    report = evidence.splits["report"]
    assert report.samples == 2600
    assert report.tasks == accuracies
    assert report.accuracy == sum(report.tasks.values()) / len(report.tasks)
