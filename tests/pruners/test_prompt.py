"""Prompts as the host reads them, against lists in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruners.adapters import ModelAdapter, adapter_for
from pruners.errors import InputError
from pruners.prompt import Prompt
from tests.pruners.families import TinyModel

LENGTH = 8


@pytest.fixture(scope="session")
def adapter(build_family: Callable[[str], TinyModel]) -> ModelAdapter:
    return adapter_for(build_family("video_llava").model)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Any, ...]:
    """Rows of text (0), images (1) and videos (2), and how much padding each has, on one side."""
    rows = draw(st.integers(1, 3))
    kinds = st.lists(st.integers(0, 2), min_size=LENGTH, max_size=LENGTH)
    tokens = [draw(kinds) for _ in range(rows)]
    padding = [draw(st.integers(0, 3)) for _ in range(rows)]
    return tokens, padding, draw(st.sampled_from(["left", "right"]))


def padded(tokens: list[list[int]], padding: list[int], side: str) -> tuple[Any, Any]:
    """Let padding take the place of tokens."""
    mask = [
        [0] * count + [1] * (LENGTH - count)
        if side == "left"
        else [1] * (LENGTH - count) + [0] * count
        for count in padding
    ]
    kept = [
        [token if real else 0 for token, real in zip(*row, strict=True)]
        for row in zip(tokens, mask, strict=True)
    ]
    return kept, mask


@given(batch=batches())
@settings(max_examples=60)
def test_prompts_are_read_as_lists_are(adapter: ModelAdapter, batch: tuple[Any, ...]) -> None:
    tokens, padding, side = batch
    kinds, mask = padded(tokens, padding, side)
    marks = adapter.placeholder_ids()
    words = [10, marks["image"], marks["video"]]
    ids = [[words[kind] for kind in row] for row in kinds]
    prompt = Prompt.of_ids(adapter, torch.tensor(ids), torch.tensor(mask))

    assert len(prompt) == len(ids)
    assert prompt.length == LENGTH
    assert prompt.ids == tuple(map(tuple, ids))
    for number, kind in ((1, "image"), (2, "video")):
        expected = [[at for at, own in enumerate(row) if own == number] for row in kinds]
        assert [places.tolist() for places in prompt.places[kind]] == expected
    if not any(padding):
        assert prompt.real is None
    else:
        assert prompt.real is not None
        assert prompt.real.tolist() == [[bool(real) for real in row] for row in mask]
        assert prompt.padding_side == side
    assert [prompt.padding(row) for row in range(len(ids))] == padding


def test_a_mask_is_not_needed(adapter: ModelAdapter) -> None:
    prompt = Prompt.of_ids(adapter, torch.tensor([[1, 10, 11]]), None)
    assert prompt.real is None
    assert prompt.padding(0) == 0


def test_placeholders_are_found_in_embeddings(build_family: Callable[[str], TinyModel]) -> None:
    tiny = build_family("video_llava")
    adapter = adapter_for(tiny.model)
    inputs = tiny.mixed()
    expected = Prompt.of_ids(adapter, inputs["input_ids"], inputs["attention_mask"])
    embeds = tiny.model.get_input_embeddings()(inputs["input_ids"])
    call = adapter.read_call(
        (), {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]}
    )
    prompt = Prompt.of_call(adapter, call)
    assert prompt.ids is None
    assert prompt.length == expected.length
    for kind in ("image", "video"):
        for found, wanted in zip(prompt.places[kind], expected.places[kind], strict=True):
            assert torch.equal(found, wanted)


def test_masks_of_other_shapes_are_refused(adapter: ModelAdapter) -> None:
    ids = torch.ones(2, 5, dtype=torch.long)
    for shape in ((2, 4), (2, 1, 5, 5)):
        with pytest.raises(InputError, match=r"padding mask of shape \(2, 5\)"):
            Prompt.of_ids(adapter, ids, torch.ones(shape))
