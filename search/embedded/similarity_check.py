"""Whether DeSAP's similarity finds the object that a question asks about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from search.embedded.benchmark import Sample
from search.embedded.training.tower import decoupled_attention
from search.embedded.vocabulary import GRID

TOP_PATCHES = 8
_BATCH = 100


def patches_in_boxes(boxes: Sequence[Sequence[int]], patch: int) -> np.ndarray:
    """Return which patches overlap one of the boxes, bool, shape (144,).

    Args:
        boxes: Left, top, right and bottom edges in pixels.
        patch: Width of a patch in pixels.

    Returns:
        True where at least a quarter of the patch lies inside a box.
    """
    edges = np.arange(GRID) * patch
    hit = np.zeros((GRID, GRID), dtype=bool)
    for left, top, right, bottom in boxes:
        across = np.clip(np.minimum(edges + patch, right) - np.maximum(edges, left), 0, None)
        down = np.clip(np.minimum(edges + patch, bottom) - np.maximum(edges, top), 0, None)
        hit |= 4 * down[:, None] * across[None, :] >= patch * patch
    return hit.reshape(-1)


@torch.no_grad()
def similarity_hits(clip_folder: Path, samples: Sequence[Sample]) -> dict[str, float]:
    """Measure how well the patches most similar to a question hit the objects it asks about.

    The similarity is the cosine of the decoupled attention output (DeSAP, equation 2) with the
    question's end token.

    Args:
        clip_folder: Folder of the paired towers.
        samples: Questions; those whose object is absent are left out.

    Returns:
        ``top1`` and ``top8``: share of questions with a hit among the 1 or 8 most similar patches;
        ``chance8``: the same for 8 random patches; ``share8``: mean share of the 8 that hit.
    """
    clip = CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(clip_folder, trust_remote_code=False)
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    patch = clip.config.vision_config.patch_size
    asked = [sample for sample in samples if sample.boxes]
    first, any_hit, share, chance = [], [], [], []
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        pixels = processor([sample.pil() for sample in batch], return_tensors="pt").pixel_values
        hidden = clip.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
        patches = decoupled_attention(clip, hidden)[:, 1:]
        encoded = tokenizer(
            [sample.question for sample in batch], padding=True, return_tensors="pt"
        )
        text = clip.text_projection(clip.text_model(**encoded).pooler_output)
        text = torch.nn.functional.normalize(text, dim=-1)
        top = torch.einsum("ipe,ie->ip", patches, text).topk(TOP_PATCHES).indices.numpy()
        for sample, chosen in zip(batch, top, strict=True):
            inside = patches_in_boxes(sample.boxes, patch)
            hits = inside[chosen]
            first.append(hits[0])
            any_hit.append(hits.any())
            share.append(hits.mean())
            chance.append(1 - (1 - inside.mean()) ** TOP_PATCHES)
    return {
        "top1": float(np.mean(first)),
        "top8": float(np.mean(any_hit)),
        "chance8": float(np.mean(chance)),
        "share8": float(np.mean(share)),
    }
