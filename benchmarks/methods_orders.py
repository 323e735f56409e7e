"""Orders of methods that the papers report for LLaVA-1.5-7B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PaperOrder:
    """Methods that a paper ranks at one number of tokens.

    Attributes:
        source: Where.
        tokens: Mean visual tokens, of 576.
        percent: Relative accuracy in percent, by method.
    """

    source: str
    tokens: int
    percent: Mapping[str, float]


ORDERS = (
    PaperOrder(
        "VisionDrop, table 1",
        192,
        {"visiondrop": 98.76, "sparsevlm": 98.64, "pyramiddrop": 96.11, "fastv": 88.45},
    ),
    PaperOrder(
        "DeSAP, main table",
        192,
        {
            "desap": 100.3,
            "flowcut": 99.1,
            "visionzip": 98.4,
            "pyramiddrop": 97.1,
            "sparsevlm": 96.5,
        },
    ),
    PaperOrder(
        "DeSAP, main table",
        128,
        {"desap": 99.6, "flowcut": 98.0, "visionzip": 97.1, "pyramiddrop": 96.0, "sparsevlm": 94.5},
    ),
    PaperOrder(
        "DeSAP, main table",
        64,
        {"desap": 98.1, "flowcut": 95.6, "visionzip": 94.3, "sparsevlm": 88.2, "pyramiddrop": 86.6},
    ),
    PaperOrder("VisionDrop, table 1", 32, {"visiondrop": 91.46, "visionzip": 89.92}),
)
"""All of them, best first."""
