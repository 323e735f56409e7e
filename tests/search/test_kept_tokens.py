"""What a gallery says is kept, against recomputations that know nothing of the runtime."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from pruners import (
    ClsAttention,
    NearestReference,
    Schedule,
    Stage,
    VisualSelfAttention,
    apply_schedule,
)
from pruners.errors import DataError
from pruners.published import published
from search.analytic import AnalyticEvaluator
from search.embedded import CHECKPOINT, DATA
from search.embedded.benchmark import load_split
from search.embedded.prompts import chat
from search.embedded.viewing import EmbeddedViewer
from search.embedded_evaluator import EmbeddedEvaluator
from search.evaluators import SampleKey
from search.kept_tokens import SPLIT, first_of_each_task, record_gallery
from search.measured_form import as_measured
from studies.kept_tokens import Gallery, KeptSample

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def evaluator() -> EmbeddedEvaluator:
    return EmbeddedEvaluator()


@pytest.fixture(scope="module")
def model() -> Any:
    """The embedded model, which no schedule was ever applied to."""
    return AutoModelForImageTextToText.from_pretrained(CHECKPOINT, attn_implementation="eager")


def inputs_of(sample: KeptSample) -> dict[str, Tensor]:
    processor = AutoProcessor.from_pretrained(CHECKPOINT, backend="pil")
    image = Image.open(BytesIO(sample.image)).convert("RGB")
    inputs: dict[str, Tensor] = processor(
        images=[image], text=[chat(sample.question)], return_tensors="pt"
    )
    return inputs


def gallery_of(evaluator: EmbeddedEvaluator, schedule: Schedule, samples: int = 6) -> Gallery:
    return record_gallery(evaluator, {"any": {"searched": schedule}}, samples)


def original(evaluator: EmbeddedEvaluator, *stages: Stage) -> Schedule:
    return Schedule(stages=stages, positions="original", shape=evaluator.shape)


def test_samples_and_images_are_those_of_the_report_split(evaluator: EmbeddedEvaluator) -> None:
    gallery = gallery_of(evaluator, published("visiondrop", tokens=192).scaled_to(evaluator.shape))
    split = {sample.id: sample for sample in load_split("report")}
    assert len(gallery.samples) == 6
    assert {sample.task for sample in gallery.samples} == {one.task for one in split.values()}
    assert len({split[sample.identifier].image_id for sample in gallery.samples}) == 6
    for sample in gallery.samples:
        known = split[sample.identifier]
        assert (sample.question, sample.expected) == (known.question, known.answer)
        seen = np.asarray(Image.open(BytesIO(sample.image)).convert("RGB"))
        assert np.array_equal(seen, known.image)
        assert sample.patches == evaluator.shape.visual_tokens


def test_answers_are_those_that_the_evaluator_scores(evaluator: EmbeddedEvaluator) -> None:
    schedule = as_measured(published("desap", tokens=192), evaluator.shape)
    gallery = gallery_of(evaluator, schedule)
    places = {key.identifier: place for place, key in enumerate(evaluator.samples(SPLIT))}
    scores = evaluator.score(
        schedule, SPLIT, [places[sample.identifier] for sample in gallery.samples]
    )
    given = [sample.kept[0].answer == sample.expected for sample in gallery.samples]
    assert given == scores.astype(bool).tolist()


def test_the_encoder_stage_keeps_the_patches_that_the_cls_token_attends_to(
    evaluator: EmbeddedEvaluator, model: Any
) -> None:
    stage = Stage(layer=0, retention=0.25, scorer=ClsAttention(keep_cls=False))
    for sample in gallery_of(evaluator, original(evaluator, stage)).samples:
        with torch.no_grad():
            attentions = model.model.vision_tower(
                inputs_of(sample)["pixel_values"], output_attentions=True
            ).attentions
        received = attentions[-2][0, :, 0, 1:].mean(dim=0)
        expected = received.topk(36).indices.sort().values.tolist()
        (found,) = sample.kept[0].stages
        assert list(found.dominant) == expected
        assert not found.contextual
        assert set(sample.dropped(found)) == set(range(144)) - set(expected)


def test_masking_out_what_is_dropped_gives_the_pruned_models_answer(
    evaluator: EmbeddedEvaluator, model: Any
) -> None:
    schedule = original(
        evaluator,
        Stage(layer=0, retention=0.6, scorer=ClsAttention(keep_cls=False)),
        Stage(layer=3, retention=0.3, scorer=VisualSelfAttention()),
        Stage(layer=6, retention=0.05, scorer=VisualSelfAttention()),
    )
    mattered = 0.0
    for sample in gallery_of(evaluator, schedule).samples:
        inputs = inputs_of(sample)
        dense = logits(model, inputs)
        masked = logits(model, inputs, sample)
        tokenizer = evaluator.processor.tokenizer
        assert tokenizer.convert_ids_to_tokens([int(masked.argmax())]) == [sample.kept[0].answer]
        assert tokenizer.convert_ids_to_tokens([int(dense.argmax())]) == [sample.dense_answer]
        with apply_schedule(evaluator.model, schedule, processor=evaluator.processor):
            expected = logits(evaluator.model, inputs)
        torch.testing.assert_close(masked, expected, atol=TOLERANCE, rtol=0)
        mattered = max(mattered, float((masked - dense).abs().max()))
    assert mattered > 100 * TOLERANCE  # or the comparison above shows nothing


def test_contextual_patches_are_visiondrops_strided_references(
    evaluator: EmbeddedEvaluator,
) -> None:
    schedule = as_measured(published("visiondrop", tokens=192), evaluator.shape)
    counts = schedule.counts(evaluator.shape.visual_tokens)
    assert all(isinstance(stage.merge, NearestReference) for stage in schedule.stages)
    for sample in gallery_of(evaluator, schedule).samples:
        alive = set(range(sample.patches))
        made: set[int] = set()
        for stage, count in zip(sample.kept[0].stages, counts, strict=True):
            assert stage.layer == count.layer
            assert stage.alive == count.alive
            assert stage.merge == "nearest-reference"
            chosen = set(stage.dominant) | (made & set(stage.contextual))
            left = sorted(alive - chosen)
            new = [patch for patch in stage.contextual if patch not in made]
            if stage.layer == 0:
                # Nothing was made before, so that all references are at multiples of the stride.
                stride = len(left) // count.contextual
                assert new == [left[place * stride] for place in range(count.contextual)]
            assert set(new) <= set(left)
            alive, made = set(stage.dominant) | set(stage.contextual), set(stage.contextual)


def test_one_sample_is_seen_as_in_a_batch(evaluator: EmbeddedEvaluator) -> None:
    schedule = as_measured(published("visiondrop", tokens=192), evaluator.shape)
    viewer = EmbeddedViewer(evaluator, SPLIT)
    together = viewer.look(schedule, [3, 500, 2100])
    assert [viewer.look(schedule, [index])[0] for index in (3, 500, 2100)] == together


def test_looking_leaves_the_model_as_it_was(evaluator: EmbeddedEvaluator) -> None:
    schedule = as_measured(published("visiondrop", tokens=192), evaluator.shape)
    before = evaluator.score(schedule, SPLIT, range(20))
    gallery_of(evaluator, schedule, 1)
    assert not [
        name for name, module in evaluator.model.named_modules() if module._forward_pre_hooks
    ]
    assert np.array_equal(evaluator.score(schedule, SPLIT, range(20)), before)


def test_a_problem_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="what was measured has no images"):
        record_gallery(AnalyticEvaluator(), {"2 TFLOPs": {"searched": Schedule()}})


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (9, [0, 2, 4])],
)
def test_samples_are_the_first_of_each_task_on_new_images(count: int, expected: list[int]) -> None:
    keys = [
        SampleKey("a", "one", "x"),
        SampleKey("b", "one", "x"),
        SampleKey("c", "one", "y"),
        SampleKey("d", "two", "x"),
        SampleKey("e", "two", "z"),
    ]
    assert first_of_each_task(keys, count) == expected


def logits(model: Any, inputs: dict[str, Tensor], masked: KeptSample | None = None) -> Tensor:
    """Logits at the prompt's end, after masking out what each stage of a gallery has dropped."""
    places = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    length = inputs["input_ids"].shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    hooks = []
    for number, layer in enumerate(model.model.language_model.layers):
        if masked is None:
            break
        visible = torch.ones(length, dtype=torch.bool)
        for stage in masked.kept[0].stages:
            if stage.layer <= number:
                visible[places[list(masked.dropped(stage))]] = False
        bias = torch.zeros(1, 1, length, length)
        bias = bias.masked_fill(~(causal & visible), torch.finfo(torch.float32).min)

        def mask(module: Any, args: Any, kwargs: Any, bias: Tensor = bias) -> Any:
            return args, {**kwargs, "attention_mask": bias}

        hooks.append(layer.register_forward_pre_hook(mask, with_kwargs=True))
    try:
        with torch.no_grad():
            found: Tensor = model(**inputs).logits[0, -1]
    finally:
        for hook in hooks:
            hook.remove()
    return found


def test_samples_are_those_of_the_benchmark_that_was_measured_on(tmp_path: Path) -> None:
    shipped = pq.read_table(DATA / f"{SPLIT}.parquet")
    pq.write_table(shipped[::-1], tmp_path / f"{SPLIT}.parquet")
    evaluator = EmbeddedEvaluator(benchmark=tmp_path)
    last = load_split(SPLIT)[-1]
    shown = EmbeddedViewer(evaluator, SPLIT).show(0)
    assert evaluator.samples(SPLIT)[0].identifier == last.id
    assert (shown.question, shown.expected, shown.image) == (last.question, last.answer, last.png)
