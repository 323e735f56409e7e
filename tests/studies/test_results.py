"""Results, Pareto points, figures and reports, from one set of synthetic answers."""

from __future__ import annotations

import csv
import io
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from rich.markdown import Markdown

from pruners import dense
from pruners.errors import DataError, StudyError
from pruners.methods import METHODS
from pruners.shape import LLAVA_1_5_7B
from studies.comparing import compare, split_evidence
from studies.figure_data import history_figure, pareto_figure, schedule_panels
from studies.figure_style import color_of, in_crowd, legend_label, origin_label
from studies.pareto import non_dominated, pareto_points, write_pareto
from studies.plots.job_figures import write_job_figures
from studies.records import TrialRecord
from studies.report import print_report, write_report
from studies.results import read_results, write_results
from studies.statistics import paired_interval, relative_accuracy

TASKS = ["counting"] * 300 + ["digits"] * 300
DENSE_TFLOPS = 8.9


@pytest.fixture
def low(make_result):
    return make_result(2.0, 64, {"searched": 0.1, "visiondrop": 0.3, "desap": 0.1})[0]


@pytest.fixture
def high(make_result):
    return make_result(4.0, 192, {"searched": 0.05, "visiondrop": 0.06, "desap": 0.02})[0]


def _records():
    objectives = [0.5, 0.9, 0.7, 0.8, None]
    samples = [100, 40, 100, 100, 0]
    origins = ["visiondrop", "near desap", "sampler", "sampler", "sampler"]
    return [
        TrialRecord(
            number=number,
            budget="2 TFLOPs",
            state="complete" if objective else "fail",
            objective=0.0 if objective else None,
            accuracy=objective,
            samples=scored,
            parameters={"weight": 0.5},
            tflops=2.0,
            mean_visual_tokens=64.0,
            layers=(0, 8),
            visual_tokens=(96, 70),
            content_hash="0" * 64,
            seconds=1.0,
            origin=origin,
        )
        for number, (objective, scored, origin) in enumerate(
            zip(objectives, samples, origins, strict=True)
        )
    ]


def test_a_result_says_what_the_statistics_say(make_result):
    result, scores = make_result(2.0, 64, {"searched": 0.1, "visiondrop": 0.3, "desap": 0.1})
    assert [each.name for each in result.schedules] == ["searched", "dense", "visiondrop", "desap"]
    for schedule in result.schedules:
        own, reference = scores[schedule.name], scores["dense"]
        evidence = schedule.evidence
        assert evidence.samples == len(TASKS)
        assert evidence.relative_accuracy == relative_accuracy(own, reference, TASKS)
        assert evidence.interval_95 == paired_interval(own, reference, TASKS)
        assert evidence.tasks["digits"] == own[300:].mean()
        assert evidence.accuracy == pytest.approx(np.mean([own[:300].mean(), own[300:].mean()]))
    by_name = {comparison.other: comparison for comparison in result.comparisons}
    assert by_name["visiondrop"].significant
    assert by_name["visiondrop"].difference > 0
    assert by_name["dense"].difference < 0
    assert not by_name["desap"].significant  # the very same answers
    assert by_name["desap"].difference == 0


def test_results_survive_their_file(tmp_path, low, high):
    write_results([low, high], tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == [low, high]
    (tmp_path / "results.json").write_text('[{"budget": 3}]')
    with pytest.raises(StudyError, match="does not hold a study's results"):
        read_results(tmp_path / "results.json")


def test_results_without_dense_or_without_a_price_are_refused():
    tasks, scores = ["a"], {"searched": [1.0], "visiondrop": [1.0]}
    schedules = {"searched": dense(), "visiondrop": dense()}
    about = {"budget": "", "measured_on": "", "trials": 1, "evaluations": 1, "seconds": 1.0}
    with pytest.raises(DataError, match="'dense'"):
        compare(schedules, scores, tasks, **about)
    schedules, scores = {"searched": dense(), "dense": dense()}, {"searched": [1], "dense": [1]}
    with pytest.raises(StudyError, match="not priced"):
        compare(schedules, scores, tasks, **about)


def test_names_of_models_are_printed_as_they_are(low):
    name = "models/[old]/llava[/v1]"  # rich has markup in brackets
    console = Console(width=300, record=True, file=io.StringIO())
    print_report([low.model_copy(update={"measured_on": name})], console)
    assert f"Accuracy measured on {name}," in console.export_text()


def test_a_schedule_measured_with_more_tokens_than_it_pays_for_is_marked(tmp_path, low):
    shares = {"visiondrop": 64 / 576 * 1.19, "desap": 64 / 576 * 1.21}
    schedules = [
        schedule.model_copy(update={"measured_share": shares.get(schedule.name)})
        for schedule in low.schedules
    ]
    result = low.model_copy(update={"schedules": tuple(schedules)})
    write_report([result], tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    (row,) = [line for line in text.splitlines() if "]* |" in line]
    assert "DeSAP" in row
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(Markdown(text))
    assert "• * Flattered" in console.export_text()  # not a list within the list
    write_report([low], tmp_path / "report.md")
    assert "Flattered" not in (tmp_path / "report.md").read_text()


def test_evidence_of_perfect_answers_has_no_interval():
    evidence = split_evidence([1, 0, 1], [1, 0, 1], ["a", "a", "b"])
    assert evidence.interval_95 == (1.0, 1.0)
    assert evidence.accuracy == evidence.dense_accuracy == 0.75


@given(st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=12))
def test_the_front_is_what_no_point_dominates(points):
    def dominated(cost, value):
        return any(
            other_cost <= cost
            and other_value >= value
            and (other_cost, other_value) != (cost, value)
            for other_cost, other_value in points
        )

    expected = [not dominated(*point) for point in points]
    assert non_dominated(*([each[k] for each in points] for k in (0, 1))) == expected


def test_pareto_points_hold_dense_once_and_mark_the_front(tmp_path, low, high):
    points = pareto_points([low, high])
    assert [point.tflops for point in points] == sorted(point.tflops for point in points)
    assert [point.schedule for point in points].count("dense") == 1
    on_front = {(point.schedule, point.tflops) for point in points if point.on_front}
    # At 2 TFLOPs the searched schedule and DeSAP give the same answers, at 4 DeSAP wins.
    assert on_front == {("searched", 2.0), ("desap", 2.0), ("desap", 4.0), ("dense", DENSE_TFLOPS)}
    write_pareto(points, tmp_path / "pareto.csv")
    with (tmp_path / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["relative_accuracy"]) for row in rows] == [
        point.relative_accuracy for point in points
    ]
    assert {row["split"] for row in rows} == {"report"}


def test_the_figure_shows_the_points(low, high):
    figure = pareto_figure([low, high])
    searched = figure.series[0]
    assert searched.label == "searched"
    assert searched.tflops == (2.0, 4.0)
    for value, result in zip(searched.percent, (low, high), strict=True):
        assert value == 100 * result.schedule("searched").evidence.relative_accuracy
    assert [series.label for series in figure.series[1:]] == ["VisionDrop", "DeSAP", "dense"]
    assert figure.series[-1].percent == (100.0,)
    assert "a synthetic model" in figure.title
    assert "convention: total" in figure.cost_label
    with pytest.raises(StudyError, match="at least one budget"):
        pareto_figure([])


def test_the_history_ignores_stopped_trials_for_the_incumbent():
    history = history_figure(_records())
    assert history.numbers == (0, 1, 2, 3)  # the failed trial has nothing to show
    assert history.complete == (True, False, True, True)
    assert history.incumbent == (50.0, 50.0, 70.0, 80.0)
    assert history_figure([]).incumbent == ()


def test_the_incumbent_is_the_best_of_those_on_the_most_samples():
    (first, *_) = _records()
    grown = [
        replace(first, number=number, samples=samples, accuracy=accuracy)
        for number, (samples, accuracy) in enumerate([(25, 0.7), (25, 0.8), (50, 0.6), (25, 0.9)])
    ]
    assert history_figure(grown).incumbent == pytest.approx((70, 80, 60, 60))


def test_the_history_leaves_out_what_was_measured_above_the_budget():
    (first, second, *others) = _records()
    dense = replace(first, accuracy=1.0, within_budget=False)
    history = history_figure([dense, second, *others])
    assert history.numbers == (1, 2, 3)
    assert history.percent == history.incumbent == (90.0, 70.0, 80.0)


def test_the_schedule_figure_shows_tokens_per_layer(low):
    (panel,) = schedule_panels([low])
    # VisionDrop at 64 tokens: 96, 70, 52 and 38 tokens, 8 layers each.
    assert set(panel.tokens["desap"]) == {64}
    assert panel.tokens["visiondrop"][0] == 96
    assert len(panel.tokens["visiondrop"]) == 32
    assert "dense" not in panel.tokens
    assert panel.dense_tokens == LLAVA_1_5_7B.visual_tokens


def test_a_crowd_of_schedules_is_grey_but_for_those_that_stand_out(tmp_path, make_result):
    others = dict.fromkeys(METHODS, 0.2)
    results = [
        make_result(tflops, tokens, others | {"searched": 0.1}, methods=METHODS)[0]
        for tflops, tokens in ((2.0, 64), (4.0, 192))
    ]
    names = [schedule.name for schedule in results[0].schedules]
    greys = {color_of(name, names) for name in names if in_crowd(name, names)}
    assert len(greys) == 1
    assert len({color_of(name, names) for name in ("searched", "visiondrop", "desap")} - greys) == 3
    assert {legend_label(name, names) for name in METHODS} == {
        "VisionDrop",
        "DeSAP",
        "other published",
    }
    assert origin_label("near visiondrop", names) == "near VisionDrop"
    assert origin_label("vispruner", names) == "other published"
    few = names[:4]
    assert not any(in_crowd(name, few) for name in few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as names that leave the axes no room
        write_job_figures(results[:1], _records(), tmp_path)
        write_job_figures(results, _records(), tmp_path)


@pytest.mark.parametrize("budgets", [1, 2])
def test_figures_are_a_vector_pdf_with_real_fonts_and_a_png(tmp_path, low, high, budgets):
    results = [low, high][:budgets]
    written = write_job_figures(results, _records(), tmp_path)
    names = ["pareto.pdf", "pareto.png", "schedules.pdf", "schedules.png"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for path in written:
        if path.suffix == ".pdf":
            content = path.read_bytes()
            assert b"/Type3" not in content.replace(b" ", b"")
            assert re.search(rb"/FontFile2|/CIDFontType2", content)
            assert b"/CreationDate" not in content
        else:
            with Image.open(path) as image:
                assert round(image.info["dpi"][0]) == 300
                # Not blank: ink of several colours.
                assert len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_the_trials_beside_one_result_are_those_of_its_budget(tmp_path, low):
    other = [replace(each, budget="4 TFLOPs", accuracy=0.2, samples=500) for each in _records()]
    drawn = {}
    for name, records in (("one", _records()), ("both", [*_records(), *other])):
        (tmp_path / name).mkdir()
        write_job_figures([low], records, tmp_path / name)
        drawn[name] = (tmp_path / name / "pareto.png").read_bytes()
    assert drawn["one"] == drawn["both"]


def test_the_report_says_plainly_what_is_not_significant(tmp_path, low, high):
    console = Console(width=120, record=True, file=io.StringIO())
    print_report([low, high], console)
    write_report([low, high], tmp_path / "report.md")
    for text in (console.export_text(), (tmp_path / "report.md").read_text()):
        searched = low.schedule("searched").evidence
        assert f"{100 * searched.relative_accuracy:.1f}" in text
        assert "a synthetic model, 600 report samples" in re.sub(r"\s+", " ", text)
        flat = re.sub(r"\s+", " ", text)
        assert "2 TFLOPs: the searched schedule is better than VisionDrop" in flat
        assert "not significantly different from DeSAP" in flat
        assert "worse than DeSAP" in flat  # at 4 TFLOPs
        (row,) = [line for line in text.splitlines() if "DeSAP" in line and "+0.0" in line]
        assert "not significant" in row
