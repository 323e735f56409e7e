"""The CLIP text tower that question similarity needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel

from pruners.errors import ModelError, shortened
from pruners.loading_errors import LOADING_ERRORS
from pruners.missing_weights import check_whole
from pruners.transfer import send_together


@dataclass(frozen=True)
class QuestionOutputs:
    """What encoder stages read of questions.

    Attributes:
        tokens: Token embeddings in the space shared with the vision tower, L2-normalised, start
            and end tokens included, (batch, text, width).
        mask: True for tokens, False for padding, (batch, text).
        question: Embedding of the end-of-text token, L2-normalised, (batch, width).
    """

    tokens: Tensor
    mask: Tensor
    question: Tensor

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def select(self, indices: Tensor) -> QuestionOutputs:
        """Pick questions.

        Args:
            indices: Indices of questions, (count,).

        Returns:
            The picked questions, in that order.
        """
        return QuestionOutputs(self.tokens[indices], self.mask[indices], self.question[indices])


class TextTower:
    """A CLIP checkpoint's text model and both projections into the shared space, frozen.

    Attributes:
        name: Folder or hub name that it was loaded from.
        visual_projection: Projection of the paired vision tower into the shared space.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        text_model: Any,
        text_projection: nn.Linear,
        visual_projection: nn.Linear,
    ) -> None:
        """Put a tower together; `load` is the usual way.

        Args:
            name: What the tower is called in messages.
            tokenizer: Tokenizer of the text model; its texts start and end with a special token.
            text_model: Text model whose last hidden state is normed.
            text_projection: Text width to shared width, without bias.
            visual_projection: Vision width to shared width, without bias.
        """
        self.name = name
        self.visual_projection = visual_projection
        self._tokenizer = tokenizer
        self._text_model = text_model
        self._text_projection = text_projection
        for part in self._parts:
            part.requires_grad_(False).eval()

    @classmethod
    def load(cls, path_or_name: str | os.PathLike[str]) -> Self:
        """Load the text tower of a CLIP checkpoint.

        Args:
            path_or_name: Folder or hub name of a checkpoint that `CLIPModel` reads, with its
                tokenizer.

        Returns:
            The tower, on the CPU.

        Raises:
            ModelError: The checkpoint or its tokenizer cannot be loaded, or lacks weights.
        """
        name = os.fspath(path_or_name)
        try:
            clip, report = CLIPModel.from_pretrained(name, output_loading_info=True)
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except LOADING_ERRORS as error:
            raise ModelError(
                f"the text tower {name!r} cannot be loaded ({shortened(error)}); pass text_tower= "
                "the folder or hub name of the CLIP checkpoint paired with the vision tower"
            ) from error
        parts = ("text_model.", "text_projection.", "visual_projection.")
        lacking = [weight for weight in report["missing_keys"] if weight.startswith(parts)]
        check_whole(f"the text tower {name!r}", lacking)
        return cls(name, tokenizer, clip.text_model, clip.text_projection, clip.visual_projection)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move the tower, in place, unless it is there already.

        Args:
            device: Device to run on.
            dtype: Floating-point type to run in.

        Returns:
            The tower itself.
        """
        weight = self.visual_projection.weight
        if (weight.device, weight.dtype) != (device, dtype):
            for part in self._parts:
                part.to(device=device, dtype=dtype)
        return self

    @torch.no_grad()
    def encode(self, questions: Sequence[str]) -> QuestionOutputs:
        """Encode questions.

        A question longer than the text model's positions is cut into chunks of that length, each
        with its own start and end token; their tokens are read one after the other and their
        end-of-text embeddings averaged, as CDPruner does.

        Args:
            questions: Texts, at least one.

        Returns:
            Embeddings of their tokens, padded on the right to the longest.

        Raises:
            ModelError: There are no questions.
        """
        if not questions:
            raise ModelError("no questions were given; pass one text per sample")
        chunks = [self._chunks(question) for question in questions]
        plan = _ReadingPlan.of(chunks)
        ids, order, ends, owners = send_together(
            [plan.input_ids, plan.order, plan.ends, plan.owners], self._device
        )
        # The text model is causal, so what pads on the right is never read. A mask would make it
        # wait for the device, to see whether there is padding.
        hidden = self._text_model(input_ids=ids).last_hidden_state
        embedded = normalize(self._text_projection(hidden), dim=-1).flatten(0, 1)
        mask = order >= 0
        tokens = embedded[order.clamp(min=0)] * mask.unsqueeze(-1)
        sums = embedded.new_zeros(len(chunks), embedded.shape[-1])
        question = normalize(sums.index_add(0, owners, embedded[ends]), dim=-1)
        return QuestionOutputs(tokens, mask, question)

    @property
    def _parts(self) -> tuple[nn.Module, ...]:
        return self._text_model, self._text_projection, self.visual_projection

    def _chunks(self, question: str) -> list[list[int]]:
        identifiers: list[int] = self._tokenizer(question, verbose=False)["input_ids"]
        positions: int = self._text_model.config.max_position_embeddings
        if len(identifiers) <= positions:
            return [identifiers]
        start, content, end = identifiers[0], identifiers[1:-1], identifiers[-1]
        size = positions - 2
        return [
            [start, *content[first : first + size], end] for first in range(0, len(content), size)
        ]

    @property
    def _device(self) -> torch.device:
        return next(self._text_projection.parameters()).device


@dataclass(frozen=True)
class _ReadingPlan:
    """Chunks of questions as rows of the text model, and where to read the questions in its output.

    Attributes:
        input_ids: Token ids, padded on the right, (chunks, length).
        order: Places of each question's tokens in the flattened rows, -1 for padding, (questions,
            text).
        ends: Places of the chunks' end-of-text tokens, (chunks,).
        owners: Which question each chunk belongs to, (chunks,).
    """

    input_ids: Tensor
    order: Tensor
    ends: Tensor
    owners: Tensor

    @classmethod
    def of(cls, questions: Sequence[Sequence[Sequence[int]]]) -> _ReadingPlan:
        """Plan for the chunks of each question."""
        rows = [chunk for chunks in questions for chunk in chunks]
        length = max(len(row) for row in rows)
        starts = iter(range(0, len(rows) * length, length))
        order, ends = [], []
        for chunks in questions:
            spans = [range(start := next(starts), start + len(chunk)) for chunk in chunks]
            order.append([place for span in spans for place in span])
            ends += [span[-1] for span in spans]
        owners = [number for number, chunks in enumerate(questions) for _ in chunks]
        flat = (torch.tensor(values, device="cpu") for values in (ends, owners))
        return cls(_padded(rows, 0), _padded(order, -1), *flat)


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Put rows of different lengths into one tensor, (rows, longest)."""
    tensors = [torch.tensor(row, device="cpu") for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
