"""What every tiny model offers to tests, whatever its family."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pruners import Shape, TextTower

FRAMES_PER_SECOND = 2.0

Size = tuple[int, int]
"""Height and width of an image, in pixels."""


@dataclass(frozen=True)
class Sample:
    """One prompt: a question after its images and videos.

    Attributes:
        question: The question.
        images: Its images, each (height, width, 3), bytes.
        videos: Its videos, each (frames, 3, height, width), normalised.
    """

    question: str
    images: tuple[NDArray[np.uint8], ...] = ()
    videos: tuple[Tensor, ...] = ()

    @property
    def content(self) -> tuple[object, ...]:
        """What tells this prompt from others."""
        media = [*self.images, *(video.numpy() for video in self.videos)]
        shown = [(array.shape, array.tobytes()) for array in media]
        return self.question, len(self.images), *shown


def picture(size: Size, *seed: int) -> NDArray[np.uint8]:
    """Draw an image of random colours: (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)


@dataclass(frozen=True)
class TinyModel:
    """A tiny vision-language model, a CLIP checkpoint for it, and inputs for it.

    Inputs are made by the family's own processor, so that they have the layout that users' have.
    torchvision is not needed: images pass through the processors of PIL and numpy. Video processors
    resize and normalise with torchvision alone, so videos are made in the size and the range that
    the model wants, and those steps are switched off (see `families.parts.UNCHANGED_FRAMES`).

    Attributes:
        load: Returns an instance with these weights, by attention implementation and dtype; one
            instance per combination.
        processor: The family's processor.
        folder: Where the model and the processor are saved.
        clip_folder: Folder of a CLIP checkpoint: the one whose vision tower the model has, where
            the family has CLIP's; else one that has nothing to do with the model.
        text_tower: That checkpoint's text tower.
        visual_tokens: Tokens of one standard image that can be pruned.
        separators: Placeholders of such an image beside them, for tokens that end lines.
        tiles: Tiles of such an image with its thumbnail, where the processor alone decides them.
        standard: Size of a standard image.
        other: Size of an image of another shape.
        image_text: What a prompt says where an image is.
        video_text: What a prompt says where a video is; none in families without videos.
        videos: Frames, height and width of the videos of `video`.
        reload_processor: Loads the processor from `folder`.
    """

    load: Callable[..., Any]
    processor: Any
    folder: Path
    clip_folder: str
    text_tower: TextTower
    visual_tokens: int
    standard: Size
    other: Size
    image_text: str
    reload_processor: Callable[[], Any]
    separators: int = 0
    tiles: int | None = None
    video_text: str | None = None
    videos: tuple[tuple[int, int, int], ...] = ()

    @property
    def model(self) -> Any:
        """The instance with SDPA in float32."""
        return self.load()

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def decoder_layers(self) -> Any:
        """The language model's layers."""
        return self.model.model.language_model.layers

    @property
    def shape(self) -> Shape:
        """Sizes of the model, for one standard image."""
        return Shape.from_config(
            self.model.config, name="tiny", image_size=self.standard, tiles=self.tiles
        )

    @cached_property
    def pipeline(self) -> Any:
        """The pipeline that answers messages of a chat about images."""
        return transformers.pipeline(
            "image-text-to-text", model=self.model, processor=self.processor, device="cpu"
        )

    def chat(self, question: str = "w1 w2 w3", seed: int = 0) -> list[dict[str, Any]]:
        """Make a chat's first message: a standard image and a question."""
        image = Image.fromarray(picture(self.standard, seed, 0))
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        return [{"role": "user", "content": content}]

    def prepare(self, samples: Sequence[Sample], padding: str = "left") -> dict[str, Tensor]:
        """Make a batch of prompts, padded on one side, as arguments of the model."""
        key = (padding, *(sample.content for sample in samples))
        if key not in self._prepared:  # thousands of tests ask for the same few batches
            self._prepared[key] = self._prepare(samples, padding)
        return copy.deepcopy(self._prepared[key])

    @cached_property
    def _prepared(self) -> dict[tuple[object, ...], dict[str, Tensor]]:
        """Batches made before."""
        return {}

    def _prepare(self, samples: Sequence[Sample], padding: str) -> dict[str, Tensor]:
        texts, arguments = [], dict[str, Any]()
        for sample in samples:
            shown = [self.image_text] * len(sample.images)
            shown += [self.video_text or ""] * len(sample.videos)
            texts.append(" ".join(["USER:", *shown, sample.question, "ASSISTANT:"]))
        if images := [list(sample.images) for sample in samples if sample.images]:
            arguments["images"] = images
        if videos := [video for sample in samples for video in sample.videos]:
            arguments["videos"] = videos
            arguments["video_metadata"] = [
                {
                    "total_num_frames": len(video),
                    "fps": FRAMES_PER_SECOND,
                    "frames_indices": list(range(len(video))),
                }
                for video in videos
            ]
        batch = self.processor(
            text=texts, padding=True, padding_side=padding, return_tensors="pt", **arguments
        )
        return dict(batch)

    def samples(self, questions: Sequence[str], seed: int = 0) -> list[Sample]:
        """Make prompts with one standard image each."""
        return [
            Sample(question, images=(picture(self.standard, seed, index),))
            for index, question in enumerate(questions)
        ]

    def inputs(
        self, questions: Sequence[str] = ("w1 w2 w3",), padding: str = "left", seed: int = 0
    ) -> dict[str, Tensor]:
        """Make a batch of prompts with one standard image each, padded on one side."""
        return self.prepare(self.samples(questions, seed), padding)

    def rows(
        self, questions: Sequence[str] = ("w1 w2 w3",), seed: int = 0
    ) -> list[dict[str, Tensor]]:
        """Make the prompts of `inputs` each alone, without padding."""
        return [self.prepare([sample]) for sample in self.samples(questions, seed)]

    def images(self, count: int, seed: int = 0) -> Tensor:
        """Make the pixels of `inputs`, laid out as the model takes them."""
        inputs = self.inputs(["w1"] * count, seed=seed)
        return inputs["pixel_values"]

    def mixed_samples(self, seed: int = 0) -> list[Sample]:
        """Make prompts with two images, one, none, and one of another shape."""
        return [
            Sample(
                "w1 w2 w3",
                images=(picture(self.standard, seed, 10), picture(self.other, seed, 11)),
            ),
            Sample("w4", images=(picture(self.standard, seed, 12),)),
            Sample("w5 w6 w7 w8 w9"),
            Sample("w10 w11", images=(picture(self.other, seed, 13),)),
        ]

    def mixed(self, padding: str = "left", seed: int = 0) -> dict[str, Tensor]:
        """Make a batch of prompts with two images, one, none, and one of another shape."""
        return self.prepare(self.mixed_samples(seed), padding)

    def mixed_rows(self, seed: int = 0) -> list[dict[str, Tensor]]:
        """Make the prompts of `mixed` each alone, without padding."""
        return [self.prepare([sample]) for sample in self.mixed_samples(seed)]

    def video_samples(self, seed: int = 0) -> list[Sample]:
        """Make prompts with a video, another video, and a video after an image."""
        generator = torch.Generator().manual_seed(seed)
        first, second, third = (
            torch.randn(frames, 3, height, width, generator=generator)
            for frames, height, width in self.videos
        )
        image = picture(self.standard, seed, 20)
        return [
            Sample("w1 w2 w3", videos=(first,)),
            Sample("w4", videos=(second,)),
            Sample("w5 w6", images=(image,), videos=(third,)),
        ]

    def video(self, padding: str = "left", seed: int = 0) -> dict[str, Tensor] | None:
        """Make a batch of prompts with videos, the last one with an image before it.

        Returns:
            The batch; none in families without videos.
        """
        return self.prepare(self.video_samples(seed), padding) if self.videos else None

    def video_rows(self, seed: int = 0) -> list[dict[str, Tensor]]:
        """Make the prompts of `video` each alone, without padding."""
        if not self.videos:
            return []
        return [self.prepare([sample]) for sample in self.video_samples(seed)]
