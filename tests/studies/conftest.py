from __future__ import annotations

import pytest

from pruners.shape import LLAVA_1_5_7B
from studies.identity import SplitIdentity, StudyIdentity


@pytest.fixture
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
