"""Numbers of things in sentences."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Spell how many there are of something.

    Args:
        number: How many.
        thing: What they are, in the singular; its plural ends in s.

    Returns:
        Both, as in ``1 trial`` and ``2 trials``.
    """
    return f"{number} {thing}" + ("" if number == 1 else "s")
