"""Stage one: the vision tower and its paired text tower learn to see and to name objects.

The loss has four parts: colour, kind, row and column of every patch, read from the hidden state
that the decoder will see; the objects present, read from the class token there and after the last
layer; contrast between images and captions (CLIP); and contrast between the last layer's decoupled
attention output and the phrases and questions that name an object, which is what DeSAP's similarity
compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, PreTrainedTokenizerFast

from search.embedded.architecture import FEATURE_LAYER, IMAGE_DEVIATION, IMAGE_MEAN
from search.embedded.questions import phrase
from search.embedded.scenes import DIGITS
from search.embedded.training.data import COLOUR_LABELS, KIND_LABELS, PHRASES, TrainingScenes
from search.embedded.vocabulary import GRID

_BACKGROUND_WEIGHT = 0.2
_PLACE_WEIGHT = 0.1
_PRESENCE_WEIGHT = 4.0
_CONTRAST_WEIGHT = 0.2
_PHRASE_WEIGHT = 0.4
_CAPTION_OBJECTS = 3
_PRESENCE_LABELS = (*PHRASES, *DIGITS)
_COLOUR_IDS = {name: index for index, name in enumerate(COLOUR_LABELS)}
_KIND_IDS = {name: index for index, name in enumerate(KIND_LABELS)}
_PRESENCE_IDS = {name: index for index, name in enumerate(_PRESENCE_LABELS)}


def normalise(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Turn pictures of shape (images, 96, 96, 3) into what the vision tower takes."""
    values = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
    return ((values - IMAGE_MEAN) / IMAGE_DEVIATION).contiguous()


def decoupled_attention(clip: CLIPModel, hidden: Tensor) -> Tensor:
    """Return the last vision layer's query-query attention output in the joint space.

    DeSAP, equation 2: ``proj(softmax(Q Q^T / sqrt(d)) V)`` without residual and feed-forward part,
    then the tower's last layer norm and projection, as ClearCLIP applies them.

    Args:
        clip: The paired towers.
        hidden: Input of the last vision layer, shape (images, 1 + patches, width).

    Returns:
        Embeddings of unit length, shape (images, 1 + patches, joint width).
    """
    vision = clip.vision_model
    layer = vision.encoder.layers[-1]
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    heads = (*normed.shape[:2], attention.num_heads, attention.head_dim)
    query = attention.q_proj(normed).view(heads).transpose(1, 2)
    value = attention.v_proj(normed).view(heads).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(query, query, value)
    output = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    projected = clip.visual_projection(vision.post_layernorm(output))
    return functional.normalize(projected.float(), dim=-1)


class TowerHeads(nn.Module):
    """Linear readings that train the tower and are thrown away afterwards."""

    def __init__(self, width: int) -> None:
        """Create the readings.

        Args:
            width: Hidden width of the vision tower.
        """
        super().__init__()
        self.patch_sizes = (len(COLOUR_LABELS), len(KIND_LABELS), GRID, GRID)
        self.patches = nn.Linear(width, sum(self.patch_sizes))
        self.presence_early = nn.Linear(width, len(_PRESENCE_LABELS))
        self.presence_late = nn.Linear(width, len(_PRESENCE_LABELS))


@dataclass(frozen=True)
class TowerLabels:
    """What stage one predicts, for all training scenes.

    Attributes:
        colour, kind: Labels of patches, int64, shape (scenes, 144).
        phrase: Index into ``PHRASES`` of patches, -100 for background, int64, shape (scenes, 144).
        presence: Which phrases and digits are shown, float32, shape (scenes, labels).
    """

    colour: Tensor
    kind: Tensor
    phrase: Tensor
    presence: Tensor


def tower_labels(scenes: TrainingScenes) -> TowerLabels:
    """Return the labels of all scenes."""
    count, patches = scenes.patch_objects.shape
    colour = np.full((count, patches), _COLOUR_IDS["background"])
    kind = np.full((count, patches), _KIND_IDS["background"])
    phrases = np.full((count, patches), -100)
    presence = np.zeros((count, len(_PRESENCE_LABELS)), dtype=np.float32)
    for row, objects in enumerate(scenes.objects):
        owners = scenes.patch_objects[row]
        held = owners >= 0
        named = [_PRESENCE_IDS[phrase(item)] for item in objects]
        colour[row, held] = np.array([_COLOUR_IDS[item.colour] for item in objects])[owners[held]]
        kind[row, held] = np.array([_KIND_IDS[item.kind] for item in objects])[owners[held]]
        phrases[row, held] = np.array(named)[owners[held]]
        presence[row, named] = 1
        presence[row, [_PRESENCE_IDS[item.kind] for item in objects if item.is_digit]] = 1
    return TowerLabels(*map(torch.from_numpy, (colour, kind, phrases, presence)))


def _embed_texts(
    clip: CLIPModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> Tensor:
    device = clip.logit_scale.device
    encoded = tokenizer(list(texts), padding=True, return_tensors="pt").to(device)
    pooled = clip.text_model(**encoded).pooler_output
    return functional.normalize(clip.text_projection(pooled).float(), dim=-1)


def _captions(
    scenes: TrainingScenes, rows: NDArray[np.int64], rng: np.random.Generator
) -> list[str]:
    """Return one caption per scene: the names of three of its objects."""
    captions = []
    for row in rows:
        objects = scenes.objects[row]
        chosen = rng.permutation(len(objects))[:_CAPTION_OBJECTS]
        captions.append(" , ".join(phrase(objects[index]) for index in chosen))
    return captions


def _asked(
    scenes: TrainingScenes, rows: NDArray[np.int64], rng: np.random.Generator
) -> tuple[list[str], Tensor]:
    """Return one question per scene, and its share in every patch, shape (scenes, 144)."""
    texts, targets = [], np.zeros((len(rows), GRID * GRID), dtype=np.float32)
    for position, row in enumerate(rows):
        asked = [question for question in scenes.questions[row] if question.subjects]
        question = asked[int(rng.integers(len(asked)))]
        texts.append(question.text)
        targets[position] = np.isin(scenes.patch_objects[row], question.subjects)
    return texts, torch.from_numpy(targets / targets.sum(1, keepdims=True))


def tower_loss(
    clip: CLIPModel,
    heads: TowerHeads,
    tokenizer: PreTrainedTokenizerFast,
    scenes: TrainingScenes,
    labels: TowerLabels,
    rows: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of stage one on some scenes, and its parts for the log.

    Args:
        clip: The paired towers.
        heads: Readings of patches and class tokens.
        tokenizer: Tokenizer of the text tower.
        scenes: All training scenes.
        labels: Their labels.
        rows: Which scenes, shape (images,).
        rng: Chooses captions and questions.

    Returns:
        The loss, and every part of it with the accuracy on objects' patches.
    """
    device = clip.logit_scale.device
    index = torch.from_numpy(rows)
    colour = labels.colour[index].to(device)
    kind = labels.kind[index].to(device)
    names = labels.phrase[index].to(device)
    presence = labels.presence[index].to(device)

    output = clip.vision_model(normalise(scenes.pixels(rows), device), output_hidden_states=True)
    hidden = output.hidden_states[FEATURE_LAYER]
    readings = heads.patches(hidden[:, 1:]).float().split(heads.patch_sizes, dim=-1)
    held = kind != _KIND_IDS["background"]
    weight = torch.where(held, 1.0, _BACKGROUND_WEIGHT)

    def patch_loss(logits: Tensor, target: Tensor) -> Tensor:
        loss = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        return (loss * weight.flatten()).sum() / weight.sum()

    places = torch.arange(GRID * GRID, device=device).expand(len(rows), -1)
    colour_loss = patch_loss(readings[0], colour)
    kind_loss = patch_loss(readings[1], kind)
    place_loss = patch_loss(readings[2], places // GRID) + patch_loss(readings[3], places % GRID)
    presence_loss = functional.binary_cross_entropy_with_logits(
        heads.presence_early(hidden[:, 0]).float(), presence
    ) + functional.binary_cross_entropy_with_logits(
        heads.presence_late(output.pooler_output).float(), presence
    )

    asked, asked_share = _asked(scenes, rows, rng)
    texts = _embed_texts(clip, tokenizer, [*_captions(scenes, rows, rng), *asked, *PHRASES])
    count = len(rows)
    captions, asked_text, phrase_text = texts[:count], texts[count : 2 * count], texts[2 * count :]
    scale = clip.logit_scale.clamp(max=4.0).exp()
    images = functional.normalize(clip.visual_projection(output.pooler_output).float(), dim=-1)
    logits = scale * images @ captions.T
    diagonal = torch.arange(len(rows), device=device)
    contrast = (
        functional.cross_entropy(logits, diagonal) + functional.cross_entropy(logits.T, diagonal)
    ) / 2
    decoupled = decoupled_attention(clip, hidden)[:, 1:]
    phrase_loss = functional.cross_entropy(
        (scale * decoupled @ phrase_text.T).flatten(0, 1), names.flatten(), ignore_index=-100
    )
    similarity = scale * torch.einsum("ipe,ie->ip", decoupled, asked_text)
    question_loss = functional.cross_entropy(similarity, asked_share.to(device))

    loss = (
        colour_loss
        + kind_loss
        + _PLACE_WEIGHT * place_loss
        + _PRESENCE_WEIGHT * presence_loss
        + _CONTRAST_WEIGHT * contrast
        + _PHRASE_WEIGHT * (phrase_loss + question_loss)
    )
    with torch.no_grad():
        parts = {
            "loss": loss,
            "presence": presence_loss,
            "contrast": contrast,
            "phrase": phrase_loss,
            "question": question_loss,
            "colour_accuracy": (readings[0].argmax(-1) == colour)[held].float().mean(),
            "kind_accuracy": (readings[1].argmax(-1) == kind)[held].float().mean(),
        }
    return loss, {name: float(value.detach()) for name, value in parts.items()}
