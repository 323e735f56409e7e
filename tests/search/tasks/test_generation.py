"""Batches: joined as the processor would, halved when memory runs out, ended where asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers.utils.logging import enable_progress_bar

from pruners.errors import DataError, InputError, ModelError
from search.lmms.decoding import Decoding
from search.tasks.generation import Generator, Prepared
from search.tasks.live_model import (
    LiveModel,
    load_live_model,
    load_processor,
    model_fingerprint,
)
from search.tasks.preparing import join, prepare
from search.tasks.requests import Request
from tests.helpers.checkpoints import copy_without
from tests.pruners.families import FAMILIES, TinyModel
from tests.pruners.families.tiny import picture

ONE_TOKEN = Decoding(max_new_tokens=1)


@pytest.fixture(scope="module", params=[name for name in FAMILIES if "-" not in name])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


def questions(tiny: TinyModel) -> list[Request]:
    sizes = (tiny.standard, tiny.other, tiny.standard)
    return [
        Request(f"q{number}", " ".join(["w1"] * (number + 1)), (image,), ONE_TOKEN)
        for number, image in enumerate(
            Image.fromarray(picture(size, number)) for number, size in enumerate(sizes)
        )
    ]


def test_joined_samples_are_the_batch_that_the_processor_makes(tiny: TinyModel) -> None:
    tiny.processor.tokenizer.padding_side = "left"
    live = LiveModel(tiny.load(), tiny.processor)
    asked = questions(tiny)
    joined = join([prepare(live, each) for each in asked], tiny.processor.tokenizer.pad_token_id)
    content = [{"type": "image"}]
    prompts = [
        tiny.processor.apply_chat_template(
            [{"role": "user", "content": [*content, {"type": "text", "text": each.text}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for each in asked
    ]
    images: Any = [image for each in asked for image in each.images]
    expected = tiny.processor(
        text=prompts, images=[[image] for image in images], padding=True, return_tensors="pt"
    )
    assert set(joined) == {name for name, value in expected.items() if torch.is_tensor(value)}
    for name, value in joined.items():
        assert torch.equal(value, expected[name]), name


def test_every_family_takes_images_by_pil(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, **options: Any) -> Any:
        # transformers refuses "pil" for processors of videos, and loads those by torchvision
        # alone, which need not be here.
        assert "backend" not in options
        return tiny.processor

    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", load)
    before = tiny.processor.image_processor
    processor = load_processor(str(tiny.folder))
    assert processor.image_processor is not before
    assert processor.image_processor.to_dict() == before.to_dict()
    bases = [base.__name__ for base in type(processor.image_processor).__mro__]
    assert not any("Torchvision" in name for name in bases)
    assert processor.tokenizer.padding_side == "left"


def test_answers_do_not_depend_on_batches(tiny: TinyModel) -> None:
    live = LiveModel(tiny.load(), tiny.processor)
    prepared = [
        Prepared(each.identifier, prepare(live, each), each.decoding) for each in questions(tiny)
    ]
    together = Generator(live, batch_size=8).answers(prepared)
    alone = Generator(live, batch_size=1).answers(prepared)
    assert together == alone


@pytest.fixture(scope="module")
def live(checkpoint: Path) -> LiveModel:
    return load_live_model(str(checkpoint / "model"), device="cpu", dtype="auto")


@pytest.fixture
def ask(live: LiveModel) -> Callable[[int, Decoding], Prepared]:
    def ask(number: int, decoding: Decoding) -> Prepared:
        image = Image.fromarray(picture((20, 20), number))
        request = Request(f"q{number}", f"w{number}", (image,), decoding)
        return Prepared(request.identifier, prepare(live, request), decoding)

    return ask


def test_memory_that_runs_out_halves_the_batch_and_goes_on(
    live: LiveModel,
    ask: Callable[[int, Decoding], Prepared],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepared = [ask(number, ONE_TOKEN) for number in range(11)]
    expected = Generator(live, batch_size=1).answers(prepared)
    stock, seen = live.model.generate, []

    def generate(**inputs: Any) -> Any:
        seen.append(len(inputs["input_ids"]))
        if seen[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return stock(**inputs)

    monkeypatch.setattr(live.model, "generate", generate)
    generator = Generator(live, batch_size=8)
    assert generator.answers(prepared) == expected
    assert seen == [8, 4, 2, 2, 2, 2, 2, 1]
    assert generator.batch_size == 2  # for good


def test_one_sample_that_does_not_fit_is_named(
    live: LiveModel,
    ask: Callable[[int, Decoding], Prepared],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def generate(**inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(live.model, "generate", generate)
    with pytest.raises(DataError, match="sample q0 alone needs more memory"):
        Generator(live, batch_size=2).answers([ask(0, ONE_TOKEN), ask(1, ONE_TOKEN)])


def test_answers_end_at_texts_and_others_of_the_batch_go_on(
    live: LiveModel, ask: Callable[[int, Decoding], Prepared]
) -> None:
    free = Decoding(max_new_tokens=6)
    whole = Generator(live, 4).answers([ask(number, free) for number in range(8)])
    assert len({answer.split()[1] for answer in whole}) > 1
    word = whole[0].split()[1]
    decoding = Decoding(max_new_tokens=6, stop=(word,))
    cut = Generator(live, 4).answers([ask(number, decoding) for number in range(8)])
    assert cut == [answer.partition(word)[0] for answer in whole]
    assert cut[0] != whole[0]


def test_inputs_that_cannot_be_pruned_are_named(
    live: LiveModel,
    ask: Callable[[int, Decoding], Prepared],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def generate(**inputs: Any) -> Any:
        raise InputError("no image")

    monkeypatch.setattr(live.model, "generate", generate)
    with pytest.raises(DataError, match=r"sample q0 .*no image"):
        Generator(live, batch_size=2).answers([ask(0, ONE_TOKEN), ask(1, ONE_TOKEN)])


def test_a_device_that_is_not_there_is_named(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("Torch not compiled with CUDA enabled")  # what torch raises

    monkeypatch.setattr(torch.nn.Module, "to", absent)
    with pytest.raises(ModelError, match=r"cannot be loaded on cuda:0 .*not compiled with CUDA"):
        load_live_model(str(checkpoint / "model"), device="cuda:0", dtype="auto")


def test_loading_shows_no_bars_in_whichever_process(
    checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    enable_progress_bar()  # as in a worker that has just begun
    load_live_model(str(checkpoint / "model"), device="cpu", dtype="auto")
    assert capfd.readouterr().err == ""


def test_the_device_without_weights_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="meta holds shapes"):
        load_live_model(str(checkpoint / "model"), device="meta", dtype="auto")


@pytest.mark.parametrize(
    ("part", "count"),
    [(r"language_model.*\.layers\.3\.", 9), (r"vision_tower.*\.layers\.1\.", 16), ("projector", 4)],
)
def test_a_model_without_some_of_its_weights_is_refused(
    checkpoint: Path, tmp_path: Path, part: str, count: int
) -> None:
    folder = tmp_path / "model"
    assert copy_without(checkpoint / "model", folder, part) == count
    with pytest.raises(ModelError, match=rf"lacks {count} weights, \S*{part}"):
        load_live_model(str(folder), device="cpu", dtype="auto")


def test_other_files_of_a_model_are_another_model(tmp_path: Path) -> None:
    folder = tmp_path / ".models"
    folder.mkdir()
    weights = bytearray(40 * 1024**2)
    hashes = []
    for place in (None, 1, 20 * 1024**2, len(weights) - 1):
        if place is not None:  # training changes whole matrices
            weights[place : place + 5 * 1024**2] = b"1" * len(weights[place : place + 5 * 1024**2])
        (folder / "model.safetensors").write_bytes(weights)
        hashes.append(model_fingerprint(str(folder)))
    (folder / "config.json").write_text("{}")
    hashes.append(model_fingerprint(str(folder)))
    assert len(set(hashes)) == 5
    (folder / ".cache").mkdir()
    (folder / ".cache" / "note").write_text("of a download")
    assert model_fingerprint(str(folder)) == hashes[-1]
