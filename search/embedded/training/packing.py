"""Packing all texts about one image into one sequence behind it, for stage two.

A packed sequence is the prompt's start, the image, and then segments: each question with its
answer, and one description that lists every object with its place. Segments do not see each other
and all start at the same position, so each is trained as if it stood alone behind the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from search.embedded.questions import Question, phrase
from search.embedded.scenes import COLOURS, SceneObject
from search.embedded.vocabulary import COLUMNS, END, GRID, PAD, ROWS, START, TURNS, VOCABULARY

IGNORED = -100
PREFIX: tuple[str, ...] = (START, TURNS[0])
"""What stands before the image."""

PACKED_LENGTH = 206
"""Text tokens of a packed sequence; segments that do not fit are left out."""

_IDS = {word: index for index, word in enumerate(VOCABULARY)}
_PATCH = 96 // GRID
_PLACED_OBJECTS = 2


def encode(text: str) -> list[int]:
    """Return the token ids of a question, as the tokenizer gives them without ``<s>``."""
    return [_IDS[word] for word in text.replace("?", " ?").split()]


def cell(item: SceneObject) -> tuple[int, int]:
    """Return row and column, on the patch grid, of an object's centre."""
    across, down = item.centre
    return int(down // _PATCH), int(across // _PATCH)


@dataclass(frozen=True)
class Segment:
    """One text behind the image.

    Attributes:
        tokens: Token ids.
        answer_start: Where the part that is learned begins.
        mentions: Token position and object index of every object that the question names.
    """

    tokens: tuple[int, ...]
    answer_start: int
    mentions: tuple[tuple[int, int], ...] = ()


def _mentions(question: Question, objects: Sequence[SceneObject]) -> tuple[tuple[int, int], ...]:
    words = question.text.replace("?", " ?").split()
    if question.question_type == "relation":
        second_half = words.index("relative")
        positions = [
            next(i for i in range(start, len(words)) if words[i] in COLOURS) + 1
            for start in (0, second_half)
        ]
        return tuple(zip(positions, question.subjects, strict=True))
    if len(question.subjects) != 1 or question.task == "counting":
        return ()
    subject = question.subjects[0]
    names = {objects[subject].kind, "object", "digit"}
    position = next(i for i, word in enumerate(words) if word in names)
    return ((position, subject),)


def question_segment(question: Question, objects: Sequence[SceneObject]) -> Segment:
    """Return a question with its answer."""
    tokens = [*encode(question.text), _IDS[TURNS[1]], _IDS[question.answer]]
    return Segment(tuple(tokens), len(tokens) - 1, _mentions(question, objects))


def place_segments(objects: Sequence[SceneObject], rng: np.random.Generator) -> list[Segment]:
    """Return questions for row and column of two objects; they help to learn relations."""
    named = [phrase(item) for item in objects]
    unique = [i for i, name in enumerate(named) if named.count(name) == 1]
    segments = []
    for index in rng.permutation(unique)[:_PLACED_OBJECTS].tolist():
        places = zip(("row", "column"), (ROWS, COLUMNS), cell(objects[index]), strict=True)
        for word, names, place in places:
            tokens = [*encode(f"{word} of the {named[index]}?"), _IDS[TURNS[1]], _IDS[names[place]]]
            segments.append(Segment(tuple(tokens), len(tokens) - 1, ((4, index),)))
    return segments


def description_segment(objects: Sequence[SceneObject]) -> Segment:
    """Return the list of all objects, in reading order, each with colour, name, row and column."""
    tokens = [_IDS["describe"], _IDS[TURNS[1]]]
    for (row, column), item in sorted(
        ((cell(item), item) for item in objects), key=lambda pair: pair[0]
    ):
        tokens += [_IDS[item.colour], _IDS[item.kind], _IDS[ROWS[row]], _IDS[COLUMNS[column]]]
    return Segment((*tokens, _IDS[END]), 2)


@dataclass(frozen=True)
class Packed:
    """Packed texts of some images; every array has shape (images, PACKED_LENGTH).

    Attributes:
        tokens: Token ids, padded.
        segments: Number of a token's segment, -1 for padding.
        offsets: Position of a token within its segment.
        labels: Next token where it is part of an answer, otherwise -100.
        described: Whether a label belongs to the description.
        mention_rows, mention_columns: Cell of the object whose name ends here, otherwise -100.
        relation_cells: Rows and columns of both objects of a relation at the token that answers,
            otherwise -100; shape (images, PACKED_LENGTH, 4).
    """

    tokens: NDArray[np.int16]
    segments: NDArray[np.int8]
    offsets: NDArray[np.int16]
    labels: NDArray[np.int16]
    described: NDArray[np.bool_]
    mention_rows: NDArray[np.int16]
    mention_columns: NDArray[np.int16]
    relation_cells: NDArray[np.int16]


def empty_packed(count: int, length: int = PACKED_LENGTH) -> Packed:
    """Return room for the texts of some images."""
    shape = (count, length)
    return Packed(
        tokens=np.full(shape, _IDS[PAD], dtype=np.int16),
        segments=np.full(shape, -1, dtype=np.int8),
        offsets=np.zeros(shape, dtype=np.int16),
        labels=np.full(shape, IGNORED, dtype=np.int16),
        described=np.zeros(shape, dtype=np.bool_),
        mention_rows=np.full(shape, IGNORED, dtype=np.int16),
        mention_columns=np.full(shape, IGNORED, dtype=np.int16),
        relation_cells=np.full((*shape, 4), IGNORED, dtype=np.int16),
    )


def pack(
    packed: Packed, row: int, segments: Sequence[Segment], objects: Sequence[SceneObject]
) -> None:
    """Write the segments of one image into its row, leaving out those that do not fit.

    Args:
        packed: Where to write.
        row: Which image.
        segments: Its texts, the most important first.
        objects: Its objects, which mentions point to.
    """
    cells = [cell(item) for item in objects]
    start, length = 0, packed.tokens.shape[1]
    for number, segment in enumerate(segments):
        size = len(segment.tokens) - 1  # The last token is only ever a label.
        if start + size > length:
            continue
        span = slice(start, start + size)
        packed.tokens[row, span] = segment.tokens[:-1]
        packed.segments[row, span] = number
        packed.offsets[row, span] = np.arange(size)
        answers = slice(start + segment.answer_start - 1, start + size)
        packed.labels[row, answers] = segment.tokens[segment.answer_start :]
        packed.described[row, answers] = len(segment.tokens) > segment.answer_start + 1
        for position, index in segment.mentions:
            packed.mention_rows[row, start + position] = cells[index][0]
            packed.mention_columns[row, start + position] = cells[index][1]
        if len(segment.mentions) == 2:
            both = [place for _, index in segment.mentions for place in cells[index]]
            packed.relation_cells[row, start + size - 1] = both
        start += size


def pack_training(
    objects: Sequence[tuple[SceneObject, ...]],
    questions: Sequence[tuple[Question, ...]],
    rng: np.random.Generator,
) -> Packed:
    """Pack the texts of some training scenes.

    Args:
        objects: Objects of every scene.
        questions: Questions of every scene.
        rng: Chooses the objects whose place is asked, and which questions stay when room is short.

    Returns:
        The packed texts: description, questions, places.
    """
    packed = empty_packed(len(objects))
    for row, (items, asked) in enumerate(zip(objects, questions, strict=True)):
        texts = [question_segment(question, items) for question in asked]
        texts += place_segments(items, rng)
        shuffled = [texts[i] for i in rng.permutation(len(texts)).tolist()]
        pack(packed, row, [description_segment(items), *shuffled], items)
    return packed


def concatenate(parts: Sequence[Packed]) -> Packed:
    """Return the texts of all images of all parts, in order."""
    return Packed(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Packed)
        }
    )
