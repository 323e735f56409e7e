"""What can be searched, and what each schedule costs. Needs neither torch nor transformers."""

from space.budgets import Budget, parse_budget
from space.coding import Parameter, SearchSpace
from space.flops import CostBreakdown, breakdown, dense_cost, price
from space.projection import project
from space.shapes import PRESETS, preset, shape_from_pretrained, text_tower_shape

__all__ = [
    "PRESETS",
    "Budget",
    "CostBreakdown",
    "Parameter",
    "SearchSpace",
    "breakdown",
    "dense_cost",
    "parse_budget",
    "preset",
    "price",
    "project",
    "shape_from_pretrained",
    "text_tower_shape",
]
