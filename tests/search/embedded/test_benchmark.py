"""The benchmark's files: reproducible, disjoint and balanced."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pruners.errors import DataError
from search.embedded import CHECKPOINT, DATA, benchmark
from search.embedded.benchmark import TASKS, Sample, load_split
from search.embedded.handwriting import digit_pool
from search.embedded.png import encode_png
from search.embedded.scenes import COLOURS, SHAPES
from studies.identity import SPLITS

SIZE_LIMIT = 25_000_000


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_drawn_again_exactly(split: str, tmp_path: Path) -> None:
    shipped, drawn = DATA / f"{split}.parquet", benchmark.write_split(split, tmp_path)
    assert pq.read_table(drawn).equals(pq.read_table(shipped))
    writers = {pq.read_metadata(path).created_by for path in (shipped, drawn)}
    if len(writers) == 1:  # Another pyarrow may lay out the same table in other bytes.
        assert drawn.read_bytes() == shipped.read_bytes()


def test_another_seed_draws_another_benchmark_of_the_same_make(tmp_path: Path) -> None:
    benchmark.write_split("confirm", tmp_path, seed=1)
    shipped, other = load_split("confirm"), load_split("confirm", folder=tmp_path)
    assert Counter(sample.task for sample in other) == Counter(sample.task for sample in shipped)
    assert not {sample.png for sample in other} & {sample.png for sample in shipped}
    pool = set(digit_pool("confirm").sample_indices.tolist())
    drawn = pq.read_table(tmp_path / "confirm.parquet")["digit_samples"].to_pylist()
    assert {sample for row in drawn for sample in row} <= pool
    with pytest.raises(DataError, match=r"report\.parquet is missing"):
        load_split("report", folder=tmp_path)


def test_splits_share_neither_images_nor_handwritten_samples() -> None:
    tables = {split: pq.read_table(DATA / f"{split}.parquet") for split in SPLITS}
    images = {split: set(table["image"].to_pylist()) for split, table in tables.items()}
    digits = {
        split: {sample for row in table["digit_samples"].to_pylist() for sample in row}
        for split, table in tables.items()
    }
    digits["train"] = set(digit_pool("train").sample_indices.tolist())
    for found in (images, digits):
        total = sum(len(values) for values in found.values())
        assert len(set().union(*found.values())) == total
    identifiers = [sample.id for split in SPLITS for sample in load_split(split)]
    assert len(set(identifiers)) == len(identifiers)


@pytest.mark.parametrize(("split", "least"), [("search", 400), ("confirm", 300), ("report", 500)])
def test_answers_are_balanced(split: str, least: int) -> None:
    largest_share = {
        "existence": 0.5,
        "attributes": 1 / 6,
        "multiple_choice": 0.25,
        "reading": 0.1,
        "counting": 0.25,
    }
    for task in TASKS:
        answers = Counter(sample.answer for sample in load_split(split, [task]))
        assert answers.total() >= least
        assert max(answers.values()) / answers.total() == pytest.approx(
            largest_share[task], abs=0.01
        )


def _colour_of(sample: Sample, box: tuple[int, int, int, int]) -> str:
    """Name the palette colour nearest to the most saturated pixels of a box."""
    left, top, right, bottom = box
    pixels = sample.image[top:bottom, left:right].reshape(-1, 3).astype(float)
    names = list(COLOURS)
    distance = ((pixels[:, None] - np.array(list(COLOURS.values()))[None]) ** 2).sum(-1)
    nearest = distance.argmin(1)[distance.min(1) < 60**2]
    return names[np.bincount(nearest, minlength=len(names)).argmax()]


def test_pictures_show_what_the_answers_say() -> None:
    """Read colours and directions from pixels and boxes, without the code that asks."""
    colours = [s for s in load_split("report") if s.question_type == "colour" and not s.choices]
    colours = [s for s in colours if s.task == "attributes"]
    assert len(colours) > 80
    seen = [_colour_of(sample, sample.boxes[0]) for sample in colours]
    assert np.mean([a == s.answer for a, s in zip(seen, colours, strict=True)]) > 0.97
    for sample in load_split("report", ["attributes"]):
        if sample.question_type != "relation":
            continue
        first, second = (np.array(box).reshape(2, 2).mean(0) for box in sample.boxes)
        across, down = first - second
        horizontal = abs(across) > abs(down)
        expected = ("left", "right") if horizontal else ("above", "below")
        assert sample.answer == expected[int((across if horizontal else down) > 0)]


def test_choices_hold_the_answer_under_its_letter() -> None:
    for sample in load_split("confirm", ["multiple_choice"]):
        option = sample.choices["ABCD".index(sample.answer)]
        assert len(set(sample.choices)) == 4
        assert option in (COLOURS if sample.question_type == "colour" else SHAPES)
        assert f"{sample.answer} {option}" in sample.question


def test_counts_and_existence_agree_with_the_objects_asked_about() -> None:
    for sample in load_split("search", ["counting"]):
        assert int(sample.answer) == len(sample.boxes)
    for sample in load_split("search", ["existence"]):
        assert sample.answer == ("yes" if sample.boxes else "no")


def test_png_bytes_are_read_by_pillow_as_the_pixels_they_hold() -> None:
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 200, size=(96, 96), dtype=np.uint8)
    palette = rng.integers(0, 256, size=(200, 3), dtype=np.uint8)
    with Image.open(BytesIO(encode_png(indices, palette))) as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), palette[indices])
    with pytest.raises(ValueError, match="make it smaller"):
        encode_png(np.zeros((300, 300), dtype=np.uint8), palette)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(DataError, match=r"unknown split 'test'.*report"):
        load_split("test")
    with pytest.raises(DataError, match=r"unknown task 'vqa'.*counting"):
        load_split("search", ["vqa"])


def test_loading_imports_no_model_library() -> None:
    code = (
        "import sys; from search.embedded.benchmark import load_split; load_split('confirm');"
        "import search.embedded.prompts; print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_model_and_data_stay_small() -> None:
    files = [path for folder in (CHECKPOINT, DATA) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= SIZE_LIMIT
