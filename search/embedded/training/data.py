"""Training scenes with the labels of their patches, drawn from seeds that no split uses."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from search.embedded import questions
from search.embedded.handwriting import digit_pool
from search.embedded.questions import DIRECTIONS, Question
from search.embedded.scenes import (
    COLOURS,
    DIGITS,
    SHAPES,
    CountedScene,
    SceneObject,
    draw_scene,
    random_plan,
)
from search.embedded.training.packing import Packed, concatenate, pack_training
from search.embedded.vocabulary import GRID

COLOUR_LABELS: tuple[str, ...] = (*COLOURS, "background")
KIND_LABELS: tuple[str, ...] = (*SHAPES, *DIGITS, "background")
PHRASES: tuple[str, ...] = tuple(
    f"{colour} {kind}" for colour in COLOURS for kind in (*SHAPES, "digit")
)
"""How questions may name an object."""

_TRAINING_STREAM = 7_001
_CHUNK = 500
_CELL = 8
_CORE = 11


@dataclass(frozen=True)
class TrainingScenes:
    """Scenes kept as palette indices, which take a third of the memory of pixels.

    Attributes:
        indices: Palette index of every pixel, uint8, shape (scenes, 96, 96).
        palettes: Colours, padded with zeros, uint8, shape (scenes, 256, 3).
        patch_objects: Index of the object that covers a patch's centre, -1 for background, int8,
            shape (scenes, 144).
        objects: Objects of every scene.
        questions: Questions of every scene.
        packed: Their texts, packed for stage two.
    """

    indices: NDArray[np.uint8]
    palettes: NDArray[np.uint8]
    patch_objects: NDArray[np.int8]
    objects: list[tuple[SceneObject, ...]]
    questions: list[tuple[Question, ...]]
    packed: Packed

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return pictures as uint8 of shape (rows, 96, 96, 3)."""
        return self.palettes[rows[:, None, None], self.indices[rows]]


def patch_owners(objects: Sequence[SceneObject]) -> NDArray[np.int8]:
    """Return which object holds each patch's centre in the middle of its box, -1 for none.

    Only the middle 11 or 12 pixels count, so that every object owns at least one patch and a patch
    that sees no more than the corner of a box stays background.

    Args:
        objects: The objects of one scene.

    Returns:
        Indices into ``objects``, int8, shape (144,) in raster order.
    """
    owners = np.full((GRID, GRID), -1, dtype=np.int8)
    centres = np.arange(GRID) * _CELL + _CELL / 2
    for index, item in enumerate(objects):
        left, top, right, bottom = item.box
        margin = (right - left - _CORE) // 2
        inside_rows = (centres >= top + margin) & (centres < bottom - margin)
        inside_columns = (centres >= left + margin) & (centres < right - margin)
        owners[np.ix_(inside_rows, inside_columns)] = index
    return owners.reshape(-1)


def ask_training_questions(counted: CountedScene, rng: np.random.Generator) -> tuple[Question, ...]:
    """Return about a dozen questions of all tasks, a third of them about relations."""
    scene = counted.scene
    asked: list[Question | None] = [
        questions.existence(scene, rng, present=True),
        questions.existence(scene, rng, present=False),
        questions.colour_of(scene, rng),
        questions.shape_of(scene, rng),
        questions.multiple_choice(scene, rng, int(rng.integers(4))),
        questions.multiple_choice(scene, rng, int(rng.integers(4))),
        questions.reading(scene, 0),
        questions.reading(scene, 1),
        questions.counting(counted, by_shape=True),
        questions.counting(counted, by_shape=False),
    ]
    asked += [questions.relation(scene, rng, wanted) for wanted in DIRECTIONS]
    return tuple(question for question in asked if question is not None)


def _draw_chunk(seed: int, chunk: int, count: int) -> TrainingScenes:
    rng = np.random.default_rng([_TRAINING_STREAM, seed, chunk])
    pool = digit_pool("train")
    drawn = [draw_scene(rng, pool, random_plan(rng)) for _ in range(count)]
    asked = [ask_training_questions(counted, rng) for counted in drawn]
    palettes = np.zeros((count, 256, 3), dtype=np.uint8)
    for row, counted in enumerate(drawn):
        palettes[row, : len(counted.scene.palette)] = counted.scene.palette
    objects = [counted.scene.objects for counted in drawn]
    return TrainingScenes(
        indices=np.stack([counted.scene.indices for counted in drawn]),
        palettes=palettes,
        patch_objects=np.stack([patch_owners(items) for items in objects]),
        objects=objects,
        questions=asked,
        packed=pack_training(objects, asked, rng),
    )


def draw_training_scenes(seed: int, count: int, workers: int = 1) -> TrainingScenes:
    """Draw training scenes; the result depends on the seed only, not on the number of workers.

    Args:
        seed: Seed of the training run.
        count: Number of scenes.
        workers: Processes that draw, default 1.

    Returns:
        The scenes with patch labels and questions.
    """
    sizes = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
    jobs = ([seed] * len(sizes), range(len(sizes)), sizes)
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            chunks = list(pool.map(_draw_chunk, *jobs))
    else:
        chunks = list(map(_draw_chunk, *jobs))
    return TrainingScenes(
        indices=np.concatenate([chunk.indices for chunk in chunks]),
        palettes=np.concatenate([chunk.palettes for chunk in chunks]),
        patch_objects=np.concatenate([chunk.patch_objects for chunk in chunks]),
        objects=[items for chunk in chunks for items in chunk.objects],
        questions=[asked for chunk in chunks for asked in chunk.questions],
        packed=concatenate([chunk.packed for chunk in chunks]),
    )
