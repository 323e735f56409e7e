"""Everything about the benchmark's samples that no schedule changes, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search.embedded.benchmark import Sample
from search.embedded.prompts import chat

if TYPE_CHECKING:
    from pruners.text_tower import QuestionOutputs, TextTower
    from pruners.vision_outputs import VisionOutputs

BATCH = 25
"""Samples per forward pass, of similar length; larger ones are no faster on two cores."""

_IMAGE = "<image>"


@dataclass(frozen=True)
class SplitInputs:
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


@contextmanager
def one_thread() -> Iterator[ModuleType]:
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


def encode_split(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    text_tower: TextTower,
    visual_tokens: int,
) -> SplitInputs:
    """Encode a split's images and questions.

    Args:
        samples: The split.
        model: The vision-language model.
        processor: Its processor.
        text_tower: The paired text tower.
        visual_tokens: Visual tokens of an image.

    Returns:
        What every schedule starts from.
    """
    placeholders = _IMAGE * visual_tokens
    prompts = [chat(sample.question).replace(_IMAGE, placeholders) for sample in samples]
    images = {sample.image_id: sample for sample in samples}
    numbers = {image: number for number, image in enumerate(images)}
    with one_thread():
        vision = _encode_images(list(images.values()), model, processor, text_tower)
        questions = text_tower.encode([sample.question for sample in samples])
    return SplitInputs(
        prompts=processor.tokenizer(prompts)["input_ids"],
        answers=[sample.answer for sample in samples],
        image_of=np.array([numbers[sample.image_id] for sample in samples]),
        vision=vision,
        questions=questions,
    )


def _encode_images(
    samples: Sequence[Sample], model: Any, processor: Any, text_tower: TextTower
) -> VisionOutputs:
    from pruners.adapters import adapter_for
    from pruners.vision import all_parts, encode_images
    from pruners.vision_outputs import VisionOutputs

    # Plain attention beside the decoupled one, for comparing the two.
    parts = replace(all_parts(adapter_for(model), text_tower), encodings=frozenset({"qq", "qk"}))
    batches = []
    for start in range(0, len(samples), BATCH):
        images = [sample.pil() for sample in samples[start : start + BATCH]]
        pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
        batches.append(encode_images(model, pixels, text_tower, parts))
    return VisionOutputs.joined(batches)
