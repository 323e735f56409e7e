"""The evaluator of the embedded model: a real vision-language model and benchmark, on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pruners.errors import DataError, ModelError
from pruners.schedule import Schedule
from pruners.shape import Shape
from search.embedded import CHECKPOINT, CLIP, DATA
from search.embedded.benchmark import Sample, load_split
from search.embedded.prompts import chat
from search.embedded.scoring import score
from search.evaluators import SPLITS, SampleKey
from space.shapes import shape_from_pretrained

if TYPE_CHECKING:
    from torch import Tensor

    from pruners.text_tower import QuestionOutputs, TextTower
    from pruners.vision_outputs import VisionOutputs

BATCH = 25
"""Samples per forward pass, of similar length; larger ones are no faster on two cores."""

TEXT_TOKENS = 12
"""Length of the benchmark's prompts beside the image, rounded mean over the report split."""

_IMAGE = "<image>"


@dataclass(frozen=True)
class _Inputs:
    """Everything about a split that no schedule changes.

    Attributes:
        prompts: Token ids of each sample's prompt.
        answers: Each sample's answer, one word.
        image_of: Index of each sample's image, `(samples,)`.
        vision: What encoder stages read of the images.
        questions: What they read of the questions, one per sample.
    """

    prompts: list[list[int]]
    answers: list[str]
    image_of: NDArray[np.intp]
    vision: VisionOutputs
    questions: QuestionOutputs


class EmbeddedEvaluator:
    """Scores schedules on the embedded model and its benchmark, in float32 on the CPU.

    A sample's score is 1 when the model's next token after the prompt is the answer, as all answers
    are one token. Images and questions of a split are encoded when it is first needed, once for all
    schedules.
    """

    name = "embedded"

    @property
    def measured_on(self) -> str:
        """The model and benchmark, in words."""
        return (
            f"the embedded model ({self.shape.decoder_layers} decoder layers, "
            f"{self.shape.visual_tokens} visual tokens) and its benchmark"
        )

    @cached_property
    def shape(self) -> Shape:
        """Shape of the embedded model, read off its configuration."""
        shape = shape_from_pretrained(CHECKPOINT, text_tower=CLIP, text_tokens=TEXT_TOKENS)
        return shape.model_copy(update={"name": self.name})

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the checkpoint's files."""
        files = sorted(path for path in CHECKPOINT.rglob("*") if path.is_file())
        if not files:
            raise ModelError(
                f"the embedded model is missing from {CHECKPOINT}; reinstall prunetune"
            )
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.relative_to(CHECKPOINT).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def samples(self, split: str) -> Sequence[SampleKey]:
        """List a split's samples in the order of its file."""
        return _sample_keys(split)

    def split_fingerprint(self, split: str) -> str:
        """Hash of the split's file."""
        return hashlib.sha256(_data_file(split).read_bytes()).hexdigest()

    def score(self, schedule: Schedule, split: str, indices: Sequence[int]) -> NDArray[np.float64]:
        """Score samples under a schedule: 1 for the right token, else 0."""
        from pruners.runtime import apply_schedule

        inputs = self._inputs(split)
        # Samples of similar length share a batch, so that little of it is padding.
        order = sorted(range(len(indices)), key=lambda at: len(inputs.prompts[indices[at]]))
        scores = np.empty(len(indices))
        with (
            _one_thread() as torch,
            apply_schedule(self._model, schedule, text_tower=self._text_tower) as handle,
        ):
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                batch = [int(indices[place]) for place in places]
                input_ids, mask = self._padded([inputs.prompts[index] for index in batch])
                logits = handle.prefill(
                    input_ids,
                    mask,
                    inputs.vision.select(torch.from_numpy(inputs.image_of[batch])),
                    inputs.questions.select(torch.tensor(batch)),
                )
                given = self._processor.tokenizer.convert_ids_to_tokens(logits.argmax(dim=-1))
                scores[places] = [
                    score(word, inputs.answers[index])
                    for word, index in zip(given, batch, strict=True)
                ]
        return scores

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForImageTextToText

        try:
            model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the embedded model in {CHECKPOINT} cannot be loaded ({error}); "
                "reinstall prunetune"
            ) from error
        return model.eval()

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        # Without torchvision there is only this backend; with it, pixels would differ a little.
        return AutoProcessor.from_pretrained(CHECKPOINT, backend="pil")

    @cached_property
    def _text_tower(self) -> TextTower:
        from pruners.text_tower import TextTower

        return TextTower.load(CLIP)

    def _inputs(self, split: str) -> _Inputs:
        if split not in self._encoded:
            self._encoded[split] = self._encode(load_split(split))
        return self._encoded[split]

    @cached_property
    def _encoded(self) -> dict[str, _Inputs]:
        return {}

    def _encode(self, samples: Sequence[Sample]) -> _Inputs:
        tokenizer = self._processor.tokenizer
        placeholders = _IMAGE * self.shape.visual_tokens
        prompts = [chat(sample.question).replace(_IMAGE, placeholders) for sample in samples]
        images = {sample.image_id: sample for sample in samples}
        numbers = {image: number for number, image in enumerate(images)}
        with _one_thread():
            vision = self._encode_images(list(images.values()))
            questions = self._text_tower.encode([sample.question for sample in samples])
        return _Inputs(
            prompts=tokenizer(prompts)["input_ids"],
            answers=[sample.answer for sample in samples],
            image_of=np.array([numbers[sample.image_id] for sample in samples]),
            vision=vision,
            questions=questions,
        )

    def _encode_images(self, samples: Sequence[Sample]) -> VisionOutputs:
        from pruners.adapters import adapter_for
        from pruners.vision import all_parts, encode_images
        from pruners.vision_outputs import VisionOutputs

        # Plain attention beside the decoupled one, for comparing the two.
        parts = all_parts(adapter_for(self._model), self._text_tower)
        parts = replace(parts, encodings=frozenset({"qq", "qk"}))
        batches = []
        for start in range(0, len(samples), BATCH):
            images = [sample.pil() for sample in samples[start : start + BATCH]]
            pixels = self._processor.image_processor(images, return_tensors="pt")["pixel_values"]
            batches.append(encode_images(self._model, pixels, self._text_tower, parts))
        return VisionOutputs.joined(batches)

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Pad prompts to the longest: token ids and attention mask, each (batch, length)."""
        tokenizer = self._processor.tokenizer
        padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        return padded["input_ids"], padded["attention_mask"]


@contextmanager
def _one_thread() -> Iterator[ModuleType]:
    """Run torch for inference on one thread, and give it out.

    The embedded model's products are so small that threads wait for each other longer than they
    work, several times longer on a busy machine; and the order of sums, hence the last digit of a
    score, would depend on the number of cores.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield torch
    finally:
        torch.set_num_threads(threads)


@cache
def _sample_keys(split: str) -> tuple[SampleKey, ...]:
    """Read which samples a split has, without its images."""
    import pyarrow.parquet as pq

    # Unlike read_table, this imports no pandas.
    table = pq.ParquetFile(_data_file(split)).read(columns=["id", "task", "image_id"])
    columns = (table.column(name).to_pylist() for name in ("id", "task", "image_id"))
    return tuple(SampleKey(*key) for key in zip(*columns, strict=True))


def _data_file(split: str) -> Path:
    if split not in SPLITS:
        raise DataError(f"there is no split {split!r}; expected one of {', '.join(SPLITS)}")
    path = DATA / f"{split}.parquet"
    if not path.is_file():
        raise DataError(f"the benchmark's {path} is missing; reinstall prunetune")
    return path
