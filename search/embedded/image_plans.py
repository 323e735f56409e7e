"""What each image must allow to ask, so that answers are balanced over a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from search.embedded import questions
from search.embedded.questions import DIRECTIONS, Question
from search.embedded.scenes import CountedScene, Direction, ScenePlan

_ATTRIBUTES: tuple[Literal["colour", "shape", "relation"], ...] = ("colour", "shape", "relation")


@dataclass(frozen=True)
class ImagePlan:
    """What one image must allow to ask, so that answers are balanced over a split.

    Attributes:
        scene: Counts and digits.
        letters: Letters of the right options of both multiple-choice questions.
        attribute: What the image's second question on attributes asks for; its first asks for a
            relation, so that two thirds do and words alone rarely tell more than the majority.
        directions: Answers of the questions about relations, one or two.
    """

    scene: ScenePlan
    letters: tuple[int, int]
    attribute: Literal["colour", "shape", "relation"]
    directions: tuple[Direction, ...]


def _balanced(rng: np.random.Generator, count: int, values: int) -> list[int]:
    """Return every value equally often (to within one), in random order."""
    return [int(value) for value in rng.permutation(np.arange(count) % values)]


def image_plans(rng: np.random.Generator, count: int) -> list[ImagePlan]:
    """Plan a split's images.

    Args:
        rng: Where all randomness comes from.
        count: Number of images.

    Returns:
        A plan for each, every answer as often as the others.
    """
    shape_counts, colour_counts = _balanced(rng, count, 4), _balanced(rng, count, 4)
    digits, letters = _balanced(rng, 2 * count, 10), _balanced(rng, 2 * count, 4)
    attributes = [_ATTRIBUTES[value] for value in _balanced(rng, count, len(_ATTRIBUTES))]
    relations = [1 + (attribute == "relation") for attribute in attributes]
    directions = [DIRECTIONS[value] for value in _balanced(rng, sum(relations), 4)]
    plans = []
    for i in range(count):
        first_digit, second_digit = digits[2 * i : 2 * i + 2]
        first_letter, second_letter = letters[2 * i : 2 * i + 2]
        wanted, directions = directions[: relations[i]], directions[relations[i] :]
        plans.append(
            ImagePlan(
                ScenePlan(shape_counts[i] + 1, colour_counts[i] + 1, (first_digit, second_digit)),
                (first_letter, second_letter),
                attributes[i],
                tuple(wanted),
            )
        )
    return plans


def ask(
    counted: CountedScene, plan: ImagePlan, rng: np.random.Generator
) -> tuple[Question, ...] | None:
    """Ask two questions of every task.

    Args:
        counted: A scene drawn by the plan.
        plan: What the image must allow to ask.
        rng: Where all randomness comes from.

    Returns:
        The questions, or None when the scene does not allow one of them.
    """
    scene = counted.scene
    attributes = [questions.relation(scene, rng, wanted) for wanted in plan.directions]
    if plan.attribute == "colour":
        attributes.append(questions.colour_of(scene, rng))
    elif plan.attribute == "shape":
        attributes.append(questions.shape_of(scene, rng))
    asked = (
        questions.existence(scene, rng, present=True),
        questions.existence(scene, rng, present=False),
        *attributes,
        questions.multiple_choice(scene, rng, plan.letters[0]),
        questions.multiple_choice(scene, rng, plan.letters[1]),
        questions.reading(scene, 0),
        questions.reading(scene, 1),
        questions.counting(counted, by_shape=True),
        questions.counting(counted, by_shape=False),
    )
    complete = tuple(question for question in asked if question is not None)
    texts = {question.text for question in complete}
    return complete if len(texts) == len(asked) else None
