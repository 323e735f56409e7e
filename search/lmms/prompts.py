"""Turning chat messages with images and videos into a batch of model inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmms_eval.protocol import ChatMessages
from transformers.image_utils import load_image
from transformers.video_utils import load_video

from pruners.errors import InputError


@dataclass(frozen=True)
class Prompt:
    """One conversation, ready for the processor.

    Attributes:
        text: The conversation as the chat template writes it, ending where the answer begins.
        images: Its images, as Pillow images.
        videos: Frames of its videos, each (frames, height, width, 3), bytes.
        video_metadata: Where these frames are in their videos, one entry per video.
    """

    text: str
    images: tuple[Any, ...] = ()
    videos: tuple[Any, ...] = ()
    video_metadata: tuple[Any, ...] = ()


def read_messages(
    messages: Sequence[Mapping[str, Any]], processor: Any, video_frames: int
) -> Prompt:
    """Read a conversation in the form that lmms-eval's chat models get.

    Args:
        messages: Messages with a role and contents of type text, image or video, whose ``url`` is a
            path, an address, a Pillow image, or the frames of a video.
        processor: The model's processor, whose chat template is used.
        video_frames: Frames to take of each video file, evenly spaced.

    Returns:
        The conversation with its images and videos loaded.

    Raises:
        InputError: There is audio, or only a part of a video is asked for.
    """
    chat = ChatMessages(messages=list(messages))
    images, videos, audios = chat.extract_media()
    if audios:
        raise InputError("the messages hold audio; pruning is for images and videos")
    loaded = [_load_video(video, video_frames) for video in videos]
    return Prompt(
        text=processor.apply_chat_template(
            chat.to_hf_messages(), tokenize=False, add_generation_prompt=True
        ),
        # Opened images are left to the processor, which converts them as it always does.
        images=tuple(load_image(url) if isinstance(url, str) else url for url in images),
        videos=tuple(frames for frames, _ in loaded),
        video_metadata=tuple(metadata for _, metadata in loaded),
    )


def make_inputs(prompts: Sequence[Prompt], processor: Any) -> Any:
    """Make the model's inputs for a batch, padded on the left, where no answer goes.

    Args:
        prompts: The prompts, at least one.
        processor: The model's processor.

    Returns:
        The batch, on the CPU.
    """
    arguments: dict[str, Any] = {}
    # Samples without an image have no entry: some processors refuse an empty one.
    if images := [list(prompt.images) for prompt in prompts if prompt.images]:
        arguments["images"] = images
    if videos := [video for prompt in prompts for video in prompt.videos]:
        arguments["videos"] = videos
        arguments["video_metadata"] = [
            metadata for prompt in prompts for metadata in prompt.video_metadata
        ]
        arguments["do_sample_frames"] = False
    start = processor.tokenizer.bos_token
    if start is not None and prompts[0].text.startswith(start):
        arguments["add_special_tokens"] = False  # The chat template has written it already.
    return processor(
        text=[prompt.text for prompt in prompts],
        padding=True,
        padding_side="left",
        return_tensors="pt",
        **arguments,
    )


def _load_video(video: Any, frames: int) -> tuple[Any, Any]:
    """Load evenly spaced frames of a video, all where it has fewer, and say which they are."""
    if isinstance(video, Mapping):
        raise InputError(
            f"a video is given with {', '.join(map(str, video))}; only whole videos are supported, "
            "given by a path, an address or their frames"
        )
    if not isinstance(video, str):
        count = len(video)
        return video, {"total_num_frames": count, "fps": None, "frames_indices": [*range(count)]}

    def spaced(metadata: Any, **_: Any) -> list[int]:
        total = metadata.total_num_frames
        count = min(frames, total)
        return [round(place * (total - 1) / max(count - 1, 1)) for place in range(count)]

    taken, metadata = load_video(video, backend="decord", sample_indices_fn=spaced)
    return taken, metadata
