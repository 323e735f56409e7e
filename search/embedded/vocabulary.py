"""The words that questions, answers and descriptions are made of; imports nothing heavy."""

from __future__ import annotations

from search.embedded.questions import DIRECTIONS, LETTERS, PLURALS
from search.embedded.scenes import COLOURS, DIGITS, SHAPES

PAD, START, UNKNOWN, END, IMAGE = "<pad>", "<s>", "<unk>", "</s>", "<image>"
GRID = 12
"""Rows and columns of the patch grid, which descriptions of a scene name."""

ROWS: tuple[str, ...] = tuple(f"r{index}" for index in range(GRID))
COLUMNS: tuple[str, ...] = tuple(f"c{index}" for index in range(GRID))

TURNS = ("USER:", "ASSISTANT:")
# fmt: off
_WORDS = (
    "is", "there", "a", "an", "what", "colour", "shape", "number", "the", "object", "objects",
    "shapes", "digit", "how", "many", "are", "where", "relative", "to", "yes", "no", "describe",
    "row", "column", "of", "in", "image", "which", "one", "this", "picture", "?", ".", ",",
)
# fmt: on

VOCABULARY: tuple[str, ...] = (
    *(PAD, START, UNKNOWN, END, IMAGE),
    *TURNS,
    *_WORDS,
    *COLOURS,
    *SHAPES,
    *PLURALS.values(),
    *DIGITS,
    *LETTERS,
    *DIRECTIONS,
    *ROWS,
    *COLUMNS,
)
"""All words; a word's position is its token id. The id of ``</s>`` is not 2, because CLIP reads a
text configuration whose end token is 2 as one of its early, differently pooled checkpoints."""
