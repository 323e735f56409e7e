"""Text in LaTeX."""

from __future__ import annotations

import re

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{character: rf"\{character}" for character in "&%$#_{}"},
    }
)


def escaped(text: str) -> str:
    """Write a text so that LaTeX typesets it as it is.

    Args:
        text: The text, without line breaks.

    Returns:
        The text with LaTeX's special characters escaped, and hyphens in a row kept from making a
        dash.
    """
    return re.sub("-(?=-)", "-{}", text.translate(_SPECIAL))
