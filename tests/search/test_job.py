from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
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
from search.searching import search_schedules
from search.settings import CommandSettings, SearchSettings
from search.strategies.base import Proposal, SearchState, Strategy
from space import full_vocabulary
from space.flops import price
from space.parameters import Parameter
from studies.results import read_results
from studies.statistics import paired_interval

PROGRAM = Path(__file__).parents[2] / "search" / "run.py"
ANALYTIC = ("--model", "analytic")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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


def test_the_same_command_continues_and_measures_nothing_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*ANALYTIC, "--budget", "30%", "--trials"]
    assert run([*command, "8"]) == 0
    path = Path("runs/llava-1.5-7b-30-percent-seed-0/schedule.json")
    first = json.loads(path.read_text())

    measured = []
    score = AnalyticEvaluator.score

    def counted(self: AnalyticEvaluator, *args: object) -> object:
        measured.append(args)
        return score(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(AnalyticEvaluator, "score", counted)
    assert run([*command, "8"]) == 0
    assert measured == []
    again = json.loads(path.read_text())
    for schedule in (first, again):
        del schedule["provenance"]["created"]
    assert again == first

    assert run([*command, "9"]) == 0  # more trials are no other study
    assert load_schedule(path).provenance.trials == 9  # type: ignore[union-attr]
    assert "Continuing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (["--stages", "2"], "--stages: 3 in the study, 2 now"),
        (["--space", "full"], '--space: "mission" in the study, "full" now'),
        (["--seed", "5"], "--seed: 0 in the study, 5 now"),
        (["--strategy", "random"], '--strategy: "adaptive" in the study, "random" now'),
        (
            ["--target", "llava-1.5-13b"],
            '--target: "llava-1.5-7b" in the study, "llava-1.5-13b" now',
        ),
        (["--model", "embedded"], '--model: "analytic" in the study, "embedded" now'),
        (["--budget", "40%"], '--budget: ["30%"] in the study, ["30%", "40%"] now'),
        (
            ["--stages", "2", "--space", "full", "--seed", "5"],
            '--seed: 0 in the study, 5 now; --stages: 3 in the study, 2 now; --space: "mission" in '
            'the study, "full" now',
        ),
    ],
)
def test_another_identity_is_refused_by_naming_what_differs(
    changed: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ANALYTIC, "--budget", "30%", "--study", "mine"]
    assert run([*command, "--trials", "2"]) == 0
    before = {path: path.read_bytes() for path in Path("runs/mine").iterdir()}
    capsys.readouterr()
    assert run([*command, *changed]) == 2
    output = capsys.readouterr()
    # What differs only because of that, fingerprints and ranges, say, is left out.
    assert f"which cannot be continued: {field}. Give" in output.err
    assert output.out == ""
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("part", "changed", "field"),
    [
        ("_POSITIONS", ("original", "compact"), "space.dimensions.positions: ["),
        ("_DECODER_SCORERS", ("visual-self-attention",), "space.dimensions.scorer_1: ["),
        (
            "SHARES",
            (Parameter("contextual", 0.0, 0.5), Parameter("similarity_weight", 0.0, 0.75)),
            "space.dimensions.similarity_weight: [0.0, 1.0] in the study, [0.0, 0.75] now",
        ),
    ],
)
def test_a_space_of_other_options_is_refused(
    part: str,
    changed: tuple[object, ...],
    field: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As another version of the program may have them; Optuna cannot continue with those."""
    command = [*ANALYTIC, "--budget", "30%", "--space", "full", "--trials", "1"]
    assert run(command) == 0
    capsys.readouterr()
    monkeypatch.setattr(full_vocabulary, part, changed)
    assert run(command) == 2
    assert field in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\x00" + b"\xff" * 500])
def test_a_damaged_database_is_refused(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*ANALYTIC, "--budget", "30%", "--study", "mine", "--trials", "2"]
    assert run(command) == 0
    for log in Path("runs/mine").glob("study.db-*"):
        log.unlink()
    Path("runs/mine/study.db").write_bytes(content)
    assert run(command) == 2
    assert "study.db" in capsys.readouterr().err
    assert Path("runs/mine/study.db").read_bytes() == content


def test_a_dry_run_explains_and_writes_no_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*ANALYTIC, "--budget-tflops", "2", "--dry-run"]) == 0
    assert list(Path().iterdir()) == []
    shown = capsys.readouterr().out
    for said in ("9.06", "similarity_weight", "minutes", "no study was written", "runs/llava-1.5"):
        assert said in shown
    assert "encoder_scorer" not in shown
    assert run([*ANALYTIC, "--budget-tflops", "2", "--space", "full", "--dry-run"]) == 0
    assert list(Path().iterdir()) == []
    shown = capsys.readouterr().out
    for said in ("full, 15 parameters", "scorer_3: one of", "rater-attention", "-full-seed-0"):
        assert said in shown


def test_a_report_on_few_images_is_called_no_guide() -> None:
    assert few_images([f"image {number}" for number in range(10)]) is None
    warning = few_images(["a", "b", "a", "a"] * 5)  # questions are not images
    assert warning is not None
    assert "on 2 images only" in warning


@pytest.fixture
def _heard_ctrl_c() -> Iterator[None]:
    """A shell that runs in the background hides SIGINT from what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard_ctrl_c")
def test_ctrl_c_while_a_study_starts_leaves_none_in_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    command = ["--budget", "30%", "--trials", "1", "--study", "mine"]
    with monkeypatch.context() as patched:
        patched.setattr("optuna.logging.set_verbosity", interrupt)
        assert run([*ANALYTIC, *command, "--seed", "7"]) == 130
    assert not Path("runs/mine").exists()
    assert run([*ANALYTIC, *command]) == 0
    with monkeypatch.context() as patched:
        patched.setattr("optuna.logging.set_verbosity", interrupt)
        assert run([*ANALYTIC, *command]) == 130
    assert Path("runs/mine/schedule.json").exists()  # what was measured stays


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_leaves_a_schedule_and_continues(number: signal.Signals) -> None:
    command = [sys.executable, str(PROGRAM), *ANALYTIC, "--budget", "30%", "--study", "mine"]
    process = subprocess.Popen(
        [*command, "--trials", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    database = Path("runs/mine/study.db")
    while process.poll() is None and _finished_trials(database) < 3:
        time.sleep(0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert "the same command continues" in output
    path = Path("runs/mine/schedule.json")
    schedule = load_schedule(path)
    assert schedule.evidence is not None
    assert schedule.evidence.splits.keys() == {"search"}
    assert "not yet confirmed" in schedule.evidence.note

    finished = _finished_trials(database)
    ended = subprocess.run(
        [*command, "--trials", str(finished + 1)], capture_output=True, text=True, check=True
    )
    assert "Continuing" in ended.stdout
    assert _finished_trials(database) == finished + 1
    confirmed = path.read_bytes()
    assert "report" in load_schedule(path).evidence.splits  # type: ignore[union-attr]

    process = subprocess.Popen(
        [*command, "--trials", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and _finished_trials(database) < finished + 3:
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert path.read_bytes() == confirmed


def _finished_trials(database: Path) -> int:
    import sqlite3
    from contextlib import closing

    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
        return int(connection.execute(query).fetchone()[0])


class _Sharing(Strategy):
    """Measures points on 2 blocks each, several budgets in turn."""

    name = "sharing"
    signal = "answer-probability"
    shares_budgets = True

    def propose(self, state: SearchState) -> Proposal | None:
        generator = np.random.default_rng(state.trials)
        dimensions = state.space.parameters
        return Proposal({each.name: generator.uniform(*each[1:]) for each in dimensions}, 2)


@pytest.fixture
def _share(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("job", "planning"):
        monkeypatch.setattr(f"search.{module}.make_strategy", lambda settings: _Sharing())


FRONT = [*ANALYTIC, "--budget-tflops", "2", "4", "--study", "front", "--trials"]


@pytest.mark.usefixtures("_share")
def test_budgets_may_be_searched_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*FRONT, "4"]) == 0
    shown = capsys.readouterr().out
    assert "Search at 2 budgets: 8/8" in shown
    results = read_results(Path("runs/front/results.json"))
    assert [result.budget for result in results] == ["2 TFLOPs", "4 TFLOPs"]
    for result, number in zip(results, (2, 4), strict=True):
        assert (result.trials, result.evaluations) == (4, 4 * 100)
        schedule = load_schedule(Path(f"runs/front/schedule-{number}-tflops.json"))
        assert schedule.evidence is not None
        # The search saw 100 samples of the winner; what is shown of it is on all.
        samples = {name: split.samples for name, split in schedule.evidence.splits.items()}
        assert samples == {"search": 500, "confirm": 300, "report": 500}
        evaluator = AnalyticEvaluator()
        scores = evaluator.score(as_measured(schedule, ANALYTIC_SHAPE), "search", range(500))
        assert schedule.evidence.splits["search"].accuracy == pytest.approx(scores.mean())


@pytest.mark.usefixtures("_share")
def test_interrupting_budgets_searched_together_leaves_a_schedule_of_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = AnalyticEvaluator.probe
    calls = []

    def interrupted(self: AnalyticEvaluator, *args: object) -> object:
        calls.append(args)
        if len(calls) == 7:  # in the second trial at the second budget
            signal.raise_signal(signal.SIGINT)
        return probe(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(AnalyticEvaluator, "probe", interrupted)
    assert run([*FRONT, "4"]) == 128 + signal.SIGINT
    assert "the same command continues" in capsys.readouterr().out
    for number in (2, 4):
        schedule = load_schedule(Path(f"runs/front/schedule-{number}-tflops.json"))
        assert schedule.evidence is not None
        assert schedule.evidence.splits["search"].samples == 100
        assert "not yet confirmed" in schedule.evidence.note
        assert schedule.provenance is not None
    with Path("runs/front/trials.csv").open() as file:
        states = [row["state"] for row in csv.DictReader(file)]
    assert states.count("complete") == 3
    assert states.count("fail") == 1

    assert run([*FRONT, "4"]) == 0
    assert "Continuing" in capsys.readouterr().out
    for result in read_results(Path("runs/front/results.json")):
        assert (result.trials, result.evaluations) == (4, 400)


@pytest.mark.parametrize("reached", [1, 2])
def test_a_run_that_is_interrupted_keeps_what_is_known_of_budgets_it_has_not_got_to(
    reached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*FRONT[:-1], "--strategy", "random", "--trials"]
    assert run([*command, "2"]) == 0
    folder = Path("runs/front")
    earlier = read_results(folder / "results.json")
    searched = []

    def interrupted(*args: Any, **options: Any) -> object:
        searched.append(args)
        if len(searched) == reached:
            signal.raise_signal(signal.SIGINT)
        return search_schedules(*args, **options)

    monkeypatch.setattr("search.job.search_schedules", interrupted)
    assert run([*command, "4"]) == 128 + signal.SIGINT
    results = read_results(folder / "results.json")
    assert [result.trials for result in results] == [2 if reached == 1 else 4, 2]
    assert results[1] == earlier[1]
    with (folder / "trials.csv").open() as file:
        rows = [row["budget"] for row in csv.DictReader(file) if row["state"] == "complete"]
    assert rows.count("2 TFLOPs") == results[0].trials
    assert rows.count("4 TFLOPs") == 2


@pytest.mark.parametrize("strategy", ["g-search", "tpe-penalty"])
def test_a_strategy_that_needs_more_trials_for_a_schedule_within_the_budget_says_so(
    strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ANALYTIC, "--budget-tflops", "2", "--study", "few", "--strategy", strategy]
    assert run([*command, "--trials", "2"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "(all trials are done); give it more of them with --trials" in message
    assert run([*command, "--trials", "40"]) == 0
    assert load_schedule("runs/few/schedule.json").cost.tflops <= 2


@pytest.mark.parametrize("budgets", [("20%", "90%"), ("90%", "20%")])
def test_a_budget_without_a_schedule_costs_the_others_nothing(
    budgets: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    # The first trials of g-search are dense and half of it, which meet 90% only.
    given = [word for budget in budgets for word in ("--budget", budget)]
    command = [*ANALYTIC, *given, "--study", "two", "--strategy", "g-search", "--trials"]
    assert run([*command, "3"]) == 2
    said = capsys.readouterr()
    assert "finished at 20% (all trials are done)" in " ".join(said.err.split())
    assert "90%" not in said.err
    folder = Path("runs/two")
    (result,) = read_results(folder / "results.json")
    assert result.budget == "90%"
    assert load_schedule(folder / "schedule-90-percent.json").evidence is not None
    assert not (folder / "schedule-20-percent.json").exists()
    assert {"report.md", "report.html", "trials.csv"} <= {path.name for path in folder.iterdir()}
    assert "schedule-90-percent.json" in said.out
