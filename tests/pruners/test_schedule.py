"""The schedule contract: the counting rule, validation, scaling, and files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pruners import (
    ClsAttention,
    ClusterAverage,
    Cost,
    Evidence,
    NearestReference,
    NoMerge,
    Provenance,
    Schedule,
    ScheduleError,
    SimilarityFusion,
    SplitEvidence,
    Stage,
    VisualSelfAttention,
    json_schema,
    load_schedule,
    save_schedule,
)
from pruners.counting import alive_tokens, contextual_tokens
from pruners.files import ScheduleWarning
from pruners.scorers import (
    Downsampling,
    InformationFlow,
    KeyNorm,
    LastTokenAttention,
    TokenMatching,
)
from pruners.selectors import Determinantal, LeastDuplication, LocalWindows
from pruners.shape import LLAVA_1_5_7B


def full_schedule() -> Schedule:
    """A schedule that uses every part of the format."""
    return Schedule(
        stages=(
            Stage(
                layer=0,
                retention=0.5,
                contextual=0.125,
                scorer=SimilarityFusion(text_tower="clip", weight=0.3),
                merge=NearestReference(combine="mean"),
            ),
            Stage(layer=8, retention=0.25, scorer=VisualSelfAttention(mean="bidirectional")),
            Stage(layer=24, retention=0, scorer=VisualSelfAttention()),
        ),
        positions="original",
        shape=LLAVA_1_5_7B,
        cost=Cost(
            tflops=2.0,
            dense_tflops=9.0,
            mean_visual_tokens=100.5,
            visual_tokens_per_layer=(288,) * 8 + (144,) * 16 + (0,) * 8,
            llm_macs=0.5,
            kv_bytes=1234,
            breakdown={"decoder": 2.0},
        ),
        evidence=Evidence(
            measured_on="embedded",
            splits={
                "report": SplitEvidence(
                    samples=10,
                    accuracy=0.5,
                    dense_accuracy=0.6,
                    relative_accuracy=0.83,
                    interval_95=(0.7, 0.9),
                )
            },
        ),
        provenance=Provenance(origin="search", seed=0, versions={"torch": "2"}),
    )


@given(numerator=st.integers(0, 4096), visual_tokens=st.integers(1, 4096))
def test_a_count_over_n_gives_back_the_count(numerator: int, visual_tokens: int) -> None:
    count = min(numerator, visual_tokens)
    assert alive_tokens(count / visual_tokens, visual_tokens) == count


@given(retention=st.floats(0, 1), visual_tokens=st.integers(1, 4096))
def test_alive_tokens_is_exact_rounding_half_up(retention: float, visual_tokens: int) -> None:
    exact = math.floor(Fraction(retention * visual_tokens) + Fraction(1, 2))
    assert alive_tokens(retention, visual_tokens) == (max(1, exact) if retention > 0 else 0)


@given(alive=st.integers(1, 3000), share=st.integers(0, 999))
def test_contextual_count_is_the_share_rounded_up(alive: int, share: int) -> None:
    exact = math.ceil(Fraction(share, 1000) * alive)
    assert contextual_tokens(share / 1000, alive) == min(exact, alive - 1)


def test_counts_by_hand() -> None:
    counts = full_schedule().counts(576)
    # 288 = 0.5 * 576, of which ceil(288 / 8) = 36 are contextual.
    assert [tuple(count) for count in counts] == [
        (0, 288, 252, 36),
        (8, 144, 144, 0),
        (24, 0, 0, 0),
    ]
    per_layer = full_schedule().visual_tokens_per_layer(32, 576)
    assert per_layer == (288,) * 8 + (144,) * 16 + (0,) * 8


@pytest.mark.parametrize(
    ("asked", "expected"), [(1, 1), (2, 2), (3, 2), (4, 4), (6, 6), (8, 6), (63, 56), (64, 64)]
)
def test_a_smaller_image_has_a_whole_grid(asked: int, expected: int) -> None:
    stage = Stage(layer=0, retention=asked / 576, scorer=Downsampling())
    assert Schedule(stages=(stage,)).counts(576) == ((0, expected, expected, 0),)


def test_nothing_reads_patches_that_left_inside_the_tower() -> None:
    first = Stage(layer=0, retention=0.5, scorer=InformationFlow())
    second = Stage(layer=8, retention=0.2, scorer=ClsAttention(keep_cls=False))
    with pytest.raises(ValidationError, match="leaves fewer in the vision tower"):
        Schedule(stages=(first, second))


def test_a_stage_that_drops_nothing_merges_nothing() -> None:
    stage = Stage(
        layer=0, retention=1.0, contextual=0.5, scorer=ClsAttention(), merge=NearestReference()
    )
    assert Schedule(stages=(stage,)).counts(576) == ((0, 576, 576, 0),)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"layer": 8, "scorer": ClsAttention()}, "set it to False above layer 0"),
        ({"layer": 0, "scorer": LastTokenAttention()}, "needs a layer above 0"),
        ({"layer": 8, "scorer": Downsampling()}, "inside the vision tower and belongs to layer 0"),
        ({"layer": 8, "scorer": KeyNorm(), "selector": LocalWindows()}, "belongs to layer 0"),
        ({"layer": 0, "scorer": KeyNorm(), "selector": LeastDuplication()}, "text_pivots to 0"),
        ({"layer": 8, "scorer": KeyNorm(), "features": "projected"}, "hidden states"),
        ({"scorer": ClsAttention(), "features": "projected"}, "keep_cls needs features 'vision'"),
        (
            {"scorer": SimilarityFusion(text_tower="clip"), "selector": Determinantal()},
            "needs selector 'top-scores'",
        ),
        ({"scorer": Downsampling(), "selector": Determinantal()}, "needs selector 'top-scores'"),
        ({"scorer": TokenMatching()}, "needs merge rule 'bipartite-matching', not 'none'"),
        ({"scorer": InformationFlow(), "merge": ClusterAverage()}, "needs merge rule 'none'"),
        ({"layer": 0, "scorer": ClsAttention(), "retention": 0.0}, "without an image"),
        ({"layer": 0, "scorer": ClsAttention(), "contextual": 0.1}, "nearest-reference"),
        (
            {"scorer": ClsAttention(), "contextual": 0.1, "merge": ClusterAverage()},
            "'cluster-average' needs contextual 0",
        ),
        ({"scorer": ClsAttention(), "retention": 1.5}, "less than or equal to 1"),
        ({"scorer": ClsAttention(), "retention": float("nan")}, "retention"),
    ],
)
def test_a_stage_whose_parts_do_not_fit_is_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Stage(**{"layer": 0, "retention": 0.5, **values})


@pytest.mark.parametrize(
    ("layers", "retentions", "expected"),
    [
        ((8, 8), (0.5, 0.25), "must rise, but 8 follows 8"),
        ((16, 8), (0.5, 0.25), "must rise, but 8 follows 16"),
        ((8, 16), (0.25, 0.5), "must not rise"),
        ((8, 32), (0.5, 0.25), "needs more than the 32"),
    ],
)
def test_stages_that_do_not_follow_are_refused(
    layers: tuple[int, ...], retentions: tuple[float, ...], expected: str
) -> None:
    stages = tuple(
        Stage(layer=layer, retention=retention, scorer=VisualSelfAttention())
        for layer, retention in zip(layers, retentions, strict=True)
    )
    with pytest.raises(ValidationError, match=expected):
        Schedule(stages=stages, shape=LLAVA_1_5_7B)


def test_scaling_keeps_relative_depth() -> None:
    eight = LLAVA_1_5_7B.model_copy(update={"decoder_layers": 8, "name": "eight layers"})
    scaled = full_schedule().scaled_to(eight)
    assert [stage.layer for stage in scaled.stages] == [0, 2, 6]
    assert scaled.shape == eight
    assert scaled.cost is None
    assert scaled.evidence == full_schedule().evidence
    back = scaled.scaled_to(LLAVA_1_5_7B)
    assert back.content_hash == full_schedule().content_hash


@given(
    layers=st.lists(st.integers(1, 31), min_size=1, max_size=4, unique=True),
    depth=st.integers(2, 80),
)
def test_scaling_always_gives_a_valid_schedule(layers: list[int], depth: int) -> None:
    stages = tuple(
        Stage(layer=layer, retention=1 / (index + 1), scorer=VisualSelfAttention())
        for index, layer in enumerate(sorted(layers))
    )
    shape = LLAVA_1_5_7B.model_copy(update={"decoder_layers": depth})
    scaled = Schedule(stages=stages, shape=LLAVA_1_5_7B).scaled_to(shape)
    assert Schedule.model_validate(scaled.model_dump()) == scaled
    assert scaled.stages[-1].retention == stages[-1].retention


def test_scaling_without_a_shape_is_refused() -> None:
    with pytest.raises(ScheduleError, match="which shape"):
        Schedule().scaled_to(LLAVA_1_5_7B)


def test_the_hash_covers_behaviour_and_nothing_else() -> None:
    schedule = full_schedule()
    renamed = schedule.model_copy(update={"provenance": None, "cost": None, "evidence": None})
    assert renamed.content_hash == schedule.content_hash
    assert (
        schedule.model_copy(update={"positions": "compact"}).content_hash != schedule.content_hash
    )
    moved = schedule.stages[1].model_copy(update={"layer": 9})
    other = schedule.model_copy(update={"stages": (schedule.stages[0], moved, schedule.stages[2])})
    assert other.content_hash != schedule.content_hash


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    save_schedule(full_schedule(), path)
    assert load_schedule(path) == full_schedule()
    assert sorted(tmp_path.iterdir()) == [path]
    values = json.loads(path.read_text())
    assert list(values) == sorted(values)
    assert set(values) == {
        "cost",
        "evidence",
        "format",
        "positions",
        "provenance",
        "shape",
        "stages",
        "version",
    }
    assert set(values["stages"][0]) == {
        "contextual",
        "features",
        "layer",
        "merge",
        "retention",
        "scope",
        "scorer",
        "selector",
    }


def _change(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, **changes}))


def test_unknown_fields_are_named_and_ignored(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    save_schedule(full_schedule(), path)
    values = json.loads(path.read_text())
    values["colour"] = "blue"
    values["stages"][0]["scorer"]["sharpness"] = 3
    values["stages"][1]["merge"]["depth"] = 1
    path.write_text(json.dumps(values))
    with pytest.warns(ScheduleWarning) as caught:
        assert load_schedule(path) == full_schedule()
    message = str(caught[0].message)
    assert len(caught) == 1
    assert "colour" in message
    assert "sharpness" in message
    assert "depth" in message


def test_an_unknown_field_is_not_taken_for_the_kind_of_a_part(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    save_schedule(full_schedule(), path)
    values = json.loads(path.read_text())
    values["stages"][0]["colour"] = "blue"
    path.write_text(json.dumps({**values, "kind": "stages"}))
    with pytest.warns(ScheduleWarning, match="colour"):
        assert load_schedule(path) == full_schedule()


@pytest.mark.parametrize(
    ("given", "twice"),
    [
        ('"retention":', '"retention": 0.9, "retention":'),
        ('"stages":', '"stages": [], "stages":'),
        ('"kind":', '"kind": "random", "kind":'),
    ],
)
def test_a_key_that_is_there_twice_is_refused(tmp_path: Path, given: str, twice: str) -> None:
    path = tmp_path / "schedule.json"
    save_schedule(full_schedule(), path)
    text = path.read_text()
    assert given in text
    path.write_text(text.replace(given, twice, 1))
    name = given.strip('":')
    with pytest.raises(ScheduleError, match=rf"schedule\.json has the key '{name}' more than once"):
        load_schedule(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": "other"}, "'format' should be 'prunetune.schedule', found 'other'"),
        ({"version": 2}, "schedule version 2, this program reads version 1"),
        ({"positions": "sideways"}, "positions: .*'compact' or 'original'.*found 'sideways'"),
        ({"stages": [{"layer": 0}]}, "stages.0.retention: Field required"),
        (
            {"stages": [{"layer": 0, "retention": "x", "scorer": {"kind": "cls-attention"}}]},
            "stages.0.retention: .*number.*found 'x'",
        ),
        (
            {"stages": [{"layer": 0, "retention": 1, "scorer": {"kind": "magic"}}]},
            "stages.0.scorer: .*'cls-attention'.*'visual-self-attention'",
        ),
    ],
)
def test_a_wrong_value_says_which_and_what_was_expected(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    path = tmp_path / "schedule.json"
    save_schedule(full_schedule(), path)
    _change(path, **changes)
    with pytest.raises(ScheduleError, match=expected):
        load_schedule(path)


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"{", b"\xff\xfe\x00", b"null"])
def test_a_file_that_is_no_schedule_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "schedule.json"
    path.write_bytes(content)
    with pytest.raises(ScheduleError, match=r"schedule\.json"):
        load_schedule(path)


def test_a_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match="cannot read"):
        load_schedule(tmp_path / "none.json")
    with pytest.raises(ScheduleError, match="cannot write"):
        save_schedule(full_schedule(), tmp_path / "none" / "schedule.json")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "schedule.json"
    save_schedule(full_schedule(), path)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ScheduleError, match="No space left"):
        save_schedule(Schedule(), path)
    assert load_schedule(path) == full_schedule()
    assert list(tmp_path.iterdir()) == [path]


def test_the_published_json_schema_is_current() -> None:
    file = Path(__file__).parents[2] / "docs" / "schedule.schema.json"
    assert json.loads(file.read_text()) == json_schema()


def test_reading_a_schedule_imports_no_framework(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    save_schedule(full_schedule(), path)
    code = (
        "import sys; from pruners import load_schedule; load_schedule(sys.argv[1]);"
        "print(*{'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == ""


def test_stages_default_to_losing_what_they_drop() -> None:
    stage = Stage(layer=0, retention=0.5, scorer=ClsAttention())
    assert stage.merge == NoMerge()
