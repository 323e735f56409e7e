"""The page of a finished study in headless Chromium: read, clicked through, and silent."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.command_line import run
from search.embedded_evaluator import EmbeddedEvaluator
from search.kept_tokens import record_gallery
from studies.kept_tokens import Gallery
from studies.reading import StoredStudy, read_study
from studies.report_page import write_report_page
from tests.search.chromium import chromium, missing, prefer, requests, resize

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"the page cannot be opened without {missing()}"
)

SEARCHED, DENSE = "searched", "dense"
LABELS = {"visiondrop": "VisionDrop", "desap": "DeSAP"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that the program has searched and reported on."""
    out = tmp_path_factory.mktemp("runs")
    budgets = ("--budget-tflops", "2", "3")
    trials = ("--trials", "12", "--strategy", "random")
    assert run(["--model", "analytic", *budgets, *trials, "--out", str(out), "--study", "a"]) == 0
    return out / "a"


@pytest.fixture(scope="module")
def study(folder: Path) -> StoredStudy:
    return read_study(folder)


@pytest.fixture(scope="module")
def gallery(study: StoredStudy) -> Gallery:
    """What the embedded model keeps under the study's schedules."""
    schedules = {
        budget.budget: {SEARCHED: budget.schedule} for budget in study.budgets if budget.schedule
    }
    return record_gallery(EmbeddedEvaluator(), schedules, 3)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(browser: Any, study: StoredStudy, gallery: Gallery, tmp_path: Path) -> Iterator[Any]:
    """The page, open; afterwards it must have asked for nothing and complained of nothing."""
    path = write_report_page(study, tmp_path / "report.html", gallery)
    resize(browser, 1200, 900)
    prefer(browser, "light")
    browser.get_log("browser")
    requests(browser)
    browser.get(path.as_uri())
    yield browser
    assert browser.get_log("browser") == []
    asked = [url for url in requests(browser) if not url.startswith("data:")]
    assert asked == [path.as_uri()]


def results_of(folder: Path) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
    return results


def found(driver: Any, selector: str) -> list[Any]:
    elements: list[Any] = driver.find_elements("css selector", selector)
    return elements


def shown(driver: Any, selector: str) -> list[Any]:
    return [element for element in found(driver, selector) if element.is_displayed()]


def test_the_run_itself_has_written_the_page(browser: Any, folder: Path) -> None:
    browser.get((folder / "report.html").as_uri())
    assert found(browser, "h1")[0].text == "a"
    assert "what was measured has no images" in found(browser, "#kept")[0].text
    assert not (folder / "gallery.json").exists()


def test_the_table_shows_the_results(page: Any, folder: Path) -> None:
    rows = [row.text.replace("*", "") for row in found(page, "#results > .wide tr")][1:]
    expected = [
        (result, schedule) for result in results_of(folder) for schedule in result["schedules"]
    ]
    assert len(rows) == len(expected) == 8
    for row, (result, schedule) in zip(rows, expected, strict=True):
        name, evidence = schedule["name"], schedule["evidence"]
        assert LABELS.get(name, name) in row
        assert f"{schedule['tflops']:.3f}" in row
        assert f"{schedule['mean_visual_tokens']:.1f}" in row
        if name == SEARCHED:
            assert result["budget"] in row
        if name != DENSE:
            low, high = evidence["interval_95"]
            accuracy = 100 * evidence["relative_accuracy"]
            assert f"{accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in row


def test_points_stand_where_their_figures_are(page: Any, folder: Path) -> None:
    points = shown(page, "#front .point")
    schedules = {
        (LABELS.get(schedule["name"], schedule["name"]), result["budget"]): schedule
        for result in results_of(folder)
        for schedule in result["schedules"]
    }
    places = []
    for point in points:
        said = point.get_attribute("aria-label")
        label, _, _ = said.partition(":")
        name, _, budget = label.partition(" at ")
        schedule = schedules[name, budget or "2 TFLOPs"]
        assert f"{100 * schedule['evidence']['relative_accuracy']:.1f} % of dense" in said
        assert f"{schedule['tflops']:.3f} TFLOPs" in said
        mark = page.execute_script(
            "const box = arguments[0].querySelector('.target').getBoundingClientRect();"
            "return [box.left + box.width / 2, box.top + box.height / 2]",
            point,
        )
        places.append((*mark, schedule["tflops"], schedule["evidence"]["relative_accuracy"]))
    assert len(places) == 7  # dense stands once
    x, y, tflops, accuracy = np.array(places).T
    # Linear in accuracy and in the logarithm of cost, but for what sets points of a budget apart.
    assert np.abs(np.polyval(np.polyfit(accuracy, y, 1), accuracy) - y).max() < 1
    assert np.abs(np.polyval(np.polyfit(np.log(tflops), x, 1), np.log(tflops)) - x).max() < 15
    assert np.polyfit(accuracy, y, 1)[0] < 0 < np.polyfit(np.log(tflops), x, 1)[0]


def test_a_point_tells_its_figures_and_chooses_its_budget(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    point = next(
        point
        for point in shown(page, "#front .point")
        if point.get_attribute("aria-label").startswith("searched at 3 TFLOPs")
    )
    said = point.get_attribute("aria-label")
    mark = point.find_element("css selector", ".target")
    ActionChains(page).move_to_element(mark).perform()
    (tip,) = shown(page, "#tip")
    assert tip.text == said
    assert found(page, "#schedule-tab-1")[0].get_attribute("aria-selected") == "false"
    ActionChains(page).click(mark).perform()
    assert found(page, "[data-selected]")[0].text == said
    assert found(page, "#schedule-tab-1")[0].get_attribute("aria-selected") == "true"
    assert [panel.get_attribute("id") for panel in shown(page, "#schedules [role=tabpanel]")] == [
        "schedule-panel-1"
    ]
    assert {part.get_attribute("data-budget") for part in shown(page, ".kept")} == {"1"}


def test_the_keyboard_does_what_the_pointer_does(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    point = next(
        point
        for point in shown(page, "#front .point")
        if point.get_attribute("aria-label").startswith("searched at 3 TFLOPs")
    )
    page.execute_script("arguments[0].focus()", point)
    assert shown(page, "#tip")
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not shown(page, "#tip")
    page.switch_to.active_element.send_keys(Keys.ENTER)
    (tab,) = found(page, "#schedule-tab-1")
    assert tab.get_attribute("aria-selected") == "true"
    tab.send_keys(Keys.ARROW_RIGHT)  # the last one's next is the first
    assert page.switch_to.active_element.get_attribute("id") == "schedule-tab-0"
    assert [panel.get_attribute("id") for panel in shown(page, "#schedules [role=tabpanel]")] == [
        "schedule-panel-0"
    ]


def test_the_cost_axis_can_be_visual_tokens(page: Any) -> None:
    assert len(shown(page, "#front figure")) == 1
    found(page, "#front-tab-1")[0].click()
    (figure,) = shown(page, "#front figure")
    assert "Mean visual tokens" in figure.text


def test_the_legend_hides_a_schedule(page: Any) -> None:
    before = len(shown(page, "#front .point"))
    button = next(b for b in found(page, ".legend button") if b.text == "VisionDrop")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    left = shown(page, "#front .point")
    assert len(left) == before - 2
    assert not [point for point in left if "VisionDrop" in point.get_attribute("aria-label")]
    button.click()
    assert len(shown(page, "#front .point")) == before


def test_each_schedule_is_the_file(page: Any, study: StoredStudy) -> None:
    for number, budget in enumerate(study.budgets):
        found(page, f"#schedule-tab-{number}")[0].click()
        (panel,) = shown(page, "#schedules [role=tabpanel]")
        assert budget.schedule_path is not None
        written = budget.schedule_path.read_text()
        (link,) = panel.find_elements("css selector", "a[download]")
        assert base64.b64decode(link.get_attribute("href").partition(",")[2]).decode() == written
        panel.find_element("css selector", "summary").click()
        code = panel.find_element("css selector", "details code")
        assert json.loads(code.text) == json.loads(written)
        assert budget.schedule is not None
        rows = panel.find_elements("css selector", "tbody tr")
        counts = budget.schedule.counts(576)
        assert [row.text.split()[2:5] for row in rows] == [
            [str(count.alive), str(count.dominant), str(count.contextual)] for count in counts
        ]


def test_the_gallery_shows_each_sample_at_each_stage(page: Any, gallery: Gallery) -> None:
    for place, sample in enumerate(gallery.samples):
        found(page, f"#sample-tab-{place}")[0].click()
        (panel,) = shown(page, "#kept [role=tabpanel]")
        assert panel.find_element("css selector", ".question").text == sample.question
        assert sample.expected in panel.text
        for number, kept in enumerate(sample.kept):
            found(page, f"input[name=kept-budget][value='{number}']")[0].click()
            pictures = [
                picture
                for picture in panel.find_elements("css selector", ".stages .picture")
                if picture.is_displayed()
            ]
            assert len(pictures) == len(kept.stages) > 0
            assert kept.answer in panel.find_element("css selector", "h4").text or number
            for picture, stage in zip(pictures, kept.stages, strict=True):
                alive = {*stage.dominant, *stage.contextual}
                assert bright_patches(picture, sample.image, sample.columns) == alive


def bright_patches(picture: Any, image: bytes, columns: int) -> set[int]:
    """Which patches of a picture on the screen are not darkened, by the pixel in their middle."""
    drawn = Image.open(BytesIO(picture.screenshot_as_png)).convert("RGB")
    size = (columns * 9, columns * 9)
    screen = np.asarray(drawn.resize(size, Image.Resampling.BILINEAR)).astype(float)
    plain = Image.open(BytesIO(image)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
    original = np.asarray(plain).astype(float)
    rows = range(columns)
    return {
        row * columns + column
        for row in rows
        for column in rows
        # The middle third of a patch: dropped ones have a seventh of their light.
        if (block(screen, row, column) > 0.5 * block(original, row, column))
    }


def block(pixels: Any, row: int, column: int) -> float:
    return float(pixels[9 * row + 3 : 9 * row + 6, 9 * column + 3 : 9 * column + 6].mean())


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_can_be_read(page: Any, width: int, scheme: str) -> None:
    resize(page, width, 900)
    prefer(page, scheme)
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    assert contrasts(page) >= 4.5


def contrasts(page: Any) -> float:
    """The least contrast of a text to the page's background, by the formula of WCAG 2.1."""
    colours = page.execute_script(
        """
        const texts = document.querySelectorAll(
          "h1, h2, h3, h4, p, a, td, th, button, dt, dd, b, span, code, summary, figcaption");
        const colour = (e) => getComputedStyle(e).color;
        const back = (e) => {
          for (; e; e = e.parentElement) {
            const own = getComputedStyle(e).backgroundColor;
            if (own !== "rgba(0, 0, 0, 0)") return own;
          }
        };
        return [...texts].filter((e) => e.innerText).map((e) => [colour(e), back(e)]);
        """
    )

    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def ratio(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    assert len(colours) > 50
    return min(ratio(*map(str, pair)) for pair in colours)


def test_on_paper_everything_is_there(page: Any, study: StoredStudy, gallery: Gallery) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert len(shown(page, "#schedules [role=tabpanel]")) == len(study.budgets)
    assert len(shown(page, ".kept")) == len(study.budgets) * len(gallery.samples)
    assert not shown(page, "[role=tab], nav")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    pdf = base64.b64decode(page.print_page())
    assert pdf.startswith(b"%PDF-")


def test_without_scripts_nothing_is_hidden(
    browser: Any, study: StoredStudy, gallery: Gallery, tmp_path: Path
) -> None:
    path = write_report_page(study, tmp_path / "report.html", gallery)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(path.as_uri())
        assert len(shown(browser, "#schedules [role=tabpanel]")) == len(study.budgets)
        assert len(shown(browser, ".kept")) == len(study.budgets) * len(gallery.samples)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_an_added_script_or_request_is_refused(
    browser: Any, study: StoredStudy, tmp_path: Path
) -> None:
    reached: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        script = f"<script>document.title = 'run'; fetch('{address}/fetched')</script>"
        added = f"{script}<script src='{address}/a.js'></script><img src='{address}/x.png'>"
        path = write_report_page(study, tmp_path / "report.html", None)
        clean = path.read_text()
        path.write_text(clean.replace("</body>", f"{added}</body>"))
        browser.get(path.as_uri())
        assert browser.title != "run"
        said = [entry["message"] for entry in browser.get_log("browser")]
        assert len([line for line in said if "Content Security Policy" in line]) == 3
        assert reached == []
        # Without the policy they are made, so that the above shows something.
        path.write_text(re.sub("<meta http-equiv=[^>]*>", "", path.read_text()))
        browser.get(path.as_uri())
        assert browser.title == "run"
        assert {"/a.js", "/x.png"} <= set(reached)
        server.shutdown()
