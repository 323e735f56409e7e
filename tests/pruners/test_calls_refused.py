"""Calls that are refused alike in every family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import StaticCache

from pruners import Schedule, Stage, VisualSelfAttention, apply_schedule, encode_images
from pruners.adapters import adapter_for
from pruners.errors import InputError
from tests.pruners.families import TinyModel

FIRST = Stage(layer=0, retention=0.5, scorer=VisualSelfAttention())
SCHEDULE = Schedule(stages=(FIRST, Stage(layer=3, retention=0.25, scorer=VisualSelfAttention())))


@pytest.fixture
def pruned(family: TinyModel) -> Iterator[Any]:
    with apply_schedule(family.model, SCHEDULE):
        yield family.model


def test_images_in_a_later_call_are_refused(family: TinyModel, pruned: Any) -> None:
    inputs = family.inputs()
    with torch.no_grad():
        cache = pruned(**inputs, use_cache=True).past_key_values
        with pytest.raises(InputError, match="images in the first call only, any number of them"):
            pruned(**inputs, past_key_values=cache)


def test_static_caches_are_refused(family: TinyModel, pruned: Any) -> None:
    cache = StaticCache(config=family.model.config.text_config, max_cache_len=256)
    with pytest.raises(InputError, match=r"StaticCache has one length .* use the default cache"):
        pruned(**family.inputs(), past_key_values=cache)


def test_labels_are_refused(family: TinyModel, pruned: Any) -> None:
    inputs = family.inputs()
    with pytest.raises(InputError, match=r"labels were given, .* compute the loss from those"):
        pruned(**inputs, labels=inputs["input_ids"])


def test_prefills_in_chunks_are_refused(family: TinyModel, pruned: Any) -> None:
    with pytest.raises(InputError, match="prefill_chunk_size"):
        pruned.generate(**family.inputs(), prefill_chunk_size=4, max_new_tokens=2)


def test_images_arranged_behind_the_projector_are_not_encoded_ahead(family: TinyModel) -> None:
    if adapter_for(family.model).projector is not None:
        pytest.skip("the family's stages at layer 0 stand before the projector")
    with pytest.raises(InputError, match="call the model, or generate, with pixel values"):
        encode_images(family.model, family.images(1))
