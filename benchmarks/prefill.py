"""How much faster a pruned prefill is than a dense one, next to what the cost model predicts.

Dense and pruned calls take turns in one process. Timed are one call of the model (vision tower,
text tower, decoder and head: what the cost model prices), the decoder within it, `generate` until
its first token, and each further token; next to them stand the bytes in the key-value cache and, on
a GPU, the memory that a prefill allocates.

    python benchmarks/prefill.py --shape small
    python benchmarks/prefill.py --shape llava-1.5-7b --device cuda --batch 1 --batch 8 --profile
    python benchmarks/prefill.py --shape llava-next-7b --device cuda --batch 1 --batch 8 --profile

build a model of that shape with random weights, on which time does not depend, print a table and
write ``benchmarks/results/prefill-<shape>-<device>.json``. Questions are read back from the prompt
and encoded inside the timed calls, as they are for a user. ``--profile`` adds what each part of a
prefill takes, and where the host waits for the device.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated

import torch
import transformers
import typer
from prefill_models import Workload, build_workload
from prefill_profile import profile_variants
from prefill_shapes import NAMES, default_schedules, named_shape
from prefill_summary import BatchResult, Machine, Summary, rows, write_summary
from prefill_table import markdown, part_cells, print_summary, time_cells
from prefill_timing import Variant, measure
from rich.console import Console

from pruners.errors import InputError, PrunetuneError
from pruners.published import dense, published
from pruners.shape import Shape

RESULTS = Path(__file__).parent / "results"
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def main(
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(NAMES)}.")] = "small",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(DTYPES)}. Default: float32 on a CPU, else bfloat16."),
    ] = None,
    attention: Annotated[str, typer.Option(help="sdpa, eager or flash_attention_2.")] = "sdpa",
    batches: Annotated[
        list[int] | None, typer.Option("--batch", min=1, help="Repeat for several. Default: 1.")
    ] = None,
    schedules: Annotated[
        list[str] | None,
        typer.Option(
            "--schedule",
            help="Published method and mean visual tokens, as in visiondrop:64; repeat for "
            "several. Default: the methods at the tokens of their published figures.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 15,
    warmup: Annotated[int, typer.Option(min=0, help="Rounds before.")] = 3,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded after the first.")] = 16,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. Default: torch's own.")
    ] = None,
    profiled: Annotated[
        bool, typer.Option("--profile", help="Also say what each part of a prefill takes.")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables as Markdown as well.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="JSON to write. Default: results/prefill-<shape>-<device>.json."),
    ] = None,
) -> None:
    """Time every variant, print the table, write the JSON."""
    console = Console()
    try:
        sizes = named_shape(shape)
        summary = run(
            sizes,
            chosen_device(device),
            dtype or ("bfloat16" if device == "cuda" else "float32"),
            attention,
            batches or [1],
            schedules or list(default_schedules(sizes)),
            repeats=repeats,
            warmup=warmup,
            new_tokens=new_tokens,
            threads=threads,
            profiled=profiled,
        )
        out = out or RESULTS / f"prefill-{shape}-{device}.json"
        write_summary(summary, out)
    except PrunetuneError as error:
        console.print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error
    except torch.OutOfMemoryError as error:
        console.print(
            f"Error: the device's memory does not hold this ({str(error).splitlines()[0]}); use a "
            "smaller --batch or --shape",
            style="red",
            markup=False,
        )
        raise typer.Exit(2) from error
    print_summary(summary, console)
    if as_markdown:
        tables = [time_cells(summary), *(part_cells(r) for r in summary.batches if r.profiles)]
        for cells in tables:
            print(markdown(cells), end="\n\n")
    console.print(f"Written to {out}", markup=False)


def run(
    shape: Shape,
    device: torch.device,
    dtype: str,
    attention: str,
    batches: list[int],
    schedules: list[str],
    *,
    repeats: int,
    warmup: int,
    new_tokens: int,
    threads: int | None,
    profiled: bool,
) -> Summary:
    """Measure everything; the arguments are those of `main`."""
    if dtype not in DTYPES:
        raise InputError(f"--dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    variants = [Variant("dense", dense(shape)), *(variant(text, shape) for text in schedules)]
    if threads is not None:
        torch.set_num_threads(threads)
    workload = build_workload(shape, device, DTYPES[dtype], attention)
    results = []
    for batch in batches:
        load_before = os.getloadavg()[0]
        timings = measure(
            workload, variants, batch, repeats=repeats, warmup=warmup, new_tokens=new_tokens
        )
        results.append(
            BatchResult(
                batch=batch,
                load=(load_before, os.getloadavg()[0]),
                rows=rows(variants, timings, workload.shape, batch),
                profiles=profile_variants(workload, variants, batch, repeats) if profiled else (),
            )
        )
    return Summary(
        machine=machine(workload),
        shape=workload.shape,
        device=device.type,
        dtype=dtype,
        attention=attention,
        repeats=repeats,
        warmup=warmup,
        new_tokens=new_tokens,
        batches=tuple(results),
    )


def chosen_device(name: str) -> torch.device:
    """Return the device of a name, if there is one.

    Raises:
        InputError: The name is unknown, or there is no CUDA device.
    """
    if name not in ("cpu", "cuda"):
        raise InputError(f"--device is {name!r}; expected cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device is cuda, but torch finds no CUDA device here; use --device cpu with --shape "
            "small, or run this where a GPU and a CUDA build of torch are"
        )
    return torch.device(name)


def variant(text: str, shape: Shape) -> Variant:
    """Read a schedule's name.

    Args:
        text: ``method:tokens``.
        shape: The model's sizes.

    Returns:
        The published method at that mean number of visual tokens.

    Raises:
        InputError: The text has another form.
        ScheduleError: The method is unknown, or cannot keep so many tokens.
    """
    method, colon, tokens = text.partition(":")
    if not (colon and tokens.isdecimal()):
        raise InputError(f"--schedule is {text!r}; expected method:tokens, such as visiondrop:64")
    return Variant(text, published(method, int(tokens), shape))


def machine(workload: Workload) -> Machine:
    """Describe what was measured on."""
    device = workload.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return Machine(
        processor=name,
        torch=torch.__version__,
        transformers=transformers.__version__,
        threads=torch.get_num_threads(),
    )


def processor_name() -> str:
    """Return the CPU's name, as far as the system tells it."""
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    typer.run(main)
