"""Batches whose samples have different numbers of images, tiles, frames and visual tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from pruners import NearestReference, Schedule, Shape, Stage, VisualSelfAttention, apply_schedule
from pruners.adapters import adapter_for
from pruners.errors import InputError
from pruners.methods import METHODS, supported_methods
from pruners.methods.base import encoder_saliency
from pruners.prefill_record import PrefillRecord
from pruners.published import published
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel
from tests.pruners.ragged import (
    kept,
    masked_out,
    places_left,
    visual_places,
    without_padding,
)

GREEDY = {"max_new_tokens": 6, "do_sample": False}
LATER = Stage(layer=3, retention=0.2, scorer=VisualSelfAttention())
MERGED_LATER = LATER.model_copy(update={"contextual": 0.3, "merge": NearestReference()})


def salient(shape: Shape, **settings: Any) -> Stage:
    return Stage(layer=0, retention=0.5, scorer=encoder_saliency(shape, keep_cls=False), **settings)


SCHEDULES: dict[str, Callable[[Shape], tuple[Stage, ...]]] = {
    "by-tile": lambda shape: (salient(shape), LATER),
    "global": lambda shape: (salient(shape, scope="global"), LATER),
    "merging": lambda shape: (
        salient(shape, contextual=0.2, merge=NearestReference()),
        MERGED_LATER,
    ),
    "decoder": lambda shape: (LATER.model_copy(update={"layer": 1, "retention": 0.4}), LATER),
    "all-dropped": lambda shape: (salient(shape), LATER.model_copy(update={"retention": 0})),
}
# Stages in the decoder alone are what the others have behind layer 0.
PARAMETERS = [
    pytest.param(name, marks=pytest.mark.slow) if name == "decoder" else name for name in SCHEDULES
]
MERGE_NOTHING = ("by-tile", "global", "decoder", "all-dropped")


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts, and each of them alone."""

    name: str
    family: TinyModel

    def batch(self, padding: str = "left") -> dict[str, Tensor]:
        return dict(getattr(self.family, self.name)(padding))

    @property
    def rows(self) -> list[dict[str, Tensor]]:
        rows: list[dict[str, Tensor]] = getattr(self.family, f"{self.name}_rows")()
        return rows


@pytest.fixture(params=["mixed", "video"])
def prompts(request: pytest.FixtureRequest, family: TinyModel) -> Prompts:
    if request.param == "video" and not family.videos:
        pytest.skip("the family has no videos")
    return Prompts(request.param, family)


def schedule_of(family: TinyModel, name: str, positions: Any = "compact") -> Schedule:
    return Schedule(stages=SCHEDULES[name](family.shape), positions=positions)


@pytest.fixture(params=PARAMETERS)
def schedule(request: pytest.FixtureRequest, family: TinyModel) -> Schedule:
    # What is kept where it was and what is counted anew: both ways, with and without merging.
    positions = "original" if request.param in ("merging", "global") else "compact"
    return schedule_of(family, request.param, positions)


def more(inputs: dict[str, Tensor], count: int, side: str) -> dict[str, Tensor]:
    """Add padding to all prompts of a batch."""
    room = (count, 0) if side == "left" else (0, count)
    by_token = ("input_ids", "attention_mask", "mm_token_type_ids")
    return {name: pad(value, room) if name in by_token else value for name, value in inputs.items()}


def continued(inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """Append tokens of text to a batch of prompts, (batch, tokens)."""
    longer = more(inputs, tokens.shape[1], "right")
    longer["input_ids"][:, -tokens.shape[1] :] = tokens
    longer["attention_mask"][:, -tokens.shape[1] :] = 1
    return longer


def own_logits(logits: Tensor, lengths: list[int], padding: str) -> list[Tensor]:
    return [without_padding(logits, row, length, padding) for row, length in enumerate(lengths)]


@pytest.mark.parametrize("padding", ["left", "right"])
def test_full_retention_changes_nothing(prompts: Prompts, schedule: Schedule, padding: str) -> None:
    model, batch = prompts.family.model, prompts.batch(padding)
    dense = logits_of(model, batch)
    stages = tuple(stage.model_copy(update={"retention": 1.0}) for stage in schedule.stages)
    with apply_schedule(model, Schedule(stages=stages)):
        assert torch.equal(logits_of(model, batch), dense)


@pytest.mark.parametrize("name", MERGE_NOTHING)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_dropping_is_masking_out(prompts: Prompts, name: str, padding: str) -> None:
    family, batch = prompts.family, prompts.batch(padding)
    model, layers = family.model, len(family.decoder_layers)
    adapter, mask = adapter_for(model), batch["attention_mask"]
    if any(adapter.attention_type(layer) != "full_attention" for layer in range(layers)):
        pytest.skip("windows reach further back once tokens are dropped, so masking out differs")
    unpruned = logits_of(model, batch)
    with apply_schedule(model, schedule_of(family, name, "original")) as handle:
        pruned = logits_of(model, batch)
        record = handle.last_prefill
    assert record is not None
    with masked_out(model, record, mask):
        dense = logits_of(model, batch)
    lengths = []
    for row in range(len(mask)):
        places = places_left(record, mask, row, layers)
        found = without_padding(pruned, row, len(places), padding)
        torch.testing.assert_close(found, dense[row, places], atol=1e-5, rtol=0)
        lengths.append(len(places))
        # Masking something out must matter, or the comparison shows nothing.
        if visual_places(record, row):
            assert (dense[row, places] - unpruned[row, places]).abs().max() > 1e-3
    assert pruned.shape[1] == max(lengths)
    assert len(set(lengths)) > 1


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_batch_equals_its_samples(prompts: Prompts, schedule: Schedule, padding: str) -> None:
    model, batch = prompts.family.model, prompts.batch(padding)
    with apply_schedule(model, schedule) as handle:
        together = logits_of(model, batch)
        batched = handle.last_prefill
        for row, inputs in enumerate(prompts.rows):
            alone = logits_of(model, inputs)[0]
            found = without_padding(together, row, len(alone), padding)
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
            seen = any(name.startswith("pixel_values") for name in inputs)
            assert kept(batched, row) == (kept(handle.last_prefill, 0) if seen else {})


def test_attention_implementations_agree(prompts: Prompts, schedule: Schedule) -> None:
    batch, eager = prompts.batch(), prompts.family.load("eager")
    with apply_schedule(prompts.family.model, schedule), apply_schedule(eager, schedule):
        expected = logits_of(prompts.family.model, batch)
        found = logits_of(eager, batch)
    torch.testing.assert_close(found[:, -1], expected[:, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_more_padding_changes_nothing(prompts: Prompts, schedule: Schedule, padding: str) -> None:
    """Prompts padded to a length that none of them has: what is rotated further is rounded."""
    model, batch = prompts.family.model, prompts.batch(padding)
    with apply_schedule(model, schedule) as handle:
        expected = logits_of(model, batch)
        record = handle.last_prefill
        found = logits_of(model, more(batch, 7, padding))
        padded = handle.last_prefill
    rows = range(len(batch["input_ids"]))
    assert [kept(padded, row) for row in rows] == [kept(record, row) for row in rows]
    lengths = batch["attention_mask"].sum(dim=1) - torch.tensor(
        [len(visual_places(record, row)) - left(record, row) for row in rows]
    )
    for own, wanted in zip(
        own_logits(found, lengths.tolist(), padding),
        own_logits(expected, lengths.tolist(), padding),
        strict=True,
    ):
        torch.testing.assert_close(own, wanted, atol=5e-5, rtol=0)


def left(record: PrefillRecord, row: int) -> int:
    """Count the visual tokens of a sample that are left in the end."""
    stages = list(kept(record, row).values())
    return len(stages[-1]) if stages else 0


@pytest.mark.parametrize("beams", [1, 3])
def test_generating_for_a_batch_equals_generating_for_its_samples(
    prompts: Prompts, schedule: Schedule, beams: int
) -> None:
    model, batch = prompts.family.model, prompts.batch()
    with apply_schedule(model, schedule):
        cached = model.generate(**batch, **GREEDY, num_beams=beams)
        if beams == 1:
            again = model.generate(**batch, **GREEDY, use_cache=False)
            assert torch.equal(cached, again)
        for row, inputs in enumerate(prompts.rows):
            alone = model.generate(**inputs, **GREEDY, num_beams=beams)
            assert torch.equal(cached[row, -6:], alone[0, -6:])


def test_a_cache_continues_token_by_token(prompts: Prompts, schedule: Schedule) -> None:
    model, batch = prompts.family.model, prompts.batch()
    rows, prompt = batch["input_ids"].shape
    tokens = torch.arange(10, 10 + 3 * rows).reshape(rows, 3)
    whole = continued(batch, tokens)
    with apply_schedule(model, schedule), torch.no_grad():
        expected = logits_of(model, whole)[:, -3:]
        cache = model(**batch, use_cache=True).past_key_values
        for step in range(3):
            logits = model(
                input_ids=tokens[:, step : step + 1],
                attention_mask=whole["attention_mask"][:, : prompt + step + 1],
                past_key_values=cache,
            ).logits
            torch.testing.assert_close(logits[:, -1], expected[:, step], atol=1e-4, rtol=0)


def test_a_second_turn_continues_from_the_cache(prompts: Prompts, schedule: Schedule) -> None:
    model, batch = prompts.family.model, prompts.batch()
    rows, length = batch["input_ids"].shape
    question = torch.tensor([[5, 12, 13, 6]]).expand(rows, -1)
    with apply_schedule(model, schedule):
        first = model.generate(**batch, **GREEDY, return_dict_in_generate=True)
        turn = torch.cat([first.sequences, question], dim=1)
        whole = continued(batch, turn[:, length:])
        expected = model.generate(**whole, **GREEDY)
        second = model.generate(
            input_ids=turn,
            attention_mask=whole["attention_mask"],
            past_key_values=first.past_key_values,
            **GREEDY,
        )
    assert torch.equal(second, expected)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]
)
def test_half_precision_keeps_as_many_tokens(
    prompts: Prompts, schedule: Schedule, dtype: torch.dtype
) -> None:
    family, batch = prompts.family, prompts.batch()
    rows = range(len(batch["input_ids"]))
    with apply_schedule(family.model, schedule) as handle:
        exact = logits_of(family.model, batch)
        counts = [left(handle.last_prefill, row) for row in rows]
    model = family.load(dtype=dtype)
    with apply_schedule(model, schedule) as handle:
        logits = logits_of(model, batch)
        answers = model.generate(**batch, **GREEDY)
        assert [left(handle.last_prefill, row) for row in rows] == counts
    assert logits.dtype == dtype
    assert logits.shape == exact.shape
    assert logits.isfinite().all()
    assert answers.shape[1] == batch["input_ids"].shape[1] + GREEDY["max_new_tokens"]


# What is counted and recorded.


def test_rows_of_one_image_keep_what_the_schedule_counts(
    family: TinyModel, schedule: Schedule
) -> None:
    with apply_schedule(family.model, schedule) as handle:
        logits_of(family.model, family.mixed())
        record = handle.last_prefill
    shape = family.shape
    counts = {
        count.layer: count.alive
        for count in schedule.counts(shape.visual_tokens, shape.tokens_per_tile)
    }
    assert {layer: len(own) for layer, own in kept(record, 1).items()} == counts
    assert kept(record, 2) == {}
    # Two images: by tile each keeps its own share; above layer 0 what counts is their sum.
    both, first = len(visual_places(record, 0)), shape.visual_tokens
    for stage in schedule.stages:
        found = len(kept(record, 0)[stage.layer])
        if stage.layer == 0 and stage.scope == "tile" and both == 2 * first:
            assert found == 2 * counts[0]
        elif stage.layer > 0 or stage.scope == "global":
            assert found == int(stage.retention * both + 0.5)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", ["by-tile", "all-dropped"])
def test_the_record_names_every_sample_once(family: TinyModel, name: str, padding: str) -> None:
    batch = family.mixed(padding)
    with apply_schedule(family.model, schedule_of(family, name)) as handle:
        logits = logits_of(family.model, batch)
        record = handle.last_prefill
    assert record is not None
    assert sorted(row for group in record.groups for row in group.rows) == [0, 1, 2, 3]
    placeholder = family.model.config.image_token_id
    for group in record.groups:
        for row, visual in zip(group.rows, group.visual, strict=True):
            assert (batch["input_ids"][row, visual] == placeholder).all()
        for stage in group.stages:
            for row, positions in zip(group.rows, stage.positions.tolist(), strict=True):
                real = [place for place in positions if place >= 0]
                assert len(set(real)) == len(real)
                gone = len(visual_places(record, row)) - stage.indices.shape[1]
                own = [place for place in real if batch["attention_mask"][row, place]]
                assert len(own) == int(batch["attention_mask"][row].sum()) - gone
        if group.stages:
            assert group.stages[-1].positions.shape[1] == logits.shape[1]
    with pytest.raises(InputError, match="read `groups`"):
        _ = record.stages


def test_batches_of_text_alone_pass_through(family: TinyModel, schedule: Schedule) -> None:
    texts = ["USER: w1 w2 ASSISTANT:", "USER: w3 ASSISTANT:"]
    tokens = family.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    dense = logits_of(family.model, inputs)
    with apply_schedule(family.model, schedule):
        assert torch.equal(logits_of(family.model, inputs), dense)


# Published methods.


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("desap", "sparsevlm", "tome") else pytest.mark.slow)
        for name in METHODS
    ],
)
def test_published_methods_run_on_ragged_batches(prompts: Prompts, name: str) -> None:
    family = prompts.family
    if name not in supported_methods(family.shape):
        pytest.skip(f"the method needs {METHODS[name].needs.value}")
    batch, model, tokens = prompts.batch(), family.model, family.visual_tokens // 2
    with apply_schedule(
        model,
        published(name, tokens, family.shape),
        processor=family.tokenizer,
        text_tower=family.clip_folder,
    ) as handle:
        together = logits_of(model, batch)
        record = handle.last_prefill
        for row, inputs in enumerate(prompts.rows):
            alone = logits_of(model, inputs)[0, -1]
            torch.testing.assert_close(together[row, -1], alone, atol=1e-5, rtol=0)
            places = visual_places(record, row)
            assert not places or 0 < left(record, row) < len(places)
        answers = model.generate(**batch, **GREEDY)
    assert answers.shape[1] == batch["input_ids"].shape[1] + GREEDY["max_new_tokens"]
