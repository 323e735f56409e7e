"""The embedded benchmark: five tasks in three disjoint splits, kept as parquet.

``python -m search.embedded.benchmark`` draws all files again, byte for byte under the same pyarrow
version (which a parquet file names in its footer). ``--out FOLDER --seed 1`` draws another
benchmark of the same make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from pruners.atomic import atomic_path
from pruners.errors import DataError
from search.embedded import DATA
from search.embedded.handwriting import digit_pool
from search.embedded.image_plans import ask, image_plans
from search.embedded.png import encode_png
from search.embedded.questions import TASKS
from search.embedded.scenes import draw_scene
from studies.identity import SPLITS, check_split

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

__all__ = ["TASKS", "Sample", "build_split", "load_split", "write_split"]

_IMAGES = {"search": 200, "confirm": 160, "report": 260}
_STREAMS = {"search": 101, "confirm": 102, "report": 103}
_STREAMS_PER_SEED = 1_000


@dataclass(frozen=True)
class Sample:
    """One question of the benchmark.

    Attributes:
        id: Stable name, unique over all splits.
        task: One of ``TASKS``.
        question_type: What is asked within the task, for example ``"relation"``.
        image_id: Name of the image; ten questions share one.
        png: The image as a PNG file.
        question: The words of the question.
        answer: The one right word.
        choices: The options of a multiple-choice question, otherwise empty.
        boxes: Left, top, right and bottom edge, in pixels, of the objects asked about.
    """

    id: str
    task: str
    question_type: str
    image_id: str
    png: bytes
    question: str
    answer: str
    choices: tuple[str, ...]
    boxes: tuple[tuple[int, int, int, int], ...]

    def pil(self) -> Image:
        """Return the image as an RGB Pillow image."""
        from PIL import Image

        return Image.open(BytesIO(self.png)).convert("RGB")

    @property
    def image(self) -> NDArray[np.uint8]:
        """The image as uint8 of shape (96, 96, 3)."""
        return np.asarray(self.pil())


def build_split(split: str, seed: int = 0) -> pa.Table:
    """Draw one split of the benchmark.

    Args:
        split: One of `studies.identity.SPLITS`.
        seed: Seed of the benchmark, default that of the shipped one. Other seeds draw other scenes
            and questions; handwritten samples come from the same ones of the split.

    Returns:
        One row per question; images and handwritten samples belong to this split alone.
    """
    import pyarrow as pa

    rng = np.random.default_rng(_STREAMS[split] + _STREAMS_PER_SEED * seed)
    pool = digit_pool(split)
    rows: list[dict[str, object]] = []
    for number, plan in enumerate(image_plans(rng, _IMAGES[split])):
        asked = None
        while asked is None:
            counted = draw_scene(rng, pool, plan.scene)
            asked = ask(counted, plan, rng)
        scene = counted.scene
        image_id = f"{split}-{number:04d}"
        png = encode_png(scene.indices, scene.palette)
        for index, question in enumerate(asked):
            rows.append(
                {
                    "id": f"{image_id}-{question.task}-{index % 2}",
                    "task": question.task,
                    "question_type": question.question_type,
                    "image_id": image_id,
                    "image": png,
                    "question": question.text,
                    "answer": question.answer,
                    "choices": list(question.choices),
                    "boxes": [list(scene.objects[i].box) for i in question.subjects],
                    "digit_samples": list(scene.digit_samples),
                }
            )
    text, small = pa.string(), pa.int16()
    schema = pa.schema(
        [
            *((name, text) for name in ("id", "task", "question_type", "image_id")),
            ("image", pa.binary()),
            ("question", text),
            ("answer", text),
            ("choices", pa.list_(text)),
            ("boxes", pa.list_(pa.list_(small))),
            ("digit_samples", pa.list_(small)),
        ]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def write_split(split: str, folder: Path, seed: int = 0) -> Path:
    """Draw one split of a seed and write ``<folder>/<split>.parquet``; return the path."""
    import pyarrow.parquet as pq

    path = folder / f"{split}.parquet"
    with atomic_path(path) as temporary:
        # A large dictionary page lets the questions of one image share its bytes.
        pq.write_table(
            build_split(split, seed),
            temporary,
            version="2.6",
            compression="zstd",
            compression_level=9,
            use_dictionary=True,
            dictionary_pagesize_limit=1 << 26,
            row_group_size=1 << 20,
            write_statistics=False,
        )
    return path


@cache
def _read_split(path: Path) -> tuple[Sample, ...]:
    import pyarrow.parquet as pq

    columns = ["id", "task", "question_type", "image_id", "image", "question", "answer"]
    rows = pq.read_table(path, columns=[*columns, "choices", "boxes"]).to_pylist()
    images: dict[str, bytes] = {}
    return tuple(
        Sample(
            id=row["id"],
            task=row["task"],
            question_type=row["question_type"],
            image_id=row["image_id"],
            png=images.setdefault(row["image_id"], row["image"]),
            question=row["question"],
            answer=row["answer"],
            choices=tuple(row["choices"]),
            boxes=tuple(tuple(box) for box in row["boxes"]),
        )
        for row in rows
    )


def split_file(split: str, folder: Path = DATA) -> Path:
    """Return the file of a split.

    Args:
        split: One of `studies.identity.SPLITS`.
        folder: Folder of the benchmark, default the shipped one.

    Returns:
        The file's path.

    Raises:
        DataError: The split is unknown, or its file is missing.
    """
    check_split(split)
    path = folder / f"{split}.parquet"
    if not path.is_file():
        raise DataError(f"{path} is missing; python -m search.embedded.benchmark draws it again")
    return path


def load_split(split: str, tasks: Sequence[str] | None = None, folder: Path = DATA) -> list[Sample]:
    """Read the questions of one split.

    Args:
        split: ``"search"``, ``"confirm"`` or ``"report"``.
        tasks: Which of ``TASKS`` to keep, default all.
        folder: Folder of the benchmark, default the shipped one.

    Returns:
        The questions in their stored order; those of one image stand together.

    Raises:
        DataError: The split or a task is unknown, or the split's file is missing.
    """
    path = split_file(split, folder)
    wanted = TASKS if tasks is None else tuple(tasks)
    unknown = [task for task in wanted if task not in TASKS]
    if unknown:
        raise DataError(f"unknown task {unknown[0]!r}; choose from {', '.join(TASKS)}")
    return [sample for sample in _read_split(path) if sample.task in wanted]


def main(
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = DATA,
    seed: Annotated[int, typer.Option(min=0, help="0 draws the shipped benchmark again.")] = 0,
) -> None:
    """Draw all splits of a benchmark."""
    if seed and out == DATA:
        raise typer.BadParameter("the shipped folder holds seed 0; name another with --out")
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        path = write_split(split, out, seed)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    typer.run(main)
