"""Local rows with the columns of the real data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

ROWS = 60
ANSWERS = ("yes", "no", "A", "B")
"""All that the tiny model says, see `tiny_model.py`."""


def image(number: int, size: tuple[int, int] = (28, 24)) -> Image.Image:
    generator = np.random.default_rng(number)
    return Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))


def gqa(number: int) -> dict[str, Any]:
    return {
        "id": f"2{number:05}",
        "imageId": f"n{number}",
        "question": f"w{number % 25} w1 w2",
        "answer": ANSWERS[number % 4],
        "types": {"structural": "query" if number % 2 else "verify", "semantic": "attr"},
        "image": image(number),
    }


def pope(number: int) -> dict[str, Any]:
    return {
        "id": str(number),
        "question_id": str(number // 3),
        "question": f"w3 w{number % 25}",
        "answer": "yes" if number % 2 else "no",
        "image_source": f"COCO_{number}",
        "image": image(number),
        "category": ("adversarial", "popular", "random")[number % 3],
    }


def mmbench(number: int) -> dict[str, Any]:
    # Every fourth question comes in two rotations of its choices.
    rotation = int(number % 5 == 4)
    question = number - rotation
    return {
        "index": question + 1_000_000 * rotation,
        "question": f"w4 w{question}",
        "hint": "nan" if question % 2 else "w9",
        "answer": "AB"[(question // 2 + rotation) % 2],
        "A": "w5",
        "B": "w6",
        "C": "nan",
        "D": "nan",
        "category": "coarse" if question % 2 else "fine",
        "L2-category": "perception",
        "source": "made",
        "split": "dev",
        "image": image(question),
    }


def scienceqa(number: int) -> dict[str, Any]:
    return {
        "image": image(number),
        "question": f"w7 w{number % 25}",
        "choices": ["w1", "w2"],
        "answer": number % 2,
        "hint": "w8" if number % 2 else "",
        "subject": "natural science" if number % 2 else "social science",
    }


def vqav2(number: int) -> dict[str, Any]:
    return {
        "question_type": "what",
        "multiple_choice_answer": "w1",
        "answers": [
            {"answer": ANSWERS[(number + each // 4) % 4], "answer_id": each} for each in range(10)
        ],
        "image_id": number,
        "answer_type": "yes/no" if number % 2 else "other",
        "question_id": 1000 + number,
        "question": f"w10 w{number % 25}",
        "answer": "w1",
        "image": image(number),
    }


def textvqa(number: int) -> dict[str, Any]:
    return {
        "image_id": f"i{number}",
        "question_id": 5000 + number,
        "question": f"w11 w{number % 25}",
        "answer": "w1",
        "answers": [ANSWERS[(number + each // 4) % 4] for each in range(10)],
        "ocr_tokens": ["w1"],
        "image": image(number),
    }


def mme(number: int) -> dict[str, Any]:
    pair = number // 2
    return {
        "question_id": f"{pair}.png",
        "question": f"w12 w{pair % 25} Please answer yes or no.",
        "answer": "Yes" if number % 2 else "No",
        "category": ("existence", "count", "code_reasoning")[pair % 3],
        "image": image(pair),
    }


def seedbench(number: int) -> dict[str, Any]:
    return {
        "question_id": f"s{number}",
        "question": f"w13 w{number % 25}",
        "choice_a": "w1",
        "choice_b": "w2",
        "choice_c": "w3",
        "choice_d": "w4",
        "answer": "AB"[number // 2 % 2],
        "data_type": "video" if number % 4 == 0 else "image",
        "question_type_id": number % 2,
        "image": [image(number)],
    }


MAKERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "gqa": gqa,
    "pope": pope,
    "mmbench_en_dev_static": mmbench,
    "mmbench_cn_dev": mmbench,
    "scienceqa_img": scienceqa,
    "vqav2_val": vqav2,
    "textvqa_val": textvqa,
    "vizwiz_vqa_val": textvqa,
    "mme": mme,
    "seedbench": seedbench,
}


def write_rows(task: str, folder: Path, count: int = ROWS) -> Path:
    """Write rows of a task as one parquet file, and return its folder."""
    rows = [MAKERS[task](number) for number in range(count)]
    made = datasets.Dataset.from_list(rows)
    folder.mkdir(parents=True, exist_ok=True)
    made.to_parquet(folder / "rows.parquet")
    return folder
