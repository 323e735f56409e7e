"""Writing the page."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from studies.files import write_text
from studies.kept_tokens import Gallery
from studies.reading import StoredStudy
from studies.report_page.charts import front_chart, names_of
from studies.report_page.patches import gallery_views
from studies.report_page.rows import budget_view, identity_rows
from studies.results import FAR

_PACKAGE = "studies.report_page"

NO_GALLERY = "No kept tokens were recorded for this study."


def write_report_page(
    study: StoredStudy, path: Path, gallery: Gallery | None = None, *, no_gallery: str = NO_GALLERY
) -> Path:
    """Write a study as one page that needs no network and no other file.

    Names, questions and answers are shown as text, whatever they contain. The same study gives the
    same bytes.

    Args:
        study: The study, finished or not.
        path: The file to write or replace, usually ``report.html``.
        gallery: What its schedules keep of sample images.
        no_gallery: Why there is no gallery, where there is none.

    Returns:
        `path`.

    Raises:
        StudyError: The file cannot be written.
    """
    write_text(path, render(study, gallery, no_gallery=no_gallery))
    return path


def render(
    study: StoredStudy, gallery: Gallery | None = None, *, no_gallery: str = NO_GALLERY
) -> str:
    """Make the page.

    Args:
        study: The study.
        gallery: What its schedules keep of sample images.
        no_gallery: Why there is no gallery, where there is none.

    Returns:
        The HTML document.
    """
    results = [stored.result for stored in study.budgets if stored.result is not None]
    names = names_of(results)
    budgets = [budget_view(stored, names) for stored in study.budgets]
    style, script = _asset("report.css"), _asset("report.js")
    return (
        _environment()
        .get_template("report.html")
        .render(
            study=study,
            first=results[0] if results else None,
            budgets=budgets,
            notes=list(dict.fromkeys(b.schedule.note for b in budgets if b.schedule is not None)),
            fronts=[front_chart(results, by_tokens=by_tokens) for by_tokens in (False, True)]
            if results
            else [],
            flattered=any(row.flattered for budget in budgets for row in budget.rows),
            far=FAR,
            gallery=gallery,
            samples=gallery_views(gallery, study.identity.budgets) if gallery else (),
            no_gallery=no_gallery,
            identity=identity_rows(study),
            style=Markup(style),  # our own files, as they are
            script=Markup(script),
            policy=_policy(style, script),
        )
    )


def _policy(style: str, script: str) -> str:
    """Allow the page its own style and script, images inside it, and nothing else."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data_url(text: str) -> str:
    """Make an address that holds a JSON file."""
    return f"data:application/json;base64,{base64.b64encode(text.encode()).decode()}"


@cache
def _asset(name: str) -> str:
    return (resources.files(_PACKAGE) / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_url"] = _data_url
    return environment
