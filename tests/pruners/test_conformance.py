"""What holds for every schedule on every model family: a new method is one line in SCHEDULES."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from pruners import (
    ClsAttention,
    ClusterAverage,
    NearestReference,
    NoMerge,
    PrunedModel,
    Schedule,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
    apply_schedule,
    encode_images,
)
from pruners.vision import VisionParts

QUESTIONS = ("w1 w2 w3", "w4", "w5 w6 w7 w8 w9")
ALL_PARTS = VisionParts(frozenset({-1, -2}), keys=True, encodings=frozenset({"qq", "qk"}))
FUSION = SimilarityFusion(text_tower="paired")


def stages(first: Stage | None = None, *, mean: str = "causal") -> tuple[Stage, ...]:
    scorer = VisualSelfAttention.model_validate({"mean": mean})
    merge = NearestReference()
    decoder = (
        Stage(layer=2, retention=0.4, contextual=0.125, scorer=scorer, merge=merge),
        Stage(layer=4, retention=0.2, contextual=0.2, scorer=scorer, merge=merge),
    )
    return decoder if first is None else (first, *decoder)


def encoder(scorer: ClsAttention | SimilarityFusion, merge: Any, contextual: float = 0) -> Stage:
    return Stage(layer=0, retention=0.6, contextual=contextual, scorer=scorer, merge=merge)


SCHEDULES: dict[str, tuple[Stage, ...]] = {
    "visiondrop": stages(encoder(ClsAttention(), NearestReference(), 0.125)),
    "visiondrop-paper": stages(
        encoder(ClsAttention(), NearestReference(combine="mean"), 0.125), mean="bidirectional"
    ),
    "visionzip": (encoder(ClsAttention(), NearestReference(), 0.2),),
    "desap": (encoder(FUSION, ClusterAverage()),),
    "desap-then-visiondrop": stages(
        encoder(FUSION.model_copy(update={"weight": 0.3}), NearestReference(), 0.1)
    ),
    "desap-other-options": (
        encoder(
            SimilarityFusion(
                text_tower="paired",
                weight=0.4,
                encoding="qk",
                order="saliency-first",
                text="prompt",
                clamp_negative=True,
                keep_cls=True,
            ),
            NoMerge(),
        ),
    ),
    "decoder-only": stages(mean="attending-queries"),
    "first-boundary-at-1": (
        Stage(layer=1, retention=0.5, scorer=VisualSelfAttention(), merge=ClusterAverage()),
    ),
    "all-dropped": (
        encoder(ClsAttention(keep_cls=False), NoMerge()),
        Stage(layer=3, retention=0, scorer=VisualSelfAttention()),
    ),
}


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return Schedule(stages=SCHEDULES[request.param])


@pytest.fixture(params=["compact", "original"])
def positioned(request: pytest.FixtureRequest, schedule: Schedule) -> Schedule:
    return schedule.model_copy(update={"positions": request.param})


@pytest.fixture
def prune(family: Any) -> Iterator[Callable[..., PrunedModel]]:
    """Apply a schedule, by default to the family's shared model, and remove it after the test."""
    handles: list[PrunedModel] = []

    def prune(schedule: Schedule, model: Any = None) -> PrunedModel:
        model = family.model if model is None else model
        handle = apply_schedule(
            model, schedule, processor=family.tokenizer, text_tower=family.clip_folder
        )
        handles.append(handle)
        return handle

    yield prune
    for handle in handles:
        handle.remove()


def logits_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(**inputs).logits
    return output


def last_logits(model: Any, inputs: dict[str, Tensor], padding: str) -> Tensor:
    """Logits at each sample's last token; what is padded on the right is never pruned."""
    logits = logits_of(model, inputs)
    if padding == "left":
        return logits[:, -1]
    padded = (inputs["attention_mask"] == 0).sum(dim=1)
    return logits[torch.arange(len(logits)), logits.shape[1] - 1 - padded]


def single(inputs: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    keep = inputs["attention_mask"][row].bool()
    return {
        "input_ids": inputs["input_ids"][row][keep][None],
        "attention_mask": inputs["attention_mask"][row][keep][None],
        "pixel_values": inputs["pixel_values"][row][None],
    }


def test_conformance_full_retention_changes_nothing(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS)
    dense = logits_of(family.model, inputs)
    answer = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    kept = [stage.model_copy(update={"retention": 1.0}) for stage in schedule.stages]
    prune(schedule.model_copy(update={"stages": tuple(kept)}))
    assert torch.equal(logits_of(family.model, inputs), dense)
    assert torch.equal(family.model.generate(**inputs, max_new_tokens=4, do_sample=False), answer)


def test_conformance_token_counts_are_the_schedules(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS)
    handle = prune(schedule)
    logits = logits_of(family.model, inputs)
    counts = schedule.counts(family.visual_tokens)
    text = inputs["input_ids"].shape[1] - family.visual_tokens
    assert logits.shape[1] == text + counts[-1].alive
    records = handle.last_prefill.stages
    assert [record.layer for record in records] == [count.layer for count in counts]
    for record, count in zip(records, counts, strict=True):
        assert record.indices.shape == (len(QUESTIONS), count.alive)
        assert record.positions.shape == (len(QUESTIONS), text + count.alive)
        for indices in record.indices.tolist():
            assert len(set(indices)) == count.alive
            assert all(-1 <= index < family.visual_tokens for index in indices)
    for earlier, later in pairwise(records):
        for before, after in zip(earlier.indices.tolist(), later.indices.tolist(), strict=True):
            assert set(after) <= set(before)


def test_conformance_cache_holds_what_is_alive(family: Any, schedule: Schedule, prune: Any) -> None:
    inputs = family.inputs(QUESTIONS)
    prune(schedule)
    with torch.no_grad():
        cache = family.model(**inputs, use_cache=True).past_key_values
    text = inputs["input_ids"].shape[1] - family.visual_tokens
    layers = len(cache)
    alive = schedule.visual_tokens_per_layer(layers, family.visual_tokens)
    assert [cache.get_seq_length(layer) for layer in range(layers)] == [
        text + count for count in alive
    ]


def without_merging(schedule: Schedule) -> Schedule:
    """The same choices of tokens, with no vector changed and every position kept."""
    plain = []
    for stage in schedule.stages:
        scorer = stage.scorer
        if not isinstance(scorer, VisualSelfAttention):
            scorer = scorer.model_copy(update={"keep_cls": False})
        changes = {"scorer": scorer, "merge": NoMerge(), "contextual": 0.0}
        plain.append(stage.model_copy(update=changes))
    return Schedule(stages=tuple(plain), positions="original")


@pytest.mark.parametrize("padding", ["left", "right"])
def test_conformance_dropping_is_masking_out(
    family: Any, schedule: Schedule, prune: Any, padding: str
) -> None:
    inputs = family.inputs(QUESTIONS, padding)
    handle = prune(without_merging(schedule))
    pruned = logits_of(family.model, inputs)
    records = handle.last_prefill.stages
    handle.remove()

    # The dense model, whose layers from each boundary on are kept from seeing the dropped tokens.
    batch, length = inputs["input_ids"].shape
    hooks = []
    for index, layer in enumerate(family.model.model.language_model.layers):
        visible = inputs["attention_mask"].bool().clone()
        for record in records:
            if record.layer <= index:
                for row in range(batch):
                    for position in set(range(length)) - set(record.positions[row].tolist()):
                        visible[row, position] = False
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        allowed = causal & visible[:, None, None, :]
        bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)

        def mask_out(module: Any, args: Any, kwargs: Any, bias: Tensor = bias) -> Any:
            return args, {**kwargs, "attention_mask": bias}

        hooks.append(layer.register_forward_pre_hook(mask_out, with_kwargs=True))
    try:
        dense = logits_of(family.model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    positions = records[-1].positions
    expected = dense.gather(1, positions[..., None].expand(-1, -1, dense.shape[-1]))
    real = inputs["attention_mask"].gather(1, positions).bool()
    torch.testing.assert_close(pruned[real], expected[real], atol=1e-5, rtol=0)
    # Masking something out must matter, or the comparison above shows nothing.
    unpruned = logits_of(family.model, inputs)
    kept = unpruned.gather(1, positions[..., None].expand(-1, -1, dense.shape[-1]))
    assert (kept[real] - expected[real]).abs().max() > 1e-3


@pytest.mark.parametrize("padding", ["left", "right"])
def test_conformance_batch_equals_its_samples(
    family: Any, positioned: Schedule, prune: Any, padding: Literal["left", "right"]
) -> None:
    inputs = family.inputs(QUESTIONS, padding)
    handle = prune(positioned)
    together = last_logits(family.model, inputs, padding)
    batched = handle.last_prefill.stages
    for row in range(len(QUESTIONS)):
        alone = logits_of(family.model, single(inputs, row))[0, -1]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)
        for one, record in zip(handle.last_prefill.stages, batched, strict=True):
            assert torch.equal(one.indices[0], record.indices[row])
            assert torch.equal(one.contextual[0], record.contextual[row])


def rerun(model: Any, inputs: dict[str, Tensor], steps: int) -> tuple[Tensor, list[Tensor]]:
    """Decode greedily without a cache: the whole pruned prefill at every step."""
    inputs, seen = dict(inputs), []
    for _ in range(steps):
        logits = logits_of(model, inputs)[:, -1]
        seen.append(logits)
        suppressed = torch.tensor(model.generation_config.suppress_tokens)
        token = logits.index_fill(1, suppressed, -torch.inf).argmax(dim=-1, keepdim=True)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], token], dim=1)
        ones = torch.ones_like(token)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], ones], dim=1)
    return inputs["input_ids"], seen


def test_conformance_generate_equals_rerunning_the_prefill(
    family: Any, positioned: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS)
    prune(positioned)
    expected, logits = rerun(family.model, inputs, steps=16)
    answer = family.model.generate(
        **inputs,
        max_new_tokens=16,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert torch.equal(answer.sequences, expected)
    for step, wanted in zip(answer.logits, logits, strict=True):
        torch.testing.assert_close(step, wanted, atol=1e-4, rtol=0)


def test_conformance_beam_search_equals_beam_search_without_cache(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS)
    prune(schedule)
    settings = {"max_new_tokens": 6, "do_sample": False, "num_beams": 3}
    cached = family.model.generate(**inputs, **settings)
    assert torch.equal(cached, family.model.generate(**inputs, **settings, use_cache=False))


def test_conformance_encoded_images_give_the_same_prefill(
    family: Any, positioned: Schedule, prune: Any
) -> None:
    vision = encode_images(
        family.model, family.images(len(QUESTIONS)), family.text_tower, ALL_PARTS
    )
    order = torch.tensor([2, 0, 1])
    scorers = [stage.scorer for stage in positioned.stages]
    reads_prompt = any(getattr(scorer, "text", None) == "prompt" for scorer in scorers)
    texts = [f"USER: {question}" if reads_prompt else question for question in QUESTIONS]
    questions = family.text_tower.encode(texts)
    inputs = family.inputs(QUESTIONS)
    handle = prune(positioned)
    expected = logits_of(family.model, inputs)[:, -1]
    for padding in ("left", "right"):
        padded = family.inputs(QUESTIONS, padding)
        logits = handle.prefill(padded["input_ids"], padded["attention_mask"], vision, questions)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    shuffled = handle.prefill(
        inputs["input_ids"][order],
        inputs["attention_mask"][order],
        vision.select(order),
        questions.select(order),
    )
    torch.testing.assert_close(shuffled, expected[order], atol=1e-5, rtol=0)


def test_conformance_attention_implementations_agree(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS)
    eager = family.load("eager")
    prune(schedule)
    prune(schedule, eager)
    expected = last_logits(family.model, inputs, "left")
    torch.testing.assert_close(last_logits(eager, inputs, "left"), expected, atol=1e-5, rtol=0)
    settings = {"max_new_tokens": 8, "do_sample": False}
    answers = [model.generate(**inputs, **settings) for model in (family.model, eager)]
    assert torch.equal(*answers)


def test_conformance_bfloat16_runs(family: Any, schedule: Schedule, prune: Any) -> None:
    inputs = family.inputs(QUESTIONS)
    model = family.load(dtype=torch.bfloat16)
    handle = prune(schedule, model)
    answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3
    logits = logits_of(model, inputs)
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()
    alive = schedule.counts(family.visual_tokens)[-1].alive
    assert handle.last_prefill.stages[-1].indices.shape[1] == alive


def hooks_of(model: Any) -> dict[str, Any]:
    return {
        f"{name}.{attribute}": copy.copy(value)
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if "hook" in attribute
    }


def test_conformance_remove_restores_the_model(family: Any, schedule: Schedule, prune: Any) -> None:
    inputs = family.inputs(QUESTIONS)
    dense = logits_of(family.model, inputs)
    attributes, hooks = set(vars(family.model)), hooks_of(family.model)
    state = copy.deepcopy(family.model.state_dict())
    handle = prune(schedule)
    pruned = logits_of(family.model, inputs)
    assert pruned.shape[1] < dense.shape[1]
    handle.remove()
    assert set(vars(family.model)) == attributes
    assert hooks_of(family.model) == hooks
    assert all(torch.equal(value, state[name]) for name, value in family.model.state_dict().items())
    assert torch.equal(logits_of(family.model, inputs), dense)


def test_conformance_text_alone_passes_through(family: Any, schedule: Schedule, prune: Any) -> None:
    tokens = family.tokenizer(["USER: w1 w2 ASSISTANT:"], return_tensors="pt")
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    dense = logits_of(family.model, inputs)
    answer = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    prune(schedule)
    assert torch.equal(logits_of(family.model, inputs), dense)
    assert torch.equal(family.model.generate(**inputs, max_new_tokens=4, do_sample=False), answer)
