"""The tiny models themselves, dense: that their inputs are what their classes take.

The other tests build on them: a wrong layout of pixels or placeholders would make a row of a batch
differ from the same row alone, and one that the model's own checks let pass would show here.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from tests.helpers.forwards import logits_of
from tests.pruners.families import FAMILIES, TinyModel

QUESTIONS = ("w1 w2 w3", "w4", "w5 w6 w7 w8 w9")


@pytest.fixture(scope="module", params=FAMILIES)
def dense(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


def build(name: str, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return FAMILIES[name](tmp_path_factory.mktemp(name))


def features_of(tiny: TinyModel, inputs: dict[str, Tensor]) -> Tensor:
    """The input of the decoder's first layer: (batch, tokens, width)."""
    seen: list[Tensor] = []
    hook = tiny.decoder_layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    logits_of(tiny.model, inputs)
    hook.remove()
    return seen[0]


def assert_rows_agree(
    tiny: TinyModel, batch: dict[str, Tensor], rows: list[dict[str, Tensor]]
) -> None:
    together = logits_of(tiny.model, batch)
    assert together.isfinite().all()
    for row, inputs in enumerate(rows):
        real = batch["attention_mask"][row].bool()
        assert torch.equal(batch["input_ids"][row][real][None], inputs["input_ids"])
        alone = logits_of(tiny.model, inputs)[0]
        torch.testing.assert_close(together[row][real], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_rows_of_a_batch_are_the_same_alone(dense: TinyModel, padding: str) -> None:
    assert_rows_agree(dense, dense.inputs(QUESTIONS, padding), dense.rows(QUESTIONS))


@pytest.mark.parametrize("padding", ["left", "right"])
def test_rows_of_a_mixed_batch_are_the_same_alone(dense: TinyModel, padding: str) -> None:
    batch = dense.mixed(padding)
    assert_rows_agree(dense, batch, dense.mixed_rows())
    placeholders = (batch["input_ids"] == dense.model.config.image_token_id).sum(dim=1)
    standard = dense.visual_tokens + dense.separators
    assert placeholders[1] == standard
    assert placeholders[2] == 0
    # With one size for all images, rows with one image have as many tokens; else no two have.
    one_size = placeholders[3] == standard
    assert placeholders.unique().numel() == (3 if one_size else 4)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_rows_of_a_batch_of_videos_are_the_same_alone(dense: TinyModel, padding: str) -> None:
    batch = dense.video(padding)
    if batch is None:
        pytest.skip("the family has no videos")
    assert_rows_agree(dense, batch, dense.video_rows())


def test_a_standard_image_has_the_stated_numbers_of_tokens(dense: TinyModel) -> None:
    inputs = dense.inputs(QUESTIONS)
    placeholders = inputs["input_ids"] == dense.model.config.image_token_id
    assert placeholders.sum(dim=1).tolist() == [dense.visual_tokens + dense.separators] * 3
    # What ends lines is one and the same vector; tokens of random pixels are all different.
    rows = features_of(dense, inputs)[0][placeholders[0]]
    vectors, counts = rows.unique(dim=0, return_counts=True)
    assert len(vectors) == dense.visual_tokens + (dense.separators > 0)
    assert counts.max() == max(dense.separators, 1)


def test_the_shape_counts_what_the_processor_lays_out(dense: TinyModel) -> None:
    assert dense.shape.visual_tokens == dense.visual_tokens
    assert dense.shape.newline_tokens == dense.separators


def test_images_are_the_pixels_of_inputs(dense: TinyModel) -> None:
    inputs = dense.inputs(QUESTIONS, seed=3)
    pixels = [value for name, value in inputs.items() if name.startswith("pixel_values")]
    assert len(pixels) == 1
    assert torch.equal(dense.images(len(QUESTIONS), seed=3), pixels[0])


def test_seeds_and_samples_have_images_of_their_own(dense: TinyModel) -> None:
    last = [
        logits_of(dense.model, dense.inputs(["w1", "w1"], seed=seed))[:, -1] for seed in (0, 0, 1)
    ]
    assert torch.equal(last[0], last[1])
    assert (last[0] - last[2]).abs().amax(dim=-1).min() > 1e-3
    assert (last[0][0] - last[0][1]).abs().max() > 1e-3


def test_attention_is_far_from_uniform(dense: TinyModel) -> None:
    with torch.no_grad():
        output = dense.load("eager")(**dense.inputs(), output_attentions=True)
    assert len(output.attentions) == len(dense.decoder_layers)
    for weights in output.attentions:
        queries = weights[0, :, dense.visual_tokens // 2 :]
        entropy = -(queries * queries.clamp_min(1e-30).log()).sum(dim=-1)
        visible = torch.arange(dense.visual_tokens // 2, weights.shape[-1]) + 1
        assert (entropy / visible.log()).mean() < 0.9


def test_generation_needs_no_cache_and_has_no_placeholders(dense: TinyModel) -> None:
    batch = dense.mixed()
    settings = {"max_new_tokens": 4, "do_sample": False}
    answer = dense.model.generate(**batch, **settings)
    assert answer.shape[1] == batch["input_ids"].shape[1] + 4
    assert torch.equal(answer, dense.model.generate(**batch, **settings, use_cache=False))
    suppressed = dense.model.generation_config.suppress_tokens
    assert dense.model.config.image_token_id in suppressed
    assert not torch.isin(answer[:, -4:], torch.tensor(suppressed)).any()


def test_the_pipeline_answers_a_message_as_generate_does(dense: TinyModel) -> None:
    question = QUESTIONS[0]
    inputs = dense.prepare(dense.samples([question]))
    settings = {"max_new_tokens": 8, "do_sample": False}
    tokens = dense.model.generate(**inputs, **settings)[0, inputs["input_ids"].shape[1] :]
    expected = dense.tokenizer.decode(tokens, skip_special_tokens=True)
    answer = dense.pipeline(
        text=dense.chat(question), generate_kwargs=settings, return_full_text=False
    )
    assert answer[0]["generated_text"].split() == expected.split()
    assert expected


def test_the_folder_loads_again(dense: TinyModel) -> None:
    model = AutoModelForImageTextToText.from_pretrained(dense.folder)
    assert type(model) is type(dense.model)
    assert model.generation_config.suppress_tokens == dense.model.generation_config.suppress_tokens
    processor = dense.reload_processor()
    question = QUESTIONS[0]
    for conversation in (dense.chat(question), [{"role": "user", "content": question}]):
        found, expected = (
            each.apply_chat_template(
                conversation,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            for each in (processor, dense.processor)
        )
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert torch.equal(logits_of(model, found), logits_of(dense.model, expected))


def test_sliding_layers_forget_the_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No layer sees as many tokens as an image has."""
    tiny = build("llava_next-mistral", tmp_path_factory)
    window = tiny.model.config.text_config.sliding_window
    assert window < tiny.visual_tokens
    with torch.no_grad():
        weights = tiny.load("eager")(**tiny.inputs(), output_attentions=True).attentions
    distance = torch.arange(weights[0].shape[-1])[:, None] - torch.arange(weights[0].shape[-1])
    for layer in weights:
        assert (layer[..., distance >= window] == 0).all()


def test_padding_of_tiles_is_taken_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A 16x64 image in a grid of 1x2 tiles fills the middle half of its rows."""
    tiny = build("llava_next", tmp_path_factory)
    image = tiny.mixed_rows()[3]
    placeholders = int((image["input_ids"] == tiny.model.config.image_token_id).sum())
    assert image["pixel_values"].shape[1] == 3
    assert placeholders == 16 + 2 * (8 + 1)


def test_more_than_nine_tiles_are_resized(tmp_path_factory: pytest.TempPathFactory) -> None:
    tiny = build("llava_onevision", tmp_path_factory)
    image = tiny.mixed_rows()[3]
    placeholders = int((image["input_ids"] == tiny.model.config.image_token_id).sum())
    assert image["pixel_values"].shape[1] == 1 + 12
    # 10 of 12 rows are left of the 40x64 image in 3x4 tiles, 160 tokens, which are more than
    # 9 tiles' 144 but by less than a fifth.
    assert placeholders == 16 + 10 * 16 + 10


def test_frames_keep_their_cls_tokens(tmp_path_factory: pytest.TempPathFactory) -> None:
    tiny = build("video_llava", tmp_path_factory)
    batch = tiny.video()
    assert batch is not None
    placeholders = (batch["input_ids"] == tiny.model.config.video_token_id).sum(dim=1)
    assert placeholders.tolist() == [4 * (16 + 1)] * 3


def test_windows_and_full_attention_alternate(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pixels of one window change others from the first block with full attention on."""
    tiny = build("qwen2_5_vl", tmp_path_factory)
    inputs = tiny.inputs()
    changed = dict(inputs, pixel_values=inputs["pixel_values"].clone())
    changed["pixel_values"][:4] = 0
    reached: list[int] = []
    blocks: list[list[Tensor]] = [[], []]
    for index, each in enumerate((inputs, changed)):
        hooks = [
            block.register_forward_hook(lambda *args, index=index: blocks[index].append(args[-1]))
            for block in tiny.model.model.visual.blocks
        ]
        logits_of(tiny.model, each)
        for hook in hooks:
            hook.remove()
    for before, after in zip(*blocks, strict=True):
        reached.append(int((before != after).any(dim=-1).sum()))
    # A window has 2x2 merged tokens of 2x2 patches; a standard image has 10x10 patches.
    assert reached == [16, 100, 100, 100]


def test_early_layers_of_the_tower_reach_the_decoder(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tiny = build("qwen3_vl", tmp_path_factory)
    inputs = tiny.inputs()
    expected = logits_of(tiny.model, inputs)
    features = features_of(tiny, inputs)
    mergers = tiny.model.model.visual.deepstack_merger_list
    assert len(mergers) == 2
    for merger in mergers:
        hook = merger.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
        assert torch.equal(features_of(tiny, inputs), features)
        assert (logits_of(tiny.model, inputs) - expected).abs().max() > 1e-3
        hook.remove()


def test_frames_are_told_their_times(tmp_path_factory: pytest.TempPathFactory) -> None:
    tiny = build("qwen3_vl", tmp_path_factory)
    batch = tiny.video()
    assert batch is not None
    text = tiny.tokenizer.decode(batch["input_ids"][0])
    assert text.count("<0.2 seconds>") == text.count("<1.2 seconds>") == 1
    assert "<unk>" not in text


def test_tiles_and_frames_are_images_in_one_prompt(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tiny = build("internvl", tmp_path_factory)
    assert tiny.inputs()["pixel_values"].shape == (3, 3, 32, 32)
    batch = tiny.video()
    assert batch is not None
    assert batch["pixel_values"].shape == (2 + 2 + 3 + 2, 3, 32, 32)
    assert "<unk>" not in tiny.tokenizer.decode(batch["input_ids"][2])
