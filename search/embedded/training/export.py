"""Writing the trained model in the Hugging Face format that every larger model has."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import CLIPModel, LlavaForConditionalGeneration

from search.embedded.architecture import build_image_processor, build_processor
from search.embedded.tokenizer import build_tokenizer

CLIP_FOLDER = "clip"


def export_checkpoint(llava: LlavaForConditionalGeneration, clip: CLIPModel, folder: Path) -> None:
    """Write model, processor and paired towers; an existing folder is replaced when all is written.

    Args:
        llava: The vision-language model; its vision tower holds the weights of ``clip``'s.
        clip: The paired towers, written to the subfolder ``clip``.
        folder: Where ``config.json``, ``model.safetensors`` and the processor's files go.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    llava.save_pretrained(partial)
    build_processor().save_pretrained(partial)
    clip.save_pretrained(partial / CLIP_FOLDER)
    build_tokenizer(closed=True).save_pretrained(partial / CLIP_FOLDER)
    build_image_processor().save_pretrained(partial / CLIP_FOLDER)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
