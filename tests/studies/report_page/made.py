"""Results and galleries that pages are made of."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from pruners import dense, published
from pruners.schedule import Evidence, Provenance, Schedule
from pruners.shape import LLAVA_1_5_7B
from space.flops import price
from studies.comparing import compare
from studies.kept_tokens import Gallery, KeptSample, KeptStage, KeptTokens
from studies.results import BudgetResult

TASKS = ["counting"] * 200 + ["digits"] * 200


def priced(schedule: Schedule) -> Schedule:
    schedule = schedule.model_copy(update={"shape": LLAVA_1_5_7B})
    return schedule.model_copy(update={"cost": price(schedule, LLAVA_1_5_7B)})


def budget_result(tokens: int, budget: str) -> tuple[BudgetResult, Schedule]:
    """The result of a study whose schedules lose answers with known probabilities."""
    rng = np.random.default_rng(tokens)
    right, luck = (rng.random(len(TASKS)) < 0.9).astype(float), rng.random(len(TASKS))
    losses = {
        "searched": 20 / tokens,
        "dense": 0.0,
        "visiondrop": 40 / tokens,
        "desap": 20 / tokens,
    }
    schedules = {
        "searched": priced(published("visiondrop", tokens=tokens + 1)),
        "dense": priced(dense()),
        "visiondrop": priced(published("visiondrop", tokens=tokens)),
        "desap": priced(published("desap", tokens=tokens)),
    }
    scores = {name: right * (luck > losses[name]) for name in schedules}
    result = compare(
        schedules,
        scores,
        TASKS,
        budget=budget,
        measured_on="a synthetic model",
        trials=60,
        evaluations=9000,
        seconds=120.4,
    )
    own = schedules["searched"].model_copy(
        update={
            "evidence": Evidence(
                measured_on="a synthetic model",
                note="Measured on a proxy.",
                splits={"report": result.schedule("searched").evidence},
            ),
            "provenance": Provenance(
                origin="search", command="prunetune --budget-tflops 2", seed=3
            ),
        }
    )
    return result, own


def png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (30, 20), "teal").save(file, "PNG")
    return file.getvalue()


def gallery_of(text: str = "how many rings?", budget: str = "2 TFLOPs") -> Gallery:
    stages = (
        KeptStage(layer=0, dominant=(0, 1), contextual=(4,), merge="nearest-reference"),
        KeptStage(layer=3, dominant=(1,), contextual=(), merge="none"),
    )
    kept = KeptTokens(budget=budget, schedule="searched", answer=text, stages=stages)
    sample = KeptSample(
        identifier=text,
        task=text,
        question=text,
        expected=text,
        dense_answer="no",
        image=png(),
        rows=2,
        columns=3,
        kept=(kept,),
    )
    return Gallery(measured_on=text, split="report", samples=(sample,))
