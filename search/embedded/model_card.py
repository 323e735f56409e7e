"""Writing the model card from what training logged and verification measured.

``python -m search.embedded.model_card --training <folder>`` after training; the folder's checkpoint
and the figures of ``python -m search.embedded.verification --json-file`` must lie in the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from search.embedded import CARD_FIGURES, CHECKPOINT
from search.embedded.questions import TASKS

PACKAGE = Path(__file__).parent
_TEMPLATE = PACKAGE / "model_card_template.md"
_CURVES = PACKAGE / "curves.png"


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the entries of a training log, one JSON object per line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw_curves(training: Path, path: Path) -> None:
    """Draw what both stages learned over time.

    Args:
        training: Folder of the training run.
        path: Where the picture goes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    tower = read_log(training / "tower.jsonl")
    minutes = [entry["seconds"] / 60 for entry in tower]
    for name, label in (("colour_accuracy", "colour"), ("kind_accuracy", "kind")):
        left.plot(minutes, [100 * entry[name] for entry in tower], label=f"{label} of patches")
    left.set(title="Stage one: vision tower", ylabel="accuracy on training batches, %")
    probes = read_log(training / "search_accuracy.jsonl")
    minutes = [entry["seconds"] / 60 for entry in probes]
    for name in (*TASKS, "mean"):
        style = {"color": "black", "linewidth": 2} if name == "mean" else {}
        shown = [100 * entry[name] for entry in probes]
        right.plot(minutes, shown, label=name.replace("_", " "), **style)
    right.set(title="Stage two: decoder", ylabel="accuracy on the search split, %")
    for axes in (left, right):
        axes.set(xlabel="minutes", ylim=(0, 101))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)


def figures_table(figures: dict[str, Any]) -> str:
    """Return the figures of verification as a Markdown table."""
    lines = [
        "| task | questions | dense | without image | majority answer | random 8 of 144 tokens |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    shares = ("dense", "blind", "majority", "random_tokens")
    tasks = figures["tasks"]
    for task in TASKS:
        value = tasks[task]
        cells = " | ".join(f"{100 * value[name]:.1f}" for name in shares)
        lines.append(f"| {task} | {value['questions']} | {cells} |")
    means = [sum(value[name] for value in tasks.values()) / len(tasks) for name in shares]
    total = sum(value["questions"] for value in tasks.values())
    cells = " | ".join(f"**{100 * mean:.1f}**" for mean in means)
    lines.append(f"| **mean** | {total} | {cells} |")
    return "\n".join(lines)


def main(
    training: Annotated[Path, typer.Option(help="Folder of the training run.")],
) -> None:
    """Write MODEL_CARD.md and curves.png into the package."""
    figures = json.loads(CARD_FIGURES.read_text(encoding="utf-8"))
    settings = json.loads((training / "settings.json").read_text(encoding="utf-8"))
    tower, decoder = (read_log(training / f"{stage}.jsonl")[-1] for stage in ("tower", "decoder"))
    size = sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file())
    draw_curves(training, _CURVES)
    card = _TEMPLATE.read_text(encoding="utf-8").format(
        table=figures_table(figures),
        similarity=figures["similarity"],
        settings=settings,
        tower=tower,
        decoder=decoder,
        tower_minutes=tower["seconds"] / 60,
        decoder_minutes=decoder["seconds"] / 60,
        megabytes=size / 1e6,
    )
    (PACKAGE / "MODEL_CARD.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
