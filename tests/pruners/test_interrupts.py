"""Ctrl-C in the midst of a call, as in notebooks: the next call is as if there had been none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pruners import apply_schedule, published

GREEDY = {"max_new_tokens": 3, "do_sample": False}


@pytest.mark.parametrize("method", ["flowcut", "visiondrop"])
@pytest.mark.parametrize(
    ("where", "before"), [("tower", 0), ("decoder", 0), ("decoder", 1)], ids=str
)
def test_generating_after_an_interrupt(tiny: Any, method: str, where: str, before: int) -> None:
    """Of the decoder's calls the first is the prefill, and the second a step."""
    layers = {"tower": tiny.model.model.vision_tower.encoder.layers, "decoder": tiny.decoder_layers}
    schedule = published(method, tiny.visual_tokens // 2, tiny.shape)
    inputs = tiny.inputs(["w1 w2 w3", "w4"])
    calls = 0

    def interrupt(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > before:
            raise KeyboardInterrupt

    with apply_schedule(tiny.model, schedule):
        expected = tiny.model.generate(**inputs, **GREEDY)
        hook = layers[where][3].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            tiny.model.generate(**inputs, **GREEDY)
        hook.remove()
        assert torch.equal(tiny.model.generate(**inputs, **GREEDY), expected)
