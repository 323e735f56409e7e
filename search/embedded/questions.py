"""The five tasks: questions about a scene, each answered by one word.

The forms are those of the field's benchmarks: existence with adversarial negatives (POPE),
attributes and spatial relations (GQA), multiple choice with letters (MMBench), reading (TextVQA)
and counting (VQAv2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search.embedded.scenes import (
    COLOURS,
    DIGITS,
    SHAPES,
    CountedScene,
    Direction,
    Scene,
    SceneObject,
)

TASKS: tuple[str, ...] = ("existence", "attributes", "multiple_choice", "reading", "counting")
"""The benchmark's tasks, in the order in which results are shown."""

DIRECTIONS: tuple[Direction, ...] = ("left", "right", "above", "below")
LETTERS: tuple[str, ...] = ("A", "B", "C", "D")
_COLOUR_NAMES = tuple(COLOURS)
PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}
_MARGIN = 10
_REACH = 18


@dataclass(frozen=True)
class Question:
    """One question about one scene.

    Attributes:
        task: One of ``TASKS``.
        question_type: What is asked within the task, for example ``"relation"``.
        text: The words of the question, separated by spaces.
        answer: One word.
        choices: The options of a multiple-choice question, in the order of their letters.
        subjects: Indices of the objects that the question is about; empty when it is absent.
    """

    task: str
    question_type: str
    text: str
    answer: str
    choices: tuple[str, ...]
    subjects: tuple[int, ...]


def _pick(rng: np.random.Generator, number: int) -> int:
    return int(rng.integers(number))


def phrase(item: SceneObject) -> str:
    """Return how questions name an object, for example ``"red circle"`` or ``"red digit"``."""
    return f"{item.colour} {'digit' if item.is_digit else item.kind}"


def _unique(names: list[str | None]) -> list[int]:
    """Return the indices whose name occurs exactly once; None never counts."""
    return [i for i, name in enumerate(names) if name is not None and names.count(name) == 1]


def _unique_shapes(scene: Scene) -> list[int]:
    return _unique([None if item.is_digit else item.kind for item in scene.objects])


def _unique_colours(scene: Scene) -> list[int]:
    unique = _unique([item.colour for item in scene.objects])
    return [i for i in unique if not scene.objects[i].is_digit]


def _unique_phrases(scene: Scene) -> list[int]:
    return _unique([None if item.is_digit else phrase(item) for item in scene.objects])


def existence(scene: Scene, rng: np.random.Generator, present: bool) -> Question | None:
    """Ask whether a coloured shape is there; when it is not, its colour and its shape are."""
    shapes = [(i, item) for i, item in enumerate(scene.objects) if not item.is_digit]
    shown = {(item.colour, item.kind) for _, item in shapes}
    if present:
        options = sorted(shown)
    else:
        options = sorted({(a.colour, b.kind) for _, a in shapes for _, b in shapes} - shown)
    if not options:
        return None
    colour, kind = options[_pick(rng, len(options))]
    subjects = tuple(i for i, item in shapes if (item.colour, item.kind) == (colour, kind))
    article = "an" if colour == "orange" else "a"
    text = f"is there {article} {colour} {kind}?"
    return Question("existence", "existence", text, "yes" if present else "no", (), subjects)


def colour_of(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Ask for the colour of a shape that occurs once."""
    options = _unique_shapes(scene)
    if not options:
        return None
    chosen = options[_pick(rng, len(options))]
    item = scene.objects[chosen]
    text = f"what colour is the {item.kind}?"
    return Question("attributes", "colour", text, item.colour, (), (chosen,))


def shape_of(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Ask for the shape of the only object of its colour."""
    options = _unique_colours(scene)
    if not options:
        return None
    chosen = options[_pick(rng, len(options))]
    item = scene.objects[chosen]
    text = f"what shape is the {item.colour} object?"
    return Question("attributes", "shape", text, item.kind, (), (chosen,))


def direction(first: SceneObject, second: SceneObject) -> Direction | None:
    """Return where the first object lies relative to the second, or None when that is unclear."""
    across = first.centre[0] - second.centre[0]
    down = first.centre[1] - second.centre[1]
    if abs(abs(across) - abs(down)) < _MARGIN or max(abs(across), abs(down)) < _REACH:
        return None
    if abs(across) > abs(down):
        return "left" if across < 0 else "right"
    return "above" if down < 0 else "below"


def relation(scene: Scene, rng: np.random.Generator, wanted: Direction) -> Question | None:
    """Ask where one coloured shape lies relative to another; the answer is ``wanted``."""
    options = _unique_phrases(scene)
    pairs = [
        (a, b)
        for a in options
        for b in options
        if a != b and direction(scene.objects[a], scene.objects[b]) == wanted
    ]
    if not pairs:
        return None
    first, second = pairs[_pick(rng, len(pairs))]
    text = (
        f"where is the {phrase(scene.objects[first])} relative to "
        f"the {phrase(scene.objects[second])}?"
    )
    return Question("attributes", "relation", text, wanted, (), (first, second))


def multiple_choice(scene: Scene, rng: np.random.Generator, letter: int) -> Question | None:
    """Ask for a colour or a shape with four options; the right one has the given letter."""
    by_colour = bool(rng.integers(2))
    asked = colour_of(scene, rng) if by_colour else shape_of(scene, rng)
    if asked is None:
        return None
    names = _COLOUR_NAMES if by_colour else SHAPES
    others = [name for name in names if name != asked.answer]
    choices = [others[i] for i in rng.permutation(len(others))[:3].tolist()]
    choices.insert(letter, asked.answer)
    listed = " ".join(f"{mark} {name}" for mark, name in zip(LETTERS, choices, strict=True))
    return Question(
        "multiple_choice",
        asked.question_type,
        f"{asked.text} {listed}",
        LETTERS[letter],
        tuple(choices),
        asked.subjects,
    )


def reading(scene: Scene, which: int) -> Question:
    """Ask which number is written in a colour; ``which`` of the two digits, 0 or 1."""
    digits = [i for i, item in enumerate(scene.objects) if item.is_digit]
    item = scene.objects[digits[which]]
    text = f"what number is the {phrase(item)}?"
    return Question("reading", "digit", text, item.kind, (), (digits[which],))


def counting(counted: CountedScene, by_shape: bool) -> Question:
    """Ask how many objects have the planned shape, or how many shapes the planned colour."""
    shapes = [(i, item) for i, item in enumerate(counted.scene.objects) if not item.is_digit]
    if by_shape:
        text = f"how many {PLURALS[counted.counted_shape]} are there?"
        subjects = tuple(i for i, item in shapes if item.kind == counted.counted_shape)
    else:
        text = f"how many {counted.counted_colour} shapes are there?"
        subjects = tuple(i for i, item in shapes if item.colour == counted.counted_colour)
    kind = "shape" if by_shape else "colour"
    return Question("counting", kind, text, DIGITS[len(subjects)], (), subjects)
