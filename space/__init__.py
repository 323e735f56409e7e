"""What can be searched, and what each schedule costs. Needs neither torch nor transformers."""

from space.budgets import Budget, parse_budget
from space.coding import SearchSpace
from space.flops import CostBreakdown, breakdown, dense_cost, price
from space.full_vocabulary import FullVocabulary
from space.mission_vocabulary import MissionVocabulary
from space.parameters import Choice, Parameter
from space.projection import project, published_within
from space.shapes import PRESETS, preset, shape_from_pretrained, text_tower_shape
from space.vocabulary import Vocabulary

__all__ = [
    "PRESETS",
    "Budget",
    "Choice",
    "CostBreakdown",
    "FullVocabulary",
    "MissionVocabulary",
    "Parameter",
    "SearchSpace",
    "Vocabulary",
    "breakdown",
    "dense_cost",
    "parse_budget",
    "preset",
    "price",
    "project",
    "published_within",
    "shape_from_pretrained",
    "text_tower_shape",
]
