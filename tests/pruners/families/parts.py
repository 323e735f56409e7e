"""Parts that the builders of several families share: tokenizer, weights, CLIP, loading."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
)

WORDS = ["<pad>", "<s>", "<unk>", "</s>", "<image>", "USER:", "ASSISTANT:"] + [
    f"w{index}" for index in range(33)
]
TEXT_POSITIONS = 12
VISION_LAYERS, DECODER_LAYERS = 4, 6

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ message['role'] | upper }}:{{ ' ' }}
{%- if message['content'] is string -%}
{{ message['content'] }}{{ ' ' }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}IMAGE{{ ' ' }}
{%- elif part['type'] == 'video' -%}VIDEO{{ ' ' }}
{%- else -%}{{ part['text'] }}{{ ' ' }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}ASSISTANT:{%- endif -%}"""


def chat_template(image_text: str, video_text: str | None = None) -> str:
    """Return a template that writes a conversation as the tests' prompts are written."""
    return CHAT_TEMPLATE.replace("IMAGE", image_text).replace("VIDEO", video_text or "")


def build_tokenizer(
    *, words: Sequence[str] = WORDS, special: dict[str, str] | None = None, closed: bool = False
) -> PreTrainedTokenizerFast:
    """Build a tokenizer of whole words.

    Args:
        words: The vocabulary; it starts as `WORDS` does.
        special: Tokens of the family by the attribute that names them, "image_token" and the like.
        closed: Whether an end token closes each text.
    """
    identifiers = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(identifiers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if closed else "<s> $A", special_tokens=[("<s>", 1), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=special or {"image_token": "<image>"},
        model_input_names=["input_ids", "attention_mask"],
    )


def clip_vision_config(side: int, patch: int = 4) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=2,
        image_size=side,
        patch_size=patch,
        projection_dim=8,
    )


def spread_weights(model: torch.nn.Module, seed: int) -> None:
    """Give a model weights large enough that attention is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            noise = torch.randn(parameter.shape, generator=generator)
            # Factors stay near what they are: of norms, and of layers that scale what they add.
            scale = any(part in name for part in ("norm", "ln_q", "lambda"))
            parameter.data = parameter.data + 0.1 * noise if scale else 0.1 * noise
        else:
            width = parameter.shape[1:].numel()
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = noise * (1.5 if "embed" in name else 1.5 / width**0.5)


def save_clip(folder: Path, vision: CLIPVisionConfig) -> CLIPModel:
    """Save a CLIP checkpoint, whole: both towers, tokenizer and image processor."""
    text = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_POSITIONS,
        projection_dim=8,
        bos_token_id=1,
        eos_token_id=3,
        pad_token_id=0,
    )
    clip = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    )
    spread_weights(clip, seed=1)
    clip.save_pretrained(folder)
    build_tokenizer(closed=True).save_pretrained(folder)
    side = vision.image_size
    CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)
    return clip


def decoder_sizes(vocabulary: Sequence[str], **sizes: Any) -> dict[str, Any]:
    """Return the arguments that all decoders' configurations share."""
    return {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": DECODER_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        **sizes,
    }


def loader(
    model_class: Any,
    config: Any,
    suppressed: Sequence[int],
    adjust: Callable[[Any], None] = lambda model: None,
) -> Callable[..., Any]:
    """Return the `load` of a tiny model.

    Args:
        model_class: The family's class with a head for generation.
        config: Its configuration.
        suppressed: Tokens that it never generates: decoding without a cache feeds answers back,
            where a placeholder would need an image.
        adjust: Changes weights after they were drawn.
    """

    @cache
    def load(attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> Any:
        # A copy, because the implementation is noted in the configuration.
        model = model_class._from_config(copy.deepcopy(config), attn_implementation=attention)
        assert model.model.language_model.config._attn_implementation == attention
        spread_weights(model, seed=2)
        adjust(model)
        model.generation_config.pad_token_id = 0
        model.generation_config.suppress_tokens = list(suppressed)
        return model.to(dtype).eval()

    return load


def save(folder: Path, load: Callable[..., Any], processor: Any) -> Path:
    """Save a model and its processor to one folder."""
    load().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def video_processor_class(family: str, name: str) -> Any:
    """Import a video processor from its own module.

    `transformers` itself exports one that refuses to be made where torchvision is missing.
    """
    module = f"transformers.models.{family}.video_processing_{family}"
    return getattr(importlib.import_module(module), name)


def accepting_video(processor_class: Any) -> Any:
    """Return a processor's class without the check of its parts' classes.

    Where torchvision is missing, the check fails for whatever video processor is given, because
    `transformers` then does not export the class that it compares with.
    """

    def accept(self: Any, name: str, part: Any) -> None:
        pass

    changes = {"check_argument_for_proper_class": accept, "__doc__": processor_class.__doc__}
    return type(processor_class.__name__, (processor_class,), changes)


UNCHANGED_FRAMES = {
    "do_resize": False,
    "do_center_crop": False,
    "do_rescale": False,
    "do_normalize": False,
    "do_convert_rgb": False,
    "do_sample_frames": False,
}
"""Switches off the steps of a video processor that need torchvision; what is left is its layout."""


def load_processor(folder: Path, processor_class: Any, video_class: Any) -> Any:
    """Load a processor of images and videos from a folder.

    `AutoProcessor` loads it where torchvision is installed. Where it is not, it refuses, because it
    looks the video processor up among those that `transformers` exports.

    Args:
        folder: Where the processor is saved.
        processor_class: The family's processor, as `accepting_video` returns it.
        video_class: The class of its video processor.
    """
    parts = {
        "image_processor": AutoImageProcessor.from_pretrained(folder, backend="pil"),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
        "video_processor": video_class.from_pretrained(folder),
    }
    values, _ = processor_class.get_processor_dict(folder)
    ordered = [parts[name] for name in processor_class.get_attributes()]
    return processor_class.from_args_and_dict(ordered, values)
