"""Budgets: the limit that a schedule must meet, in the units that people think in."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context
from typing import Literal

from pruners.errors import BudgetError, shown
from pruners.schedule import Cost
from pruners.shape import Shape
from space.flops import CostModel
from space.working import WorkingStage

BudgetKind = Literal["tflops", "share", "tokens", "kv_bytes"]
"""What a budget limits; `share` is a share of the dense cost in FLOPs, convention `total`."""

_EXPECTED = 'expected for example "2" (TFLOPs), "22%" (of dense), "64 tokens" or "100MB"'
_BYTES = {
    "b": 1,
    "byte": 1,
    "bytes": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
}
_BYTES_SHOWN = ("bytes", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB")
_TFLOPS = {"": 1.0, "t": 1.0, "tflop": 1.0, "tflops": 1.0, "gflop": 1e-3, "gflops": 1e-3}
_TOKENS = ("token", "tokens")
_TEXT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*|%)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """The limit that a schedule must meet; what it costs must not exceed it.

    Attributes:
        kind: What is limited.
        value: The limit: 10^12 FLOPs of one prefill (``"tflops"``), share of the dense model's
            FLOPs in (0, 1] (``"share"``), visual tokens as a mean over decoder layers
            (``"tokens"``), or bytes of the key-value cache after prefill (``"kv_bytes"``).

    Raises:
        BudgetError: The value is not a positive finite number.
    """

    kind: BudgetKind
    value: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise BudgetError(f"a budget must be a positive number, not {self.value}; {_EXPECTED}")

    def __str__(self) -> str:
        """Name of the budget, by which studies and their files know it; people read `label`."""
        match self.kind:
            case "tflops":
                return f"{self.value:.10g} TFLOPs"
            case "share":
                return f"{self.value * 100:.10g}%"
            case "tokens":
                return f"{self.value:.10g} tokens"
            case "kv_bytes":
                return f"{self.value:.10g} bytes"

    @property
    def label(self) -> str:
        """The budget as people read it: its name, with bytes in the unit that is shortest."""
        return _in_bytes(self.value) if self.kind == "kv_bytes" else str(self)

    def limit(self, shape: Shape) -> float:
        """Return the number that `amount` must not exceed.

        Args:
            shape: Shape of the model.

        Returns:
            The limit: 10^12 FLOPs for ``"tflops"`` and ``"share"``, else the budget's own unit.
        """
        if self.kind == "share":
            return self.value * CostModel(shape).tflops(())
        return self.value

    def amount(self, cost: Cost) -> float:
        """Return what a cost spends of this budget, in the unit of `limit`."""
        match self.kind:
            case "tflops" | "share":
                return cost.tflops
            case "tokens":
                return cost.mean_visual_tokens
            case "kv_bytes":
                return cost.kv_bytes

    def amount_of(self, stages: Sequence[WorkingStage], model: CostModel) -> float:
        """Return what stages spend of this budget: `amount` of their cost, without making it.

        Args:
            stages: Stages that drop tokens, by rising layer.
            model: Cost model of the shape.

        Returns:
            The amount, in the unit of `limit`.
        """
        match self.kind:
            case "tflops" | "share":
                return model.tflops(stages)
            case "tokens":
                return model.mean_visual_tokens(stages)
            case "kv_bytes":
                return model.kv_bytes(stages)

    def describe(self, shape: Shape) -> str:
        """Echo the budget with its convention and what it means on a shape.

        Args:
            shape: Shape of the model.

        Returns:
            One line.
        """
        dense = self.amount_of((), CostModel(shape))
        share = self.limit(shape) / dense
        of_dense = f"of {shape.name}'s dense"
        match self.kind:
            case "tflops":
                return (
                    f"{self} per prefill, convention total: {share:.1%} {of_dense} "
                    f"{to_decimals(dense)}"
                )
            case "share":
                return (
                    f"{self} {of_dense} {to_decimals(dense)} TFLOPs per prefill, convention total: "
                    f"{to_decimals(self.limit(shape), 3)} TFLOPs"
                )
            case "tokens":
                return f"{self}, mean over decoder layers: {share:.1%} {of_dense} {dense:.0f}"
            case "kv_bytes":
                return (
                    f"{self.label} of key-value cache after prefill: "
                    f"{share:.1%} {of_dense} {self.in_unit(dense, shape)}"
                )

    def check_dense(self, shape: Shape) -> None:
        """Refuse a budget that the model meets without pruning and more.

        Args:
            shape: Shape of the model.

        Raises:
            BudgetError: The budget is above the dense cost.
        """
        dense = self.amount_of((), CostModel(shape))
        if self.limit(shape) > dense:
            raise BudgetError(
                f"the budget of {self.label} is above the dense cost of {shape.name}, "
                f"{self.in_unit(dense, shape, ROUND_FLOOR)}; choose that or less"
            )

    def check(self, shape: Shape, fallbacks: Sequence[Sequence[WorkingStage]]) -> None:
        """Refuse a budget that some schedules cannot all meet, or that is above the dense cost.

        Args:
            shape: Shape of the model.
            fallbacks: Schedules of one visual token per tile, all of which must meet the budget.

        Raises:
            BudgetError: The budget is below the cost of one visual token per tile, or above the
                dense cost.
        """
        self.check_dense(shape)
        model = CostModel(shape)
        cheapest = max(self.amount_of(stages, model) for stages in fallbacks)
        if self.limit(shape) < cheapest:
            dense = self.amount_of((), model)
            kept = "one visual token" if shape.tiles == 1 else "one visual token per tile"
            if cheapest > dense:
                raise BudgetError(
                    f"schedules for {shape.name} can cost more than its dense "
                    f"{self.in_unit(dense, shape)}, as choosing {kept} alone makes it "
                    f"{self.in_unit(cheapest, shape)}; give the budget in tokens or bytes"
                )
            raise BudgetError(
                f"the budget of {self.label} is below the cheapest schedule for {shape.name}, "
                f"{self.in_unit(cheapest, shape, ROUND_CEILING)} ({kept} is kept); choose one "
                f"between that and {self.in_unit(dense, shape, ROUND_FLOOR)} (dense)"
            )

    def in_unit(self, amount: float, shape: Shape, rounding: str = ROUND_HALF_EVEN) -> str:
        """Spell an amount of this budget out, as people would give it.

        Args:
            amount: The amount, in the unit of `limit`.
            shape: Shape that shares refer to.
            rounding: Where to round to, as `decimal` names it: up or down for an end of a range
                that is offered, which must lie in it.

        Returns:
            The amount, to four digits; bytes to ten.
        """
        match self.kind:
            case "tflops":
                return f"{_to_digits(amount, 4, rounding)} TFLOPs"
            case "share":
                share = _to_digits(100 * amount / CostModel(shape).tflops(()), 4, rounding)
                return f"{share}% ({_to_digits(amount, 4, rounding)} TFLOPs)"
            case "tokens":
                return f"{_to_digits(amount, 4, rounding)} tokens"
            case "kv_bytes":
                unit = self.label.split()[-1]  # one unit for all, so that they can be compared
                return f"{_to_digits(amount / _BYTES[unit.lower()], 10, rounding)} {unit}"


def parse_budget(text: str) -> Budget:
    """Read a budget as people write it.

    Args:
        text: A number and a unit; a bare number means TFLOPs. Units: ``TFLOPs``, ``GFLOPs``, ``%``
            (of the dense FLOPs), ``tokens``, and bytes as ``B``, ``kB``, ``MB``, ``GB``, ``MiB``
            and so on (of the key-value cache). Case does not matter.

    Returns:
        The budget.

    Raises:
        BudgetError: The text cannot be read, or the number is not positive.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise BudgetError(f"cannot read the budget {shown(text)}; {_EXPECTED}")
    value, unit = float(match[1]), match[2].lower()
    if unit in _TFLOPS:
        return Budget("tflops", value * _TFLOPS[unit])
    if unit == "%":
        return Budget("share", value / 100)
    if unit in _TOKENS:
        return Budget("tokens", value)
    if unit in _BYTES:
        return Budget("kv_bytes", value * _BYTES[unit])
    raise BudgetError(
        f"the budget {shown(text)} has the unknown unit {shown(match[2])}; {_EXPECTED}"
    )


def budget_label(name: str) -> str:
    """Return how people read a budget that a file names.

    Args:
        name: The budget's name, as ``str`` gives it.

    Returns:
        Its label; the name itself where that is no budget's.
    """
    try:
        return parse_budget(name).label
    except BudgetError:
        return name


def to_decimals(amount: float, decimals: int = 2) -> str:
    """Round an amount for reading; one below 1 to three digits, so that something is left of it.

    Args:
        amount: The amount.
        decimals: Decimals of larger ones.

    Returns:
        The amount, written out.
    """
    return f"{amount:.3g}" if amount < 1 else f"{amount:.{decimals}f}"


def _to_digits(amount: float, digits: int, rounding: str) -> str:
    rounded = Context(prec=digits, rounding=rounding).create_decimal_from_float(amount)
    return f"{float(rounded):.10g}"


def _in_bytes(amount: float) -> str:
    """Spell bytes out in the unit that needs the fewest characters, no digit left out."""
    exact = f"{amount:.10g}"
    written = [(f"{amount / _BYTES[unit.lower()]:.10g}", unit) for unit in _BYTES_SHOWN]
    fitting = [
        f"{number} {unit}"
        for number, unit in written
        if float(number) >= 1 and f"{float(number) * _BYTES[unit.lower()]:.10g}" == exact
    ]
    return min(reversed(fitting), key=len, default=f"{exact} bytes")
