"""The page runs nothing but its own script, leads nowhere, and can be read aloud."""

from __future__ import annotations

import base64
import hashlib
import re
from itertools import pairwise
from pathlib import Path

from pruners.schedule import Provenance
from studies.identity import StudyIdentity
from studies.reading import StoredBudget, StoredStudy
from studies.report_page.page import render
from tests.studies.report_page.html import Element, parsed
from tests.studies.report_page.made import budget_result, gallery_of

NASTY = (
    """"><script>alert(1)</script><img src='http://evil.example/x' onerror=alert(2)>{{ 7*7 }}'"""
)


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
