"""What fuzzing found and was mended: each once ended in a traceback, a hang or a full memory."""

from __future__ import annotations

import json
import sqlite3
import warnings
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from transformers import AutoConfig

from pruners import Schedule, load_schedule, save_schedule
from pruners.errors import (
    BudgetError,
    ModelError,
    ScheduleError,
    SettingsError,
    StudyError,
    UnsupportedModelError,
)
from pruners.files import ScheduleWarning
from pruners.json_files import MOST_BYTES
from pruners.scorers import SimilarityFusion
from pruners.shape import LLAVA_1_5_7B, Shape
from pruners.stages import Stage
from search.settings import checked_settings
from space import parse_budget, shape_from_pretrained, text_tower_shape
from studies.damage import naming_damage
from studies.identity import StudyIdentity
from studies.reading import read_study
from studies.records import trial_records
from studies.results import read_results
from studies.scores import ScoreCache
from studies.storage import StudyFolder

IDENTITY = StudyIdentity(
    model="analytic",
    model_fingerprint="0" * 64,
    shape=LLAVA_1_5_7B,
    tasks=("easy",),
    splits={},
    budgets=("2 TFLOPs",),
    space={},
    seed=0,
    versions={},
)
HEAD = '"format": "prunetune.schedule", "version": 1'


def refusal(file: Path, content: bytes | str) -> str:
    """How a schedule file is refused."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ScheduleError) as caught:
        load_schedule(file)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" * 100_000, "nested too deeply"),
        (f'{{{HEAD}, "stages": {"9" * 5000}}}', "not JSON"),
        (f'{{{HEAD}, "evidence": {{"measured_on": NaN}}}}', "measured_on"),
        (f'{{{HEAD}, "cost": {{"tflops": Infinity}}}}', "finite number"),
        (b" " * (MOST_BYTES + 1), "larger than 64 MiB"),
        (f'{{{HEAD}, "stages": [{{"scorer": {{"kind": "{"x" * 10_000}"}}}}]}}', "stages.0.scorer"),
        (f'{{{HEAD}, "shape": {{"decoder_layers": {10**18}}}}}', "less than or equal to 10000"),
    ],
    ids=["deep", "long number", "NaN", "infinite", "large", "long kind", "endless layers"],
)
def test_schedule_files_are_refused(content: bytes | str, says: str, tmp_path: Path) -> None:
    message = refusal(tmp_path / "schedule.json", content)
    assert says in message
    assert len(message) < 4000


def test_an_unknown_field_may_be_called_like_the_kind_it_stands_in(tmp_path: Path) -> None:
    stage = {"layer": 2, "retention": 0.5, "scorer": {"kind": "uniform", "uniform": {"a": 1}}}
    values = {"format": "prunetune.schedule", "version": 1, "stages": [stage]}
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps(values))
    with pytest.warns(ScheduleWarning, match="uniform"):
        assert load_schedule(file).stages[0].scorer.kind == "uniform"


@pytest.mark.parametrize(
    "name", ["/etc", "../secret", "a/../../b", "~/x", "C:\\x", "\\\\host\\x", "http://host/x", ""]
)
def test_text_towers_of_files_do_not_lead_out_of_the_folder(name: str, tmp_path: Path) -> None:
    schedule = Schedule(
        stages=(Stage(layer=0, retention=0.5, scorer=SimilarityFusion(text_tower=name)),)
    )
    file = tmp_path / "schedule.json"
    with pytest.raises(ScheduleError, match=r"stages\.0\.scorer\.text_tower.*text_tower="):
        save_schedule(schedule, file)
    assert not file.exists()
    assert "text_tower" in refusal(file, json.dumps(schedule.model_dump(mode="json")))


@pytest.mark.parametrize("name", ["openai/clip-vit-large-patch14-336", "clip", "towers/my.clip_2"])
def test_hub_names_and_folders_below_the_current_one_stay_welcome(
    name: str, tmp_path: Path
) -> None:
    scorer = SimilarityFusion(text_tower=name)
    schedule = Schedule(stages=(Stage(layer=0, retention=0.5, scorer=scorer),))
    save_schedule(schedule, tmp_path / "schedule.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_schedule(tmp_path / "schedule.json") == schedule


def test_long_budgets_are_not_repeated_whole() -> None:
    with pytest.raises(BudgetError) as caught:
        parse_budget("9" * 5000 + "%%")
    assert len(str(caught.value)) < 300


def changed(family: str, part: str | None, **values: Any) -> dict[str, Any]:
    """The family's own configuration with some values changed."""
    config: dict[str, Any] = AutoConfig.for_model(family).to_dict()
    (config[part] if part else config).update(values)
    return config


@pytest.mark.parametrize(
    "config",
    [
        changed("llava", None, vision_config="tower"),
        changed("llava", "vision_config", patch_size=0),
        changed("llava", "vision_config", model_type="[" * 10_000),
        changed("llava", "text_config", num_hidden_layers=10**18),
        changed("llava", "text_config", hidden_size=10**400),
        changed("internvl", None, downsample_ratio=0),
        changed("internvl", "vision_config", image_size=[]),
        changed("qwen2_5_vl", "vision_config", depth=10**18),
        changed("llava_next", None, image_grid_pinpoints=[[10**12, 10**12]]),
        changed("llava_next", None, image_grid_pinpoints=[[1, 1]]),
        changed("llava_onevision", None, vision_aspect_ratio=9),
    ],
    ids=lambda config: config["model_type"],
)
def test_configurations_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        Shape.from_config(config)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "inputs", [{"images": 10**18}, {"frames": 10**18}, {"image_size": (10**18, 1)}]
)
@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl", "video_llava"])
def test_inputs_without_end_are_refused(family: str, inputs: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="expected at most"):
        Shape.from_config(AutoConfig.for_model(family), **inputs)


def test_damaged_configurations_in_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="nested too deeply"):
        shape_from_pretrained(tmp_path)
    for text in (None, [], "x", {"num_hidden_layers": "many"}):
        values = {"model_type": "clip", "text_config": text}
        (tmp_path / "config.json").write_text(json.dumps(values))
        with pytest.raises(ModelError):
            text_tower_shape(tmp_path)


def test_results_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[" * 100_000)
    with pytest.raises(StudyError, match="nested too deeply"):
        read_results(tmp_path / "results.json")


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "scores.db"
    with ScoreCache(file) as cache:
        cache.put("hash", "search", {"first": 1.0})
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE scores SET score = 'much'")
        connection.commit()
    with ScoreCache(file) as cache, pytest.raises(StudyError, match="'first' has no number"):
        cache.get("hash", "search", ["first"])


def test_a_cache_whose_index_is_damaged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scores.db"
    with ScoreCache(file) as cache:
        cache.put("hash", "search", {"first": 1.0, "second": 0.0})
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # all in one file
    content = file.read_bytes()
    assert content.count(b"second") == 2  # in the table and in its index
    file.write_bytes(content.replace(b"second", b"Second", 1))
    with pytest.raises(StudyError, match=r"cannot be used as the cache of scores \(.*index"):
        ScoreCache(file)


def test_a_cache_whose_tables_have_no_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scores.db"
    with ScoreCache(file):
        pass
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    content = file.read_bytes()
    file.write_bytes(
        content.replace(b"CREATE TABLE probes", b"CREATE TABLE \x80\x80\x80\x80\x80\x80")
    )
    with pytest.raises(StudyError, match="cannot be used as the cache of scores"):
        ScoreCache(file)


def test_long_names_of_samples_are_not_repeated_whole(tmp_path: Path) -> None:
    file = tmp_path / "scores.db"
    with ScoreCache(file) as cache:
        cache.put("hash", "search", {"x" * 10_000: 1.0})
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE scores SET score = 'much'")
        connection.commit()
    with ScoreCache(file) as cache, pytest.raises(StudyError, match="has no number") as caught:
        cache.get("hash", "search", ["x" * 10_000])
    assert len(str(caught.value)) < 1000


def test_a_study_that_differs_in_everything_is_refused_in_few_words(tmp_path: Path) -> None:
    space: dict[str, Any] = {f"{number}".rjust(10_000, "x"): number for number in range(100)}
    stored = IDENTITY.model_copy(update={"space": space})
    (tmp_path / "identity.json").write_text(stored.model_dump_json())
    with pytest.raises(StudyError, match=r"xxx\.\.\.: .*and 93 more") as caught:
        StudyFolder.check(tmp_path, IDENTITY)
    assert len(str(caught.value)) < 2000


def test_budgets_that_no_file_can_be_called_by_are_refused(tmp_path: Path) -> None:
    identity = IDENTITY.model_copy(update={"budgets": ("9" * 300,)})
    (tmp_path / "identity.json").write_text(identity.model_dump_json())
    with pytest.raises(StudyError, match="budgets"):
        read_study(tmp_path)


def test_names_that_no_terminal_can_print_are_refused() -> None:
    names = ["\udcff", "\udcff"]  # how Python reads a byte that is no text
    with pytest.raises(SettingsError, match=r"'\\udcff' was given twice"):
        checked_settings(budgets=("2 TFLOPs",), tasks={"names": names})


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ({"end": 1.0}, {"end": True}, ("space.end", "1.0", "true")),
        ({"end": 1}, {"end": 1, "": {}}, ("space.", "absent", "{}")),
        ({"a": {"b": 1}}, {"a": {"b": 1}, "a.b": 1}, ("space.a.b", "absent", "1")),
        ({"a: b": 1}, {"a: b": 2}, ("space.a: b", "1", "2")),
    ],
)
def test_identities_differ_where_their_fingerprints_do(
    one: dict[str, Any], other: dict[str, Any], found: tuple[str, str, str]
) -> None:
    mine, theirs = (IDENTITY.model_copy(update={"space": space}) for space in (one, other))
    assert mine.differences(theirs) == [found]
    assert mine.differences(mine) == []


def test_trials_during_which_the_clock_was_set_back_took_no_time() -> None:
    study = optuna.create_study()
    trial = optuna.trial.create_trial(value=0.5, user_attrs={"layers": [1, 2]})
    assert trial.datetime_start is not None
    trial.datetime_complete = trial.datetime_start - timedelta(days=30)
    study.add_trial(trial)
    (record,) = trial_records(study)
    assert record.seconds == 0


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("trial_user_attributes", "value_json", "["),
        ("trial_user_attributes", "value_json", None),
        ("trial_user_attributes", "value_json", "true"),
        ("trial_params", "distribution_json", "{"),
        ("study_directions", "direction", "UPWARDS"),
        ("trials", "state", "HALF"),
        ("trial_values", "value_type", "LARGE"),
    ],
)
def test_damaged_trials_are_refused(
    table: str, column: str, value: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "study.db"
    study = optuna.create_study(study_name="2 TFLOPs", storage=f"sqlite:///{file}")
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.set_user_attr("layers", [1, 2])
    study.tell(trial, 0.5)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
        connection.commit()
    with pytest.raises(StudyError, match="holds trials that cannot be read"), naming_damage("it"):
        trial_records(optuna.load_study(study_name="2 TFLOPs", storage=f"sqlite:///{file}"))
