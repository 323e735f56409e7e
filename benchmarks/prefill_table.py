"""The tables of `prefill.py`: on the terminal, and as Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from prefill_summary import BatchResult, Profile, Row, Speedup, Spread, Summary
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

MEBI = 2**20
_TIMES = (
    "batch", "schedule", "prefill, ms", "speed-up", "decoder, ms", "speed-up",
    "first token, ms", "speed-up", "per token, ms", "speed-up", "KV, MiB", "peak, MiB",
)  # fmt: skip
_LEFT = ("schedule", "part of a prefill")


def print_summary(summary: Summary, console: Console) -> None:
    """Print one table of times; where profiled, one of parts and the places where the host waits.

    Args:
        summary: The benchmark's results.
        console: Where to.
    """
    machine = summary.machine
    loads = (
        f"{result.load[0]:.1f} and {result.load[1]:.1f} at batch {result.batch}"
        for result in summary.batches
    )
    console.print(
        Text(
            f"{summary.shape.name}, {summary.dtype}, {summary.attention} attention, on "
            f"{machine.processor}, {machine.threads} threads, torch {machine.torch}. Medians of "
            f"{summary.repeats} rounds by turns, quartiles in brackets. Speed-up: dense / pruned "
            "in each round, of what the cost model predicts, and the share of that. Load averages "
            f"before and after: {', '.join(loads)}."
        )
    )
    _print(time_cells(summary), console)
    for result in summary.batches:
        if result.profiles:
            _print(part_cells(result), console)
            _print_host_accesses(result.profiles, console)


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown.

    Args:
        cells: Its cells by row, headings first.

    Returns:
        The table.
    """
    heading, *rows = cells
    rule = ["---" if name in _LEFT else "---:" for name in heading]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rows))


def time_cells(summary: Summary) -> list[list[str]]:
    """Spell out all times: headings, then a row per batch size and variant.

    Args:
        summary: The benchmark's results.

    Returns:
        Cells by row; memory is left out where it is not counted.
    """
    rows = [list(_TIMES)]
    for result in summary.batches:
        for index, row in enumerate(result.rows):
            rows.append([str(result.batch), *_times(row, dense=index == 0)])
    if all(row.peak_bytes is None for result in summary.batches for row in result.rows):
        return [row[:-1] for row in rows]
    return rows


def part_cells(result: BatchResult) -> list[list[str]]:
    """Spell out what each part of a prefill takes: headings, then a row per part.

    Args:
        result: Profiles at one batch size, dense first.

    Returns:
        Cells by row: shares of the dense prefill's time, in brackets of its FLOPs.
    """
    profiles = result.profiles
    parts = list(dict.fromkeys(part.part for profile in profiles for part in profile.parts))
    rows = [["part of a prefill", *(profile.name for profile in profiles)]]
    for name in parts:
        found = [
            next((part for part in profile.parts if part.part == name), None)
            for profile in profiles
        ]
        rows.append(
            [
                name,
                *(
                    ""
                    if part is None
                    else _percent(part.of_dense)
                    if part.predicted is None
                    else f"{_percent(part.of_dense)} ({_percent(part.predicted)})"
                    for part in found
                ),
            ]
        )
    overheads = [_percent(profile.scoring_and_merging_of_dense) for profile in profiles[1:]]
    return [*rows, ["from scoring to merging", "", *overheads]]


def _times(row: Row, *, dense: bool) -> list[str]:
    def plain(ratio: Spread) -> str:
        return "" if dense else f"{ratio.median:.2f}"

    def compared(speedup: Speedup) -> str:
        if dense:
            return ""
        measured = speedup.measured
        return (
            f"{measured.median:.2f} [{measured.low:.2f}, {measured.high:.2f}] of "
            f"{speedup.predicted:.2f}: {speedup.of_predicted:.0%}"
        )

    return [
        row.name,
        _milliseconds(row.prefill),
        compared(row.prefill_speedup),
        _milliseconds(row.decoder),
        compared(row.decoder_speedup),
        _milliseconds(row.first_token),
        compared(row.first_token_speedup),
        _milliseconds(row.decode_token),
        plain(row.decode_speedup),
        f"{row.kv_bytes / MEBI:.1f}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / MEBI:.0f}",
    ]


def _milliseconds(spread: Spread) -> str:
    low, median, high = (1000 * value for value in (spread.low, spread.median, spread.high))
    digits = 0 if median >= 100 else 1
    return f"{median:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _print(cells: Sequence[Sequence[str]], console: Console) -> None:
    heading, *rows = cells
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in heading:
        table.add_column(name, justify="left" if name in _LEFT else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _print_host_accesses(profiles: Sequence[Profile], console: Console) -> None:
    for profile in profiles:
        counted = ", ".join(f"{count} {name}" for name, count in profile.events.items())
        console.print(Text(f"{profile.name}: {counted or 'no operation that makes the host wait'}"))
        for step, accesses in (
            ("", profile.host_accesses),
            (", per decoded token", profile.host_accesses_decoding),
        ):
            for access in accesses:
                via = f" via {access.via}" if access.via else ""
                console.print(
                    Text(f"  {access.count} {access.operation} at {access.site}{via}{step}")
                )
