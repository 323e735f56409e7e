"""What a run ends in: schedules, evidence, comparisons, a front."""

from __future__ import annotations

import csv
from pathlib import Path

import optuna
import pytest

from pruners import load_schedule
from pruners.errors import DataError
from pruners.methods import METHODS
from pruners.published import dense
from pruners.shape import LLAVA_1_5_7B
from search.analytic import ANALYTIC_SHAPE, AnalyticEvaluator
from search.command_line import run
from search.explaining import few_images
from search.measured_form import as_measured
from search.running import run_settings
from search.settings import CommandSettings, SearchSettings
from space.flops import price
from studies.results import read_results
from studies.statistics import paired_interval
from tests.search.job.command import ANALYTIC


def test_a_split_that_the_dense_model_fails_on_ends_a_run_before_its_search() -> None:
    search = SearchSettings(confirm_samples=5, trials=30)  # one of each task
    settings = CommandSettings(budgets=("3.2 TFLOPs",), model="analytic", search=search)
    with pytest.raises(DataError, match=r"^on the confirm split, the dense model scores 0 on "):
        run_settings(settings, "prunetune")
    (study,) = Path("runs").iterdir()
    assert not optuna.load_study(study_name=None, storage=f"sqlite:///{study}/study.db").trials


def test_a_command_ends_in_a_schedule_that_was_confirmed_and_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([*ANALYTIC, "--budget-tflops", "3.2", "--trials", "30"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].startswith("Model: analytic")
    assert "convention total" in shown
    assert "proxy" in shown
    folder = Path("runs/llava-1.5-7b-3.2-tflops-seed-0")
    assert {
        *("schedule.json", "study.db", "trials.csv", "report.md", "results.json"),
        *("pareto.pdf", "pareto.png", "pareto.csv"),
    } <= {path.name for path in folder.iterdir()}

    schedule = load_schedule(folder / "schedule.json")
    assert schedule.shape == LLAVA_1_5_7B
    assert schedule.cost == price(schedule, LLAVA_1_5_7B)
    assert 3.1 < schedule.cost.tflops <= 3.2
    assert schedule.provenance is not None
    assert schedule.provenance.trials == 30
    assert schedule.provenance.seed == 0
    assert (
        schedule.provenance.command == "prunetune --model analytic --budget-tflops 3.2 --trials 30"
    )
    assert "optuna" in schedule.provenance.versions

    evidence = schedule.evidence
    assert evidence is not None
    assert "proxy" in evidence.note
    assert evidence.splits.keys() == {"search", "confirm", "report"}
    evaluator = AnalyticEvaluator()
    for split, measured in evidence.splits.items():
        samples = range(len(evaluator.samples(split)))
        scores = evaluator.score(as_measured(schedule, ANALYTIC_SHAPE), split, samples)
        assert measured.samples == len(samples)
        assert measured.accuracy == pytest.approx(scores.mean())
        keys = evaluator.samples(split)
        assert measured.interval_95 == paired_interval(
            scores,
            evaluator.score(dense(ANALYTIC_SHAPE), split, samples),
            [key.task for key in keys],
            images=[key.image for key in keys],
        )
        assert measured.interval_95[0] < measured.relative_accuracy < measured.interval_95[1]

    (result,) = read_results(folder / "results.json")
    assert {row.name for row in result.schedules} == {"searched", "dense", "visiondrop", "desap"}
    for row in result.schedules:
        if row.name != "dense":
            assert row.tflops <= 3.2
    assert result.schedule("searched").evidence == evidence.splits["report"]
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert result.evaluations == schedule.provenance.evaluations


def test_the_full_space_compares_with_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        *ANALYTIC,
        "--budget-tflops",
        "2",
        "--space",
        "full",
        "--strategy",
        "tpe",
        "--trials",
    ]
    assert run([*command, "16"]) == 0
    shown = capsys.readouterr().out
    folder = Path("runs/llava-1.5-7b-2-tflops-full-seed-0")
    (result,) = read_results(folder / "results.json")
    assert [row.name for row in result.schedules][:2] == ["searched", "dense"]
    assert {row.name for row in result.schedules[2:]} == METHODS.keys()
    for row in result.schedules:
        assert row.name == "dense" or row.tflops <= 2
    for method in METHODS.values():
        assert method.label in shown
        assert method.label in (folder / "report.md").read_text()

    with (folder / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    # Boundaries lie at every fourth layer, where FastV, PyramidDrop, SparseVLM and DART have none.
    first = ["near visiondrop", "near desap", "near visionzip", "vispruner", "near cdpruner"]
    first += ["near vscan"]
    assert [row["origin"] for row in trials[: len(first) + 1]] == [*first, "sampler"]
    merges = {row["merge"] for row in trials}
    assert {"none", "nearest-reference", "cluster-average"} <= merges
    assert float(trials[-1]["ratio_1"]) >= 0

    assert run([*command, "18"]) == 0
    assert "Continuing" in capsys.readouterr().out
    with (folder / "trials.csv").open() as file:
        again = list(csv.DictReader(file))
    assert again[:16] == trials
    assert len(again) == 18


def test_methods_that_cannot_meet_a_budget_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    # 15.9 % of dense: all tokens in layer 0 alone cost more.
    command = [*ANALYTIC, "--budget-tflops", "1.44", "--space", "full", "--trials", "2"]
    assert run([*command, "--quiet"]) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith("Not compared")]
    assert line.endswith("FastV, PyramidDrop, SparseVLM, DART")
    (result,) = read_results(Path("runs/llava-1.5-7b-1.44-tflops-full-seed-0/results.json"))
    assert {"visiondrop", "tome", "downsampling"} <= {row.name for row in result.schedules}
    assert "fastv" not in {row.name for row in result.schedules}


def test_several_budgets_give_a_schedule_each_and_a_front(
    capsys: pytest.CaptureFixture[str],
) -> None:
    budgets = ["--budget-tflops", "2", "4", "--budget", "50%"]
    assert run([*ANALYTIC, *budgets, "--trials", "6", "--study", "front", "--quiet"]) == 0
    folder = Path("runs/front")
    costs = []
    for name in ("2-tflops", "4-tflops", "50-percent"):
        schedule = load_schedule(folder / f"schedule-{name}.json")
        assert schedule.cost is not None
        costs.append(schedule.cost.tflops)
    assert costs == sorted(costs)
    assert costs[-1] <= LLAVA_DENSE / 2
    with (folder / "pareto.csv").open() as file:
        points = list(csv.DictReader(file))
    assert {row["schedule"] for row in points} == {"searched", "dense", "visiondrop", "desap"}
    assert len(points) == 3 * 3 + 1
    shown = capsys.readouterr().out
    assert "Search at" not in shown
    assert "schedule-2-tflops.json" in shown


LLAVA_DENSE = 9.0640


def test_a_dry_run_explains_and_writes_no_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*ANALYTIC, "--budget-tflops", "2", "--dry-run"]) == 0
    assert list(Path().iterdir()) == []
    shown = capsys.readouterr().out
    for said in (
        "9.06",
        "similarity_weight",
        "time with one process",
        "no study was written",
        "runs/llava-1.5",
    ):
        assert said in shown
    assert "encoder_scorer" not in shown
    assert run([*ANALYTIC, "--budget-tflops", "2", "--space", "full", "--dry-run"]) == 0
    assert list(Path().iterdir()) == []
    shown = capsys.readouterr().out
    for said in ("full, 15 parameters", "scorer_3: one of", "rater-attention", "-full-seed-0"):
        assert said in shown


def test_a_report_on_few_images_is_called_no_guide() -> None:
    many = [f"image {number}" for number in range(10)]
    assert few_images(["counting"] * 10, many) is None
    # Questions are not images.
    warning = few_images(["counting"] * 20, ["a", "b", "a", "a"] * 5)
    assert warning is not None
    assert "on 2 images only" in warning
    # One task of few images is as much of the mean as one of many.
    warning = few_images(["counting"] * 10 + ["digits"] * 9, [*many, *many[:9]])
    assert warning is not None
    assert "on 9 images of digits only" in warning
