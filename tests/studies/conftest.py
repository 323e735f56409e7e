from __future__ import annotations

import numpy as np
import pytest

from pruners import dense, published
from pruners.schedule import Cost
from pruners.shape import LLAVA_1_5_7B
from studies.comparing import compare
from studies.identity import SplitIdentity, StudyIdentity

RESULT_TASKS = ["counting"] * 300 + ["digits"] * 300
DENSE_TFLOPS = 8.9


def _priced(schedule, tflops):
    tokens = schedule.visual_tokens_per_layer(32, LLAVA_1_5_7B.visual_tokens)
    cost = Cost(
        tflops=tflops,
        dense_tflops=DENSE_TFLOPS,
        mean_visual_tokens=float(np.mean(tokens)),
        visual_tokens_per_layer=tokens,
        llm_macs=tflops / 2,
        kv_bytes=1,
    )
    return schedule.model_copy(update={"shape": LLAVA_1_5_7B, "cost": cost})


def _make_result(tflops, tokens, losses, seed=0, methods=("visiondrop", "desap")):
    """Answers that are lost with the probability given for each schedule."""
    rng = np.random.default_rng(seed)
    right = (rng.random(len(RESULT_TASKS)) < 0.9).astype(float)
    schedules = {
        "searched": _priced(published("visiondrop", tokens=tokens + 1), tflops),
        "dense": _priced(dense(), DENSE_TFLOPS),
        **{name: _priced(published(name, tokens=tokens), tflops) for name in methods},
    }
    luck = rng.random(len(RESULT_TASKS))  # the same for all, so that comparisons are paired
    scores = {name: right * (luck > losses.get(name, 0)) for name in schedules}
    return compare(
        schedules,
        scores,
        RESULT_TASKS,
        budget=f"{tflops:g} TFLOPs",
        measured_on="a synthetic model",
        trials=60,
        evaluations=9000,
        seconds=120.4,
    ), scores


@pytest.fixture(scope="session")
def make_result():
    """Makes a budget's result, and the scores that it is of."""
    return _make_result


@pytest.fixture(scope="session")
def identity() -> StudyIdentity:
    return StudyIdentity(
        model="embedded",
        model_fingerprint="0" * 64,
        shape=LLAVA_1_5_7B,
        tasks=("counting", "digits"),
        splits={"search": SplitIdentity(samples=100, fingerprint="1" * 64)},
        budgets=("2 TFLOPs", "4 TFLOPs"),
        space={"decoder_stages": 3, "layer_step": 4},
        strategy={"sampler": "tpe"},
        seed=0,
        versions={"optuna": "5.0.0"},
    )
