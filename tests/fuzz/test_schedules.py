"""Schedule files of any content."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from pruners import Schedule, load_schedule, published, save_schedule
from pruners.files import ScheduleWarning
from pruners.methods import METHODS
from pruners.shape import LLAVA_1_5_7B
from space.flops import price
from tests.fuzz.cases import Cases
from tests.fuzz.documents import as_json, damaged, damaged_bytes

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "llava-1.5-7b-2-tflops.json"
DOCUMENTS: list[Any] = [
    json.loads(EXAMPLE.read_text()),
    Schedule().model_dump(mode="json"),
    *(published(name, 128).model_dump(mode="json", exclude={"shape"}) for name in METHODS),
]


def use(content: bytes, folder: Path) -> None:
    """Read a file, and do with the schedule what the product does without a model."""
    file = folder / "schedule.json"
    file.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScheduleWarning)
        schedule = load_schedule(file)
    save_schedule(schedule, file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load_schedule(file)
    assert again == schedule
    assert again.content_hash == schedule.content_hash
    counts = schedule.counts(576)
    assert all(earlier.alive >= later.alive for earlier, later in pairwise(counts))
    assert len(schedule.visual_tokens_per_layer(32, 576)) == 32
    if schedule.shape is not None:
        schedule.visual_tokens_per_layer(
            schedule.shape.decoder_layers,
            schedule.shape.visual_tokens,
            schedule.shape.tokens_per_tile,
        )
        price(schedule, schedule.shape)
        schedule.scaled_to(LLAVA_1_5_7B)
    price(schedule, LLAVA_1_5_7B)


def test_schedule_files(cases: Cases, tmp_path: Path) -> None:
    documents = damaged(DOCUMENTS)
    cases.run(documents, lambda document: use(as_json(document), tmp_path), 30_000)
    assert cases.accepted
    assert cases.refused


def test_schedule_bytes(cases: Cases, tmp_path: Path) -> None:
    contents = damaged_bytes([as_json(document) for document in DOCUMENTS]) | st.binary()
    cases.run(contents, lambda content: use(content, tmp_path), 8_000)
    assert cases.refused
