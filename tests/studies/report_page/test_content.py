"""What the page says: figures, schedules, the gallery."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from pruners import save_schedule
from studies.identity import StudyIdentity
from studies.reading import StoredBudget, StoredStudy
from studies.report_page import write_report_page
from studies.report_page.page import render
from studies.report_page.patches import patch_path
from tests.studies.report_page.html import parsed
from tests.studies.report_page.made import budget_result, gallery_of, png


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


def test_the_same_study_gives_the_same_bytes(study: StoredStudy, tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        assert write_report_page(study, tmp_path / name, gallery_of()) == tmp_path / name
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "two.html"]
