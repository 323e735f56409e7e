"""The prompt of a question, as the processor's chat template writes it; imports nothing heavy."""

from __future__ import annotations


def chat(question: str) -> str:
    """Return the prompt that asks a question about one image.

    Args:
        question: The words of the question.

    Returns:
        The prompt with the placeholder ``<image>``, ready for the processor.
    """
    return f"USER: <image>\n{question} ASSISTANT:"


def blind_chat(question: str) -> str:
    """Return the prompt that asks a question without an image, to measure what words alone give.

    Args:
        question: The words of the question.

    Returns:
        The prompt without any placeholder.
    """
    return f"USER: {question} ASSISTANT:"
