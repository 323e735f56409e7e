"""Text in LaTeX."""

from __future__ import annotations

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: rf"\{character}" for character in "&%$#_{}"},
    }
)


def escaped(text: str) -> str:
    """Write a text so that LaTeX typesets it as it is.

    Args:
        text: The text, without line breaks.

    Returns:
        The text with LaTeX's special characters escaped.
    """
    return text.translate(_SPECIAL)
