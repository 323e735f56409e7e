"""The documentation as a site: it builds without a warning, and its pages need no other server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pruners
import space

pytest.importorskip("mkdocs", reason="the site needs the extra docs")
pytest.importorskip("mkdocstrings", reason="the site needs the extra docs")

ROOT = Path(__file__).parents[2]
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=["'](https?:)?//"""
    r"""|<link\b(?=[^>]*\brel=["'](?:stylesheet|preload|preconnect|icon|prefetch))"""
    r"""[^>]*\bhref=["'](https?:)?//"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_every_page_of_the_documentation_is_in_the_navigation(site: Path) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert f" {name}\n" in navigation, f"{name} is not in mkdocs.yml"
        built = site / name.removesuffix(".md") / "index.html"
        assert (site / "index.html" if name == "index.md" else built).exists()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not _LOADED.search(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", sheet.read_text()), sheet


def test_what_would_load_from_elsewhere_is_recognised() -> None:
    for text in (
        '<script src="https://cdn.example/x.js">',
        '<link rel="stylesheet" href="https://fonts.googleapis.com/css">',
        "<img alt='' src='//host/x.png'>",
    ):
        assert _LOADED.search(text)
    assert not _LOADED.search(
        '<a href="https://example.org"> <link rel="canonical" href="https://x">'
    )


@pytest.mark.parametrize("package", [pruners, space], ids=lambda package: package.__name__)
def test_every_public_name_has_its_entry_in_the_reference(package: object, site: Path) -> None:
    name = package.__name__  # type: ignore[attr-defined]
    page = (site / "reference" / name / "index.html").read_text()
    missing = [
        public
        for public in package.__all__  # type: ignore[attr-defined]
        if not re.search(rf'id="{name}\.[\w.]*\b{re.escape(public)}"', page)
    ]
    assert missing == []
