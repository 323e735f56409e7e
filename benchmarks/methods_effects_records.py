"""Results of `methods_effects.py`, as they are written."""

from __future__ import annotations

from typing import Literal

from records import Record

Verdict = Literal["agrees", "disagrees", "not significant", "no claim"]
"""Whether a difference has the papers' direction, where it is significant and they have one."""


class Paired(Record):
    """A paired difference of two relative accuracies.

    Attributes:
        difference: First minus second; 0.01 is a point.
        interval_95: 95 % bootstrap interval over images, paired.
        p_value: Two-sided p-value, Holm-corrected within its family.
        verdict: Against the papers' direction, where they have one: that the first is better.
    """

    difference: float
    interval_95: tuple[float, float]
    p_value: float
    verdict: Verdict


class AtBudget(Paired):
    """A contrast at one budget; its family are the budgets.

    Attributes:
        tokens: Mean visual tokens of the budget.
        first_accuracy: Relative accuracy of the first schedule.
        second_accuracy: That of the second.
        first_tflops: Cost of the first schedule, convention `total`.
        second_tflops: That of the second.
        measured_share_of_tokens: Share of the visual tokens that the first keeps when measured.
        paper_points: What the paper reports at this number of tokens, in points.
    """

    tokens: int
    first_accuracy: float
    second_accuracy: float
    first_tflops: float
    second_tflops: float
    measured_share_of_tokens: float
    paper_points: float | None


class ContrastResult(Record):
    """A contrast at all budgets.

    Attributes:
        name: The contrast.
        first: What the first schedule has, and the papers prefer where they prefer one.
        second: What the second has instead.
        equal: What both share.
        papers: What the papers report.
        budgets: One entry per budget, the largest first.
        trend: How much the difference grows when visual tokens are halved: the least-squares slope
            over the budgets. The papers' direction is that it grows, where they say so. None with
            one budget.
        claimed: Whether the papers say that the first is better.
        trend_claimed: Whether they say that the difference grows.
    """

    name: str
    first: str
    second: str
    equal: str
    papers: str
    budgets: tuple[AtBudget, ...]
    trend: Paired | None
    claimed: bool
    trend_claimed: bool


class OrderedPair(Paired):
    """Two methods, the one that the paper ranks higher first; its family are the order's pairs."""

    better: str
    worse: str
    paper_points: float


class OrderResult(Record):
    """A paper's order of methods, against the measured one.

    Attributes:
        source: The paper and its table.
        tokens: Mean visual tokens.
        methods: Methods in the paper's order, best first.
        paper_percent: Their relative accuracies in the paper.
        percent: Their measured ones.
        kendall_tau: Rank correlation of the two, from -1 to 1.
        pairs: All pairs of methods.
    """

    source: str
    tokens: int
    methods: tuple[str, ...]
    paper_percent: tuple[float, ...]
    percent: tuple[float, ...]
    kendall_tau: float
    pairs: tuple[OrderedPair, ...]


class AgainstControl(Paired):
    """A method minus a control; its family are the methods at this budget."""

    tokens: int
    control: str
    method: str


class Effects(Record):
    """All effects.

    Attributes:
        measured_on: The measured model, in words.
        priced_for: Name of the shape that costs refer to.
        samples: Samples of the report split that were used.
        contrasts: Pairs of schedules that differ in one thing.
        orders: The papers' orders of methods.
        controls: Every method against every control.
    """

    measured_on: str
    priced_for: str
    samples: int
    contrasts: tuple[ContrastResult, ...]
    orders: tuple[OrderResult, ...]
    controls: tuple[AgainstControl, ...]
