"""Prefills of many schedules at once: what schedules have in common is computed once.

Schedules that do the same up to a decoder layer have the same hidden states there. The tree of
prefixes is walked depth first, one batch of samples at a time, with the runtime's own stages and
the model's own layers; a test holds its results against those of the schedules one by one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pruners.adapters import ModelAdapter
from pruners.encoded_media import EncodedMedia
from pruners.groups import GroupReader
from pruners.plan import Plan
from pruners.prefill import Prefill
from pruners.prompt import Prompt
from pruners.schedule import Schedule
from pruners.stages import Stage
from pruners.text_tower import QuestionOutputs


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts with one image each, encoded.

    Attributes:
        input_ids: Token ids, (batch, length).
        mask: Nonzero for tokens, (batch, length).
        media: What stages read of the images.
        features: All projected patches, for schedules that do not prune at layer 0,
            (batch, visual, width).
        questions: What stages read of the questions.
    """

    input_ids: Tensor
    mask: Tensor
    media: EncodedMedia
    features: Tensor
    questions: QuestionOutputs


class _BranchingPrefill(Prefill):
    """A prefill that can go on by another plan than the one it began with."""

    def follow(self, plan: Plan) -> None:
        """Go on by a plan that has the same stages so far.

        Args:
            plan: The plan.
        """
        assert self.batch is not None
        groups = tuple(
            replace(group, counts=plan.counts([tiles.size for tiles in group.classes]))
            for group in self.batch.groups
        )
        self.batch = replace(self.batch, groups=groups)
        self._plan = plan
        self._readers = tuple(GroupReader(group, self.encoded, self.questions) for group in groups)
        # Its own from here on: copies of a prefill share what they have filled so far.
        self._masks = dict(self._masks)
        self._batches = dict(self._batches)


@dataclass
class _Node:
    """A prefix that some schedules share: the prefill so far, and the input of the next layer."""

    prefill: _BranchingPrefill
    hidden: Tensor
    rotation: tuple[Tensor, Tensor]
    attention_mask: Any


@torch.inference_mode()
def last_states(
    adapter: ModelAdapter, schedules: Sequence[Schedule], prompts: Prompts
) -> dict[int, Tensor]:
    """Run a batch under many schedules.

    Args:
        adapter: The model, with no schedule applied.
        schedules: Schedules with layers of the model's depth, in the form that `as_measured` gives.
        prompts: The batch, left padded.

    Returns:
        The normed hidden state of each sample's last token by the schedule's index, each
        (batch, width).
    """
    found: dict[int, Tensor] = {}
    plans = {number: Plan.of(schedule) for number, schedule in enumerate(schedules)}
    for members in _apart(plans, {number: plan.encoder for number, plan in plans.items()}):
        _walk(adapter, members, _root(adapter, members, prompts), 0, found)
    return found


def _apart(plans: Mapping[int, Plan], stages: Mapping[int, Stage | None]) -> list[dict[int, Plan]]:
    """Put together the plans that have the same stage."""
    together: dict[Stage | None, dict[int, Plan]] = {}
    for number, plan in plans.items():
        together.setdefault(stages[number], {})[number] = plan
    return list(together.values())


def _root(adapter: ModelAdapter, plans: Mapping[int, Plan], prompts: Prompts) -> _Node:
    plan = next(iter(plans.values()))
    prompt = Prompt.of_ids(adapter, prompts.input_ids, prompts.mask)
    prefill = _BranchingPrefill(adapter, plan, prompt, questions=prompts.questions)
    prefill.encoded["image"] = prompts.media
    embeds = adapter.embed(prompts.input_ids)
    if not prefill.skips_projector:
        places = (prompts.input_ids == adapter.placeholder_ids()["image"]).unsqueeze(-1)
        embeds = embeds.masked_scatter(places, prompts.features.to(embeds.dtype))
    arguments = {"inputs_embeds": embeds, "attention_mask": prompts.mask}
    hidden = prefill.enter_decoder(arguments)["inputs_embeds"]
    assert prefill.batch is not None
    rotation = adapter.rotation(hidden, prefill.batch.position_ids)
    mask = adapter.causal_mask(hidden, prefill.batch.mask, None, 0)
    return _Node(prefill, hidden, rotation, mask)


def _walk(
    adapter: ModelAdapter,
    plans: Mapping[int, Plan],
    node: _Node,
    layer: int,
    found: dict[int, Tensor],
) -> None:
    """Run the rest of the decoder for schedules that have been the same so far."""
    while layer < len(adapter.decoder_layers):
        branches = _apart(
            plans, {number: plan.decoder.get(layer) for number, plan in plans.items()}
        )
        if len(branches) > 1:
            for branch in branches:
                fork = replace(node, prefill=copy.copy(node.prefill))
                _step(adapter, next(iter(branch.values())), fork, layer)
                _walk(adapter, branch, fork, layer + 1, found)
            return
        _step(adapter, next(iter(plans.values())), node, layer)
        layer += 1
    states = adapter.decoder_norm(node.hidden[:, -1])
    found.update(dict.fromkeys(plans, states))


def _step(adapter: ModelAdapter, plan: Plan, node: _Node, layer: int) -> None:
    """Run a layer, with the stage of a plan before it."""
    node.prefill.follow(plan)
    arguments = {
        "position_embeddings": node.rotation,
        "attention_mask": node.attention_mask,
        "past_key_values": None,
        "position_ids": None,
    }
    hidden, arguments = node.prefill.enter_layer(layer, node.hidden, arguments)
    output = adapter.decoder_layers[layer](hidden, **arguments)
    node.hidden = output[0] if isinstance(output, tuple) else output
