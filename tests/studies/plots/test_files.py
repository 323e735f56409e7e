"""The files of figures: sizes, fonts, formats, and what a LaTeX paper makes of them."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from PIL import Image
from pypdf import PdfReader

from pruners.errors import StudyError
from studies.paper_tables import write_tables
from studies.plots import write_figures
from studies.plots.files import FORMATS

NAMES = ["pareto", "anytime", "hypervolume", "importance", "schedules", "tasks", "kept-2-tflops"]

PAPER = r"""
\documentclass[10pt,twocolumn]{article}
\usepackage[letterpaper,textwidth=6.75in,columnsep=0.25in,textheight=9in]{geometry}
\usepackage{booktabs}\usepackage{graphicx}\usepackage{pgf}
\begin{document}
Text.
\input{figures.tex}
\clearpage
\input{table.tex}
\bibliographystyle{plain}\bibliography{references}
\end{document}
"""


@pytest.mark.parametrize(("width", "points"), [("column", 3.25 * 72), ("page", 6.75 * 72)])
def test_every_format_is_written_at_the_width_of_the_paper(study, gallery, tmp_path, width, points):
    folder = tmp_path / "figures"
    written = write_figures(study, folder, width=width, gallery=gallery)
    expected = [f"{name}.{suffix}" for name in NAMES for suffix in (*FORMATS, "csv")]
    assert [path.name for path in written] == [*expected, "figures.tex"]
    left = {path.name for path in folder.iterdir()} - {path.name for path in written}
    # Images in PGF are files beside it, the picture and its cover on four panels of two rows.
    assert left == {f"kept-2-tflops-img{number}.png" for number in range(len(left))}
    for name in NAMES:
        _check_pdf(folder / f"{name}.pdf", points)
        _check_svg(folder / f"{name}.svg", points)
        with Image.open(folder / f"{name}.png") as image:
            assert image.info["dpi"][0] == pytest.approx(300, abs=0.1)
            assert image.width == pytest.approx(300 * points / 72, abs=1)
        _check_pgf(folder / f"{name}.pgf", points)


def _check_pdf(path, points):
    (page,) = PdfReader(path).pages
    assert float(page.mediabox.width) == pytest.approx(points, abs=0.01)
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    assert fonts
    for font in fonts:
        assert font["/Subtype"] == "/Type0"  # not type 3, which publishers refuse
        (descendant,) = font["/DescendantFonts"]
        assert "/FontFile2" in descendant.get_object()["/FontDescriptor"].get_object()
    sizes = []

    def visit(text, matrix, text_matrix, font, size):
        if text.strip():
            scale = math.hypot(text_matrix[0], text_matrix[1]) * math.hypot(*matrix[:2])
            sizes.append(scale * size)

    page.extract_text(visitor_text=visit)
    assert sizes
    assert min(sizes) >= 6.99


def _check_svg(path, points):
    root = ElementTree.parse(path).getroot()
    assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(points)
    for element in root.iter():
        assert not element.tag.endswith("}text")  # letters are shapes: no font can be missing
        for key, value in element.attrib.items():
            if key.endswith("href"):
                assert value.startswith(("#", "data:"))


def _check_pgf(path, points):
    text = path.read_text()
    (width,) = re.findall(
        r"\\pgfpathrectangle\{\\pgfpointorigin\}\{\\pgfqpoint\{([\d.]+)in\}", text
    )
    assert float(width) == pytest.approx(points / 72)
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.count(r"\begin{pgfscope}") == text.count(r"\end{pgfscope}")
    for image in re.findall(r"\{([\w.-]+\.png)\}", text):
        assert (path.parent / image).exists()


def test_pgf_needs_no_tex(study, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    write_figures(study, tmp_path, formats=("pgf",))
    text = (tmp_path / "pareto.pgf").read_text()
    assert r"\fontsize{7.000000}" in text
    assert "VisionDrop" in text


def test_the_same_study_gives_the_same_bytes(study, gallery, tmp_path):
    formats = ("pdf", "svg", "pgf")
    one = write_figures(study, tmp_path / "one", formats, gallery=gallery)
    other = write_figures(study, tmp_path / "other", formats, gallery=gallery)
    for first, second in zip(one, other, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_a_study_shows_what_it_has(study, tmp_path):
    empty = replace(
        study, budgets=tuple(replace(each, trials=(), result=None) for each in study.budgets)
    )
    assert write_figures(empty, tmp_path / "empty") == []
    running = replace(study, budgets=tuple(replace(each, result=None) for each in study.budgets))
    written = write_figures(running, tmp_path / "running", formats=("png",))
    assert [path.name for path in written] == [
        *("anytime.png", "anytime.csv"),
        *("importance.png", "importance.csv"),
    ]
    single = replace(study, budgets=study.budgets[:1])
    written = write_figures(single, tmp_path / "single", formats=("png",))
    assert {path.stem for path in written} == {
        "pareto",
        "anytime",
        "importance",
        "schedules",
        "tasks",
    }


def test_mistakes_are_said(study, tmp_path):
    with pytest.raises(StudyError, match=r"pdf, png, svg, pgf, not as bmp"):
        write_figures(study, tmp_path, formats=("png", "bmp"))
    with pytest.raises(StudyError, match="'column' or 'page', not 'wide'"):
        write_figures(study, tmp_path, width="wide")
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"file cannot be created .*choose another"):
        write_figures(study, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX here")
@pytest.mark.parametrize("formats", [("pdf",), ("pgf",)])
@pytest.mark.parametrize("width", ["column", "page"])
def test_a_two_column_paper_takes_them_as_they_are(study, gallery, tmp_path, formats, width):
    write_figures(study, tmp_path, formats=formats, width=width, gallery=gallery)
    write_tables([stored.result for stored in study.budgets], tmp_path)
    (tmp_path / "paper.tex").write_text(PAPER)
    for command in ("pdflatex", "bibtex", "pdflatex", "pdflatex"):
        options = ["-interaction=nonstopmode", "-halt-on-error"] if command == "pdflatex" else []
        ended = subprocess.run(
            [command, *options, "paper"], cwd=tmp_path, capture_output=True, check=False
        )
        assert ended.returncode == 0, ended.stdout.decode(errors="replace")[-2000:]
    log = (tmp_path / "paper.log").read_text(errors="replace")
    assert "Overfull" not in log
    assert "undefined" not in log
    text = "".join(page.extract_text() for page in PdfReader(tmp_path / "paper.pdf").pages)
    assert "Figure 7" in text
    assert "Table 1" in text
