"""Names and questions in figures are shown as text, whatever they contain."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from matplotlib.figure import Figure
from pypdf import PdfReader

from studies.figure_style import style
from studies.latex import escaped
from studies.plots.files import save_figure
from studies.plots.kept import draw_kept, kept_rows

QUESTION = r"Is $5_a & \foo{#1} or $6^2 ~50%?"  # no mathematics that matplotlib knows

PAPER = r"""
\documentclass{article}
\usepackage{pgf}
\begin{document}
%s
\end{document}
"""


def _asking(gallery, question: str) -> Figure:
    sample = gallery.samples[0].model_copy(update={"question": question})
    asked = gallery.model_copy(update={"samples": (sample,)})
    return draw_kept(kept_rows(asked, "2 TFLOPs", "searched"), "page")


def _read(path) -> str:
    (page,) = PdfReader(path).pages
    return re.sub(r"\s+", "", page.extract_text())


def _typeset(body: str, folder) -> str:
    (folder / "paper.tex").write_text(PAPER % body)
    options = ["-interaction=nonstopmode", "-halt-on-error"]
    ended = subprocess.run(
        ["pdflatex", *options, "paper"], cwd=folder, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stdout.decode(errors="replace")[-2000:]
    return _read(folder / "paper.pdf")


def test_dollars_in_a_question_are_no_mathematics(gallery, tmp_path):
    with style():
        save_figure(_asking(gallery, QUESTION), tmp_path / "kept", ["pdf"])
    assert QUESTION.replace(" ", "") in _read(tmp_path / "kept.pdf")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX here")
def test_latex_typesets_a_question_as_it_is(gallery, tmp_path):
    with style():
        save_figure(_asking(gallery, QUESTION), tmp_path / "kept", ["pgf"])
    # The fonts of LaTeX have accents for two of them; it draws an underscore as a line.
    accents = {"\N{MODIFIER LETTER CIRCUMFLEX ACCENT}": "^", "\N{SMALL TILDE}": "~"}
    found = _typeset(r"\input{kept.pgf}", tmp_path).translate(str.maketrans(accents))
    assert re.sub("[ _]", "", QUESTION) in found


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX here")
def test_latex_typesets_a_name_as_it_is(tmp_path):
    name = "models--my_org--a<b>|c"  # such as a folder in the hub's cache
    assert name.replace("_", "") in _typeset(rf"\noindent {escaped(name)}", tmp_path)
