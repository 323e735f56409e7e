"""How answers are generated: limits, stopping and sampling, by a task's own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from pruners.errors import SettingsError

DEFAULT_NEW_TOKENS = 1024
"""Longest answer where a task sets no limit, in tokens; lmms-eval's own models have the same."""


@dataclass(frozen=True)
class Answer:
    """One generated answer.

    Attributes:
        text: The answer, without special tokens, cut before the first text that ends it.
        tokens: Tokens that were generated for it, padding left out.
    """

    text: str
    tokens: int


@dataclass(frozen=True)
class Decoding:
    """How answers are generated.

    Attributes:
        max_new_tokens: Longest answer, in tokens.
        stop: Texts that end an answer and do not belong to it.
        temperature: Temperature to sample with; None for the likeliest token.
        top_p: Share of the probability to sample from; None for all.
        top_k: Tokens to sample from; None for all.
        num_beams: Beams to search; 1 for none.
    """

    max_new_tokens: int = DEFAULT_NEW_TOKENS
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    num_beams: int = 1

    @classmethod
    def of_task(cls, settings: Mapping[str, Any]) -> Self:
        """Read a task's ``generation_kwargs``.

        An answer is sampled only where ``do_sample`` or a ``temperature`` above 0 asks for it.
        Settings that are not about decoding text are left out, as lmms-eval's own models do.

        Args:
            settings: The task's settings.

        Returns:
            The same, checked.

        Raises:
            SettingsError: ``until`` is no text or list of texts.
        """
        until = settings.get("until") or ()
        stop = (until,) if isinstance(until, str) else tuple(until)
        if not all(isinstance(text, str) for text in stop):
            raise SettingsError(f"until: expected a text or a list of texts, found {until!r}")
        temperature = settings.get("temperature")
        samples = settings.get("do_sample")
        if samples is None:
            samples = bool(temperature)
        if temperature == 0:
            samples = False
        return cls(
            max_new_tokens=int(settings.get("max_new_tokens") or DEFAULT_NEW_TOKENS),
            stop=tuple(text for text in stop if text),
            temperature=(1.0 if temperature is None else float(temperature)) if samples else None,
            top_p=(settings.get("top_p") or None) if samples else None,
            top_k=(settings.get("top_k") or None) if samples else None,
            num_beams=int(settings.get("num_beams") or 1),
        )

    def arguments(self, tokenizer: Any, prompt_length: int) -> dict[str, Any]:
        """Return the arguments of ``generate``.

        Args:
            tokenizer: The model's tokenizer.
            prompt_length: Tokens of each prompt, padding included.

        Returns:
            The arguments; they replace what the model's own generation settings say of sampling.
        """
        arguments: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "num_beams": self.num_beams,
            "do_sample": self.temperature is not None,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "pad_token_id": tokenizer.pad_token_id,
        }
        if self.stop:
            stopping = StopTexts(self.stop, tokenizer, prompt_length)
            arguments["stopping_criteria"] = StoppingCriteriaList([stopping])
        return arguments

    def cut(self, text: str) -> str:
        """Cut an answer before the first text that stops it."""
        for stop in self.stop:
            text = text.partition(stop)[0]
        return text


class StopTexts(StoppingCriteria):  # type: ignore[misc]  # transformers' types are not read
    """Ends each answer at the first of some texts, wherever tokens part it.

    transformers' own `stop_strings` looks at pieces of the vocabulary instead, and raises an error
    with tokenizers of whole words.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Any, prompt_length: int) -> None:
        """Take what ends an answer.

        Args:
            texts: The texts.
            tokenizer: The model's tokenizer.
            prompt_length: Tokens of each prompt, padding included.
        """
        self._texts = tuple(texts)
        self._tokenizer = tokenizer
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Say which answers have ended, (batch,)."""
        answers = self._tokenizer.batch_decode(
            input_ids[:, self._prompt_length :], skip_special_tokens=True
        )
        ended = [any(text in answer for text in self._texts) for answer in answers]
        return torch.tensor(ended, device=input_ids.device)


@torch.inference_mode()
def generate(model: Any, inputs: Any, tokenizer: Any, decoding: Decoding) -> list[Answer]:
    """Generate the answers of a batch.

    Args:
        model: The model.
        inputs: Its inputs, padded on the left, on any device.
        tokenizer: Its tokenizer.
        decoding: How to generate.

    Returns:
        One answer per sample.
    """
    inputs = inputs.to(model.device, model.dtype)  # Only floating-point values change their type.
    length = inputs["input_ids"].shape[1]
    generated = model.generate(**inputs, **decoding.arguments(tokenizer, length))
    new = generated[:, length:]
    texts: Sequence[str] = tokenizer.batch_decode(new, skip_special_tokens=True)
    counts = (new != tokenizer.pad_token_id).sum(dim=1).tolist()
    return [Answer(decoding.cut(text), count) for text, count in zip(texts, counts, strict=True)]
