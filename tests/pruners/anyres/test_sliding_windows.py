"""Decoders whose layers see fewer tokens than an image has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pruners import (
    ClsAttention,
    NearestReference,
    Schedule,
    Stage,
    VisualSelfAttention,
    apply_schedule,
)
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel, llava_next
from tests.pruners.ragged import without_padding

SLIDING = {
    "encoder": Schedule(
        stages=(Stage(layer=0, retention=0.5, scorer=ClsAttention(keep_cls=False)),)
    ),
    "both": Schedule(
        stages=(
            Stage(layer=0, retention=0.7, scorer=ClsAttention(keep_cls=False)),
            Stage(
                layer=2,
                retention=0.4,
                contextual=0.2,
                scorer=ClsAttention(keep_cls=False),
                merge=NearestReference(),
            ),
        )
    ),
}


def test_the_window_counts_the_tokens_that_are_left(mistral: TinyModel) -> None:
    """The stock decoder on the shorter prompt alone does the same."""
    model, batch = mistral.model, mistral.inputs(["w1 w2 w3"])
    seen: list[Tensor] = []

    def look(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["inputs_embeds"])

    hook = model.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    logits_of(model, batch)
    hook.remove()
    with apply_schedule(model, SLIDING["encoder"]) as handle:
        pruned = logits_of(model, batch)
        left = handle.last_prefill.stages[0].positions[0]
    assert len(left) > llava_next.SLIDING_WINDOW
    with torch.no_grad():
        hidden = model.model.language_model(inputs_embeds=seen[0][:, left]).last_hidden_state
        torch.testing.assert_close(pruned, model.lm_head(hidden), atol=1e-5, rtol=0)


def windowed(length: int) -> Tensor:
    """Mask attention by a loop: each token sees itself and those shortly before it."""
    seen = [
        [0 <= query - key < llava_next.SLIDING_WINDOW for key in range(length)]
        for query in range(length)
    ]
    bias = torch.zeros(1, 1, length, length)
    return bias.masked_fill(~torch.tensor(seen), torch.finfo(torch.float32).min)


def test_the_window_counts_what_is_left_from_each_stage_on(mistral: TinyModel) -> None:
    """Layers one by one, on what each of them has left, with masks made by a loop."""
    model, batch = mistral.model, mistral.inputs(["w1 w2 w3"])
    stages = [
        Stage(layer=layer, retention=retention, scorer=VisualSelfAttention())
        for layer, retention in [(1, 0.7), (4, 0.4)]
    ]
    with apply_schedule(model, Schedule(stages=tuple(stages), positions="original")) as handle:
        pruned = logits_of(model, batch)
        record = handle.last_prefill
    places = {stage.layer: stage.positions[0] for stage in record.stages}
    assert len(places[4]) > llava_next.SLIDING_WINDOW
    decoder, seen = model.model.language_model, list[Tensor]()
    hook = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    logits_of(model, batch)
    hook.remove()
    hidden, left = seen[0], torch.arange(seen[0].shape[1])
    with torch.no_grad():
        for index, layer in enumerate(decoder.layers):
            if index in places:
                hidden = hidden[:, torch.isin(left, places[index])]
                left = places[index]
            rotation = decoder.rotary_emb(hidden, position_ids=left[None])
            hidden = layer(hidden, attention_mask=windowed(len(left)), position_embeddings=rotation)
        expected = model.lm_head(decoder.norm(hidden))
    torch.testing.assert_close(pruned, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SLIDING)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_batch_with_windows_equals_its_samples(
    mistral: TinyModel, name: str, padding: str
) -> None:
    batch = mistral.mixed(padding)
    with apply_schedule(mistral.model, SLIDING[name]):
        together = logits_of(mistral.model, batch)
        for row, inputs in enumerate(mistral.mixed_rows()):
            alone = logits_of(mistral.model, inputs)[0]
            found = without_padding(together, row, len(alone), padding)
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", SLIDING)
def test_generating_with_windows_equals_running_the_prefill_again(
    mistral: TinyModel, name: str, beams: int
) -> None:
    settings = {"max_new_tokens": 6, "do_sample": False, "num_beams": beams}
    batch = mistral.mixed()
    dense = mistral.model.generate(**batch, **settings)
    with apply_schedule(mistral.model, SLIDING[name]):
        cached = mistral.model.generate(**batch, **settings)
        again = mistral.model.generate(**batch, **settings, use_cache=False)
    assert torch.equal(cached, again)
    assert not torch.equal(cached, dense)
