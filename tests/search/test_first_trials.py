"""What a search begins with is called by a method's name only where it is that method."""

from __future__ import annotations

import pytest

from pruners.methods import METHODS
from pruners.schedule import Schedule
from pruners.shape import LLAVA_1_5_7B as SHAPE
from search.first_trials import first_points
from space import FullVocabulary, SearchSpace, parse_budget, published_within

NEAR_ALWAYS = ["near visiondrop", "near desap"]
BY_THE_ENCODER = ["near visionzip", "vispruner", "near cdpruner", "near vscan"]

# Boundaries of the published schedules at these budgets: FastV 1 and 2, PyramidDrop 2, 4, 5 and
# 8, 16, 24, SparseVLM 2, 5, 11 and 3, 7, 16, DART as FastV.
FULL = {
    ("2", 4): {*NEAR_ALWAYS, *BY_THE_ENCODER},
    # FastV reads cached keys; points pay for those of the next layer, here with an encoder stage.
    ("2", 1): {*NEAR_ALWAYS, *BY_THE_ENCODER, "pyramiddrop", "near sparsevlm", "dart"},
    ("4.5", 4): {*NEAR_ALWAYS, *BY_THE_ENCODER, "pyramiddrop"},
    ("4.5", 1): {
        *(*NEAR_ALWAYS, *BY_THE_ENCODER),
        *("near fastv", "pyramiddrop", "near sparsevlm", "dart"),
    },
}


def full_space(budget: str, layer_step: int) -> SearchSpace:
    return SearchSpace(
        SHAPE, parse_budget(budget), layer_step=layer_step, vocabulary=FullVocabulary()
    )


def as_written(schedule: Schedule) -> list[dict[str, object]]:
    """The stages as their files say, but for the number of tokens."""
    stages = schedule.model_dump(mode="json")["stages"]
    return [{key: stage[key] for key in stage if key != "retention"} for stage in stages]


def alive(schedule: Schedule) -> list[int]:
    return [count.alive for count in schedule.counts(SHAPE.visual_tokens)]


@pytest.mark.parametrize(("budget", "layer_step"), FULL)
def test_which_methods_are_first_trials(budget: str, layer_step: int) -> None:
    assert first_points(full_space(budget, layer_step)).keys() == FULL[budget, layer_step]


@pytest.mark.parametrize(("budget", "layer_step"), FULL)
def test_a_first_trial_is_what_its_origin_says(budget: str, layer_step: int) -> None:
    space = full_space(budget, layer_step)
    for origin, point in first_points(space).items():
        near = origin.startswith("near ")
        own = published_within(origin.removeprefix("near "), SHAPE, space.budget)
        decoded = space.decode(point)
        assert [(stage.layer, stage.scorer.kind) for stage in decoded.stages] == [
            (stage.layer, stage.scorer.kind) for stage in own.stages
        ]
        assert decoded.positions == own.positions
        assert (as_written(decoded) != as_written(own)) == near, origin
        if not near:
            assert alive(decoded) == pytest.approx(alive(own), abs=1)


@pytest.mark.parametrize("budget", ["1.44", "2", "4.5"])
@pytest.mark.parametrize("layer_step", [1, 4])
@pytest.mark.parametrize("stages", [0, 2, 3])
def test_the_missions_space_begins_near_its_two_methods(
    budget: str, layer_step: int, stages: int
) -> None:
    space = SearchSpace(SHAPE, parse_budget(budget), stages, layer_step)
    assert list(first_points(space)) == NEAR_ALWAYS


def test_without_a_stage_that_keeps_the_cls_token_visiondrop_is_a_point() -> None:
    space = SearchSpace(SHAPE, parse_budget("90%"))
    assert published_within("visiondrop", SHAPE, space.budget).stages[0].layer > 0
    assert list(first_points(space)) == ["visiondrop", "near desap"]


def test_controls_and_methods_inside_the_tower_are_no_first_trials() -> None:
    named = {origin.removeprefix("near ") for origin in first_points(full_space("4.5", 1))}
    assert named <= METHODS.keys() - {"random", "downsampling", "flowcut", "tome"}
