"""Batches whose samples have different numbers of images, tiles, frames and visual tokens."""

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
    published,
)
from pruners.errors import UnsupportedModelError
from pruners.methods import METHODS
from tests.pruners.families import FAMILIES, TinyModel
from tests.pruners.ragged import (
    kept,
    logits_of,
    masked_out,
    places_left,
    visual_places,
    without_padding,
)

RAGGED = [name for name in FAMILIES if name != "llava-grouped-queries"]
WITHOUT_CLS = ("llava_onevision", "qwen2_5_vl", "qwen3_vl")
BATCHES = ("mixed", "video")

SALIENT = Stage(layer=0, retention=0.5, scorer=ClsAttention(keep_cls=False))
LATER = Stage(layer=3, retention=0.2, scorer=VisualSelfAttention())
MERGING = SALIENT.model_copy(
    update={"contextual": 0.2, "merge": NearestReference(), "scorer": VisualSelfAttention()}
)
SCHEDULES = {
    "by-tile": Schedule(stages=(SALIENT, LATER)),
    "global": Schedule(stages=(SALIENT.model_copy(update={"scope": "global"}), LATER)),
    "merging": Schedule(
        stages=(MERGING, LATER.model_copy(update={"contextual": 0.3, "merge": NearestReference()}))
    ),
    "decoder": Schedule(stages=(LATER.model_copy(update={"layer": 1, "retention": 0.4}), LATER)),
}
GREEDY = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture(scope="module", params=RAGGED)
def ragged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest, ragged: TinyModel) -> Schedule:
    return fitting(ragged, SCHEDULES[request.param])


def fitting(ragged: TinyModel, schedule: Schedule) -> Schedule:
    """The same schedule, without reading a CLS token where there is none."""
    if ragged.model.config.model_type not in WITHOUT_CLS:
        return schedule
    stages = [
        stage.model_copy(update={"scorer": VisualSelfAttention()})
        if isinstance(stage.scorer, ClsAttention)
        else stage
        for stage in schedule.stages
    ]
    return schedule.model_copy(update={"stages": tuple(stages)})


@pytest.fixture(params=BATCHES)
def what(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def batch_of(ragged: TinyModel, what: str, padding: str = "left") -> dict[str, Tensor]:
    batch: dict[str, Tensor] | None = getattr(ragged, what)(padding)
    if batch is None:
        pytest.skip("the family has no videos")
    return dict(batch)


def rows_of(ragged: TinyModel, what: str) -> list[dict[str, Tensor]]:
    rows: list[dict[str, Tensor]] = getattr(ragged, f"{what}_rows")()
    return rows


def apply(ragged: TinyModel, schedule: Schedule, model: Any = None) -> Any:
    model = ragged.model if model is None else model
    return apply_schedule(
        model, schedule, processor=ragged.tokenizer, text_tower=ragged.clip_folder
    )


@pytest.mark.parametrize(("what", "padding"), [("mixed", "left"), ("video", "right")])
def test_full_retention_changes_nothing(
    ragged: TinyModel, schedule: Schedule, what: str, padding: str
) -> None:
    batch = batch_of(ragged, what, padding)
    dense = logits_of(ragged.model, batch)
    stages = tuple(stage.model_copy(update={"retention": 1.0}) for stage in schedule.stages)
    with apply(ragged, Schedule(stages=stages)):
        assert torch.equal(logits_of(ragged.model, batch), dense)


@pytest.mark.parametrize("name", ["by-tile", "global", "decoder"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_dropping_is_masking_out(ragged: TinyModel, name: str, what: str, padding: str) -> None:
    if getattr(ragged.model.config.text_config, "sliding_window", None) is not None:
        pytest.skip("windows reach further back once tokens are dropped, so masking out differs")
    batch = batch_of(ragged, what, padding)
    mask, schedule = batch["attention_mask"], fitting(ragged, SCHEDULES[name])
    layers = len(ragged.decoder_layers)
    unpruned = logits_of(ragged.model, batch)
    with apply(ragged, schedule.model_copy(update={"positions": "original"})) as handle:
        pruned = logits_of(ragged.model, batch)
        record = handle.last_prefill
    with masked_out(ragged.model, record, mask):
        dense = logits_of(ragged.model, batch)
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


@pytest.mark.parametrize(("padding", "positions"), [("left", "original"), ("right", "compact")])
def test_a_batch_equals_its_samples(
    ragged: TinyModel, schedule: Schedule, what: str, padding: str, positions: str
) -> None:
    batch = batch_of(ragged, what, padding)
    with apply(ragged, schedule.model_copy(update={"positions": positions})) as handle:
        together = logits_of(ragged.model, batch)
        batched = handle.last_prefill
        for row, inputs in enumerate(rows_of(ragged, what)):
            alone = logits_of(ragged.model, inputs)[0]
            found = without_padding(together, row, len(alone), padding)
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
            seen = any(name.startswith("pixel_values") for name in inputs)
            assert kept(batched, row) == (kept(handle.last_prefill, 0) if seen else {})


def longer(inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """Append tokens of text to a batch of prompts, (batch, new)."""
    more = tokens.shape[1]
    found = {**inputs, "input_ids": torch.cat([inputs["input_ids"], tokens], dim=1)}
    found["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, more), value=1)
    if "mm_token_type_ids" in inputs:
        found["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, more))
    return found


@pytest.mark.parametrize(("what", "positions"), [("mixed", "compact"), ("video", "original")])
def test_generating_equals_running_the_prefill_again(
    ragged: TinyModel, schedule: Schedule, what: str, positions: str
) -> None:
    batch = batch_of(ragged, what)
    suppressed = torch.tensor(ragged.model.generation_config.suppress_tokens)
    with apply(ragged, schedule.model_copy(update={"positions": positions})):
        answers = ragged.model.generate(
            **batch, **GREEDY, output_logits=True, return_dict_in_generate=True
        )
        for step in answers.logits:
            logits = logits_of(ragged.model, batch)[:, -1]
            torch.testing.assert_close(step, logits, atol=1e-4, rtol=0)
            token = logits.index_fill(1, suppressed, -torch.inf).argmax(dim=-1, keepdim=True)
            batch = longer(batch, token)
    assert torch.equal(answers.sequences, batch["input_ids"])


@pytest.mark.parametrize(("what", "positions"), [("mixed", "original"), ("video", "compact")])
def test_beams_are_those_without_a_cache(
    ragged: TinyModel, schedule: Schedule, what: str, positions: str
) -> None:
    batch = batch_of(ragged, what)
    with apply(ragged, schedule.model_copy(update={"positions": positions})):
        cached = ragged.model.generate(**batch, **GREEDY, num_beams=3)
        again = ragged.model.generate(**batch, **GREEDY, num_beams=3, use_cache=False)
    assert torch.equal(cached, again)


@pytest.mark.parametrize(("what", "positions"), [("mixed", "original"), ("video", "compact")])
def test_a_second_turn_continues_from_the_cache(
    ragged: TinyModel, schedule: Schedule, what: str, positions: str
) -> None:
    batch = batch_of(ragged, what)
    question = torch.tensor([[5, 12, 13, 6]]).expand(len(batch["input_ids"]), -1)
    with apply(ragged, schedule.model_copy(update={"positions": positions})):
        first = ragged.model.generate(**batch, **GREEDY, return_dict_in_generate=True)
        answer = first.sequences[:, batch["input_ids"].shape[1] :]
        turn = longer(batch, torch.cat([answer, question], dim=1))
        expected = ragged.model.generate(**turn, **GREEDY)
        second = ragged.model.generate(
            input_ids=turn["input_ids"],
            attention_mask=turn["attention_mask"],
            past_key_values=first.past_key_values,
            **GREEDY,
        )
    assert torch.equal(second, expected)


@pytest.mark.parametrize(
    ("what", "dtype"), [("mixed", torch.bfloat16), ("video", torch.bfloat16), ("mixed", torch.half)]
)
def test_half_precision_keeps_as_many_tokens(
    ragged: TinyModel, schedule: Schedule, what: str, dtype: torch.dtype
) -> None:
    batch = batch_of(ragged, what)
    with apply(ragged, schedule) as handle:
        exact = logits_of(ragged.model, batch)
        counts = [[len(own) for own in kept(handle.last_prefill, row).values()] for row in range(3)]
    model = ragged.load(dtype=dtype)
    with apply(ragged, schedule, model) as handle:
        logits = logits_of(model, batch)
        answers = model.generate(**batch, **GREEDY)
        found = [[len(own) for own in kept(handle.last_prefill, row).values()] for row in range(3)]
    assert logits.dtype == dtype
    assert logits.shape == exact.shape
    assert logits.isfinite().all()
    assert found == counts
    assert answers.shape[1] == batch["input_ids"].shape[1] + GREEDY["max_new_tokens"]


def test_the_pipeline_answers_as_generate_does(ragged: TinyModel) -> None:
    question = "w1 w2 w3"
    inputs = ragged.prepare(ragged.samples([question]))
    messages = ragged.chat(question)
    settings = {"generate_kwargs": {**GREEDY}, "return_full_text": False}
    dense = ragged.pipeline(text=messages, **settings)[0]["generated_text"]
    stage = SALIENT.model_copy(update={"retention": 0.04})
    with apply(ragged, fitting(ragged, Schedule(stages=(stage,)))) as handle:
        tokens = ragged.model.generate(**inputs, **GREEDY)[0, inputs["input_ids"].shape[1] :]
        expected = ragged.tokenizer.decode(tokens, skip_special_tokens=True)
        answer = ragged.pipeline(text=messages, **settings)[0]["generated_text"]
        assert len(kept(handle.last_prefill, 0)[0]) == ragged.shape.tiles
    assert answer.split() == expected.split()
    assert answer != dense


LACKING = {
    "a CLIP vision tower, whose paired text tower reads the question": ("desap", "cdpruner"),
    "a vision tower inside which tokens can leave": ("flowcut", "tome", "downsampling"),
    "a vision tower with a CLS token": ("vscan",),
}


def lacking(ragged: TinyModel) -> dict[str, str]:
    """What a family's model has not that published methods need, by method."""
    family = ragged.model.config.model_type
    question, tower, class_token = LACKING
    missing = []
    if family not in ("llava", "llava_next"):
        missing.append(question)
    if family != "llava":
        missing.append(tower)
    if family in WITHOUT_CLS:
        missing.append(class_token)
    return {name: reason for reason in missing for name in LACKING[reason]}


@pytest.mark.parametrize("name", METHODS)
def test_published_methods_run_or_say_what_they_need(
    ragged: TinyModel, name: str, what: str
) -> None:
    tokens = ragged.visual_tokens // 2
    if (reason := lacking(ragged).get(name)) is not None:
        with pytest.raises(UnsupportedModelError, match=f"needs {reason}.* Use another method"):
            published(name, tokens, ragged.shape)
        return
    batch = batch_of(ragged, what)
    with apply(ragged, published(name, tokens, ragged.shape)) as handle:
        together = logits_of(ragged.model, batch)
        for row in range(len(together)):
            places = visual_places(handle.last_prefill, row)
            left = [len(own) for own in kept(handle.last_prefill, row).values()]
            assert not places or 0 < min(left) <= len(places) / 2 + ragged.visual_tokens / 8
        for row, inputs in enumerate(rows_of(ragged, what)):
            alone = logits_of(ragged.model, inputs)[0, -1]
            torch.testing.assert_close(together[row, -1], alone, atol=1e-5, rtol=0)
        answers = ragged.model.generate(**batch, **GREEDY)
    assert answers.shape[1] == batch["input_ids"].shape[1] + GREEDY["max_new_tokens"]
