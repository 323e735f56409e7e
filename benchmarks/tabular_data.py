"""The ground truth as data: what every schedule of a lattice does on fixed samples, in one file.

The file is parquet, compressed with zstd: one row per schedule, its results per sample as bytes in
binary columns, and what they are of as JSON in the schema's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lattice import LatticePoint
from numpy.typing import NDArray
from pydantic import ValidationError
from records import Record
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pruners.errors import DataError
from pruners.schedule import Schedule
from pruners.shape import Shape
from search.attention_mass import AttentionMass, shares
from search.evaluators import SampleKey
from studies.files import atomic_path

GROUND_TRUTH_SPLITS = ("search", "report")

_KEY = b"prunetune ground truth"
_LEVELS = 255
"""Steps in which probabilities and agreements are stored."""

_COMPRESSION_LEVEL = 19


class SplitSamples(Record):
    """Samples of a split that schedules were run on.

    Attributes:
        identifiers: Name of each sample.
        tasks: Its task.
        images: Name of its image.
    """

    identifiers: tuple[str, ...]
    tasks: tuple[str, ...]
    images: tuple[str, ...]

    @property
    def keys(self) -> tuple[SampleKey, ...]:
        """The samples as evaluators name them."""
        return tuple(map(SampleKey, self.identifiers, self.tasks, self.images))


class About(Record):
    """What a ground truth is of.

    Attributes:
        model: Name of the measured model.
        measured_on: Model and benchmark, in words.
        fingerprint: Hash of the model.
        shape: Shape of the model.
        split_fingerprints: Hash of each split of the benchmark.
        splits: The samples by split.
        versions: Versions of the libraries that decide results.
    """

    model: str
    measured_on: str
    fingerprint: str
    shape: Shape
    split_fingerprints: dict[str, str]
    splits: dict[str, SplitSamples]
    versions: dict[str, str]


@dataclass(frozen=True)
class GroundTruth:
    """Results of schedules, one row each; row 0 is the dense model.

    Attributes:
        about: What was measured.
        points: The schedules.
        budgets: Budget whose lattice each belongs to, in mean visual tokens; 0 for those of none,
            `(schedules,)`.
        hashes: Their content hashes.
        right: Whether samples were answered right by split, each `(schedules, samples)`.
        answer_probabilities: Probability of the dense model's answer on the search split,
            `(schedules, search samples)`.
        hidden_agreements: Cosine of the last hidden states, pruned and dense, on the search split,
            `(schedules, search samples)`.
        attention: Attention in the dense model on the search split's samples, which some strategies
            read; None where it was not measured.
    """

    about: About
    points: tuple[LatticePoint, ...]
    budgets: NDArray[np.int64]
    hashes: tuple[str, ...]
    right: Mapping[str, NDArray[np.bool_]]
    answer_probabilities: NDArray[np.float32]
    hidden_agreements: NDArray[np.float32]
    attention: AttentionMass | None = None

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each schedule by its content hash."""
        return {content_hash: row for row, content_hash in enumerate(self.hashes)}

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """Visual tokens by layer, `(schedules, layers)`."""
        return np.array([point.tokens for point in self.points])

    @cached_property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules, in the form that is measured."""
        return tuple(point.schedule(self.about.shape) for point in self.points)

    def write(self, path: Path) -> None:
        """Write the file; probabilities and agreements are rounded to 255 steps.

        Attention goes into a file of its own beside it, in half precision.

        Args:
            path: The file to write or replace.
        """
        if self.attention is not None:
            arrays = {
                name: values.astype(np.float16) for name, values in vars(self.attention).items()
            }
            with atomic_path(_attention_path(path)) as temporary:
                save_file(arrays, temporary)
        columns = {
            "mean_tokens": pa.array(self.budgets, pa.int16()),
            "tokens": pa.array([point.tokens for point in self.points], pa.list_(pa.int16())),
            "similarity_weight": pa.array([point.weight for point in self.points]),
            "contextual": pa.array([point.contextual for point in self.points]),
            "content_hash": pa.array([bytes.fromhex(each) for each in self.hashes], pa.binary(32)),
            "search_right": _bits(self.right["search"]),
            "report_right": _bits(self.right["report"]),
            "answer_probabilities": _steps(self.answer_probabilities),
            "hidden_agreements": _steps((1 + self.hidden_agreements) / 2),
        }
        table = pa.table(columns).replace_schema_metadata({_KEY: self.about.model_dump_json()})
        with atomic_path(path) as temporary:
            pq.write_table(
                table,
                temporary,
                compression="zstd",
                compression_level=_COMPRESSION_LEVEL,
                use_dictionary=False,
            )


def read_ground_truth(path: Path) -> GroundTruth:
    """Read a ground truth.

    Args:
        path: A file that `GroundTruth.write` wrote.

    Returns:
        The ground truth.

    Raises:
        DataError: The file is missing or is none.
    """
    try:
        table = pq.ParquetFile(path).read()
        about = About.model_validate_json((table.schema.metadata or {})[_KEY])
    except (OSError, pa.ArrowInvalid, KeyError, ValidationError) as error:
        raise DataError(
            f"{path} is no ground truth ({error}); make it with benchmarks/ground_truth.py"
        ) from error
    column = {name: table.column(name).to_pylist() for name in table.column_names}
    points = map(
        LatticePoint,
        map(tuple, column["tokens"]),
        column["similarity_weight"],
        column["contextual"],
    )
    samples = {split: len(each.identifiers) for split, each in about.splits.items()}
    return GroundTruth(
        about=about,
        points=tuple(points),
        budgets=np.array(column["mean_tokens"]),
        hashes=tuple(content_hash.hex() for content_hash in column["content_hash"]),
        right={
            split: np.unpackbits(
                _bytes(column[f"{split}_right"]), axis=1, count=samples[split]
            ).astype(bool)
            for split in GROUND_TRUTH_SPLITS
        },
        answer_probabilities=_bytes(column["answer_probabilities"]) / np.float32(_LEVELS),
        attention=_read_attention(_attention_path(path)),
        hidden_agreements=2 * (_bytes(column["hidden_agreements"]) / np.float32(_LEVELS)) - 1,
    )


def _attention_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}-attention.safetensors")


def _read_attention(path: Path) -> AttentionMass | None:
    if not path.exists():
        return None
    try:
        arrays = load_file(path)
        return AttentionMass(**{name: shares(each.astype(float)) for name, each in arrays.items()})
    except (OSError, SafetensorError, TypeError) as error:
        raise DataError(f"{path} holds no attention ({error}); make it again") from error


def _bits(values: NDArray[np.bool_]) -> pa.Array:
    return pa.array([row.tobytes() for row in np.packbits(values, axis=1)], pa.binary())


def _steps(shares: NDArray[np.float32]) -> pa.Array:
    steps = np.round(_LEVELS * np.clip(shares, 0, 1)).astype(np.uint8)
    return pa.array([row.tobytes() for row in steps], pa.binary())


def _bytes(rows: list[bytes]) -> NDArray[np.uint8]:
    return np.stack([np.frombuffer(row, np.uint8) for row in rows])
