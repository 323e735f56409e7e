"""What is chosen of each tile or sample, by loops over what the eager tower attends to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pruners.counting import alive_tokens
from tests.helpers.forwards import logits_of
from tests.pruners.anyres.arrangement import Token, arranged, is_onevision
from tests.pruners.families import TinyModel


def tower_rows(tiled: TinyModel, batch: dict[str, Tensor], *, layer: int) -> Tensor:
    """Score the patches that the tower gets by its eager implementation's map: (images, patches).

    With a CLS token by its attention, else by what patches receive on average.
    """
    seen: list[Any] = []
    model = tiled.load("eager")
    tower = model.model.vision_tower
    look = tower.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    logits_of(model, batch)
    look.remove()
    rows = []
    with torch.no_grad():
        for pixels in seen:
            maps = tower(pixels, output_attentions=True).attentions[layer].mean(dim=1)
            rows.append(maps.mean(dim=1) if is_onevision(model) else maps[:, 0, 1:])
    return torch.cat(rows)


def images_by_row(tiled: TinyModel, batch: dict[str, Tensor]) -> list[list[list[Token | None]]]:
    """Say for each sample what stands at the placeholders of each of its images."""
    sizes = batch["image_sizes"].tolist()
    numbers = batch.get("batch_num_images")
    counts = [1] * len(sizes) if numbers is None else numbers.tolist()
    cut = (
        [count == 1 for count in counts for _ in range(count)]
        if is_onevision(tiled.model)
        else None
    )
    images = arranged(tiled.model, sizes, cut)
    rows = []
    for ids in batch["input_ids"]:
        left = int((ids == tiled.model.config.image_token_id).sum())
        rows.append([])
        while left:
            rows[-1].append(images.pop(0))
            left -= len(rows[-1][-1])
    assert not images
    return rows


def best(scores: dict[int, float], count: int) -> list[int]:
    return sorted(sorted(scores, key=lambda token: -scores[token])[:count])


def chosen_by_loop(
    tokens: Sequence[Token], values: Tensor, retention: float, scope: str
) -> list[int]:
    """Choose of a sample's visual tokens those with the best mean over their patches."""
    scores = {
        index: sum(float(values[token.source, patch]) for patch in token.patches)
        / len(token.patches)
        for index, token in enumerate(tokens)
    }
    if scope == "global":
        return best(scores, alive_tokens(retention, len(tokens)))
    found = []
    for source in sorted({token.source for token in tokens}):
        own = {index: scores[index] for index, token in enumerate(tokens) if token.source == source}
        found += best(own, alive_tokens(retention, len(own)))
    return sorted(found)
