"""The tables of docs/search-quality.md, written from the results."""

from __future__ import annotations

from pathlib import Path

from search_quality_records import Result, Summary
from search_quality_table import exhaustive, percent, points, quarter, share, span, standing

from pruners.errors import DataError
from studies.files import write_text

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def write_page(summary: Summary, path: Path) -> None:
    """Put the tables of a summary into a page, between its two marks.

    Args:
        summary: The benchmark's results.
        path: The page.

    Raises:
        DataError: The page is missing or has no such marks.
    """
    replace_between(path, BEGIN, END, tables(summary))


def replace_between(path: Path, begin: str, end: str, content: str) -> None:
    """Replace what a page has between two marks.

    Args:
        path: The page.
        begin: The line before the content.
        end: The line after it.
        content: The new content, with a line break at its end.

    Raises:
        DataError: The page is missing or has no such marks.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if begin not in text or end not in text:
        raise DataError(f"{path} has no place for tables; add the lines {begin} and {end}")
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    write_text(path, f"{before}{begin}\n\n{content}\n{end}{after}")


def tables(summary: Summary) -> str:
    """Spell the results as markdown: one table per cost, then ours against the best peer."""
    costs = sorted({result.cost for result in summary.results})
    parts = [_cost_table(summary, cost) for cost in costs]
    if summary.verdicts:
        parts.append(_verdict_table(summary))
    return "\n".join(parts)


def _cost_table(summary: Summary, cost: int) -> str:
    rows: dict[str, list[Result]] = {}
    for result in summary.results:
        if result.cost == cost:
            rows.setdefault(result.strategy, []).append(result)
    ordered = sorted(
        rows.items(), key=lambda row: -sum(each.relative_accuracy.mean for each in row[1])
    )
    heads = [f"{optimum.mean_tokens} tokens" for optimum in summary.optima]
    lines = [
        f"### {cost:,} samples per budget",
        "",
        f"| strategy | samples per trial | {' | '.join(heads)} | mean regret, points |",
        f"| --- | ---: |{' ---: |' * len(heads)} ---: |",
    ]
    for name, results in ordered:
        regret = sum(each.regret_to_search_best.mean for each in results) / len(results)
        shown = f"**{name}**" if name == summary.ours else name
        cells = " | ".join(percent(each.relative_accuracy) for each in results)
        per_trial = results[0].samples_per_trial or ""
        lines.append(f"| {shown} | {per_trial} | {cells} | {100 * regret:.1f} |")
    for label, values in (
        ("best on the search split", [each.search_best for each in summary.optima]),
        ("best on the report split", [each.report_best for each in summary.optima]),
    ):
        cells = " | ".join(f"{100 * value:.1f}" for value in values)
        lines.append(f"| *{label}* | | {cells} | |")
    return "\n".join([*lines, ""])


def _verdict_table(summary: Summary) -> str:
    lines = [
        f"### {summary.ours} against the best peer",
        "",
        "| tokens | samples per budget | best peer | ours minus it, points | over images | "
        "| share of samples | with a quarter of them, points | |",
        "| ---: | ---: | --- | --- | --- | --- | ---: | --- | --- |",
    ]
    lines += [
        f"| {verdict.mean_tokens} | {verdict.cost:,} | {verdict.best_peer} "
        f"| {points(verdict.ours_minus_best)} | {span(verdict.interval_over_images)} "
        f"| {standing(verdict.first_or_tied)} | {share(verdict.share_of_samples)} "
        f"| {quarter(verdict)} | {standing(verdict.tied_at_a_quarter)} |"
        for verdict in summary.verdicts
    ]
    return "\n".join([*lines, "", exhaustive(summary), ""])
