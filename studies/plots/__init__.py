"""Figures of a study for papers: one module each, with a data step and a drawing step."""

from studies.plots.writing import write_figures

__all__ = ["write_figures"]
