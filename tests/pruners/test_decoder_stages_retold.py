"""Decoder stages, retold layer by layer for one sample, up to the logits.

The retelling lets the stock layers run one after the other. What a stage reads are the attention
map that a layer's own eager attention returns and the keys that the layer puts into a cache; the
stage itself is loops over tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import DynamicCache

from pruners import Schedule, Stage, apply_schedule
from pruners.adapters import adapter_for
from pruners.merges import BipartiteMatching, Merge, NearestReference, NoMerge
from pruners.scorers import (
    ClsAttention,
    KeyNorm,
    LastTokenAttention,
    Scorer,
    TokenMatching,
    Uniform,
    VisualSelfAttention,
)
from pruners.tower import TowerPruning
from tests.pruners.families import FAMILIES

QUESTION = "w3 w8 w1 w6"


@dataclass
class Sequence:
    """A sequence under way: its states, where the visual tokens are, positions and sizes.

    At its end may be answers to the prompt, which have no say in what is kept.
    """

    hidden: Tensor
    visual: range
    positions: list[int]
    sizes: list[float]
    answers: int = 0

    @classmethod
    def of(cls, tiny: Any, image: Tensor, positions: list[int], sizes: list[float]) -> Sequence:
        """Put projected features where the prompt's placeholders are."""
        tokens = tiny.inputs([QUESTION])["input_ids"]
        embeds = tiny.model.get_input_embeddings()(tokens)[0]
        start = tokens[0].tolist().index(tiny.model.config.image_token_id)
        after = embeds[start + tiny.visual_tokens :]
        hidden = torch.cat([embeds[:start], image, after])
        return cls(hidden, range(start, start + len(image)), positions, sizes)


@dataclass
class Look:
    """What one layer shows: its attention map by head, and its rotated keys by head."""

    attention: Tensor  # heads x length x length
    keys: Tensor  # key-value heads x length x size

    def keys_of(self, places: range) -> list[Tensor]:
        return list(self.keys.mean(dim=0)[places.start : places.stop])


def arguments(decoder: Any, sequence: Sequence) -> dict[str, Any]:
    length = len(sequence.hidden)
    positions = torch.tensor([sequence.positions])
    mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
    rotation = decoder.rotary_emb(sequence.hidden[None], position_ids=positions)
    return {"attention_mask": mask[None, None], "position_embeddings": rotation}


def look_at(decoder: Any, index: int, sequence: Sequence) -> Look:
    layer, cache = decoder.layers[index], DynamicCache()
    _, attention = layer.self_attn(
        layer.input_layernorm(sequence.hidden[None]),
        past_key_values=cache,
        **arguments(decoder, sequence),
    )
    return Look(attention[0], cache.layers[index].keys[0])


def scores_of(scorer: Scorer, look: Look, sequence: Sequence) -> list[float]:
    visual = sequence.visual
    heads = len(look.attention)
    if isinstance(scorer, Uniform):
        return [0.0] * len(visual)
    if isinstance(scorer, KeyNorm):
        return [float(look.keys[:, place].abs().sum()) for place in visual]
    last = len(sequence.hidden) - 1 - sequence.answers
    rows = [last] if isinstance(scorer, LastTokenAttention) else visual
    return [
        sum(float(look.attention[head, row, place]) for head in range(heads) for row in rows)
        for place in visual
    ]


def nearest(own: Tensor, others: dict[int, Tensor]) -> int:
    return max(others, key=lambda place: float(cosine_similarity(own, others[place], dim=0)))


def run_stage(
    stage: Stage, dominant: int, contextual: int, look: Look, sequence: Sequence
) -> Sequence:
    """Choose by score, merge by the keys of the layer that was looked at."""
    visual, keys = sequence.visual, look.keys_of(sequence.visual)
    tokens = list(sequence.hidden[visual.start : visual.stop])
    scores = scores_of(stage.scorer, look, sequence)
    kept = sorted(sorted(range(len(tokens)), key=lambda token: -scores[token])[:dominant])
    dropped = [token for token in range(len(tokens)) if token not in kept]
    alive, sizes = [tokens[token] for token in kept], [sequence.sizes[token] for token in kept]
    if isinstance(stage.merge, BipartiteMatching):
        groups = {token: [token] for token in kept}
        for token in dropped:
            groups[nearest(keys[token], {place: keys[place] for place in kept})].append(token)
        sizes = [sum(sequence.sizes[token] for token in group) for group in groups.values()]
        alive = [
            sum((sequence.sizes[token] * tokens[token] for token in group), torch.zeros(())) / size
            for group, size in zip(groups.values(), sizes, strict=True)
        ]
    elif isinstance(stage.merge, NearestReference):
        step = len(dropped) // contextual
        references = [dropped[step * number] for number in range(contextual)]
        joined: dict[int, list[Tensor]] = {reference: [] for reference in references}
        for token in dropped:
            if token not in references:
                centre = nearest(keys[token], {place: keys[place] for place in references})
                joined[centre].append(tokens[token])
        for reference, members in joined.items():
            mean = torch.stack(members).mean(dim=0) if members else torch.zeros(())
            alive.append(tokens[reference] + mean)
        kept += references
        sizes += [sequence.sizes[reference] for reference in references]
    before, after = sequence.hidden[: visual.start], sequence.hidden[visual.stop :]
    positions = sequence.positions
    return Sequence(
        torch.cat([before, torch.stack(alive), after]),
        range(visual.start, visual.start + len(alive)),
        positions[: visual.start]
        + [positions[visual.start + token] for token in kept]
        + positions[visual.stop :],
        sizes,
        sequence.answers,
    )


def retold(tiny: Any, schedule: Schedule, sequence: Sequence) -> Tensor:
    """Run the decoder with the schedule's decoder stages; return the logits."""
    model = tiny.load("eager")
    decoder = model.model.language_model
    stages = {
        stage.layer: (stage, counts)
        for stage, counts in zip(schedule.stages, schedule.counts(tiny.visual_tokens), strict=True)
        if stage.layer > 0
    }
    before: Look | None = None
    for index, layer in enumerate(decoder.layers):
        if index in stages:
            stage, counts = stages[index]
            looked = before
            if getattr(stage.scorer, "reads", "next") == "next":
                looked = look_at(decoder, index, sequence)
            assert looked is not None
            sequence = run_stage(stage, counts.dominant, counts.contextual, looked, sequence)
            if schedule.positions == "compact":
                sequence.positions = list(range(len(sequence.hidden)))
        before = look_at(decoder, index, sequence)
        sequence.hidden = layer(sequence.hidden[None], **arguments(decoder, sequence))[0]
    logits: Tensor = model.lm_head(decoder.norm(sequence.hidden))
    return logits


def check(tiny: Any, schedule: Schedule, sequence: Sequence) -> None:
    expected = retold(tiny, schedule, sequence)
    with apply_schedule(tiny.model, schedule):
        logits = tiny.model(**tiny.inputs([QUESTION])).logits[0]
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)


def dense_sequence(tiny: Any) -> Sequence:
    features = tiny.model.model.vision_tower(tiny.images(1), output_hidden_states=True)
    image = tiny.model.model.multi_modal_projector(features.hidden_states[-2][0, 1:])
    length = tiny.inputs([QUESTION])["input_ids"].shape[1]
    return Sequence.of(tiny, image, list(range(length)), [1.0] * tiny.visual_tokens)


@pytest.fixture(scope="module", params=["llava", "llava-grouped-queries"])
def llava(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


def decoder_stage(
    layer: int, retention: float, scorer: Scorer, merge: Merge, contextual: float = 0.0
) -> Stage:
    return Stage(
        layer=layer, retention=retention, contextual=contextual, scorer=scorer, merge=merge
    )


@pytest.mark.parametrize("positions", ["compact", "original"])
@pytest.mark.parametrize(
    "scorer",
    [
        LastTokenAttention(reads="previous"),
        LastTokenAttention(reads="next"),
        KeyNorm(reads="previous"),
        KeyNorm(reads="next"),
        VisualSelfAttention(),
        Uniform(),
    ],
    ids=lambda scorer: "-".join([scorer.kind, getattr(scorer, "reads", "next")]),
)
@pytest.mark.parametrize(
    ("merge", "contextual"),
    [(NearestReference(), 0.3), (BipartiteMatching(), 0.0)],
    ids=lambda value: getattr(value, "kind", ""),
)
@torch.no_grad()
def test_tokens_merge_by_the_keys_of_the_layer_that_scores_them(
    llava: Any, scorer: Scorer, merge: Merge, contextual: float, positions: Any
) -> None:
    stage = decoder_stage(3, 0.4, scorer, merge, contextual)
    check(llava, Schedule(stages=(stage,), positions=positions), dense_sequence(llava))


@pytest.mark.parametrize("positions", ["compact", "original"])
@pytest.mark.parametrize("reads", ["previous", "next"])
@torch.no_grad()
def test_answers_follow_the_prompt_as_the_dense_decoder_would_put_them(
    llava: Any, reads: Any, positions: Any
) -> None:
    """Decoding from the cache, where answers inside the prompt would change what is kept."""
    scorer = LastTokenAttention(reads=reads)
    stages = (
        decoder_stage(2, 0.6, scorer, NearestReference(), 0.2),
        decoder_stage(4, 0.2, scorer, BipartiteMatching()),
    )
    schedule = Schedule(stages=stages, positions=positions)
    inputs, new = llava.inputs([QUESTION]), 6
    with apply_schedule(llava.model, schedule):
        found = llava.model.generate(
            **inputs,
            max_new_tokens=new,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    sequence = dense_sequence(llava)
    answers = found.sequences[0, -new:-1]
    sequence.hidden = torch.cat([sequence.hidden, llava.model.get_input_embeddings()(answers)])
    sequence.positions = list(range(len(sequence.hidden)))
    sequence.answers = len(answers)
    expected = retold(llava, schedule, sequence)[-new:]
    torch.testing.assert_close(torch.cat(found.logits), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("between", [None, NoMerge(), NearestReference()])
@torch.no_grad()
def test_sizes_grow_from_stage_to_stage(tiny: Any, between: Merge | None) -> None:
    """Tokens that have merged before weigh more when they merge again, whatever lies between."""
    stages = [decoder_stage(1, 0.8, KeyNorm(), BipartiteMatching())]
    if between is not None:
        share = 0.25 if isinstance(between, NearestReference) else 0.0
        stages.append(decoder_stage(2, 0.6, VisualSelfAttention(), between, share))
    stages.append(decoder_stage(4, 0.2, LastTokenAttention(), BipartiteMatching()))
    check(tiny, Schedule(stages=tuple(stages)), dense_sequence(tiny))


@torch.no_grad()
def test_sizes_leave_the_vision_tower_with_their_tokens(tiny: Any) -> None:
    """ToMe, whose own way through the tower is retold elsewhere, and then a decoder stage."""
    tower = Stage(layer=0, retention=0.48, scorer=TokenMatching(), merge=BipartiteMatching())
    pruning = TowerPruning(adapter_for(tiny.model).towers["image"], tower, 12)
    try:
        left = pruning.recorded(tiny.model.model.vision_tower(tiny.images(1)))
    finally:
        pruning.remove()
    assert left is not None
    assert left.sizes is not None
    sizes = left.sizes[0].tolist()
    assert sum(sizes) == tiny.visual_tokens
    assert len(set(sizes)) > 1
    image = tiny.model.model.multi_modal_projector(left.tokens[0])
    length = tiny.inputs([QUESTION])["input_ids"].shape[1] - tiny.visual_tokens + 12
    sequence = Sequence.of(tiny, image, list(range(length)), sizes)
    later = decoder_stage(2, 0.2, LastTokenAttention(), BipartiteMatching())
    check(tiny, Schedule(stages=(tower, later)), sequence)


@pytest.mark.parametrize("keep_cls", [False, True])
@torch.no_grad()
def test_sizes_leave_the_encoder_stage_with_their_tokens(tiny: Any, keep_cls: bool) -> None:
    """The CLS token, where it is kept, counts as one patch and merges with none."""
    model = tiny.load("eager")
    tower = model.model.vision_tower
    output = tower(tiny.images(1), output_attentions=True, output_hidden_states=True)
    block, features = tower.encoder.layers[-2], output.hidden_states[-2][0]
    keys = block.self_attn.k_proj(block.layer_norm1(output.hidden_states[-3][0]))
    keys = keys.unflatten(-1, (-1, block.self_attn.head_dim)).mean(dim=1)
    scores = output.attentions[-2][0].mean(dim=0)[0].tolist()
    ranked = sorted(range(1, len(features)), key=lambda token: -scores[token])
    kept = sorted(ranked[: 14 if keep_cls else 15])
    groups = {token: [token] for token in kept}
    for token in sorted(ranked[len(kept) :]):
        groups[nearest(keys[token], {place: keys[place] for place in kept})].append(token)
    if keep_cls:
        groups = {0: [0], **groups}
    merged = torch.stack([features[group].mean(dim=0) for group in groups.values()])
    sizes = [float(len(group)) for group in groups.values()]
    image = model.model.multi_modal_projector(merged)
    length = tiny.inputs([QUESTION])["input_ids"].shape[1] - tiny.visual_tokens + 15
    sequence = Sequence.of(tiny, image, list(range(length)), sizes)
    first = decoder_stage(0, 0.6, ClsAttention(keep_cls=keep_cls), BipartiteMatching())
    later = decoder_stage(2, 0.2, VisualSelfAttention(), BipartiteMatching())
    check(tiny, Schedule(stages=(first, later)), sequence)
