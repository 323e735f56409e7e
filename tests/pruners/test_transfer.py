"""Sending values to a device."""

from __future__ import annotations

import torch

from pruners.transfer import send, send_together

CPU = torch.device("cpu")


def test_several_tensors_arrive_as_they_were() -> None:
    parts = [torch.arange(6).view(2, 3), torch.tensor([7]), torch.zeros(0, 4, dtype=torch.long)]
    for part, sent in zip(parts, send_together(parts, CPU), strict=True):
        assert torch.equal(sent, part)


def test_values_arrive_where_they_are_wanted() -> None:
    meta = torch.device("meta")
    assert send(torch.ones(2, 3), meta).device == meta
    assert [part.device for part in send_together([torch.ones(2), torch.ones(1)], meta)] == [
        meta
    ] * 2
    assert torch.equal(send(torch.ones(2, 3), CPU), torch.ones(2, 3))
