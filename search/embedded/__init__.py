"""The embedded default: a small trained vision-language model and its benchmark, both offline."""

from pathlib import Path

CHECKPOINT: Path = Path(__file__).parent / "checkpoint"
"""Folder of the vision-language model, as ``AutoModelForImageTextToText`` reads it."""

CLIP: Path = CHECKPOINT / "clip"
"""Folder of the paired vision and text towers, as ``CLIPModel`` reads it."""

DATA: Path = Path(__file__).parent / "data"
"""Folder of the benchmark's parquet files, one per split."""

__all__ = ["CHECKPOINT", "CLIP", "DATA"]
