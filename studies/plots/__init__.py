"""Figures of a study for papers: one module each, with a data step and a drawing step."""
