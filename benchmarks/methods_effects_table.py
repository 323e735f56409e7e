"""The tables of `methods_effects.py`."""

from __future__ import annotations

from methods_effects_records import ContrastResult, Effects, Paired
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_effects(effects: Effects, console: Console) -> None:
    """Print contrasts, orders, and which methods do not beat a control."""
    console.print(
        Text(
            f"Measured on {effects.measured_on}, {effects.samples} report samples; priced for "
            f"{effects.priced_for}. Points of relative accuracy, first minus second, with 95 % "
            "intervals; papers' figures are of LLaVA-1.5-7B."
        )
    )
    for contrast in effects.contrasts:
        table = _table(f"{contrast.name}: {contrast.first} minus {contrast.second}")
        for column in ("Tokens", "Points", "Papers", "Verdict"):
            table.add_column(column, justify="left" if column == "Verdict" else "right")
        for here in contrast.budgets:
            paper = "" if here.paper_points is None else f"{here.paper_points:+.1f}"
            table.add_row(str(here.tokens), points(here), paper, here.verdict)
        if contrast.trend is not None:
            claim = "grows" if contrast.trend_claimed else ""
            table.add_row("per halving", points(contrast.trend), claim, contrast.trend.verdict)
        console.print(table)
        console.print(Text(f"Equal: {contrast.equal}. Papers: {contrast.papers}.\n"))
    table = _table("Orders of methods")
    for column in ("Source", "Tokens", "Paper's order", "Kendall's tau", "pairs"):
        table.add_column(column)
    for order in effects.orders:
        verdicts = [pair.verdict for pair in order.pairs]
        table.add_row(
            order.source,
            str(order.tokens),
            " > ".join(order.methods),
            f"{order.kendall_tau:+.2f}",
            f"{verdicts.count('agrees')} agree, {verdicts.count('disagrees')} disagree, "
            f"{verdicts.count('not significant')} not significant",
        )
    console.print(table)
    for line in not_beating(effects):
        console.print(Text(line))


def markdown(effects: Effects) -> str:
    """Return the contrasts as a Markdown table, significant differences in bold.

    Args:
        effects: The effects.

    Returns:
        The table, contrasts in rows and budgets in columns.
    """
    tokens = [here.tokens for here in effects.contrasts[0].budgets]
    lines = [
        ["effect", "papers", *(f"{count} tokens" for count in tokens), "per halving"],
        ["---", "---", *["---:"] * (len(tokens) + 1)],
    ]
    for contrast in effects.contrasts:
        paired = [*contrast.budgets, *([contrast.trend] if contrast.trend else [])]
        lines.append([contrast.name, _papers(contrast), *map(_emphasised, paired)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def not_beating(effects: Effects) -> list[str]:
    """Say which methods do not beat which control, at each budget.

    Args:
        effects: The effects.

    Returns:
        One line per budget and control.
    """
    lines = []
    for tokens, control in dict.fromkeys((each.tokens, each.control) for each in effects.controls):
        here = [
            each for each in effects.controls if (each.tokens, each.control) == (tokens, control)
        ]
        worse = [each.method for each in here if each.verdict == "disagrees"]
        like = [each.method for each in here if each.verdict == "not significant"]
        lines.append(
            f"{tokens} tokens, against {control}: worse are {', '.join(worse) or 'none'}; "
            f"not distinguishable {', '.join(like) or 'none'}; {len(here) - len(worse + like)} of "
            f"{len(here)} beat it."
        )
    return lines


def points(paired: Paired) -> str:
    """Spell out a difference with its interval, in points."""
    low, high = paired.interval_95
    return f"{100 * paired.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _emphasised(paired: Paired) -> str:
    return points(paired) if paired.verdict == "not significant" else f"**{points(paired)}**"


def _papers(contrast: ContrastResult) -> str:
    """What papers report, in short: the first is better, by how much, and whether it grows."""
    sizes = [
        f"{here.paper_points:+.1f} at {here.tokens}"
        for here in contrast.budgets
        if here.paper_points is not None
    ]
    if not contrast.claimed:
        return ""
    return (", ".join(sizes) or "+") + ("; grows" if contrast.trend_claimed else "")


def _table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title_justify="left", title=title
    )
