"""What a benchmark asks of a model: a conversation with images, and when an answer ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Stopping:
    """When an answer ends, beside the model's own end token.

    Attributes:
        max_new_tokens: Most tokens of the answer.
        strings: Texts at which it ends; they are no part of it.
        beams: Beams of the search for it; 1 is greedy.
    """

    max_new_tokens: int
    strings: tuple[str, ...] = ()
    beams: int = 1

    def cut(self, answer: str) -> str:
        """Cut an answer at the first of the texts that end it."""
        for text in self.strings:
            answer = answer.partition(text)[0]
        return answer


@dataclass(frozen=True)
class Request:
    """One question to the model.

    Attributes:
        identifier: Names it in messages and in the cache.
        text: The question as the benchmark words it.
        images: Its images, in RGB.
        stopping: When the answer ends.
    """

    identifier: str
    text: str
    images: tuple[Image, ...]
    stopping: Stopping
