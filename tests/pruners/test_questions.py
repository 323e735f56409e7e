"""Reading questions back from prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pruners.errors import InputError
from pruners.questions import PromptReader

IMAGE = 4


class TemplatedProcessor:
    """A processor whose chat template asks for an answer in its own words."""

    chat_template = "yes"

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool) -> str:
        return "USER: ?" + (" w30 w31" if add_generation_prompt else "")


def read(tiny: Any, prompt: str, text: Any = "question", processor: Any = None) -> str:
    reader = PromptReader(processor or tiny.tokenizer, "unused", [IMAGE])
    (question,) = reader.read(tiny.tokenizer(prompt, return_tensors="pt")["input_ids"], text)
    return question


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("USER: <image> <image> w1 w2 ASSISTANT:", "w1 w2"),
        # What has been answered already is no part of the question.
        ("USER: <image> w1 w2 ASSISTANT: w3 w4", "w1 w2"),
        # A question before the image is found as well.
        ("USER: w1 w2 <image> ASSISTANT:", "USER: w1 w2"),
        ("<image> w1", "w1"),
    ],
)
def test_the_question_stands_between_image_and_answer(
    tiny: Any, prompt: str, question: str
) -> None:
    assert read(tiny, prompt) == question


def test_placeholders_of_every_kind_are_left_out(tiny: Any) -> None:
    ids = tiny.tokenizer("USER: <image> w1 w30 w2 ASSISTANT:")["input_ids"]
    video = tiny.tokenizer.convert_tokens_to_ids("w30")
    reader = PromptReader(tiny.tokenizer, "unused", [IMAGE, video])
    assert reader.read([ids], "question") == ["w2"]
    assert reader.read([ids], "prompt") == ["USER: w1 w2"]


def test_ids_on_the_host_are_read_alike(tiny: Any) -> None:
    prompts = ["USER: <image> w1 w2 ASSISTANT:", "USER: <image> w3 ASSISTANT: w4"]
    ids = [tiny.tokenizer(prompt)["input_ids"] for prompt in prompts]
    assert PromptReader(tiny.tokenizer, "unused", [IMAGE]).read(ids, "question") == ["w1 w2", "w3"]


def test_the_template_is_asked_once(tiny: Any) -> None:
    class Counting(TemplatedProcessor):
        calls = 0

        def apply_chat_template(self, messages: Any, add_generation_prompt: bool) -> str:
            self.calls += 1
            return super().apply_chat_template(messages, add_generation_prompt)

    processor = Counting(tiny.tokenizer)
    reader = PromptReader(processor, "unused", [IMAGE])
    ids = [tiny.tokenizer("USER: <image> w1 w30 w31 w2")["input_ids"]]
    assert [reader.read(ids, "question") for _ in range(2)] == [["w1"], ["w1"]]
    assert processor.calls == 2  # with the generation prompt and without


def test_the_whole_prompt_can_be_read(tiny: Any) -> None:
    prompt = "USER: <image> w1 w2 ASSISTANT: w3"
    assert read(tiny, prompt, "prompt") == "USER: w1 w2"


def test_the_chat_template_says_where_the_answer_starts(tiny: Any) -> None:
    processor = TemplatedProcessor(tiny.tokenizer)
    assert read(tiny, "USER: <image> w1 w30 w31 w2", processor=processor) == "w1"


def test_a_missing_processor_is_named() -> None:
    reader = PromptReader(None, "/nowhere", [IMAGE])
    with pytest.raises(InputError, match=r"cannot be loaded from '/nowhere'.*processor="):
        reader.read(torch.tensor([[1, 2]]), "question")
