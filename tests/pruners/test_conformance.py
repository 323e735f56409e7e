"""What holds for every schedule on every model family.

Published methods are all those of `pruners.methods`; other schedules are one line in SCHEDULES.
LLaVA runs all of them, other families by default those of REPRESENTATIVE, and with `-m slow` all
that they support.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from pruners import (
    ClusterAverage,
    NearestReference,
    NoMerge,
    PrunedModel,
    PrunetuneError,
    Schedule,
    Shape,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
    apply_schedule,
    encode_images,
    published,
)
from pruners.adapters import adapter_for
from pruners.errors import UnsupportedModelError
from pruners.methods import METHODS, Needs, supported_methods
from pruners.methods.base import encoder_saliency
from pruners.scorers import DecoderScorer, Scorer
from pruners.selectors import LeastDuplication
from pruners.shape import LLAVA_1_5_7B
from pruners.vision import all_parts
from tests.helpers.forwards import logits_of
from tests.pruners.families import FAMILIES, TinyModel
from tests.pruners.ragged import masked_out

QUESTIONS = ("w1 w2 w3", "w4", "w5 w6 w7 w8 w9")
FUSION = SimilarityFusion(text_tower="paired")
COMPARED = FUSION.model_copy(update={"weight": 0.3})
OTHER_OPTIONS = SimilarityFusion(
    text_tower="paired",
    weight=0.4,
    encoding="qk",
    order="saliency-first",
    text="prompt",
    clamp_negative=True,
)


def encoder(scorer: Scorer, merge: Any, contextual: float = 0, **settings: Any) -> Stage:
    return Stage(
        layer=0, retention=0.6, contextual=contextual, scorer=scorer, merge=merge, **settings
    )


def decoder(mean: str = "causal") -> tuple[Stage, ...]:
    scorer = VisualSelfAttention.model_validate({"mean": mean})
    merge = NearestReference()
    return (
        Stage(layer=2, retention=0.4, contextual=0.125, scorer=scorer, merge=merge),
        Stage(layer=4, retention=0.2, contextual=0.2, scorer=scorer, merge=merge),
    )


def visiondrop_paper(shape: Shape) -> tuple[Stage, ...]:
    saliency = encoder_saliency(shape, keep_cls=True)
    first = encoder(saliency, NearestReference(combine="mean"), 0.125)
    return (first, *decoder("bidirectional"))


def desap_then_visiondrop(shape: Shape) -> tuple[Stage, ...]:
    return (encoder(COMPARED, NearestReference(), 0.1), *decoder())


def desap_other_options(shape: Shape) -> tuple[Stage, ...]:
    keep = {"keep_cls": shape.prunes_before_projector}
    return (encoder(OTHER_OPTIONS.model_copy(update=keep), NoMerge()),)


def global_scope(shape: Shape) -> tuple[Stage, ...]:
    saliency = encoder_saliency(shape, keep_cls=False)
    return (encoder(saliency, NearestReference(), 0.1, scope="global"), *decoder())


def decoder_only(shape: Shape) -> tuple[Stage, ...]:
    return decoder("attending-queries")


def first_boundary_at_1(shape: Shape) -> tuple[Stage, ...]:
    return (Stage(layer=1, retention=0.5, scorer=VisualSelfAttention(), merge=ClusterAverage()),)


def all_dropped(shape: Shape) -> tuple[Stage, ...]:
    return (
        encoder(encoder_saliency(shape, keep_cls=False), NoMerge()),
        Stage(layer=3, retention=0, scorer=VisualSelfAttention()),
    )


SCHEDULES: dict[str, Callable[[Shape], tuple[Stage, ...]]] = {
    "visiondrop-paper": visiondrop_paper,
    "desap-then-visiondrop": desap_then_visiondrop,
    "desap-other-options": desap_other_options,
    "global-scope": global_scope,
    "decoder-only": decoder_only,
    "first-boundary-at-1": first_boundary_at_1,
    "all-dropped": all_dropped,
}
NEEDS = {
    **{name: method.needs for name, method in METHODS.items()},
    "desap-then-visiondrop": Needs.PAIRED_TEXT_TOWER,
    "desap-other-options": Needs.PAIRED_TEXT_TOWER,
}
REPRESENTATIVE = {
    "visiondrop-paper",
    "desap-then-visiondrop",
    "global-scope",
    "all-dropped",
    "fastv",
    "pyramiddrop",
    "sparsevlm",
    "divprune",
}
"""Encoder and decoder stages with merging, similarity, both scopes, text guidance, diversity."""

SHARE = 0.4
"""Mean share of an image's tokens that published methods are asked for."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "schedule_name" not in metafunc.fixturenames:
        return
    pairs = [
        pytest.param(
            family,
            name,
            id=f"{family}-{name}",
            marks=() if family == "llava" or name in REPRESENTATIVE else pytest.mark.slow,
        )
        for family in FAMILIES
        for name in (*METHODS, *SCHEDULES)
    ]
    metafunc.parametrize(("family", "schedule_name"), pairs, indirect=["family"], scope="session")


@pytest.fixture
def schedule(family: TinyModel, schedule_name: str) -> Schedule:
    shape = family.shape
    needs = NEEDS.get(schedule_name, Needs.NOTHING)
    if not needs.met_by(shape):
        pytest.skip(f"the schedule needs {needs.value}")
    if schedule_name in SCHEDULES:
        return Schedule(stages=SCHEDULES[schedule_name](shape))
    return published(schedule_name, tokens=round(SHARE * family.visual_tokens), shape=shape)


def reads_last_tokens(schedule: Schedule) -> bool:
    """Whether answers, were they part of the prompt, would change what is chosen."""
    return any(
        isinstance(stage.scorer, DecoderScorer) or isinstance(stage.selector, LeastDuplication)
        for stage in schedule.stages
    )


@pytest.fixture(params=["compact", "original"])
def positioned(request: pytest.FixtureRequest, family: TinyModel, schedule: Schedule) -> Schedule:
    if request.param == "compact" and adapter_for(family.model).position_axes > 1:
        pytest.skip("positions of several axes are never compacted")
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


def last_logits(model: Any, inputs: dict[str, Tensor], padding: str) -> Tensor:
    """Logits at each sample's last token; what is padded on the right is never pruned."""
    logits = logits_of(model, inputs)
    if padding == "left":
        return logits[:, -1]
    padded = (inputs["attention_mask"] == 0).sum(dim=1)
    return logits[torch.arange(len(logits)), logits.shape[1] - 1 - padded]


def repeated(inputs: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Make a batch of a prompt's copies, images included."""
    return {name: torch.cat([value] * count) for name, value in inputs.items()}


def continued(inputs: dict[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """Append tokens of text to a batch of prompts, (batch, tokens)."""
    more = {**inputs, "input_ids": torch.cat([inputs["input_ids"], tokens], dim=1)}
    for name, fill in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in inputs:
            more[name] = pad(inputs[name], (0, tokens.shape[1]), value=fill)
    return more


def counts_of(schedule: Schedule, family: TinyModel) -> Any:
    """Count what the stages leave of a standard image."""
    return schedule.counts(family.visual_tokens, family.shape.tokens_per_tile)


class Dense(NamedTuple):
    """What a family's model gives that no schedule is applied to: logits, and tokens generated."""

    logits: Tensor
    answer: Tensor


@pytest.fixture(scope="session")
def dense(family: TinyModel) -> Dense:
    inputs = family.inputs(QUESTIONS)
    answer = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return Dense(logits_of(family.model, inputs), answer)


def test_conformance_full_retention_changes_nothing(
    family: Any, schedule: Schedule, prune: Any, dense: Dense
) -> None:
    inputs = family.inputs(QUESTIONS)
    kept = [stage.model_copy(update={"retention": 1.0}) for stage in schedule.stages]
    prune(schedule.model_copy(update={"stages": tuple(kept)}))
    assert torch.equal(logits_of(family.model, inputs), dense.logits)
    answer = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(answer, dense.answer)


def test_conformance_token_counts_are_the_schedules(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS)
    handle = prune(schedule)
    logits = logits_of(family.model, inputs)
    counts = counts_of(schedule, family)
    text = inputs["input_ids"].shape[1] - family.visual_tokens
    assert logits.shape[1] == text + counts[-1].alive
    records = handle.last_prefill.stages
    assert [record.layer for record in records] == [count.layer for count in counts]
    for record, count in zip(records, counts, strict=True):
        assert record.indices.shape == (len(QUESTIONS), count.alive)
        assert record.positions.shape == (len(QUESTIONS), text + count.alive)
        for indices in record.indices.tolist():
            assert len(set(indices)) == count.alive
            assert all(-family.visual_tokens <= index < family.visual_tokens for index in indices)
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
    alive = {count.layer: count.alive for count in counts_of(schedule, family)}
    expected, left = [], family.visual_tokens
    for layer in range(layers):
        left = alive.get(layer, left)
        expected.append(text + left)
    assert [cache.get_seq_length(layer) for layer in range(layers)] == expected


def without_merging(schedule: Schedule) -> Schedule:
    """The same choices of tokens, with no vector changed and every position kept."""
    plain = []
    for stage in schedule.stages:
        scorer = stage.scorer
        if stage.keeps_cls:
            scorer = scorer.model_copy(update={"keep_cls": False})
        changes = {"scorer": scorer, "merge": NoMerge(), "contextual": 0.0}
        plain.append(stage.model_copy(update=changes))
    return Schedule(stages=tuple(plain), positions="original")


@pytest.fixture
def dropping(family: TinyModel, schedule: Schedule) -> Schedule:
    adapter = adapter_for(family.model)
    if schedule.stages[0].in_tower:
        pytest.skip("tokens leave inside the tower, which has its own oracles")
    if any(
        adapter.attention_type(layer) != "full_attention"
        for layer in range(len(family.decoder_layers))
    ):
        pytest.skip("windows reach further back once tokens are dropped, so masking out differs")
    return without_merging(schedule)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_conformance_dropping_is_masking_out(
    family: Any, dropping: Schedule, prune: Any, padding: str
) -> None:
    inputs = family.inputs(QUESTIONS, padding)
    handle = prune(dropping)
    pruned = logits_of(family.model, inputs)
    record = handle.last_prefill
    handle.remove()
    with masked_out(family.model, record, inputs["attention_mask"]):
        dense = logits_of(family.model, inputs)
    positions = record.stages[-1].positions
    expected = dense.gather(1, positions[..., None].expand(-1, -1, dense.shape[-1]))
    real = inputs["attention_mask"].gather(1, positions).bool()
    torch.testing.assert_close(pruned[real], expected[real], atol=1e-5, rtol=0)
    # Masking something out must matter, or the comparison above shows nothing.
    unpruned = logits_of(family.model, inputs)
    kept = unpruned.gather(1, positions[..., None].expand(-1, -1, dense.shape[-1]))
    assert (kept[real] - expected[real]).abs().max() > 1e-3


def test_conformance_generate_equals_masking_out(
    family: Any, dropping: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS)
    handle = prune(dropping)
    settings = {"max_new_tokens": 6, "do_sample": False}
    answer = family.model.generate(
        **inputs, **settings, output_logits=True, return_dict_in_generate=True
    )
    record = handle.last_prefill
    handle.remove()
    length = inputs["input_ids"].shape[1]
    new = answer.sequences.shape[1] - length
    whole = continued(inputs, answer.sequences[:, length:-1])
    with masked_out(family.model, record, whole["attention_mask"]):
        dense = logits_of(family.model, whole)
    expected = dense[:, -new:].unbind(dim=1)
    for step, wanted in zip(answer.logits, expected, strict=True):
        torch.testing.assert_close(step, wanted, atol=1e-4, rtol=0)


def test_conformance_choosing_adds_nothing_to_gradients(
    family: Any, dropping: Schedule, prune: Any
) -> None:
    inputs = family.inputs(QUESTIONS[:2])
    weights = [layer.self_attn.k_proj.weight for layer in family.decoder_layers]

    def gradients() -> tuple[Tensor, ...]:
        logits = family.model(**inputs).logits[:, -1]
        return torch.autograd.grad(logits.square().sum(), weights)

    handle = prune(dropping)
    pruned = gradients()
    record = handle.last_prefill
    handle.remove()
    with masked_out(family.model, record, inputs["attention_mask"]):
        expected = gradients()
    for found, wanted in zip(pruned, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_conformance_batch_equals_its_samples(
    family: Any, positioned: Schedule, prune: Any, padding: Literal["left", "right"]
) -> None:
    inputs = family.inputs(QUESTIONS, padding)
    handle = prune(positioned)
    together = last_logits(family.model, inputs, padding)
    batched = handle.last_prefill.stages
    for row, prompt in enumerate(family.rows(QUESTIONS)):
        alone = logits_of(family.model, prompt)[0, -1]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)
        for one, record in zip(handle.last_prefill.stages, batched, strict=True):
            assert torch.equal(one.indices[0], record.indices[row])
            assert torch.equal(one.contextual[0], record.contextual[row])


def rerun(model: Any, inputs: dict[str, Tensor], steps: int) -> tuple[Tensor, list[Tensor]]:
    """Decode greedily without a cache: the whole pruned prefill at every step."""
    seen = []
    for _ in range(steps):
        logits = logits_of(model, inputs)[:, -1]
        seen.append(logits)
        suppressed = torch.tensor(model.generation_config.suppress_tokens)
        token = logits.index_fill(1, suppressed, -torch.inf).argmax(dim=-1, keepdim=True)
        inputs = continued(inputs, token)
    return inputs["input_ids"], seen


def test_conformance_generate_equals_rerunning_the_prefill(
    family: Any, positioned: Schedule, prune: Any
) -> None:
    if reads_last_tokens(positioned):
        pytest.skip("with its answers in the prompt, other tokens would be chosen")
    inputs = family.inputs(QUESTIONS)
    prune(positioned)
    expected, logits = rerun(family.model, inputs, steps=8)
    answer = family.model.generate(
        **inputs,
        max_new_tokens=8,
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
    if reads_last_tokens(schedule):
        pytest.skip("with its answers in the prompt, other tokens would be chosen")
    inputs = family.inputs(QUESTIONS)
    prune(schedule)
    settings = {"max_new_tokens": 6, "do_sample": False, "num_beams": 3}
    cached = family.model.generate(**inputs, **settings)
    assert torch.equal(cached, family.model.generate(**inputs, **settings, use_cache=False))


def log_probability(
    model: Any, prompt: dict[str, Tensor], answers: Tensor, *, at_once: bool
) -> Tensor:
    """Sum the log-probabilities of answers to one prompt, fed through the cache: (answers,)."""
    count, length = answers.shape
    with torch.no_grad():
        output = model(**repeated(prompt, count), use_cache=True)
        logits = [output.logits[:, -1:]]
        for tokens in [answers[:, :-1]] if at_once else answers[:, :-1].chunk(length - 1, dim=1):
            output = model(input_ids=tokens, past_key_values=output.past_key_values)
            logits.append(output.logits)
    found = torch.cat(logits, dim=1).log_softmax(dim=-1)
    assert found.shape[1] == length
    return found.gather(-1, answers[..., None])[..., 0].sum(dim=-1)


def test_conformance_beams_score_what_their_answers_do(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    """Beams swap caches; an answer has the score that it has when nothing but it is decoded."""
    inputs, beams, new = family.inputs(QUESTIONS), 3, 6
    prune(schedule)
    found = family.model.generate(
        **inputs,
        max_new_tokens=new,
        do_sample=False,
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=1.5,
        output_scores=True,
        return_dict_in_generate=True,
    )
    answers = found.sequences[:, -new:].unflatten(0, (-1, beams))
    scores = found.sequences_scores.unflatten(0, (-1, beams))
    swapped = found.beam_indices[:, :new].unflatten(0, (-1, beams))
    assert (swapped[..., 1:] != swapped[..., :-1]).any()
    for row, prompt in enumerate(family.rows(QUESTIONS)):
        assert len(set(map(tuple, answers[row].tolist()))) == beams
        for at_once in (False, True):
            expected = log_probability(family.model, prompt, answers[row], at_once=at_once)
            torch.testing.assert_close(scores[row] * new**1.5, expected, atol=1e-4, rtol=0)


def test_conformance_encoded_images_give_the_same_prefill(
    family: Any, positioned: Schedule, prune: Any
) -> None:
    adapter = adapter_for(family.model)
    if adapter.projector is None:
        pytest.skip("the family arranges images behind its projector")
    parts = all_parts(adapter, family.text_tower)
    parts = replace(parts, encodings=frozenset({"qq", "qk"}))
    vision = encode_images(family.model, family.images(len(QUESTIONS)), family.text_tower, parts)
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
    torch.testing.assert_close(last_logits(eager, inputs, "left"), expected, atol=1e-5, rtol=1e-5)
    settings = {"max_new_tokens": 4, "do_sample": False}
    answers = [model.generate(**inputs, **settings) for model in (family.model, eager)]
    assert torch.equal(*answers)


def test_conformance_results_are_repeatable(family: Any, schedule: Schedule, prune: Any) -> None:
    inputs = family.inputs(QUESTIONS)
    prune(schedule)
    assert torch.equal(logits_of(family.model, inputs), logits_of(family.model, inputs))


def test_conformance_one_token_is_enough(family: Any, schedule: Schedule, prune: Any) -> None:
    one = [
        stage.model_copy(update={"retention": 1 / family.visual_tokens, "contextual": 0.0})
        for stage in schedule.stages[:1]
    ]
    inputs = family.inputs(QUESTIONS)
    handle = prune(schedule.model_copy(update={"stages": tuple(one)}))
    assert logits_of(family.model, inputs).isfinite().all()
    tiles = len(family.shape.tokens_per_tile) if one[0].layer == 0 and one[0].scope == "tile" else 1
    assert handle.last_prefill.stages[0].indices.shape == (len(QUESTIONS), tiles)


def test_conformance_tied_tokens_are_chosen_once(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    """Patches that are all the same: a blank image, and no learnt embedding of positions."""
    model = copy.deepcopy(family.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if re.search(r"(vision|visual|image)\w*\..*pos(ition)?_embed", name):
                parameter.zero_()
    inputs = {
        name: torch.zeros_like(value) if name.startswith("pixel_values") else value
        for name, value in family.inputs(QUESTIONS).items()
    }
    handle = prune(schedule, model)
    assert logits_of(model, inputs).isfinite().all()
    counts = counts_of(schedule, family)
    for record, count in zip(handle.last_prefill.stages, counts, strict=True):
        for indices in record.indices.tolist():
            assert len(set(indices)) == count.alive


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_conformance_half_precision_runs(
    family: Any, schedule: Schedule, prune: Any, dtype: torch.dtype
) -> None:
    inputs = family.inputs(QUESTIONS)
    model = family.load(dtype=dtype)
    handle = prune(schedule, model)
    answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3
    logits = logits_of(model, inputs)
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    alive = counts_of(schedule, family)[-1].alive
    assert handle.last_prefill.stages[-1].indices.shape[1] == alive


def hooks_of(model: Any) -> dict[str, Any]:
    return {
        f"{name}.{attribute}": copy.copy(value)
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if "hook" in attribute
    }


def test_conformance_remove_restores_the_model(
    family: Any, schedule: Schedule, prune: Any, dense: Dense
) -> None:
    inputs = family.inputs(QUESTIONS)
    attributes, hooks = set(vars(family.model)), hooks_of(family.model)
    state = copy.deepcopy(family.model.state_dict())
    handle = prune(schedule)
    pruned = logits_of(family.model, inputs)
    assert pruned.shape[1] < dense.logits.shape[1]
    handle.remove()
    assert set(vars(family.model)) == attributes
    assert hooks_of(family.model) == hooks
    assert all(torch.equal(value, state[name]) for name, value in family.model.state_dict().items())
    assert torch.equal(logits_of(family.model, inputs), dense.logits)


def text_alone(family: TinyModel) -> dict[str, Tensor]:
    tokens = family.tokenizer(["USER: w1 w2 ASSISTANT:"], return_tensors="pt")
    return {name: tokens[name] for name in ("input_ids", "attention_mask")}


@pytest.fixture(scope="session")
def dense_text_alone(family: TinyModel) -> Dense:
    inputs = text_alone(family)
    answer = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return Dense(logits_of(family.model, inputs), answer)


def test_conformance_text_alone_passes_through(
    family: Any, schedule: Schedule, prune: Any, dense_text_alone: Dense
) -> None:
    inputs = text_alone(family)
    prune(schedule)
    assert torch.equal(logits_of(family.model, inputs), dense_text_alone.logits)
    answer = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(answer, dense_text_alone.answer)


def test_conformance_pipelines_answer_as_generate_does(
    family: Any, schedule: Schedule, prune: Any
) -> None:
    inputs = family.prepare(family.samples(["w1 w2 w3"]))
    settings = {"max_new_tokens": 6, "do_sample": False}
    handle = prune(schedule)
    tokens = family.model.generate(**inputs, **settings)[0, inputs["input_ids"].shape[1] :]
    generated = handle.last_prefill
    answer = family.pipeline(
        text=family.chat("w1 w2 w3"), generate_kwargs=settings, return_full_text=False
    )
    expected = family.tokenizer.decode(tokens, skip_special_tokens=True)
    assert answer[0]["generated_text"].split() == expected.split()
    record = handle.last_prefill
    assert record is not generated
    counts = counts_of(schedule, family)
    for stage, other, count in zip(record.stages, generated.stages, counts, strict=True):
        assert torch.equal(stage.indices, other.indices)
        assert stage.indices.shape == (1, count.alive)


def test_conformance_positions_are_compacted_on_one_axis_alone(family: Any, prune: Any) -> None:
    """An image takes as many positions with M-RoPE as its longer side, however many are left."""
    inputs = family.inputs(QUESTIONS)
    found = []
    for positions in ("compact", "original"):
        with prune(Schedule(stages=decoder(), positions=positions)):
            found.append(logits_of(family.model, inputs))
    assert torch.equal(*found) == (adapter_for(family.model).position_axes > 1)


# What a family cannot run, is refused.

ADVICE = re.compile(r"(use|Use|set|pass|load) ")


def unsupported(family: TinyModel) -> list[str]:
    return [name for name in METHODS if name not in supported_methods(family.shape)]


def test_conformance_unsupported_methods_name_an_alternative(family: Any) -> None:
    for name in unsupported(family):
        with pytest.raises(UnsupportedModelError, match="Use another method") as caught:
            published(name, tokens=round(SHARE * family.visual_tokens), shape=family.shape)
        instead = METHODS[name].instead
        assert repr(instead) in str(caught.value)
        assert instead in supported_methods(family.shape)


def test_conformance_schedules_of_unsupported_methods_are_refused(family: Any) -> None:
    """The same without a shape to warn: a schedule made for LLaVA, brought to another model."""
    for name in unsupported(family):
        if METHODS[name].needs is Needs.PAIRED_TEXT_TOWER and family.shape.shares_text_space:
            continue  # the text tower of that space may be named instead
        stages = published(name, tokens=192, shape=LLAVA_1_5_7B).stages
        fitting = tuple(stage for stage in stages if stage.layer < len(family.decoder_layers))
        with pytest.raises(PrunetuneError, match=ADVICE):
            apply_schedule(
                family.model, Schedule(stages=fitting), text_tower=family.clip_folder
            ).remove()
        assert not any(module._forward_pre_hooks for module in family.model.modules())
