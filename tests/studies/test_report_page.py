"""The page, read back by an HTML parser: its figures, its silence, its safety."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pruners import dense, published, save_schedule
from pruners.schedule import Evidence, Provenance, Schedule
from pruners.shape import LLAVA_1_5_7B
from space.flops import price
from studies.comparing import compare
from studies.identity import StudyIdentity
from studies.kept_tokens import Gallery, KeptSample, KeptStage, KeptTokens
from studies.pareto import pareto_points
from studies.reading import StoredBudget, StoredStudy
from studies.report_page import write_report_page
from studies.report_page.axes import linear_ticks, logarithmic_ticks
from studies.report_page.charts import front_chart, stair_chart, style_of, tokens_in_words
from studies.report_page.page import render
from studies.report_page.patches import patch_path
from studies.results import BudgetResult

NASTY = (
    """"><script>alert(1)</script><img src='http://evil.example/x' onerror=alert(2)>{{ 7*7 }}'"""
)
TASKS = ["counting"] * 200 + ["digits"] * 200
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


def priced(schedule: Schedule) -> Schedule:
    schedule = schedule.model_copy(update={"shape": LLAVA_1_5_7B})
    return schedule.model_copy(update={"cost": price(schedule, LLAVA_1_5_7B)})


def budget_result(tokens: int, budget: str) -> tuple[BudgetResult, Schedule]:
    """The result of a study whose schedules lose answers with known probabilities."""
    rng = np.random.default_rng(tokens)
    right, luck = (rng.random(len(TASKS)) < 0.9).astype(float), rng.random(len(TASKS))
    losses = {
        "searched": 20 / tokens,
        "dense": 0.0,
        "visiondrop": 40 / tokens,
        "desap": 20 / tokens,
    }
    schedules = {
        "searched": priced(published("visiondrop", tokens=tokens + 1)),
        "dense": priced(dense()),
        "visiondrop": priced(published("visiondrop", tokens=tokens)),
        "desap": priced(published("desap", tokens=tokens)),
    }
    scores = {name: right * (luck > losses[name]) for name in schedules}
    result = compare(
        schedules,
        scores,
        TASKS,
        budget=budget,
        measured_on="a synthetic model",
        trials=60,
        evaluations=9000,
        seconds=120.4,
    )
    own = schedules["searched"].model_copy(
        update={
            "evidence": Evidence(
                measured_on="a synthetic model",
                note="Measured on a proxy.",
                splits={"report": result.schedule("searched").evidence},
            ),
            "provenance": Provenance(
                origin="search", command="prunetune --budget-tflops 2", seed=3
            ),
        }
    )
    return result, own


@pytest.fixture(scope="module")
def stored() -> tuple[StoredBudget, ...]:
    budgets = []
    for tokens, budget in ((64, "2 TFLOPs"), (192, "4 TFLOPs")):
        result, schedule = budget_result(tokens, budget)
        path = Path(f"schedule-{budget[0]}-tflops.json")
        budgets.append(StoredBudget(budget, (), result, schedule, path))
    return tuple(budgets)


@pytest.fixture
def study(stored: tuple[StoredBudget, ...], identity: StudyIdentity) -> StoredStudy:
    return StoredStudy("a-study", Path("runs/a-study"), identity, stored)


def png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (30, 20), "teal").save(file, "PNG")
    return file.getvalue()


def gallery_of(text: str = "how many rings?", budget: str = "2 TFLOPs") -> Gallery:
    stages = (
        KeptStage(layer=0, dominant=(0, 1), contextual=(4,), merge="nearest-reference"),
        KeptStage(layer=3, dominant=(1,), contextual=(), merge="none"),
    )
    kept = KeptTokens(budget=budget, schedule="searched", answer=text, stages=stages)
    sample = KeptSample(
        identifier=text,
        task=text,
        question=text,
        expected=text,
        dense_answer="no",
        image=png(),
        rows=2,
        columns=3,
        kept=(kept,),
    )
    return Gallery(measured_on=text, split="report", samples=(sample,))


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parts: list[str | Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        found = []
        for part in self.parts:
            if isinstance(part, Element):
                wanted = attributes.items() <= part.attributes.items()
                found += [part] * (wanted and tag in ("", part.tag)) + part.all(tag, **attributes)
        return found


class Parser(HTMLParser):
    """Python's own parser, which knows nothing of the template; fails where tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def parsed(page: str) -> Element:
    parser = Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root


def test_the_table_has_the_figures_of_the_results(study: StoredStudy) -> None:
    root = parsed(render(study))
    (section,) = root.all("section", id="results")
    rows = section.all("table")[0].all("tr")[1:]
    expected = [
        (budget.result, schedule)
        for budget in study.budgets
        if budget.result
        for schedule in budget.result.schedules
    ]
    assert len(rows) == len(expected)
    for row, (result, schedule) in zip(rows, expected, strict=True):
        cells = [cell.words for cell in row.all("td")]
        evidence = schedule.evidence
        low, high = evidence.interval_95
        assert cells[0] == f"{schedule.tflops:.3f}"
        assert cells[1] == f"{100 * schedule.tflops / result.schedule('dense').tflops:.1f}"
        assert cells[2] == f"{schedule.mean_visual_tokens:.1f}"
        if schedule.name == "dense":
            assert cells[3] == f"100 = {100 * evidence.accuracy:.1f} correct"
        else:
            assert cells[3].rstrip("*") == (
                f"{100 * evidence.relative_accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            )
        for comparison in result.comparisons:
            if comparison.other == schedule.name:
                assert cells[4].startswith(f"{100 * comparison.difference:+.1f} [")
                assert ("not significantly" in cells[5]) == (not comparison.significant)
    verdicts = {row.all("td")[5].words for row in rows}
    assert verdicts == {"", "worse", "better", "not significantly different"}


def test_every_point_of_the_front_is_there_in_words(study: StoredStudy) -> None:
    results = [budget.result for budget in study.budgets if budget.result]
    points = pareto_points(results)
    (panel,) = parsed(render(study)).all(id="front-panel-0")
    shown = [element.attributes for element in panel.all("g") if "data-of" in element.attributes]
    assert len(shown) == len(points)
    for attributes, point in zip(shown, points, strict=True):
        assert f"{100 * point.relative_accuracy:.1f} % of dense" in attributes["aria-label"]
        assert f"{point.tflops:.3f} TFLOPs" in attributes["aria-label"]
        assert (attributes["data-front"] == "yes") == point.on_front


def test_points_stand_in_order_and_inside(study: StoredStudy) -> None:
    results = [budget.result for budget in study.budgets if budget.result]
    for by_tokens in (False, True):
        chart = front_chart(results, by_tokens=by_tokens)
        points = pareto_points(results)
        costs = [point.mean_visual_tokens if by_tokens else point.tflops for point in points]
        assert np.array_equal(np.argsort(costs), np.argsort([point.x for point in chart.points]))
        accuracies = [-point.relative_accuracy for point in points]
        assert np.array_equal(
            np.argsort(accuracies, kind="stable"),
            np.argsort([point.y for point in chart.points], kind="stable"),
        )
        for point in chart.points:
            assert 0 <= point.high <= point.y <= point.low <= 100
            assert 0 <= point.x <= 100
        assert 3 <= len(chart.up) <= 9
        assert 2 <= len(chart.across) <= 8


def test_the_staircase_is_that_of_the_tokens(study: StoredStudy) -> None:
    result = study.budgets[0].result
    assert result is not None
    chart = stair_chart(result, ["searched", "dense", "visiondrop", "desap"])
    top = float(chart.up[-1].text) if chart.up[-1].at == 0 else float(chart.up[0].text)
    corners = [tuple(map(float, corner.split(","))) for corner in chart.series[0].line.split()]
    tokens = result.schedule("searched").visual_tokens_per_layer
    for layer, count in enumerate(tokens):
        middle = 100 * (layer + 0.5) / len(tokens)
        level = max(corner for corner in corners if corner[0] <= middle)
        before = [y for x, y in corners if x == level[0]]
        assert before[-1] == pytest.approx(100 * (top - count) / top, abs=0.01)


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_ticks_are_round_numbers_around_any_bounds(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    ticks = linear_ticks(low, high)
    numbers = [float(tick.text) for tick in ticks]
    assert 2 <= len(ticks) <= 10
    assert numbers == sorted(set(numbers))
    assert (ticks[0].at, ticks[-1].at) == (100, 0)
    steps = np.diff(numbers)
    assert steps == pytest.approx(steps[0], rel=1e-3)
    assert numbers[0] - 1e-3 * steps[0] <= low
    assert high <= numbers[-1] + 1e-3 * steps[0]


@given(st.floats(0.01, 100), st.floats(1.05, 1000))
def test_logarithmic_ticks_lie_between_their_bounds(low: float, factor: float) -> None:
    ticks = logarithmic_ticks(low, low * factor)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert low <= ticks[0] < ticks[-1] <= low * factor


def test_schedules_that_are_all_alike_have_a_chart() -> None:
    result, _ = budget_result(64, "2 TFLOPs")
    dense_evidence = result.schedule("dense").evidence
    alike = [one.model_copy(update={"evidence": dense_evidence}) for one in result.schedules]
    chart = front_chart([result.model_copy(update={"schedules": tuple(alike)})], by_tokens=False)
    assert len({point.y for point in chart.points}) == 1
    assert all(0 <= point.y <= 100 for point in chart.points)


def test_a_staircase_in_words() -> None:
    result, _ = budget_result(64, "2 TFLOPs")
    own = result.schedule("searched").model_copy(
        update={"visual_tokens_per_layer": (9, 9, 4, 1, 1)}
    )
    assert tokens_in_words(own) == "9 tokens in layers 0 to 1, 4 in layer 2, 1 in layers 3 to 4"


def test_the_schedule_can_be_downloaded_as_its_file(study: StoredStudy, tmp_path: Path) -> None:
    root = parsed(render(study))
    links = [link for link in root.all("a") if "download" in link.attributes]
    assert len(links) == 2
    for link, budget in zip(links, study.budgets, strict=True):
        assert budget.schedule is not None
        save_schedule(budget.schedule, tmp_path / "schedule.json")
        kind, _, content = link.attributes["href"].partition(",")
        assert kind == "data:application/json;base64"
        assert base64.b64decode(unquote(content)) == (tmp_path / "schedule.json").read_bytes()
        assert link.attributes["download"] == str(budget.schedule_path)
    shown = [json.loads(code.text) for code in root.all("code") if code.text.startswith("{")]
    assert [one["stages"][0]["retention"] for one in shown] == [
        budget.schedule.stages[0].retention for budget in study.budgets if budget.schedule
    ]


def test_the_gallery_draws_what_is_kept(study: StoredStudy) -> None:
    root = parsed(render(study, gallery_of()))
    (section,) = root.all("section", id="kept")
    pictures = [svg for svg in section.all("svg") if svg.attributes.get("role") == "img"]
    paths = [[path.attributes["d"] for path in svg.all("path")] for svg in pictures]
    assert [list(map(pixels, pair)) for pair in paths] == [
        [{(2, 0), (0, 1), (2, 1)}, {(1, 1)}],
        [{(0, 0), (2, 0), (0, 1), (1, 1), (2, 1)}, set()],
    ]
    assert pictures[0].attributes["aria-label"] == (
        "encoder output: 2 dominant, 1 contextual, 3 of 6 dropped"
    )
    (image,) = section.all("image")
    assert base64.b64decode(image.attributes["href"].partition(",")[2]) == png()
    assert "Nothing was recorded at this budget." in section.words  # at 4 TFLOPs


def pixels(path: str) -> set[tuple[int, int]]:
    """Fill an SVG path of boxes: the patches that it covers, as (column, row)."""
    boxes = re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path)
    assert "".join(f"M{x} {y}h{w}v1h-{b}z" for x, y, w, b in boxes) == path
    assert all(width == back for _, _, width, back in boxes)
    return {(int(x) + step, int(y)) for x, y, w, _ in boxes for step in range(int(w))}


@given(st.sets(st.integers(0, 59)), st.integers(1, 12))
def test_a_path_covers_exactly_its_patches(patches: set[int], columns: int) -> None:
    expected = {(patch % columns, patch // columns) for patch in patches}
    assert pixels(patch_path(sorted(patches), columns)) == expected
    apart = patch_path(sorted(patches), columns, apart=True)
    assert pixels(apart) == expected
    assert apart.count("M") == len(patches)


def test_without_a_gallery_the_page_says_why(study: StoredStudy) -> None:
    page = render(study, None, no_gallery="The model has no images.")
    (section,) = parsed(page).all("section", id="kept")
    assert "The model has no images." in section.words


def test_an_unfinished_study_has_a_page_too(identity: StudyIdentity) -> None:
    nothing = StoredBudget("2 TFLOPs", (), None, None, None)
    result, schedule = budget_result(64, "4 TFLOPs")
    unconfirmed = schedule.model_copy(update={"evidence": None, "provenance": None})
    best = StoredBudget("4 TFLOPs", (), None, unconfirmed, Path("schedule-4-tflops.json"))
    root = parsed(render(StoredStudy("half", Path("half"), identity, (nothing, best))))
    assert "2 TFLOPs: 0 trials so far, no result yet; no schedule." in root.words
    assert "not yet confirmed" in root.words
    assert "No budget has a result yet." in root.words
    assert result.budget == "4 TFLOPs"


def test_the_policy_allows_the_pages_own_style_and_script_only(study: StoredStudy) -> None:
    root = parsed(render(study, gallery_of()))
    (style,), (script,) = root.all("style"), root.all("script")
    hashes = [
        base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        for element in (style, script)
    ]
    policies = [meta for meta in root.all("meta") if "http-equiv" in meta.attributes]
    assert [meta.attributes["content"].split("; ") for meta in policies] == [
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src 'sha256-{hashes[0]}'",
            f"script-src 'sha256-{hashes[1]}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    ]
    assert not re.search(r"url\(|@import|//[a-z]", style.text)
    assert not re.search(r"fetch|XMLHttp|import\(|eval|innerHTML|https?:", script.text)


def test_nothing_leads_outside_the_page(study: StoredStudy) -> None:
    root = parsed(render(study, gallery_of()))
    identifiers = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    assert len(identifiers) == len(set(identifiers))
    for element in root.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("href", "src", "xlink:href", "srcset", "action"):
                assert value.startswith("data:") or value.removeprefix("#") in identifiers
            if name in ("aria-controls", "aria-labelledby", "aria-describedby"):
                assert value in identifiers
    assert not [element.tag for element in root.all() if element.tag in ("link", "iframe", "base")]


def test_names_and_questions_stay_text(identity: StudyIdentity) -> None:
    result, schedule = budget_result(64, NASTY)
    result = result.model_copy(update={"measured_on": NASTY, "priced_for": NASTY})
    named = schedule.model_copy(update={"provenance": Provenance(origin="search", command=NASTY)})
    budget = StoredBudget(NASTY, (), result, named, Path(f"{NASTY.replace('/', '')}.json"))
    other = identity.model_copy(update={"model": NASTY, "tasks": (NASTY,)})
    study = StoredStudy(NASTY, Path("x"), other, (budget,))
    nasty = parsed(render(study, gallery_of(NASTY, NASTY)))
    plain = parsed(render(study, gallery_of("plain", NASTY)))
    assert tags(nasty) == tags(plain)
    assert len(nasty.all("script")) == 1
    assert not nasty.all("img")
    assert NASTY in nasty.all("h1")[0].text
    questions = [element.text for element in nasty.all("bdi")]
    assert NASTY in questions
    assert not [
        name for element in nasty.all() for name in element.attributes if name.startswith("on")
    ]


def tags(root: Element) -> list[str]:
    return [element.tag for element in root.all()]


def test_what_is_shown_has_a_name_for_those_who_do_not_see_it(study: StoredStudy) -> None:
    root = parsed(render(study, gallery_of()))
    assert root.all("html")[0].attributes["lang"] == "en"
    for element in root.all():
        role = element.attributes.get("role")
        if role in ("img", "region", "group", "tablist") or "tabindex" in element.attributes:
            named = {"aria-label", "aria-labelledby"} & element.attributes.keys()
            assert named or element.tag == "pre", element.attributes
        if element.tag == "svg" and not element.attributes.get("aria-hidden"):
            inside_plot = "x" in element.attributes  # a marker within a named chart
            assert inside_plot or "aria-label" in element.attributes
        if element.tag == "button":
            assert element.words
        if element.tag == "table":
            heads = element.all("th")
            assert heads
            assert all("scope" in head.attributes for head in heads)
    levels = [int(element.tag[1]) for element in root.all() if re.fullmatch(r"h\d", element.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_the_same_study_gives_the_same_bytes(study: StoredStudy, tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        assert write_report_page(study, tmp_path / name, gallery_of()) == tmp_path / name
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "two.html"]


def test_many_schedules_share_a_grey() -> None:
    few: list[Any] = ["searched", "dense", "visiondrop", "desap", "a", "b"]
    assert [style_of(name, few) for name in few] == [0, 1, 2, 3, 4, 5]
    assert [style_of(name, [*few, "c"]) for name in [*few, "c"]] == [0, 1, 2, 3, None, None, None]
