"""Batched answers: similar lengths together, half the batch when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pruners.errors import DataError, InputError, PrunetuneError
from pruners.vision_outputs import VisionOutputs
from search.lmms.decoding import Decoding
from search.shrinking_batches import ShrinkingBatches, is_out_of_memory
from search.tasks.live_model import LiveModel
from search.tasks.preparing import Inputs, join


@dataclass(frozen=True)
class Prepared:
    """A question that is ready for the model.

    Attributes:
        identifier: Names it in messages.
        inputs: The model's inputs.
        decoding: How the answer is generated, and when it ends.
        vision: What stages read of its images, where they were encoded before; on the CPU.
    """

    identifier: str
    inputs: Inputs
    decoding: Decoding
    vision: VisionOutputs | None = None

    @property
    def length(self) -> int:
        """Tokens of the prompt, placeholders of images included."""
        return int(self.inputs["input_ids"].shape[1])


Encode = Callable[[Sequence[Prepared]], dict[str, Any] | None]
"""Gives the arguments that take the place of a batch's pixels, where images were encoded before."""


class Generator:
    """Answers questions with one model, as it is at the time: with or without a schedule.

    Args:
        live: The model.
        batch_size: Questions per batch; halved for good when memory runs out.
    """

    def __init__(self, live: LiveModel, batch_size: int) -> None:
        self.live = live
        self._batches = ShrinkingBatches(batch_size)
        self._encoded: Encode = _none

    @property
    def batch_size(self) -> int:
        """Questions per batch."""
        return self._batches.size

    def answers(self, questions: Sequence[Prepared], encoded: Encode | None = None) -> list[str]:
        """Answer questions.

        Args:
            questions: The questions, in any order.
            encoded: Gives images that were encoded before.

        Returns:
            The answers in the order asked, without what ends them.

        Raises:
            DataError: The model fails on a question; the message names it.
            PrunetuneError: The schedule does not fit the model.
        """
        self._encoded = encoded or _none
        answers = [""] * len(questions)
        for places in _alike(questions):
            ordered = [questions[place] for place in places]
            given = self._batches.run(ordered, self._generate, self._failure)
            texts = [text for _, batch in given for text in batch]
            for place, text in zip(places, texts, strict=True):
                answers[place] = text
        return answers

    def _failure(self, batch: Sequence[Prepared], error: Exception) -> Exception:
        """Name the question that a batch fails on."""
        if isinstance(error, PrunetuneError) and not isinstance(error, InputError):
            return error  # it is about the schedule or the model, whatever the question
        if is_out_of_memory(error):
            return out_of_memory(batch[0])
        failing, cause = batch, error
        if len(batch) > 1:
            for question in batch:
                try:
                    self._generate([question])
                except Exception as own:
                    failing, cause = [question], own
                    break
        names = ", ".join(question.identifier for question in failing)
        return DataError(
            f"the model fails on sample {names} ({type(cause).__name__}: {cause}); no score is "
            "made up for it: mend the sample or leave its task out"
        )

    @torch.inference_mode()
    def _generate(self, batch: Sequence[Prepared]) -> list[str]:
        live, decoding = self.live, batch[0].decoding
        tokenizer = live.processor.tokenizer
        inputs: dict[str, Any] = join([each.inputs for each in batch], tokenizer.pad_token_id)
        encoded = self._encoded(batch)
        if encoded is not None:
            inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")} | encoded
        length = inputs["input_ids"].shape[1]
        output = live.model.generate(
            **{name: _moved(value, live) for name, value in inputs.items()},
            **decoding.arguments(tokenizer, length),
        )
        texts = tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
        return [decoding.cut(text) for text in texts]


def out_of_memory(question: Prepared) -> DataError:
    """Say that a question does not fit into memory by itself."""
    return DataError(
        f"sample {question.identifier} alone needs more memory than there is; use a smaller "
        "--dtype, or a device with more"
    )


def _none(batch: Sequence[Prepared]) -> None:
    """Nothing was encoded before."""


def _alike(questions: Sequence[Prepared]) -> list[list[int]]:
    """Group questions that may share batches, the longest first: memory runs out at once if ever.

    A batch is decoded in one way and the same inputs throughout: with images, or without.
    """
    groups: dict[tuple[Decoding, frozenset[str]], list[int]] = {}
    for place, question in enumerate(questions):
        groups.setdefault((question.decoding, frozenset(question.inputs)), []).append(place)
    return [
        sorted(places, key=lambda place: -questions[place].length) for places in groups.values()
    ]


def _moved(value: Any, live: LiveModel) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.is_floating_point():
        return value.to(live.device, live.dtype)
    return value.to(live.device)
