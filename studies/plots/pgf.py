"""Figures as PGF, which LaTeX typesets in the fonts of the paper; written without LaTeX.

Matplotlib's own PGF canvas asks a running LaTeX how wide each text is. Here its renderer is told
the widths in matplotlib's font, which is wider than the usual text fonts of papers, so that
texts have more room than they need, never less.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_pgf import RendererPgf
from matplotlib.figure import Figure

from studies.latex import escaped

_HEADER = r"""%% Written by prunetune with matplotlib's PGF renderer. In the paper's preamble:
%%   \usepackage{pgf}
%% and, for a figure in another folder with images of its own, \usepackage{import}. In the text:
%%   \input{FILE.pgf}
\begingroup
\makeatletter
\begin{pgfpicture}
"""
_FOOTER = r"""\end{pgfpicture}
\makeatother
\endgroup
"""


def write_pgf(figure: Figure, path: Path) -> None:
    """Write a figure as PGF.

    Args:
        figure: The figure.
        path: The file. Raster images in the figure become PNG files beside it, named after it.
    """
    width, height = figure.get_size_inches()
    with path.open("w", encoding="utf-8") as file:
        file.write(_HEADER)
        file.write(
            rf"\pgfpathrectangle{{\pgfpointorigin}}{{\pgfqpoint{{{width:f}in}}{{{height:f}in}}}}"
            "\n\\pgfusepath{use as bounding box, clip}\n"
        )
        pgf = _Renderer(figure, file)
        mixed: Any = MixedModeRenderer(figure, width, height, figure.dpi, pgf)
        figure.draw(mixed)
        file.write(_FOOTER)


class _Renderer(RendererPgf):
    """Matplotlib's renderer, with text measured in matplotlib's font instead of by LaTeX.

    Text that is no mathematics is escaped: matplotlib's own writes it as LaTeX.
    """

    def __init__(self, figure: Figure, file: TextIO) -> None:
        super().__init__(figure, file)
        width, height = figure.get_size_inches() * figure.dpi
        self._measuring = RendererAgg(width, height, figure.dpi)

    def draw_text(
        self,
        gc: Any,
        x: float,
        y: float,
        s: str,
        prop: Any,
        angle: float,
        ismath: Any = False,
        mtext: Any = None,
    ) -> None:
        """Write a text.

        Args:
            gc: How it looks.
            x: Where it is from the left, in pixels.
            y: Where it is from the bottom, in pixels.
            s: The text.
            prop: Its font.
            angle: Degrees that it is turned by.
            ismath: Whether it holds mathematics.
            mtext: What it is drawn for.
        """
        text = s if ismath else escaped(s)
        super().draw_text(gc, x, y, text, prop, angle, ismath, mtext)

    def get_text_width_height_descent(
        self, s: str, prop: Any, ismath: Any
    ) -> tuple[float, float, float]:
        """Measure a text.

        Args:
            s: The text.
            prop: Its font.
            ismath: Whether it holds mathematics.

        Returns:
            Width, height and descent, in pixels.
        """
        measured: tuple[float, float, float]
        measured = self._measuring.get_text_width_height_descent(s, prop, ismath)
        return measured
