"""What a benchmark asks of a model: a text with images, and how the answer is generated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from search.lmms.decoding import Decoding


@dataclass(frozen=True)
class Request:
    """One question to the model.

    Attributes:
        identifier: Names it in messages and in the cache.
        text: The question as the benchmark words it.
        images: Its images, in RGB.
        decoding: How the answer is generated, and when it ends.
    """

    identifier: str
    text: str
    images: tuple[Image, ...]
    decoding: Decoding
