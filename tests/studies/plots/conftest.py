from __future__ import annotations

import io
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studies.kept_tokens import Gallery, KeptSample, KeptStage, KeptTokens
from studies.reading import StoredBudget, StoredStudy
from studies.records import TrialRecord

START = datetime(2026, 1, 1)


def _record(
    budget, number, *, schedule=0, samples=25, accuracy=0.5, seconds=0.0, blocks=(), **parameters
):
    return TrialRecord(
        number=number,
        budget=budget,
        state="complete",
        objective=accuracy,
        accuracy=accuracy,
        samples=samples,
        parameters=parameters or {"ratio_1": 0.5},
        tflops=float(budget.split()[0]) - 0.01,
        mean_visual_tokens=64.0,
        layers=(0, 8),
        visual_tokens=(96, 70),
        content_hash=f"content {schedule}",
        seconds=1.0,
        origin="sampler",
        measured_hash=f"measured {schedule}",
        finished=START + timedelta(seconds=seconds),
        blocks=tuple(blocks) or (accuracy,),
    )


@pytest.fixture(scope="session")
def make_record():
    return _record


def _trials(budget, offset, seed):
    """Trials of 30 schedules, accuracy by their first ratio, known on more and more samples."""
    rng = np.random.default_rng(seed)
    ratios = rng.random(30)
    # The same samples give a schedule the same accuracy.
    table = 0.5 + 0.3 * ratios[:, None] + 0.05 * rng.standard_normal((30, 6))
    trials = []
    for number in range(60):
        schedule = number if number < 30 else int(rng.integers(30))
        blocks = 1 if number < 30 else int(rng.integers(1, 6))
        trials.append(
            _record(
                budget,
                number,
                schedule=schedule,
                samples=25 * blocks,
                accuracy=float(table[schedule, :blocks].mean()),
                blocks=table[schedule, :blocks].tolist(),
                seconds=offset + 2.0 * number,
                ratio_1=ratios[schedule],
                boundary_1=float(schedule % 5) / 5,
                scorer=("cls", "self")[schedule % 2],
            )
        )
    return tuple(trials)


@pytest.fixture(scope="session")
def study(identity, make_result):
    """A study of two budgets with trials and results."""
    results = [
        make_result(2.0, 64, {"searched": 0.1, "visiondrop": 0.3, "desap": 0.2})[0],
        make_result(4.0, 192, {"searched": 0.05, "visiondrop": 0.06, "desap": 0.02})[0],
    ]
    budgets = tuple(
        StoredBudget(
            budget=result.budget,
            trials=_trials(result.budget, float(place), seed=place),
            result=result,
            schedule=None,
            schedule_path=None,
        )
        for place, result in enumerate(results)
    )
    return StoredStudy(name="a-study", path=Path("a-study"), identity=identity, budgets=budgets)


def _image():
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def gallery():
    """Two samples of 4 x 6 patches, of which two stages keep some."""
    stages = (
        KeptStage(layer=0, dominant=(0, 3, 5, 9, 20), contextual=(7, 12), merge="nearest"),
        KeptStage(layer=4, dominant=(3, 20), contextual=(12,), merge="nearest"),
    )
    kept = KeptTokens(budget="2 TFLOPs", schedule="searched", answer="3", stages=stages)
    return Gallery(
        measured_on="a synthetic model",
        split="report",
        samples=tuple(
            KeptSample(
                identifier=name,
                task="counting",
                question="How many red circles are there?",
                expected="2",
                dense_answer="2",
                image=_image(),
                rows=4,
                columns=6,
                kept=(kept,),
            )
            for name in ("one", "two")
        ),
    )
