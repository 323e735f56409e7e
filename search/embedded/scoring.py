"""The benchmark's scoring rule, for every program that asks its questions."""

from __future__ import annotations

ANSWER_TOKENS = 1
"""How many tokens are generated: all answers are one word, and all words are one token."""


def score(given: str, answer: str) -> float:
    """Score one sample.

    Args:
        given: The word that the model gives next after the prompt.
        answer: The right word.

    Returns:
        1 where they are the same, else 0.
    """
    return float(given == answer)
