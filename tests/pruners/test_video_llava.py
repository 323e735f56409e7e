"""Video-LLaVA: frames with their CLS tokens, images without, and a tower for each."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel

from pruners import (
    ClsAttention,
    ClusterAverage,
    Schedule,
    ScheduleMismatchError,
    SimilarityFusion,
    Stage,
    VisualSelfAttention,
    apply_schedule,
)
from pruners.counting import alive_tokens
from pruners.errors import UnsupportedModelError
from pruners.scorers import InformationFlow, QuestionRelevance
from pruners.selectors import Determinantal, LocalWindows
from tests.helpers.forwards import logits_of
from tests.pruners.families import TinyModel
from tests.pruners.families.video_llava import FRAMES, GRID, build_video_llava
from tests.pruners.ragged import kept, visual_places, without_padding

PATCHES = GRID * GRID
QUESTIONS = {"mixed": ["w1 w2 w3", "w4", "", "w10 w11"], "video": ["w1 w2 w3", "w4", "w5 w6"]}


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return build_video_llava(tmp_path_factory.mktemp("video_llava"))


@pytest.fixture(scope="module")
def clip(llava: TinyModel) -> Any:
    return CLIPModel.from_pretrained(llava.clip_folder).eval()


def batch_of(llava: TinyModel, what: str, padding: str = "left") -> dict[str, Tensor]:
    return dict(getattr(llava, what)(padding))


def pixels_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Images and frames of a batch, each (images, channels, height, width)."""
    found = {}
    if "pixel_values_images" in batch:
        found["image"] = batch["pixel_values_images"]
    if "pixel_values_videos" in batch:
        found["video"] = batch["pixel_values_videos"].flatten(0, 1)
    return found


def tiles_of(llava: TinyModel, batch: dict[str, Tensor]) -> list[list[tuple[str, int, list[int]]]]:
    """Retell each sample's tiles: which tower's image each is, and its places in the prompt."""
    config, rows = llava.model.config, []
    images = frames = 0
    for ids in batch["input_ids"]:
        own: list[tuple[str, int, list[int]]] = []
        places = (ids == config.image_token_id).nonzero()[:, 0].tolist()
        for start in range(0, len(places), PATCHES):
            own.append(("image", images, places[start : start + PATCHES]))
            images += 1
        places = (ids == config.video_token_id).nonzero()[:, 0].tolist()
        for start in range(0, len(places), PATCHES + 1):
            own.append(("video", frames, places[start + 1 : start + PATCHES + 1]))
            frames += 1
        rows.append(own)
    return rows


def towers(model: Any) -> dict[str, Any]:
    return {"image": model.model.image_tower, "video": model.model.video_tower}


def run_towers(llava: TinyModel, batch: dict[str, Tensor]) -> dict[str, Any]:
    """What the eager towers return of images and frames, attention maps included."""
    own = towers(llava.load("eager"))
    with torch.no_grad():
        return {
            kind: own[kind](pixels, output_attentions=True, output_hidden_states=True)
            for kind, pixels in pixels_of(batch).items()
        }


def best(scores: list[float], count: int) -> list[int]:
    order = sorted(range(len(scores)), key=lambda token: -scores[token])
    return sorted(order[:count])


def chosen(tiles: list[tuple[str, int, list[int]]], scores: dict[str, Any], **rule: Any) -> Any:
    """Places of the prompt that a plain loop chooses of one sample."""
    if rule["scope"] == "tile":
        count = alive_tokens(rule["retention"], PATCHES)
        found = [
            [places[patch] for patch in best(scores[kind][index].tolist(), count)]
            for kind, index, places in tiles
        ]
        return sorted(chain(*found))
    all_places = list(chain(*(places for _, _, places in tiles)))
    values = list(chain(*(scores[kind][index].tolist() for kind, index, _ in tiles)))
    count = alive_tokens(rule["retention"], len(values))
    return sorted(all_places[token] for token in best(values, count))


def places_kept(record: Any, row: int, layer: int = 0) -> list[int]:
    places = visual_places(record, row)
    return [places[index] for index in kept(record, row).get(layer, [])]


@pytest.mark.parametrize("what", ["mixed", "video"])
def test_patches_stand_where_their_projections_do(llava: TinyModel, what: str) -> None:
    batch, model = batch_of(llava, what), llava.load("eager")
    seen: list[Tensor] = []
    look = model.model.language_model.layers[0].register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    logits_of(model, batch)
    look.remove()
    project = model.model.multi_modal_projector
    with torch.no_grad():
        features = {
            kind: project(output.hidden_states[-2])
            for kind, output in run_towers(llava, batch).items()
        }
    stage = Stage(layer=0, retention=0.5, scorer=ClsAttention(keep_cls=False))
    with apply_schedule(model, Schedule(stages=(stage,))) as handle:
        logits_of(model, batch)
        record = handle.last_prefill
    for row, tiles in enumerate(tiles_of(llava, batch)):
        for kind, index, places in tiles:
            expected = features[kind][index, 1:]
            torch.testing.assert_close(seen[0][row, places], expected, atol=1e-5, rtol=0)
            # A frame's CLS token stands before its patches.
            if kind == "video":
                expected = features[kind][index, 0]
                found = seen[0][row, places[0] - 1]
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert visual_places(record, row) == sorted(chain(*(places for *_, places in tiles)))


def scores_of(llava: TinyModel, batch: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Scores of patches from the maps that the eager towers return."""
    outputs = run_towers(llava, batch)
    if name == "cls":
        return {kind: out.attentions[-3][:, :, 0, 1:].mean(dim=1) for kind, out in outputs.items()}
    return {
        kind: out.attentions[-2][:, :, 1:, 1:].mean(dim=(1, 2)) for kind, out in outputs.items()
    }


SCORERS = {"cls": ClsAttention(layer=-3, keep_cls=False), "patches": VisualSelfAttention()}


@pytest.mark.parametrize("what", ["mixed", "video"])
@pytest.mark.parametrize("scope", ["tile", "global"])
@pytest.mark.parametrize("name", SCORERS)
def test_each_tower_scores_its_own_patches(
    llava: TinyModel, name: str, scope: str, what: str
) -> None:
    batch = batch_of(llava, what)
    settings = {"layer": 0, "retention": 0.3, "scope": scope}
    stage = Stage.model_validate({**settings, "scorer": SCORERS[name]})
    scores = scores_of(llava, batch, name)
    with apply_schedule(llava.model, Schedule(stages=(stage,))) as handle:
        logits_of(llava.model, batch)
        record = handle.last_prefill
    for row, tiles in enumerate(tiles_of(llava, batch)):
        assert places_kept(record, row) == chosen(tiles, scores, retention=0.3, scope=scope)


def test_decoder_stages_read_the_towers(llava: TinyModel) -> None:
    batch = batch_of(llava, "video")
    stage = Stage(layer=2, retention=0.3, scorer=SCORERS["cls"])
    scores = scores_of(llava, batch, "cls")
    with apply_schedule(llava.model, Schedule(stages=(stage,))) as handle:
        logits_of(llava.model, batch)
        record = handle.last_prefill
    for row, tiles in enumerate(tiles_of(llava, batch)):
        expected = chosen(tiles, scores, retention=0.3, scope="global")
        assert places_kept(record, row, layer=2) == expected


@pytest.mark.parametrize("padding", ["left", "right"])
def test_cls_tokens_of_frames_stay(llava: TinyModel, padding: str) -> None:
    """Whatever is dropped: each frame keeps its CLS token, as text keeps its words."""
    batch = batch_of(llava, "video", padding)
    video = llava.model.config.video_token_id
    stages = (
        Stage(layer=0, retention=1 / PATCHES, scorer=ClsAttention(keep_cls=False)),
        Stage(layer=3, retention=0, scorer=VisualSelfAttention()),
    )
    with apply_schedule(llava.model, Schedule(stages=stages)) as handle:
        logits_of(llava.model, batch)
        groups = handle.last_prefill.groups
    for group in groups:
        for place, row in enumerate(group.rows):
            marks = (batch["input_ids"][row] == video).nonzero()[:, 0].tolist()
            separators = set(marks[:: PATCHES + 1])
            assert len(separators) == FRAMES
            text = set(batch["attention_mask"][row].nonzero()[:, 0].tolist())
            text -= {place for *_, own in tiles_of(llava, batch)[row] for place in own}
            for stage in group.stages:
                left = set(stage.positions[place].tolist())
                assert separators <= text <= left
            assert stage.indices.shape[1] == 0


def question_tokens(clip: Any, llava: TinyModel, question: str) -> tuple[Tensor, Tensor]:
    """Embeddings of a question's tokens and of the question, by CLIP's own model."""
    tokenizer = llava.text_tower._tokenizer
    inputs = tokenizer([question], return_tensors="pt")
    with torch.no_grad():
        output = clip.text_model(**inputs)
        return (
            normalize(clip.text_projection(output.last_hidden_state[0]), dim=-1),
            normalize(clip.text_projection(output.pooler_output[0]), dim=-1),
        )


@pytest.mark.parametrize("what", ["mixed", "video"])
def test_each_frame_is_compared_with_its_samples_question(
    llava: TinyModel, clip: Any, what: str
) -> None:
    """CDPruner's relevance: features through CLIP's last norm and projection, and the question."""
    batch = batch_of(llava, what)
    scorer = QuestionRelevance(text_tower=llava.clip_folder, sign="positive")
    stage = Stage(layer=0, retention=0.4, scorer=scorer)
    embedded = {}
    with torch.no_grad():
        for kind, output in run_towers(llava, batch).items():
            norm = towers(llava.load("eager"))[kind].post_layernorm
            patches = clip.visual_projection(norm(output.hidden_states[-2][:, 1:]))
            embedded[kind] = normalize(patches, dim=-1)
    schedule = Schedule(stages=(stage,))
    with apply_schedule(llava.model, schedule, processor=llava.processor) as handle:
        logits_of(llava.model, batch)
        record = handle.last_prefill
    for row, tiles in enumerate(tiles_of(llava, batch)):
        _, question = question_tokens(clip, llava, QUESTIONS[what][row])
        scores = {kind: patches @ question for kind, patches in embedded.items()}
        assert places_kept(record, row) == chosen(tiles, scores, retention=0.4, scope="tile")


@pytest.mark.parametrize("what", ["mixed", "video"])
def test_similarity_is_that_of_each_frame(llava: TinyModel, clip: Any, what: str) -> None:
    """DeSAP's mean similarity: the last block's attention output, token by token."""
    batch = batch_of(llava, what)
    scorer = SimilarityFusion(
        text_tower=llava.clip_folder, weight=1.0, encoding="qk", alignment=False
    )
    stage = Stage(layer=0, retention=0.4, scorer=scorer)
    blocks: dict[str, Tensor] = {}
    hooks = [
        tower.encoder.layers[-1].self_attn.register_forward_hook(
            lambda module, args, output, kind=kind: blocks.update({kind: output[0]})
        )
        for kind, tower in towers(llava.load("eager")).items()
    ]
    run_towers(llava, batch)
    for hook in hooks:
        hook.remove()
    embedded = {}
    with torch.no_grad():
        for kind, output in blocks.items():
            norm = towers(llava.load("eager"))[kind].post_layernorm
            embedded[kind] = normalize(clip.visual_projection(norm(output[:, 1:])), dim=-1)
    schedule = Schedule(stages=(stage,))
    with apply_schedule(llava.model, schedule, processor=llava.processor) as handle:
        logits_of(llava.model, batch)
        record = handle.last_prefill
    for row, tiles in enumerate(tiles_of(llava, batch)):
        tokens, _ = question_tokens(clip, llava, QUESTIONS[what][row])
        scores = {kind: (patches @ tokens.T).mean(dim=-1) for kind, patches in embedded.items()}
        assert places_kept(record, row) == chosen(tiles, scores, retention=0.4, scope="tile")


def asking(folder: str) -> dict[str, Schedule]:
    fusion = SimilarityFusion(text_tower=folder)
    relevance = QuestionRelevance(text_tower=folder)
    stages = {
        "desap": Stage(layer=0, retention=0.4, scorer=fusion, merge=ClusterAverage()),
        "cdpruner": Stage(
            layer=0, retention=0.4, scorer=relevance, selector=Determinantal(), features="projected"
        ),
        "desap-global": Stage(layer=0, retention=0.4, scorer=fusion, scope="global"),
        "desap-in-the-decoder": Stage(layer=2, retention=0.4, scorer=fusion),
        "windows": Stage(
            layer=0, retention=0.4, scorer=ClsAttention(keep_cls=False), selector=LocalWindows()
        ),
    }
    return {name: Schedule(stages=(stage,)) for name, stage in stages.items()}


@pytest.mark.parametrize("what", ["mixed", "video"])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", list(asking("")))
def test_methods_that_ask_take_a_batch_as_its_samples(
    llava: TinyModel, name: str, what: str, padding: str
) -> None:
    batch = batch_of(llava, what, padding)
    schedule = asking(llava.clip_folder)[name]
    with apply_schedule(llava.model, schedule, processor=llava.processor) as handle:
        together = logits_of(llava.model, batch)
        batched = handle.last_prefill
        for row, inputs in enumerate(getattr(llava, f"{what}_rows")()):
            alone = logits_of(llava.model, inputs)[0]
            found = without_padding(together, row, len(alone), padding)
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
            if tiles_of(llava, batch)[row]:
                assert kept(batched, row) == kept(handle.last_prefill, 0)


def test_images_may_be_called_by_either_name(llava: TinyModel) -> None:
    batch = batch_of(llava, "mixed")
    renamed = dict(batch)
    renamed["pixel_values"] = renamed.pop("pixel_values_images")
    stage = Stage(layer=0, retention=0.3, scorer=ClsAttention(keep_cls=False))
    settings = {"max_new_tokens": 3, "do_sample": False}
    with apply_schedule(llava.model, Schedule(stages=(stage,))):
        assert torch.equal(logits_of(llava.model, batch), logits_of(llava.model, renamed))
        answers = [llava.model.generate(**each, **settings) for each in (batch, renamed)]
    assert torch.equal(*answers)


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (ClsAttention(), "a 'video_llava' model projects none; set keep_cls to False"),
        (InformationFlow(), "inside the vision tower, but a 'video_llava' model arranges whole"),
    ],
)
def test_what_the_family_has_not_is_refused(llava: TinyModel, scorer: Any, message: str) -> None:
    stage = Stage(layer=0, retention=0.4, scorer=scorer)
    with pytest.raises(ScheduleMismatchError, match=message):
        apply_schedule(llava.model, Schedule(stages=(stage,)))


def test_images_with_their_cls_token_are_refused(llava: TinyModel) -> None:
    model = copy.deepcopy(llava.model)
    model.config.vision_feature_select_strategy = "full"
    stage = Stage(layer=2, retention=0.4, scorer=VisualSelfAttention())
    with pytest.raises(UnsupportedModelError, match="is 'full', but pruning needs 'default'"):
        apply_schedule(model, Schedule(stages=(stage,)))
