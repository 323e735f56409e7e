"""Configurations of Hugging Face models of any content, with inputs of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from transformers import AutoConfig

from pruners.shape import SUPPORTED_FAMILIES, Shape
from space import shape_from_pretrained, text_tower_shape
from space.flops import CostModel
from tests.fuzz.cases import Cases
from tests.fuzz.documents import as_json, damaged, damaged_bytes

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]

WHOLE = [AutoConfig.for_model(family).to_dict() for family in SUPPORTED_FAMILIES]
SIZES = st.sampled_from((1, 13, 336, 1000, 10**6, 10**18, -1, 0))
INPUTS = st.fixed_dictionaries(
    {},
    optional={
        "image_size": st.tuples(SIZES, SIZES),
        "images": st.sampled_from((1, 2, 10**4, 10**18, 0)),
        "frames": st.sampled_from((None, 1, 7, 10**4, 10**18, -5)),
        "tiles": st.sampled_from((None, 1, 6, 10**18, 0)),
        "text_tokens": st.sampled_from((0, 63, 10**18, -1)),
    },
)


def short(values: dict[str, Any]) -> dict[str, Any]:
    """What a file of that family holds at least: parts and their kinds, defaults left out."""
    parts = {
        name: {"model_type": part["model_type"]}
        for name, part in values.items()
        if isinstance(part, dict) and "model_type" in part
    }
    return {"model_type": values["model_type"], **parts}


DOCUMENTS = [*WHOLE, *(short(values) for values in WHOLE)]


def priced(shape: Shape) -> None:
    """Price the dense model, as every run does."""
    assert CostModel(shape).tflops(()) >= 0
    assert sum(shape.tokens_per_tile) == shape.visual_tokens
    assert Shape.model_validate_json(shape.model_dump_json()) == shape


def test_configurations(cases: Cases) -> None:
    def use(given: tuple[Any, dict[str, Any]]) -> None:
        priced(Shape.from_config(given[0], **given[1]))

    cases.run(st.tuples(damaged(DOCUMENTS), INPUTS), use, 16_000)
    assert cases.accepted
    assert cases.refused


def test_configuration_files(cases: Cases, tmp_path: Path) -> None:
    def use(content: bytes) -> None:
        (tmp_path / "config.json").write_bytes(content)
        priced(shape_from_pretrained(tmp_path))

    contents = damaged(DOCUMENTS).map(as_json)
    cases.run(contents | damaged_bytes([as_json(values) for values in DOCUMENTS]), use, 4_000)
    assert cases.accepted
    assert cases.refused


def test_text_tower_files(cases: Cases, tmp_path: Path) -> None:
    clip = AutoConfig.for_model("clip").to_dict()

    def use(content: bytes) -> None:
        (tmp_path / "config.json").write_bytes(content)
        assert text_tower_shape(tmp_path).layers > 0

    documents = damaged([clip, clip["text_config"] | {"projection_dim": 512}])
    cases.run(documents.map(as_json) | damaged_bytes([as_json(clip)]), use, 2_000)
    assert cases.accepted
    assert cases.refused
