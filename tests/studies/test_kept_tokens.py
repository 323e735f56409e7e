"""The gallery file: what is written is read, and what cannot be is refused."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from pruners.errors import StudyError
from studies.kept_tokens import (
    Gallery,
    KeptSample,
    KeptStage,
    KeptTokens,
    read_gallery,
    write_gallery,
)


def png(colour: str = "red") -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return file.getvalue()


def sample(*stages: KeptStage, image: bytes | None = None) -> KeptSample:
    return KeptSample(
        identifier="a",
        task="counting",
        question="how many?",
        expected="2",
        dense_answer="2",
        image=png() if image is None else image,
        rows=2,
        columns=3,
        kept=(KeptTokens(budget="2 TFLOPs", schedule="searched", answer="3", stages=stages),),
    )


def stage(layer: int, dominant: tuple[int, ...], contextual: tuple[int, ...] = ()) -> KeptStage:
    return KeptStage(layer=layer, dominant=dominant, contextual=contextual, merge="none")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = Gallery(
        measured_on="a model",
        split="report",
        samples=(sample(stage(0, (1, 2), (4,)), stage(3, (2,))),),
    )
    write_gallery(made, tmp_path / "gallery.json")
    read = read_gallery(tmp_path / "gallery.json")
    assert read == made
    assert read.samples[0].image == png()


def test_dropped_is_whatever_is_not_alive() -> None:
    own = sample(stage(0, (1, 2), (4,)))
    assert own.dropped(own.kept[0].stages[0]) == (0, 3, 5)
    assert own.kept[0].stages[0].alive == 3


@pytest.mark.parametrize(
    ("stages", "what"),
    [
        ((stage(0, (1, 6)),), "below 6"),
        ((stage(0, (2, 1)),), "rising"),
        ((stage(0, (1, 1)),), "rising"),
        ((stage(0, (1,), (1,)),), "both dominant and contextual"),
        ((stage(0, (1,)), stage(2, (2,))), "has dropped"),
        ((stage(2, (1, 2)), stage(1, (1,))), "does not follow"),
    ],
)
def test_impossible_stages_are_refused(stages: tuple[KeptStage, ...], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        sample(*stages)


def test_only_png_images_are_taken() -> None:
    with pytest.raises(ValidationError, match="PNG"):
        sample(image=b"<svg onload='alert(1)'/>")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}', "\xff", "null"])
def test_other_files_are_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gallery.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(StudyError, match=r"does not hold a gallery.*remove it"):
        read_gallery(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"gallery\.json cannot be read"):
        read_gallery(tmp_path / "gallery.json")


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    made = Gallery(measured_on="a model", split="report", samples=(sample(stage(0, (1,))),))
    write_gallery(made, tmp_path / "gallery.json")
    entry = json.loads((tmp_path / "gallery.json").read_text())["samples"][0]
    assert entry["kept"][0]["stages"][0]["dominant"] == [1]
    assert base64.b64decode(entry["image"]) == png()
