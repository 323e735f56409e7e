"""Images made again from a model's inputs: its processor makes the same inputs of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pruners.errors import DataError
from search.tasks.live_model import LiveModel
from search.tasks.preparing import prepare
from search.tasks.requests import Request
from search.tasks.seen_images import seen_image
from tests.pruners.families import FAMILIES
from tests.pruners.families.tiny import TinyModel, picture

ONE_GRID = ("llava", "qwen2_5_vl", "qwen3_vl")


def live_of(family: TinyModel) -> LiveModel:
    return LiveModel(family.load(), family.processor)


def asked(images: Sequence[Any]) -> Request:
    made = tuple(Image.fromarray(image) for image in images)
    return Request("a sample", "w1 w2", made, None)  # type: ignore[arg-type]  nothing is generated


@pytest.fixture(scope="module", params=ONE_GRID)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    tiny: TinyModel = FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    return tiny


@pytest.mark.parametrize("size", ["standard", "other"])
def test_the_processor_makes_the_same_of_what_is_shown(family: TinyModel, size: str) -> None:
    live = live_of(family)
    inputs = prepare(live, asked([picture(getattr(family, size), 3)]))
    seen = seen_image(live, inputs, "a sample")
    shown = np.asarray(Image.open(BytesIO(seen.png)))
    again = prepare(live, asked([shown]))
    assert again.keys() == inputs.keys()
    assert torch.equal(again["input_ids"], inputs["input_ids"])
    deviation = min(live.processor.image_processor.image_std)
    difference = (again["pixel_values"] - inputs["pixel_values"]).abs().max()
    assert difference <= 0.51 / 255 / deviation  # what rounding to bytes may change
    assert (seen.rows, seen.columns) == grid_of(family, inputs)


def grid_of(family: TinyModel, inputs: Any) -> tuple[int, int]:
    if "image_grid_thw" in inputs:
        _, high, wide = inputs["image_grid_thw"][0].tolist()
        return high // 2, wide // 2
    side = round(family.visual_tokens**0.5)
    return side, side


@pytest.mark.parametrize(
    ("images", "message"),
    [([], "has no image"), ([picture((40, 40), 1), picture((40, 40), 2)], "several")],
)
def test_samples_without_one_image_are_refused(
    family: TinyModel, images: list[Any], message: str
) -> None:
    live = live_of(family)
    with pytest.raises(DataError, match=message):
        seen_image(live, prepare(live, asked(images)), "a sample")


def test_images_in_tiles_are_refused(tmp_path: Path) -> None:
    family = FAMILIES["llava_next"](tmp_path)
    live = live_of(family)
    inputs = prepare(live, asked([picture(family.standard, 1)]))
    with pytest.raises(DataError, match=re.escape("in several tiles")):
        seen_image(live, inputs, "a sample")
