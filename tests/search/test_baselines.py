"""What a search is compared with, and what is said of the methods that it is not."""

from __future__ import annotations

from pruners.methods import METHODS
from search.baselines import left_out, published_at
from space import FullVocabulary, SearchSpace, parse_budget, preset

TILED = preset("llava-next-7b")


def test_comparisons_leave_out_what_a_shape_cannot_run_and_say_so() -> None:
    space = SearchSpace(TILED, parse_budget("10"), vocabulary=FullVocabulary())
    found = published_at(space.budget, TILED, list(METHODS))
    assert found.keys() == METHODS.keys() - {"flowcut", "tome", "downsampling"}
    assert left_out(space) == (
        "Not compared at 10 TFLOPs, because llava-next-7b cannot run them: FlowCut, ToMe, "
        "smaller image"
    )
    low = SearchSpace(TILED, parse_budget("80 tokens"), vocabulary=FullVocabulary())
    assert left_out(low) == (
        "Not compared at 80 tokens, which is less than they cost at their fewest tokens: FastV, "
        "PyramidDrop, SparseVLM, DART; because llava-next-7b cannot run them: FlowCut, ToMe, "
        "smaller image"
    )
