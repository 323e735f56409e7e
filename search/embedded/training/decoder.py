"""Stage two: projector and decoder learn to answer, on the frozen vision tower's features."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, LlavaForConditionalGeneration

from search.embedded.architecture import FEATURE_LAYER, PATCHES
from search.embedded.training.packing import IGNORED, PREFIX, Packed
from search.embedded.training.tower import normalise
from search.embedded.vocabulary import GRID, VOCABULARY

_MENTION_DEPTH = 5 / 8
"""Share of the decoder after which places are read where a question names an object."""

_MENTION_WEIGHT = 0.15
_RELATION_WEIGHT = 0.15
_DESCRIPTION_WEIGHT = 0.5
_BLIND_SHARE = 0.04
_START = len(PREFIX)
_BEHIND = _START + PATCHES


class PlaceHeads(nn.Module):
    """Linear readings of objects' places that train the decoder and are thrown away afterwards."""

    def __init__(self, width: int) -> None:
        """Create the readings.

        Args:
            width: Hidden width of the decoder.
        """
        super().__init__()
        self.mention = nn.Linear(width, 2 * GRID)
        self.relation = nn.Linear(width, 4 * GRID)


@torch.no_grad()
def cache_features(
    clip: CLIPModel, batches: Iterable[NDArray[np.uint8]], device: torch.device
) -> Tensor:
    """Return what the projector takes, bfloat16, shape (images, patches, width).

    Args:
        clip: The trained towers.
        batches: Pictures, uint8, each of shape (images, 96, 96, 3).
        device: Where to compute.

    Returns:
        The features of all pictures, in the CPU's memory.
    """
    features = []
    for pixels in batches:
        with torch.autocast(device.type, torch.bfloat16):
            output = clip.vision_model(normalise(pixels, device), output_hidden_states=True)
        features.append(output.hidden_states[FEATURE_LAYER][:, 1:].bfloat16().cpu())
    return torch.cat(features)


def block_mask(segments: Tensor, blind: Tensor) -> Tensor:
    """Return which positions of packed sequences see which.

    Args:
        segments: Number of every text token's segment, -1 for padding, shape (images, length).
        blind: Images whose texts do not see the visual tokens, shape (images,).

    Returns:
        True where attended, shape (images, 1, prefix + patches + length, the same).
    """
    images, length = segments.shape
    total = _BEHIND + length
    number = torch.cat([segments.new_full((images, _BEHIND), -2), segments], dim=1)
    place = torch.arange(total, device=segments.device)
    causal = place[:, None] >= place[None, :]
    image_column = (place >= _START) & (place < _BEHIND)
    text_row = place >= _BEHIND
    in_front = (number == -2)[:, None, :]
    hidden = blind[:, None, None] & image_column[None, None, :] & text_row[None, :, None]
    same = number[:, :, None] == number[:, None, :]
    return (causal & (same | in_front) & ~hidden)[:, None]


def run_packed(
    llava: LlavaForConditionalGeneration,
    features: Tensor,
    packed: Packed,
    rows: NDArray[np.int64],
    blind: NDArray[np.bool_],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run projector and decoder on packed sequences.

    Args:
        llava: The vision-language model.
        features: Vision features of the images, shape (images, patches, vision width).
        packed: Packed texts.
        rows: Which rows of ``packed`` belong to the images, shape (images,).
        blind: Which images are hidden from their texts, shape (images,).

    Returns:
        Logits of the text tokens, shape (images, length, words), and all hidden states.
    """
    model, device = llava.model, features.device

    def tensor(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values[rows]).to(device).long()

    segments, hidden_from = tensor(packed.segments), torch.from_numpy(blind).to(device)
    embed = model.language_model.embed_tokens
    prefix = torch.tensor([VOCABULARY.index(word) for word in PREFIX], device=device)
    visual = model.multi_modal_projector(features)
    text = embed(tensor(packed.tokens))
    front = embed(prefix).expand(len(rows), -1, -1)
    embeddings = torch.cat([front, visual.to(text.dtype), text], dim=1)
    starts = torch.where(hidden_from, _START, _BEHIND)
    text_positions = starts[:, None] + tensor(packed.offsets)
    front_positions = torch.arange(_BEHIND, device=device).expand(len(rows), -1)
    seen = block_mask(segments, hidden_from)
    mask = torch.zeros(seen.shape, device=device).masked_fill(~seen, torch.finfo(torch.float32).min)
    output = model.language_model(
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=torch.cat([front_positions, text_positions], dim=1),
        output_hidden_states=True,
        use_cache=False,
    )
    return llava.lm_head(output.last_hidden_state[:, _BEHIND:]), output.hidden_states


def decoder_loss(
    llava: LlavaForConditionalGeneration,
    heads: PlaceHeads,
    features: Tensor,
    packed: Packed,
    rows: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of stage two on some images, and its parts for the log.

    Besides answers and descriptions, two readings keep objects' places at hand: the place of an
    object where a question names it, after five eighths of the layers, and of both objects of a
    relation where the answer is given, one layer later.

    Args:
        llava: The vision-language model; its vision tower is not used.
        heads: Readings of places.
        features: Vision features of these images, shape (images, patches, vision width).
        packed: Packed texts of all training scenes.
        rows: Which scenes, shape (images,).
        rng: Chooses the few images that their texts do not see.

    Returns:
        The loss, and its parts with the accuracy of answers.
    """
    blind = rng.random(len(rows)) < _BLIND_SHARE
    logits, hidden = run_packed(llava, features, packed, rows, blind)
    device = features.device
    visible = torch.from_numpy(~blind).to(device)[:, None]

    def labels(values: NDArray[np.int16]) -> Tensor:
        return torch.from_numpy(values[rows]).to(device).long()

    target = labels(packed.labels)
    described = torch.from_numpy(packed.described[rows]).to(device)
    answers = (target != IGNORED) & ~described
    described = described & visible
    answer_loss = functional.cross_entropy(logits[answers].float(), target[answers])
    description_loss = functional.cross_entropy(logits[described].float(), target[described])
    mention_layer = round(_MENTION_DEPTH * (len(hidden) - 1))
    at_mention = hidden[mention_layer][:, _BEHIND:]
    mention_rows, mention_columns = labels(packed.mention_rows), labels(packed.mention_columns)
    named = (mention_rows != IGNORED) & visible
    places = heads.mention(at_mention[named]).float().unflatten(-1, (2, GRID))
    mention_targets = torch.stack([mention_rows[named], mention_columns[named]], dim=-1)
    mention_loss = functional.cross_entropy(places.flatten(0, 1), mention_targets.flatten())
    cells = labels(packed.relation_cells)
    related = (cells[..., 0] != IGNORED) & visible
    at_answer = hidden[mention_layer + 1][:, _BEHIND:][related]
    relation_places = heads.relation(at_answer).float().unflatten(-1, (4, GRID))
    relation_loss = functional.cross_entropy(
        relation_places.flatten(0, 1), cells[related].flatten()
    )
    loss = (
        answer_loss
        + _DESCRIPTION_WEIGHT * description_loss
        + _MENTION_WEIGHT * mention_loss
        + _RELATION_WEIGHT * relation_loss
    )
    with torch.no_grad():
        right = logits.argmax(-1) == target
        parts = {
            "loss": loss,
            "answer": answer_loss,
            "description": description_loss,
            "mention": mention_loss,
            "relation_places": relation_loss,
            "answer_accuracy": right[answers & visible].float().mean(),
            "relation_accuracy": right[related].float().mean(),
            "description_accuracy": right[described].float().mean(),
        }
    return loss, {name: float(part.detach()) for name, part in parts.items()}
