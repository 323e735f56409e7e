"""Sizes of the embedded model: LLaVA-1.5's architecture, small enough to train on two cores."""

from __future__ import annotations

from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from search.embedded.scenes import IMAGE_SIZE
from search.embedded.tokenizer import CHAT_TEMPLATE, TEXT_LENGTH, build_tokenizer
from search.embedded.vocabulary import END, GRID, IMAGE, PAD, START, VOCABULARY

PATCH_SIZE = IMAGE_SIZE // GRID
PATCHES = GRID * GRID
FEATURE_LAYER = -2
"""Which of the vision tower's hidden states the decoder sees, as in LLaVA-1.5."""

DECODER_LAYERS = 8
DECODER_WIDTH = 128
HEAD_WIDTH = 32
"""Width of one attention head; a decoder's width is a multiple of it."""

IMAGE_MEAN = 0.5
IMAGE_DEVIATION = 0.25


def clip_config() -> CLIPConfig:
    """Return the configuration of the paired vision and text towers."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=64,
    )
    text = CLIPTextConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        projection_dim=64,
        bos_token_id=VOCABULARY.index(START),
        eos_token_id=VOCABULARY.index(END),
        pad_token_id=VOCABULARY.index(PAD),
    )
    return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=64)


def llava_config(layers: int = DECODER_LAYERS, width: int = DECODER_WIDTH) -> LlavaConfig:
    """Return the configuration of the vision-language model.

    Args:
        layers: Layers of the decoder, default the embedded model's 8.
        width: Hidden width of the decoder, a multiple of 32, default the embedded model's 128.

    Returns:
        The configuration; feed-forward parts are two and a half times as wide as the decoder.
    """
    heads = width // HEAD_WIDTH
    text = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=width,
        intermediate_size=width * 5 // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
        bos_token_id=VOCABULARY.index(START),
        eos_token_id=VOCABULARY.index(END),
        pad_token_id=VOCABULARY.index(PAD),
        tie_word_embeddings=False,
    )
    return LlavaConfig(
        vision_config=clip_config().vision_config,
        text_config=text,
        image_token_id=VOCABULARY.index(IMAGE),
        vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default",
        image_seq_length=PATCHES,
        tie_word_embeddings=False,
    )


def build_clip() -> CLIPModel:
    """Return the paired towers with random weights."""
    return CLIPModel(clip_config())


def build_llava(
    layers: int = DECODER_LAYERS, width: int = DECODER_WIDTH
) -> LlavaForConditionalGeneration:
    """Return the vision-language model with random weights; sizes as for `llava_config`."""
    return LlavaForConditionalGeneration(llava_config(layers, width))


def build_image_processor() -> CLIPImageProcessorPil:
    """Return the image processor; it needs Pillow only."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return CLIPImageProcessorPil(
        size=size,
        crop_size=size,
        image_mean=[IMAGE_MEAN] * 3,
        image_std=[IMAGE_DEVIATION] * 3,
    )


def build_processor() -> LlavaProcessor:
    """Return the processor of images and prompts."""
    return LlavaProcessor(
        image_processor=build_image_processor(),
        tokenizer=build_tokenizer(closed=False),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
