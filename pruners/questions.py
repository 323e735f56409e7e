"""Reading the question's text back from a prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from torch import Tensor
from transformers import AutoProcessor

from pruners.errors import InputError


class PromptReader:
    """Finds the question in token ids, with the tokenizer that made them."""

    def __init__(self, processor: Any, name: str, placeholders: Collection[int]) -> None:
        """Prepare to read; a processor that is not given is loaded when first needed.

        Args:
            processor: The model's processor or tokenizer, or None.
            name: Folder or hub name of the model, to load its processor from.
            placeholders: Token ids of image and video placeholders.
        """
        self._processor = processor
        self._name = name
        self._placeholders = frozenset(placeholders)
        self._ending: str | None = None

    def read(
        self, input_ids: Tensor | Sequence[Sequence[int]], text: Literal["question", "prompt"]
    ) -> list[str]:
        """Read the text of each prompt.

        Args:
            input_ids: Token ids, (batch, length): a tensor, for which the host waits, or a list for
                each sample.
            text: ``"question"``: what stands between the image and the generation prompt (the
                chat template's, or ``ASSISTANT:``), or, if that is empty, the prompt;
                ``"prompt"``: all that stands before the generation prompt. The answer is never
                read, so that decoding without a cache does not change what is compared.

        Returns:
            One text per sample, without special tokens.

        Raises:
            InputError: No processor was given, and none can be loaded.
        """
        tokenizer = self._tokenizer()
        if self._ending is None:
            self._ending = self._generation_prompt()
        ending = self._ending
        rows = input_ids.tolist() if isinstance(input_ids, Tensor) else input_ids
        return [self._read_one(tokenizer, ids, ending, text) for ids in rows]

    def _read_one(
        self, tokenizer: Any, ids: Sequence[int], ending: str, text: Literal["question", "prompt"]
    ) -> str:
        def decode(part: Sequence[int]) -> str:
            kept = [token for token in part if token not in self._placeholders]
            decoded: str = tokenizer.decode(kept, skip_special_tokens=True)
            return decoded.partition(ending)[0].strip()

        last = max((i for i, token in enumerate(ids) if token in self._placeholders), default=-1)
        question = decode(ids[last + 1 :]) if text == "question" else ""
        return question or decode(ids)

    def _tokenizer(self) -> Any:
        if self._processor is None:
            try:
                self._processor = AutoProcessor.from_pretrained(self._name, trust_remote_code=False)
            except (OSError, ValueError) as error:
                raise InputError(
                    "the schedule compares the image with the question, but the processor that "
                    f"reads it from the prompt cannot be loaded from {self._name!r} ({error}); "
                    "pass processor= to apply_schedule, or the questions by handle.questions([...])"
                ) from error
        return getattr(self._processor, "tokenizer", self._processor)

    def _generation_prompt(self) -> str:
        """Return what the chat template adds to ask for an answer."""
        fallback = "ASSISTANT:"
        if not getattr(self._processor, "chat_template", None):
            return fallback
        messages = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        without, full = (
            self._processor.apply_chat_template(messages, add_generation_prompt=added)
            for added in (False, True)
        )
        return full.removeprefix(without).strip() or fallback
