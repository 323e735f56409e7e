"""Command that trains the model again: ``python -m search.embedded.train --out training``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def main(
    out: Annotated[Path, typer.Option(help="Folder of logs, states and the checkpoint.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of scenes, weights and batches.")] = 0,
    scenes: Annotated[int, typer.Option(min=2, help="Number of training scenes.")] = 60_000,
    decoder_layers: Annotated[int, typer.Option(min=2, help="Layers of the decoder.")] = 8,
    decoder_width: Annotated[
        int, typer.Option(min=32, help="Width of the decoder, a multiple of 32.")
    ] = 128,
    towers: Annotated[
        str | None,
        typer.Option(help="Folder of paired towers to take as they are, instead of stage one."),
    ] = None,
    tower_minutes: Annotated[float, typer.Option(help="Longest stage one, 0 for no limit.")] = 22,
    decoder_minutes: Annotated[float, typer.Option(help="Longest stage two, 0 for no limit.")] = 46,
    tower_steps: Annotated[int, typer.Option(help="Most steps of stage one, 0 for no limit.")] = 0,
    decoder_steps: Annotated[
        int, typer.Option(help="Most steps of stage two, 0 for no limit.")
    ] = 0,
    tower_batch: Annotated[int, typer.Option(min=2, help="Images per step of stage one.")] = 64,
    decoder_batch: Annotated[int, typer.Option(min=1, help="Images per step of stage two.")] = 24,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw scenes.")] = 2,
    threads: Annotated[int, typer.Option(help="Threads of the CPU, 0 for torch's choice.")] = 0,
    compiled: Annotated[
        bool, typer.Option(help="Use torch.compile; needs a C++ compiler.")
    ] = False,
    save_seconds: Annotated[float, typer.Option(help="Seconds between saves.")] = 120,
) -> None:
    """Train the towers, projector and decoder; the same command continues after a kill."""
    import torch
    from rich.console import Console

    from pruners.errors import PrunetuneError
    from search.embedded.training.pipeline import TrainingSettings, train

    console = Console()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if threads:
        torch.set_num_threads(threads)
    settings = TrainingSettings(
        seed=seed,
        scenes=scenes,
        decoder_layers=decoder_layers,
        decoder_width=decoder_width,
        towers=towers,
        tower_minutes=tower_minutes or None,
        decoder_minutes=decoder_minutes or None,
        tower_steps=tower_steps or None,
        decoder_steps=decoder_steps or None,
        tower_batch=tower_batch,
        decoder_batch=decoder_batch,
        workers=workers,
        compiled=compiled,
        save_seconds=save_seconds,
    )

    def report(stage: str, entry: dict[str, float]) -> None:
        shown = "  ".join(f"{name} {value:g}" for name, value in entry.items())
        console.print(f"[bold]{stage}[/bold]  {shown}", highlight=False, soft_wrap=True)

    try:
        checkpoint = train(settings, out, torch.device(device), report)
    except PrunetuneError as error:
        console.print(f"error: {error}", style="red")
        raise typer.Exit(2) from error
    console.print(f"checkpoint: {checkpoint}")


if __name__ == "__main__":
    typer.run(main)
