"""The benchmark of prefill times: its script, its summary and its profile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from pruners import Schedule, Shape, published
from pruners.errors import InputError, ScheduleError, UnsupportedModelError
from pruners.saliency import key_norms
from pruners.selection import random_scores
from pruners.sequence import Layout
from space.flops import price
from tests.space.counters import flop_counter

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import prefill_host  # noqa: E402
from prefill import main, variant  # noqa: E402
from prefill_host import host_accesses  # noqa: E402
from prefill_models import build_workload, model_config  # noqa: E402
from prefill_profile import OTHER, Range, own_costs, profile_variants  # noqa: E402
from prefill_shapes import (  # noqa: E402
    NAMES,
    SMALL,
    SMALL_NEXT,
    TINY,
    TINY_NEXT,
    default_schedules,
    named_shape,
)
from prefill_summary import rows, speedup, spread  # noqa: E402
from prefill_table import markdown  # noqa: E402
from prefill_timing import Timings, Variant, applied  # noqa: E402

CPU = torch.device("cpu")


app = typer.Typer()
app.command()(main)


def _refused(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def _run(*arguments):
    command = [sys.executable, str(BENCHMARKS / "prefill.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def workload():
    return build_workload(TINY, CPU, torch.float32, "sdpa")


def test_the_script_measures_all_and_writes_it_down(tmp_path):
    out = tmp_path / "out.json"
    arguments = ["--shape", "tiny", "--batch", 2, "--schedule", "visiondrop:64"]
    arguments += ["--schedule", "desap:64", "--repeats", 2, "--warmup", 0, "--new-tokens", 2]
    result = _run(*arguments, "--threads", 1, "--profile", "--markdown", "--out", out)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "| 2 | visiondrop:64 |" in result.stdout
    written = json.loads(out.read_text())
    assert written["machine"]["threads"] == 1
    (batch,) = written["batches"]
    assert [row["name"] for row in batch["rows"]] == ["dense", "visiondrop:64", "desap:64"]
    # Counted in the caches that the runs have filled, and by the formula of the cost model.
    kv_bytes = [row["kv_bytes"] for row in batch["rows"]]
    assert kv_bytes == [row["predicted_kv_bytes"] for row in batch["rows"]]
    width = 2 * TINY.key_value_heads * TINY.head_size * 4  # keys and values in float32
    assert kv_bytes[0] == 2 * TINY.decoder_layers * (576 + 63) * width
    assert kv_bytes[2] == 2 * TINY.decoder_layers * (64 + 63) * width
    for row in batch["rows"]:
        for name in ("prefill", "decoder", "first_token", "decode_token"):
            assert 0 < row[name]["low"] <= row[name]["median"] <= row[name]["high"]
        assert row["peak_bytes"] is None  # torch counts no memory on a CPU
    for row, profile in zip(batch["rows"], batch["profiles"], strict=True):
        assert row["decoder"]["median"] < row["prefill"]["median"]
        parts = {part["part"]: part["of_dense"] for part in profile["parts"]}
        assert {"vision tower", "projector", "decoder", "head", OTHER} <= set(parts)
    assert {"scoring", "selecting", "merging", "rearranging"} <= set(parts)
    assert {"text tower", "reading the question"} <= set(parts)  # the last is DeSAP's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--schedule", "visiondrop"], "expected method:tokens"),
        (["--schedule", "nobody:64"], "known are"),
        (["--shape", "huge"], "llava-1.5-7b"),
        (["--dtype", "int8"], "bfloat16"),
        (["--shape", "tiny", "--attention", "nothing"], "choose sdpa or eager"),
    ],
)
def test_wrong_options_are_refused(arguments, message, tmp_path):
    assert message in _refused(*arguments, "--out", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_said(tmp_path):
    arguments = ["--shape", "llava-1.5-7b", "--device", "cuda", "--out", tmp_path / "out.json"]
    assert "torch finds no CUDA device" in _refused(*arguments)


def test_medians_quartiles_and_ratios():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]).model_dump() == {"median": 3, "low": 2, "high": 4}
    assert spread([1.0, 2.0]).model_dump() == {"median": 1.5, "low": 1.25, "high": 1.75}
    # Ratios are taken round by round: 2, 4, 3. The medians' ratio would be 12 / 4.
    measured = speedup([12.0, 8.0, 30.0], [6.0, 2.0, 10.0], predicted=4.0)
    assert measured.measured.model_dump() == {"median": 3, "low": 2.5, "high": 3.5}
    assert measured.of_predicted == 0.75
    # A machine that is three times slower in one round changes no ratio.
    slowed = speedup([12.0, 24.0, 12.0], [6.0, 12.0, 6.0], predicted=2.0)
    assert slowed.measured.model_dump() == {"median": 2, "low": 2, "high": 2}


def test_rows_hold_times_against_the_cost_of_the_same_schedule():
    variants = [Variant("dense", Schedule()), variant("desap:64", SMALL)]
    timings = [
        Timings([8.0, 8.0], [6.0, 6.0], [9.0, 9.0], [1.0, 1.0], 100, None),
        Timings([2.0, 4.0], [1.0, 2.0], [3.0, 3.0], [0.5, 0.5], 10, 70),
    ]
    dense, pruned = rows(variants, timings, SMALL, batch=3)
    cost, dense_cost = (
        price(published("desap", 64, SMALL), SMALL),
        price(variants[0].schedule, SMALL),
    )
    assert pruned.prefill_speedup.measured.median == 3.0  # of 4 and 2
    assert pruned.prefill_speedup.predicted == dense_cost.tflops / cost.tflops
    assert pruned.prefill_speedup.of_predicted == 3.0 * cost.tflops / dense_cost.tflops
    assert pruned.decoder_speedup.measured.median == 4.5  # of 6 and 3
    # By hand: 4 d^2 + 3 d m MACs per token, 2 d per pair of tokens.
    width, feed_forward = SMALL.hidden_size, SMALL.intermediate_size

    def macs(tokens):
        return tokens * (4 * width**2 + 3 * width * feed_forward) + 2 * width * tokens**2

    assert pruned.decoder_speedup.predicted == pytest.approx(macs(576 + 63) / macs(64 + 63))
    assert pruned.first_token_speedup.measured.median == 3.0
    # `generate` applies the head to the last position alone, and the projector to every token.
    head = 2 * width * SMALL.vocabulary_size / 1e12

    def first_token(own, tokens):
        projector = dense_cost.breakdown["projector"] - own.breakdown["projector"]
        return own.tflops - (tokens - 1) * head + projector

    assert pruned.first_token_speedup.predicted == pytest.approx(
        first_token(dense_cost, 576 + 63) / first_token(cost, 64 + 63)
    )
    assert pruned.decode_speedup.median == 2.0
    assert pruned.predicted_kv_bytes == 3 * cost.kv_bytes
    assert (pruned.kv_bytes, pruned.peak_bytes, dense.peak_bytes) == (10, 70, None)


@pytest.mark.parametrize("name", NAMES)
def test_models_have_the_sizes_that_they_are_priced_at(name):
    shape = named_shape(name)
    config = model_config(shape)
    config.dtype = torch.bfloat16
    read = Shape.from_config(config, name=shape.name, text_tower=shape.text_tower)
    assert read == shape


def test_small_shapes_have_the_tokens_of_the_real_ones():
    for small, real in ((SMALL, "llava-1.5-7b"), (SMALL_NEXT, "llava-next-7b")):
        for name in ("visual_tokens", "newline_tokens", "tiles", "text_tokens", "decoder_layers"):
            assert getattr(small, name) == getattr(named_shape(real), name)


def test_a_tiled_image_costs_what_is_priced():
    shape = TINY_NEXT.model_copy(update={"decoder_layers": 2})
    eager = build_workload(shape, CPU, torch.float32, "eager")
    inputs = eager.inputs(1)
    assert inputs["input_ids"].shape == (1, 5 * 576 + 48 + 63)
    with flop_counter() as counter, torch.inference_mode():
        eager.model(**inputs)
    expected = price(Schedule(), shape).tflops * 1e12
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("name", NAMES)
def test_published_settings_are_timed(name):
    shape = named_shape(name)
    variants = [variant(text, shape) for text in default_schedules(shape)]
    expected = {"visiondrop", "desap", "fastv", "pyramiddrop"}
    assert {one.name.partition(":")[0] for one in variants} == expected
    tokens = 320 if "next" in name else 64
    assert f"desap:{tokens}" in default_schedules(shape)


def test_the_timed_calls_do_the_work_that_is_priced():
    eager = build_workload(TINY, CPU, torch.float32, "eager")
    inputs = eager.inputs(1)
    assert inputs["input_ids"].shape == (1, 576 + 63)
    for text in ("visiondrop:64", "desap:64"):
        schedule = variant(text, TINY).schedule
        with applied(eager, schedule), flop_counter() as counter:
            eager.model(**inputs)
        expected = price(schedule, TINY).tflops * 1e12
        assert counter.get_total_flops() == pytest.approx(expected, rel=0.005)


def test_schedules_are_named_by_method_and_tokens():
    assert variant("fastv:64", SMALL).schedule == published("fastv", 64, SMALL)
    for text in ("fastv", "fastv:", "fastv:-3", "fastv:6.4"):
        with pytest.raises(InputError, match="expected method:tokens"):
            variant(text, SMALL)
    with pytest.raises(ScheduleError, match="known are"):
        variant("nobody:64", SMALL)
    with pytest.raises(UnsupportedModelError, match="small"):
        named_shape("llava-2")


def test_own_costs_leave_out_the_ranges_inside():
    ranges = [
        Range("whole", 0, 100, 100),
        Range("stage", 10, 60, 50),
        Range("choosing", 20, 30, 10),
        Range("merging", 30, 45, 15),
        Range("keys", 31, 35, 4),
        Range("stage", 70, 80, 10),
    ]
    expected = {"whole": 40, "stage": 50 - 25 + 10, "choosing": 10, "merging": 11, "keys": 4}
    assert own_costs(ranges[::-1]) == expected
    assert sum(expected.values()) == 100


def test_ranges_that_start_together_contain_each_other_by_their_end():
    assert own_costs([Range("inner", 0, 4, 4), Range("outer", 0, 10, 10)]) == {
        "outer": 6,
        "inner": 4,
    }


def test_profiling_changes_nothing_and_accounts_for_all_time(workload):
    from pruners import decoder_stage

    before = (decoder_stage.choose_tokens, decoder_stage.merge_dropped, Layout.__dict__["drop"])
    variants = [Variant("dense", Schedule()), variant("fastv:64", TINY)]
    dense, pruned = profile_variants(workload, variants, batch=1, repeats=1)
    after = (decoder_stage.choose_tokens, decoder_stage.merge_dropped, Layout.__dict__["drop"])
    assert after == before
    assert "forward" not in vars(workload.model.lm_head)
    assert sum(part.of_dense for part in dense.parts) == pytest.approx(1.0)
    own = {"vision tower", "projector", "decoder", "head", OTHER}
    assert {part.part for part in dense.parts} == own
    names = {part.part for part in pruned.parts}
    # FastV merges nothing, which takes its time all the same, and reads no question.
    assert names == own | {"scoring", "selecting", "merging", "rearranging"}
    share = {part.part: part.of_dense for part in pruned.parts}
    assert pruned.scoring_and_merging_of_dense == pytest.approx(
        sum(share[name] for name in ("scoring", "selecting", "merging"))
    )


def test_where_the_host_waits_is_found_by_line():
    source = "\n".join(
        [
            "def run(x):",
            "    if x.any():",
            "        x.tolist()",
            "    for _ in range(2):",
            "        x[[0, 1]]",
            "    x[x > 1]",
            "    return x[1:] + x.sum()",
        ]
    )
    names = {}
    file = prefill_host.PACKAGE / "made_up.py"
    exec(compile(source, str(file), "exec"), names)
    found = host_accesses(lambda: names["run"](torch.arange(4)), CPU)
    assert {(one.operation, one.site, one.count) for one in found} == {
        ("__bool__", "pruners/made_up.py:2", 1),
        ("tolist", "pruners/made_up.py:3", 1),
        ("index by a list", "pruners/made_up.py:5", 2),
        ("index by a mask", "pruners/made_up.py:6", 1),
    }
    # What others do is theirs, and what stays on the device waits for nothing.
    assert host_accesses(lambda: torch.arange(4).tolist(), CPU) == ()
    assert host_accesses(lambda: key_norms(torch.ones(1, 2, 3, 4)), CPU) == ()
    # Tensors of lists count if they are made for a device; what the package sends, always.
    make = "def run():\n    torch.tensor([1])\n    torch.tensor([1], device='cpu')"
    names["torch"] = torch
    exec(compile(make, str(file), "exec"), names)
    (made,) = host_accesses(names["run"], CPU)
    assert (made.operation, made.site) == ("tensor", "pruners/made_up.py:3")
    (sent,) = host_accesses(lambda: random_scores(4, 0, CPU), CPU)
    assert (sent.operation, sent.via) == ("sent without waiting", None)
    assert sent.site.startswith("pruners/selection.py:")


def test_tables_as_markdown():
    assert markdown([["schedule", "KV, MiB"], ["dense", "5.0"]]) == (
        "| schedule | KV, MiB |\n| --- | ---: |\n| dense | 5.0 |"
    )
