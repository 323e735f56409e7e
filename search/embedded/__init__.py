"""The embedded default: a small trained vision-language model and its benchmark, both offline."""

from pathlib import Path

CHECKPOINT: Path = Path(__file__).parent / "checkpoint"
"""Folder of the vision-language model, as ``AutoModelForImageTextToText`` reads it."""

CLIP: Path = CHECKPOINT / "clip"
"""Folder of the paired vision and text towers, as ``CLIPModel`` reads it."""

DATA: Path = Path(__file__).parent / "data"
"""Folder of the benchmark's parquet files, one per split."""

CARD_FIGURES: Path = Path(__file__).parent / "figures.json"
"""What the shipped weights scored on the report split, as the model card says."""

__all__ = ["CARD_FIGURES", "CHECKPOINT", "CLIP", "DATA"]
