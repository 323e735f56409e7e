"""The model `prunetune` on tiny checkpoints of all families."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pruners import (
    LastTokenAttention,
    Schedule,
    Stage,
    VisualSelfAttention,
    apply_schedule,
    published,
)
from pruners.errors import ModelError
from search.lmms.loading import LoadedModel
from search.lmms.model import BenchmarkedModel
from search.lmms.prompts import read_messages
from tests.pruners.families import FAMILIES, TinyModel
from tests.pruners.families.tiny import Sample

from .asking import GREEDY, ask, chat_messages
from .avi import write_avi

PRUNED = Schedule(
    stages=(
        Stage(layer=0, retention=0.6, scorer=VisualSelfAttention()),
        Stage(layer=3, retention=0.3, scorer=LastTokenAttention()),
    )
)


@pytest.fixture
def model(tiny: TinyModel) -> BenchmarkedModel:
    return BenchmarkedModel(LoadedModel(tiny.model, tiny.processor), batch_size=3)


def row(sample: Sample) -> dict[str, Any]:
    return {
        "question": sample.question,
        "images": [Image.fromarray(image) for image in sample.images],
        "videos": list(sample.videos),
    }


def answers_one_by_one(tiny: TinyModel, samples: list[Sample]) -> list[str]:
    """What the stock `generate` answers to the family's own prompts, each alone."""
    answers = []
    for sample in samples:
        inputs = tiny.prepare([sample])
        generated = tiny.model.generate(
            **inputs, max_new_tokens=GREEDY["max_new_tokens"], do_sample=False
        )
        new = generated[0, inputs["input_ids"].shape[1] :]
        answers.append(tiny.tokenizer.decode(new, skip_special_tokens=True))
    return answers


@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
@pytest.mark.parametrize("name", FAMILIES)
def test_batches_of_every_family_answer_as_samples_alone(
    name: str, pruned: bool, build_family: Callable[[str], TinyModel]
) -> None:
    family = build_family(name)
    samples = family.mixed_samples() + family.samples(["w1 w2", "w20 w21 w22 w23"], seed=5)
    model = BenchmarkedModel(LoadedModel(family.model, family.processor), batch_size=4)
    dense = answers_one_by_one(family, samples)
    if not pruned:
        assert ask(model, [row(sample) for sample in samples]) == dense
        return
    with apply_schedule(family.model, PRUNED, processor=family.processor):
        answers = ask(model, [row(sample) for sample in samples])
        assert answers == answers_one_by_one(family, samples)
    assert answers != dense
    assert answers[2] == dense[2]  # the sample without an image


@pytest.mark.parametrize(
    "name", ["llava_onevision", "video_llava", "qwen2_5_vl", "qwen3_vl", "internvl"]
)
def test_videos_given_as_frames(
    name: str, build_family: Callable[[str], TinyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Frames alone have no times; transformers then takes 24 frames per second.
    monkeypatch.setattr("tests.pruners.families.tiny.FRAMES_PER_SECOND", 24.0)
    family = build_family(name)
    assert family.videos
    samples = family.video_samples()
    model = BenchmarkedModel(LoadedModel(family.model, family.processor), batch_size=2)
    with apply_schedule(family.model, PRUNED, processor=family.processor):
        answers = ask(model, [row(sample) for sample in samples])
        assert answers == answers_one_by_one(family, samples)


def test_frames_of_a_video_file_are_evenly_spaced(tiny: TinyModel, tmp_path: Path) -> None:
    pytest.importorskip("decord")
    levels = range(0, 180, 20)
    file = tmp_path / "video.avi"
    write_avi([Image.new("RGB", (32, 16), (level,) * 3) for level in levels], file, 5)
    messages = chat_messages({"question": "w1", "videos": [str(file)]})
    prompt = read_messages(messages, tiny.processor, video_frames=3)
    (frames,) = prompt.videos
    assert frames.shape == (3, 16, 32, 3)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 80, 160], atol=8)
    (metadata,) = prompt.video_metadata
    assert (metadata.total_num_frames, list(metadata.frames_indices)) == (9, [0, 4, 8])
    assert metadata.fps == 5
    (short,) = read_messages(messages, tiny.processor, video_frames=64).videos
    assert len(short) == 9


def test_an_answer_ends_before_the_text_that_stops_it(
    tiny: TinyModel, model: BenchmarkedModel
) -> None:
    rows = [row(sample) for sample in tiny.samples(["w1 w2 w3", "w4", "w5 w6"])]
    whole = ask(model, rows)
    words = [answer.split() for answer in whole]
    assert all(len(each) > 2 for each in words)
    stop = words[0][2]
    cut = ask(model, rows, until=[stop, "\n\n"])
    assert cut == [answer.partition(stop)[0] for answer in whole]
    assert cut[0].split() == words[0][: words[0].index(stop)]
    assert ask(model, rows, until=stop) == cut


def test_greedy_whatever_the_checkpoint_says(
    tiny: TinyModel, model: BenchmarkedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(sample) for sample in tiny.samples(["w1 w2 w3", "w4", "w5 w6"])]
    greedy = ask(model, rows)
    monkeypatch.setattr(tiny.model.generation_config, "do_sample", True)
    monkeypatch.setattr(tiny.model.generation_config, "temperature", 5.0)
    assert ask(model, rows) == greedy
    assert ask(model, rows, do_sample=None, temperature=0) == greedy
    torch.manual_seed(0)
    assert ask(model, rows, do_sample=None, temperature=50.0) != greedy


def test_answers_come_in_the_order_asked(tiny: TinyModel, model: BenchmarkedModel) -> None:
    samples = tiny.samples(["w9", "w1 w2 w3 w4", "w5 w6", "w7 w8 w10", "w11 w12 w13 w14 w15"])
    assert ask(model, [row(sample) for sample in samples]) == answers_one_by_one(tiny, samples)


def test_an_error_names_the_sample(tiny: TinyModel, model: BenchmarkedModel) -> None:
    rows = [row(sample) for sample in tiny.samples(["w1", "w2", "w3", "w4"])]
    unreadable = [*rows[:2], {**rows[2], "images": ["no/such/picture.png"]}, rows[3]]
    with pytest.raises(ModelError, match=r"task asked, split test, sample 2 could not be answered"):
        ask(model, unreadable)
    # Two images where the prompt has room for one: the processor or the model finds out.
    placeholder = {**rows[1], "question": "w2 <image>"}
    with pytest.raises(ModelError, match=r"sample 1 could not be answered") as raised:
        ask(model, [rows[0], placeholder, *rows[2:]])
    assert "sample 0" not in str(raised.value)


@pytest.fixture
def small_memory(tiny: TinyModel) -> Iterator[Callable[[int], None]]:
    """Makes the model run out of memory with batches of more than a number of samples."""
    handles = []

    def limit(samples: int) -> None:
        def check(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            if kwargs["input_ids"].shape[0] > samples:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        handles.append(tiny.model.register_forward_pre_hook(check, with_kwargs=True))

    yield limit
    for handle in handles:
        handle.remove()


def test_out_of_memory_halves_the_batch(
    tiny: TinyModel, small_memory: Callable[[int], None]
) -> None:
    samples = tiny.samples([f"w{number} w1" for number in range(1, 10)])
    expected = answers_one_by_one(tiny, samples)
    model = BenchmarkedModel(LoadedModel(tiny.model, tiny.processor), batch_size=8)
    small_memory(2)
    assert ask(model, [row(sample) for sample in samples]) == expected
    assert model.batch_size == 2
    small_memory(0)
    with pytest.raises(ModelError, match=r"sample \d could not be answered: OutOfMemoryError"):
        ask(model, [row(sample) for sample in samples])


def test_a_cleaned_model_answers_again(tiny: TinyModel, model: BenchmarkedModel) -> None:
    rows = [row(sample) for sample in tiny.samples(["w1 w2", "w3"])]
    before = ask(model, rows)
    model.clean()
    assert ask(model, rows) == before


def test_text_towers_schedule_reads_the_question_from_the_prompt(tiny: TinyModel) -> None:
    schedule = published("desap", 8, tiny.shape)
    samples = tiny.samples(["w1 w2", "w3 w4 w5"])
    model = BenchmarkedModel(LoadedModel(tiny.model, tiny.processor), batch_size=2)
    options = {"processor": tiny.processor, "text_tower": tiny.clip_folder}
    with apply_schedule(tiny.model, schedule, **options) as handle:
        answers = ask(model, [row(sample) for sample in samples])
        with handle.questions([sample.question for sample in samples[:1]]):
            first = answers_one_by_one(tiny, samples[:1])
    assert answers[:1] == first
