"""Scores against those that lmms-eval itself gives the same answers, and what trials share."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms_eval import evaluator as lmms_evaluator
from lmms_eval.api.model import lmms
from lmms_eval.tasks import TaskManager

from pruners.errors import DataError, InputError
from pruners.published import dense, published
from pruners.runtime import apply_schedule
from pruners.vision_outputs import VisionOutputs
from search.tasks import evaluator as evaluator_module
from search.tasks.answering import Answering
from search.tasks.catalogue import TASKS
from search.tasks.evaluator import TaskEvaluator
from search.tasks.loading import load_task
from search.tasks.settings import TaskSettings
from studies.identity import SPLITS
from tests.search.tasks.rows import MAKERS

OFFICIAL = {
    "gqa": "exact_match",
    "pope": "pope_f1_score",
    "mmbench_en_dev_static": "gpt_eval_score",
    "scienceqa_img": "exact_match",
    "vqav2_val": "exact_match",
    "textvqa_val": "exact_match",
    "vizwiz_vqa_val": "exact_match",
    "seedbench": "seed_image",
}
"""lmms-eval's metric of each task; MME has two, and MMBench-CN needs a judge there."""

Make = Callable[..., TaskEvaluator]


@pytest.fixture
def make(checkpoint: Path, rows: dict[str, Path], tmp_path: Path) -> Make:
    def make(*names: str, **settings: Any) -> TaskEvaluator:
        chosen = {
            "search_samples": 24,
            "confirm_samples": 10,
            "report_samples": 10,
            "max_new_tokens": 1,
            "cache": tmp_path / "cache",
            "text_tower": str(checkpoint / "clip"),
            **settings,
        }
        data = {name: rows[name] for name in names}
        return TaskEvaluator(
            str(checkpoint / "model"), TaskSettings(names=names, data=data, **chosen)
        )

    return make


class Repeater(lmms):  # type: ignore[misc]
    """Gives lmms-eval the answers that are put into it, by the row's number."""

    def __init__(self, answers: dict[int, str]) -> None:
        super().__init__()
        self._answers = answers

    def generate_until(self, requests: list[Any]) -> list[str]:
        return [self._answers[request.args[3]] for request in requests]

    def loglikelihood(self, requests: list[Any]) -> Any:
        raise NotImplementedError

    def generate_until_multi_round(self, requests: list[Any]) -> Any:
        raise NotImplementedError

    def clean(self) -> None:
        pass


def official(task: Any, answers: dict[int, str]) -> dict[str, Any]:
    """Run lmms-eval's own evaluation of a task on given answers."""
    results = lmms_evaluator.simple_evaluate(
        model=Repeater(answers),
        tasks=[task],
        # Its own one would index hundreds of benchmarks.
        task_manager=TaskManager("ERROR", include_defaults=False),
        batch_size=1,
        bootstrap_iters=0,
        log_samples=True,
    )
    assert results is not None
    return dict(results)


@pytest.mark.parametrize("name", [*OFFICIAL, "mme"])
def test_scores_and_metrics_are_those_of_lmms_eval(
    name: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some tasks write files into the working folder
    evaluator = make(name, search_samples=60, confirm_samples=1, report_samples=1)
    (loaded,) = evaluator._tasks
    schedule = dense(evaluator.shape)
    chosen = evaluator._chosen_in("search")
    order = [row for each in chosen for row in each.sample.rows]
    asked = [(loaded, row, f"{name}/{row}") for row in order]
    answers = evaluator.answering.answers(schedule, asked)
    assert len(set(answers)) > 1
    scores = evaluator.score(schedule, "search", range(len(chosen)))
    assert 0 < scores.mean() < 1
    metrics = evaluator.paper_metrics(schedule, "search")

    split = loaded.task.config.test_split or loaded.task.config.validation_split
    for held in (loaded.task.dataset, loaded.task.dataset_no_image):
        held[split] = held[split].select(order)
    theirs = official(loaded.task, dict(enumerate(answers)))
    figures = {key.partition(",")[0]: value for key, value in theirs["results"][name].items()}
    if name == "mme":
        total = figures["mme_perception_score"] + figures["mme_cognition_score"]
        assert metrics[name] == pytest.approx(total)
        # Categories have equal shares, so that the mean of samples is the sum, up to a factor.
        assert 200 * 3 * scores.mean() == pytest.approx(total)
        return
    scale = 1 if name.startswith("mmbench") else 100
    assert metrics[name] == pytest.approx(scale * figures[OFFICIAL[name]])
    if name.startswith("mmbench"):
        assert 100 * scores.mean() == pytest.approx(figures[OFFICIAL[name]])
        return
    samples = sorted(theirs["samples"][name], key=lambda sample: sample["doc_id"])
    for score, sample in zip(scores, samples, strict=True):
        value = sample["pope_accuracy" if name == "pope" else OFFICIAL[name]]
        if name == "seedbench":
            value = float(value["pred"].lower() == value["answer"].lower())
        assert score == pytest.approx(value["score"] if isinstance(value, dict) else value)


def test_splits_are_disjoint_stratified_and_the_same_in_every_run(make: Make) -> None:
    evaluator, again = make("pope", "gqa"), make("pope", "gqa")
    keys = {split: evaluator.samples(split) for split in SPLITS}
    assert keys == {split: again.samples(split) for split in SPLITS}
    names = [key.identifier for split in SPLITS for key in keys[split]]
    assert len(names) == len(set(names)) == 2 * 44
    # Each made row is of another image, and no image counts as one of another task's.
    assert len({key.image for split in SPLITS for key in keys[split]}) == 2 * 44
    strata = Counter(
        each.sample.stratum
        for each in evaluator._chosen_in("search")
        if each.task.known.name == "pope"
    )
    assert set(strata.values()) == {4}  # six strata of equal size


def test_other_rows_of_the_same_number_make_another_split(
    make: Make, rows: dict[str, Path], tmp_path: Path
) -> None:
    import datasets

    from tests.search.tasks.rows import gqa, image

    changed = [gqa(number) for number in range(60)]
    for row in changed:
        row["image"] = image(999)
    datasets.Dataset.from_list(changed).to_parquet(tmp_path / "rows.parquet")
    one, other = make("gqa"), make("gqa")
    other._settings.data["gqa"] = tmp_path
    assert one.samples("search") == other.samples("search")
    assert one.split_fingerprint("search") != other.split_fingerprint("search")


def test_scores_do_not_depend_on_the_batch_or_on_what_was_asked_before(make: Make) -> None:
    evaluator = make("gqa", "vqav2_val", "textvqa_val")
    schedule = published("visiondrop", 8, evaluator.shape)
    together = evaluator.score(schedule, "search", range(72))
    fresh = make("gqa", "vqav2_val", "textvqa_val", batch_size=1, cache=None)
    object.__setattr__(fresh._settings, "cache", evaluator._settings.cache / "other")
    assert fresh.score(schedule, "search", [70, 3, 40]).tolist() == together[[70, 3, 40]].tolist()


def test_known_answers_need_no_model(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = make("gqa")
    schedule = dense(evaluator.shape)
    scores = evaluator.score(schedule, "search", range(10))
    again = make("gqa")
    answering = again.answering
    assert isinstance(answering, Answering)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the model was called")

    monkeypatch.setattr(answering._live.model, "generate", fail)
    assert again.score(schedule, "search", range(10)).tolist() == scores.tolist()


def test_a_failing_sample_fails_the_trial_by_name(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = make("gqa")
    model = evaluator.answering._live.model
    stock = model.generate
    evaluator.answering._encoder._encodes = False  # the model sees pixels, as of most families
    victim = evaluator.samples("search")[5].identifier
    marked = evaluator.answering._prepared(
        [
            (each.task, each.sample.rows[0], f"{each.identifier}:0")
            for each in evaluator._chosen_in("search")
        ]
    )[5].inputs["pixel_values"]

    def generate(**inputs: Any) -> Any:
        if any((image == marked[0]).all() for image in inputs["pixel_values"]):
            raise ValueError("broken on purpose")
        return stock(**inputs)

    monkeypatch.setattr(model, "generate", generate)
    with pytest.raises(DataError, match=f"{victim}:0 .*broken on purpose"):
        evaluator.score(dense(evaluator.shape), "search", range(24))


def test_an_unscorable_row_fails_by_name_at_once(
    make: Make, rows: dict[str, Path], tmp_path: Path
) -> None:
    import datasets

    from tests.search.tasks.rows import pope

    broken = [{**pope(number), "answer": "maybe"} for number in range(12)]
    datasets.Dataset.from_list(broken).to_parquet(tmp_path / "rows.parquet")
    evaluator = make("pope")
    evaluator._settings.data["pope"] = tmp_path
    with pytest.raises(DataError, match=r"pope/\w+/\d+ cannot be scored"):
        evaluator.score(dense(evaluator.shape), "search", [0])


def test_every_known_task_is_tested_or_has_the_definition_of_one() -> None:
    tested = {*OFFICIAL, "mme"}
    assert set(TASKS) - tested == {"gqa_lite", "mmbench_cn_dev"}


def test_balanced_pairs_of_mme_are_whole(make: Make) -> None:
    evaluator = make("mme")
    for split in SPLITS:
        chosen = evaluator._chosen_in(split)
        assert all(len(each.sample.rows) == 2 for each in chosen)
        scores = evaluator.score(dense(evaluator.shape), split, range(len(chosen)))
        assert set(scores) <= {0.0, 0.25, 1.0}
        assert not math.isnan(scores.mean())


def test_images_are_encoded_once_for_all_schedules(make: Make) -> None:
    evaluator = make("gqa", "textvqa_val")
    model = evaluator.answering._live.model
    calls = []
    hook = model.model.vision_tower.register_forward_hook(lambda *args: calls.append(1))
    schedules = [published("visiondrop", tokens, evaluator.shape) for tokens in (4, 8, 16)]
    scores = [evaluator.score(each, "search", range(48)) for each in schedules]
    first = len(calls)
    assert first > 0
    scores.append(
        evaluator.score(published("visiondrop", 12, evaluator.shape), "search", range(48))
    )
    assert len(calls) == first
    hook.remove()
    # The same scores come from pixels, through the tower and the model as it is deployed.
    plain = make("gqa", "textvqa_val")
    object.__setattr__(plain._settings, "cache", evaluator._settings.cache / "other")
    plain.answering._encoder._encodes = False
    for schedule, known in zip(schedules, scores, strict=False):
        assert plain.score(schedule, "search", range(48)).tolist() == known.tolist()


def test_sharp_search_samples_depend_on_detail_and_the_other_splits_are_plain(make: Make) -> None:
    sizes = {"search_samples": 6, "confirm_samples": 12, "report_samples": 12}
    sharp, plain = make("gqa", "pope", sharp=True, **sizes), make("gqa", "pope", **sizes)
    unpruned = dense(sharp.shape)
    chosen = sharp._chosen_in("search")
    assert len(chosen) == 12
    lost = sharp._scores(unpruned, chosen) - sharp._scores(unpruned, chosen, 8)
    usual = plain._chosen_in("search")
    usually = plain._scores(unpruned, usual) - plain._scores(unpruned, usual, 8)
    assert lost.sum() > usually.sum()
    names = [key.identifier for split in SPLITS for key in sharp.samples(split)]
    assert len(names) == len(set(names))
    assert "prefers samples" in sharp.measured_on
    assert "prefers samples" not in plain.measured_on


def test_schedules_that_prune_inside_the_tower_see_pixels(make: Make) -> None:
    evaluator = make("gqa")
    schedule = published("tome", 8, evaluator.shape)
    answering = evaluator.answering
    live = answering._live
    evaluator.score(dense(evaluator.shape), "search", range(24))  # images are encoded by now
    calls = []
    hook = live.model.model.vision_tower.register_forward_hook(lambda *args: calls.append(1))
    evaluator.score(schedule, "search", range(24))
    hook.remove()
    assert calls
    with apply_schedule(live.model, schedule) as handle:
        assert handle.prunes_in_tower
        with pytest.raises(InputError, match="pass pixel values"):
            handle.encoded_images(VisionOutputs())


def test_questions_on_one_image_stand_in_the_same_split(
    make: Make, tmp_path: Path, rows: dict[str, Path]
) -> None:
    import datasets

    from tests.search.tasks.rows import image, pope, scienceqa

    named = [{**pope(number), "image_source": f"COCO_{number // 6}"} for number in range(60)]
    unnamed = [{**scienceqa(number), "image": image(number // 6)} for number in range(60)]
    shown = {}
    for name, made in (("pope", named), ("scienceqa_img", unnamed)):
        folder = tmp_path / name
        folder.mkdir()
        datasets.Dataset.from_list(made).to_parquet(folder / "rows.parquet")
        evaluator = make(name)
        evaluator._settings.data[name] = folder
        for split in SPLITS:
            for each in evaluator._chosen_in(split):
                shown.setdefault((name, each.sample.rows[0] // 6), set()).add(split)
    assert len(shown) == 20
    assert all(len(splits) == 1 for splits in shown.values())


def test_images_that_do_not_fit_at_once_are_encoded_in_halves(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.tasks.answering._AT_ONCE", 10)
    evaluator = make("gqa")
    schedule = dense(evaluator.shape)
    tower = evaluator.answering._live.model.model.vision_tower
    seen = []

    def scarce(module: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        pixels = args[0] if args else inputs["pixel_values"]
        seen.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = tower.register_forward_pre_hook(scarce, with_kwargs=True)
    scores = evaluator.score(schedule, "search", range(24))
    hook.remove()
    assert seen == [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    fresh = make("gqa")
    object.__setattr__(fresh._settings, "cache", evaluator._settings.cache / "other")
    assert fresh.score(schedule, "search", range(24)).tolist() == scores.tolist()


@pytest.mark.parametrize("changed", ["library", "attention", "text tower"])
def test_answers_of_other_code_or_weights_are_not_used_again(
    changed: str, make: Make, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = tmp_path / "clip"
    shutil.copytree(checkpoint / "clip", tower)
    evaluator = make("gqa", text_tower=str(tower))
    schedule = dense(evaluator.shape)
    evaluator.score(schedule, "search", range(4))
    if changed == "library":
        monkeypatch.setattr("search.tasks.answering.version", lambda name: "0")
    elif changed == "text tower":
        (tower / "model.safetensors").write_bytes(b"other weights")
    again = make("gqa", text_tower=str(tower))
    if changed == "attention":
        load = evaluator_module.load_live_model

        def eager(*args: Any, **options: Any) -> Any:
            live = load(*args, **options)
            live.model.set_attn_implementation("eager")
            return live

        monkeypatch.setattr(evaluator_module, "load_live_model", eager)
    model, calls = again.answering._live.model, []
    stock = model.generate

    def generate(**inputs: Any) -> Any:
        calls.append(1)
        return stock(**inputs)

    monkeypatch.setattr(model, "generate", generate)
    again.score(schedule, "search", range(4))
    assert calls


def test_data_sets_of_the_hub_that_are_open_need_no_login(
    rows: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import huggingface_hub

    asked = []
    stock = datasets.load_dataset

    def load_dataset(path: str, name: str | None = None, **options: Any) -> Any:
        asked.append((path, options.get("token")))
        return stock("parquet", data_files={"test": str(rows["pope"] / "rows.parquet")})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *args: None)  # it is here
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    loaded = load_task(TASKS["pope"])
    assert asked == [("lmms-lab-encoder/POPE", None)]
    assert len(loaded.samples) == 60


def test_a_data_set_that_offline_mode_lacks_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets
    import huggingface_hub

    def retried(*args: Any, **options: Any) -> None:
        raise AssertionError("lmms-eval was asked, which tries for many seconds")

    monkeypatch.setattr(datasets, "load_dataset", retried)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"has not been downloaded.*--task-data pope=FOLDER"):
        load_task(TASKS["pope"])


def test_a_damaged_file_of_rows_is_named(make: Make, tmp_path: Path) -> None:
    evaluator = make("pope")
    (tmp_path / "rows.parquet").write_bytes(b"half a file")
    settings = evaluator._settings.model_copy(update={"data": {"pope": tmp_path}})
    with pytest.raises(DataError, match=r"rows.parquet is no parquet file"):
        TaskEvaluator(evaluator.name, settings)


@pytest.mark.parametrize("name", ["textvqa_val", "vqav2_val", "vizwiz_vqa_val"])
def test_rows_without_answers_are_refused_where_lmms_eval_scores_0(
    name: str, make: Make, tmp_path: Path
) -> None:
    import datasets

    for kept in (False, True):
        made = [MAKERS[name](number) for number in range(12)]
        for row in made:
            answers = row.pop("answers")
            row |= {"answers": None if row["question_id"] % 3 else answers} if kept else {}
        datasets.Dataset.from_list(made).to_parquet(tmp_path / "rows.parquet")
        evaluator = make(name)
        evaluator._settings.data[name] = tmp_path
        with pytest.raises(DataError, match="8 rows .* no answers" if kept else "column answers"):
            evaluator.samples("search")


@pytest.mark.parametrize(
    ("name", "column", "emptied", "expected"),
    [
        ("pope", "image", 4, "4 rows of pope have no image"),
        ("mme", "question", 4, "4 rows of mme have no question"),
        ("gqa", "image", 12, "the rows of gqa have no column image"),
    ],
)
def test_rows_without_what_every_task_reads_are_refused_before_any_is_asked(
    name: str, column: str, emptied: int, expected: str, make: Make, tmp_path: Path
) -> None:
    import datasets

    made = [MAKERS[name](number) for number in range(12)]
    for row in made[1 : 1 + emptied]:  # lmms-eval itself looks at the first
        row[column] = None
    features = datasets.Dataset.from_list([MAKERS[name](0)]).features
    written = datasets.Dataset.from_list(made, features=features)
    written = written.remove_columns([column] if emptied == len(made) else [])
    written.to_parquet(tmp_path / "rows.parquet")
    evaluator = make(name)
    evaluator._settings.data[name] = tmp_path
    with pytest.raises(DataError, match=expected):
        evaluator.samples("search")


def test_questions_without_an_image_do_not_count_as_questions_on_one_image(
    make: Make, tmp_path: Path
) -> None:
    import datasets

    from tests.search.tasks.rows import scienceqa

    made = [scienceqa(number) for number in range(60)]
    for number, row in enumerate(made):
        row |= {"hint": f"w8 w{number}", **({"image": None} if number % 2 else {})}
    datasets.Dataset.from_list(made).to_parquet(tmp_path / "rows.parquet")
    evaluator = make("scienceqa_img")
    evaluator._settings.data["scienceqa_img"] = tmp_path
    keys = [key for split in SPLITS for key in evaluator.samples(split)]
    assert len(keys) == len({key.image for key in keys}) == 44
    shared = {
        split: sum(each.sample.rows[0] % 2 for each in evaluator._chosen_in(split))
        for split in SPLITS
    }
    assert all(shared.values())
    scores = evaluator.score(published("visiondrop", 8, evaluator.shape), "search", range(24))
    assert set(scores) == {0.0, 1.0}


@pytest.mark.parametrize(("count", "images"), [(2, 2), (12, 1)])
def test_a_task_with_too_little_for_three_splits_is_named(
    count: int, images: int, make: Make, tmp_path: Path
) -> None:
    import datasets

    made = [{**MAKERS["pope"](row), "image_source": f"i{row % images}"} for row in range(count)]
    datasets.Dataset.from_list(made).to_parquet(tmp_path / "rows.parquet")
    evaluator = make("gqa", "pope")
    evaluator._settings.data["pope"] = tmp_path
    with pytest.raises(DataError, match=r"task pope: its samples are .*cannot be divided into 3"):
        evaluator.samples("search")
