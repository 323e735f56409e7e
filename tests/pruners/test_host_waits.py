"""Scoring, choosing and merging run without the host waiting for the device, or feeding it.

Tensors of the device ``meta`` have no values: whatever reads one fails. What would be sent to a
device is found by what each operation is given and returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pruners.attention_rows import (
    LayerAttention,
    cls_attention,
    decoupled_output,
    key_heads,
    patch_attention,
)
from pruners.clustering import recycle_tokens
from pruners.diversity import (
    deduplicated_tokens,
    determinantal_tokens,
    least_duplicated_tokens,
    most_distant_tokens,
)
from pruners.flow import accumulate_flow, layer_flow, tokens_to_drop
from pruners.matching import match_tokens, merge_matched
from pruners.merge_rules import merge_dropped
from pruners.merges import (
    BipartiteMatching,
    ClusterAverage,
    DensityPeaks,
    NearestReference,
    NoMerge,
    SimilarityWeighted,
)
from pruners.saliency import key_norms, rater_mask, row_saliency, visual_saliency
from pruners.selection import remaining_tokens, top_tokens, top_tokens_of_two
from pruners.similarity import aligned_similarity, mean_similarity, question_relevance
from pruners.tower_patches import MergingPatches
from pruners.vision_attention import ClipHeads
from pruners.windows import GridScores, top_tokens_of_windows

META = torch.device("meta")
BATCH, TOKENS, WIDTH, HEADS, HEAD = 2, 16, 8, 2, 4

SIZE_DEPENDS_ON_VALUES = {
    "aten::_local_scalar_dense", "aten::_unique2", "aten::equal", "aten::is_nonzero",
    "aten::item", "aten::masked_select", "aten::nonzero", "aten::unique_consecutive",
}  # fmt: skip


class NoHost(TorchDispatchMode):
    """Refuses operations that wait for a device, and those that send it anything."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        if name in SIZE_DEPENDS_ON_VALUES:
            raise AssertionError(f"{name} makes the host wait")
        inputs = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        if name.startswith("aten::index") and any(part.dtype == torch.bool for part in inputs[1:2]):
            raise AssertionError(f"{name} by a mask makes the host wait")
        result = func(*args, **(kwargs or {}))
        outputs = [part for part in tree_leaves(result) if isinstance(part, Tensor)]
        for part in inputs + outputs:
            if part.device != self._device and part.ndim > 0:
                raise AssertionError(f"{name} takes or makes a tensor of the host")
        return result


class NoLists(TorchFunctionMode):
    """Refuses what makes tensors of lists, which no operation shows."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        index = args[1] if name in ("__getitem__", "__setitem__") else ()
        parts = index if isinstance(index, tuple) else (index,)
        if name in ("tensor", "as_tensor") or any(isinstance(part, list | range) for part in parts):
            raise AssertionError("values of a list are sent")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_host() -> Iterator[None]:
    with NoHost(META), NoLists():
        yield


def floats(*shape: int) -> Tensor:
    return torch.empty(shape, device=META)


def places(*shape: int) -> Tensor:
    return torch.empty(shape, device=META, dtype=torch.long)


def masks(*shape: int) -> Tensor:
    return torch.empty(shape, device=META, dtype=torch.bool)


def tokens() -> Tensor:
    return floats(BATCH, TOKENS, WIDTH)


def scores() -> Tensor:
    return floats(BATCH, TOKENS)


def heads(rows: int = TOKENS) -> Tensor:
    return floats(BATCH, HEADS, rows, HEAD)


class Block(torch.nn.Module):
    """Attention block and layer of a vision tower and of a decoder at once."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, torch.nn.Linear(WIDTH, WIDTH, device=META))
        self.layer_norm1 = self.input_layernorm = torch.nn.LayerNorm(WIDTH, device=META)
        self.head_dim, self.scale, self.scaling = HEAD, 0.5, 0.5

    @property
    def self_attn(self) -> Any:
        return self


def decoder_rows() -> None:
    rows = LayerAttention(Block(), tokens(), (floats(1, TOKENS, HEAD), floats(1, TOKENS, HEAD)))  # type: ignore[arg-type]
    rows.queries(places(BATCH, 3))
    rows.keys_of(places(BATCH, 3))
    rows.keys_rotated((floats(BATCH, TOKENS, HEAD), floats(BATCH, TOKENS, HEAD)))
    rows.with_keys(rows.keys)


def similarity() -> None:
    text, mask = floats(BATCH, 5, WIDTH), masks(BATCH, 5)
    image, question = floats(BATCH, WIDTH), floats(BATCH, WIDTH)
    aligned_similarity(tokens(), text, mask, image=image, question=question, clamp_negative=True)
    mean_similarity(tokens(), text, mask)
    question_relevance(tokens(), question)


def matching() -> None:
    patches = MergingPatches(BATCH, TOKENS, META, alive=6, feature=3)
    hidden = floats(BATCH, 1 + TOKENS, WIDTH)
    for layer in range(2):
        keys = floats(BATCH, HEADS, hidden.shape[1], HEAD)
        hidden = patches.leave(layer, hidden, {"k_proj": keys})
    assert patches.key_bias is not None
    found = match_tokens(tokens(), 4)
    merge_matched(tokens(), scores(), found)


def flow() -> None:
    mask = masks(BATCH, TOKENS - 1)
    found = layer_flow(heads(1), heads(), heads(), mask, 0.5)
    accumulate_flow(found.score, found.score, 0.5)
    tokens_to_drop(found.relation, [TOKENS - 1] * BATCH, 4, layers_left=0)


def merging(merge: Any, contextual: int = 0) -> Callable[[], Any]:
    return lambda: merge_dropped(
        merge, tokens(), places(BATCH, 5), contextual, scores=scores(), keys=tokens
    )


CASES: dict[str, Callable[[], Any]] = {
    "CLS attention": lambda: cls_attention(ClipHeads(Block()), tokens()),
    "patch attention": lambda: patch_attention(ClipHeads(Block()), tokens(), 1),
    "decoupled output": lambda: decoupled_output(ClipHeads(Block()), tokens(), "qq"),
    "keys and their norms": lambda: key_norms(key_heads(ClipHeads(Block()), tokens())),
    "decoder rows": decoder_rows,
    **{
        f"visual saliency, {mean}, window {window}": lambda mean=mean, window=window: (
            visual_saliency(
                heads(6), heads(), places(BATCH, 6), masks(BATCH, TOKENS), scale=0.5, mean=mean,
                window=window,
            )
        )
        for mean in ("causal", "attending-queries", "bidirectional")
        for window in (None, 3)
    },
    "row saliency": lambda: row_saliency(
        heads(2), heads(), places(BATCH, 6), places(BATCH, 2), floats(BATCH, 2), None, scale=0.5
    ),
    "raters": lambda: rater_mask(tokens(), tokens(), masks(BATCH, TOKENS)),
    "similarity": similarity,
    "top": lambda: top_tokens(scores(), 5),
    "top of two": lambda: top_tokens_of_two(scores(), scores(), 3, 2),
    "remaining": lambda: remaining_tokens(places(BATCH, 5), TOKENS),
    "windows": lambda: top_tokens_of_windows(
        GridScores(scores(), 2, TOKENS // 2), scores(), 9, share=0.7, windows=3
    ),
    "deduplicated": lambda: deduplicated_tokens(tokens(), scores(), 6, share=0.5, step=2),
    "determinantal": lambda: determinantal_tokens(tokens(), scores(), 6),
    "distant": lambda: most_distant_tokens(tokens(), 6),
    "least duplicated": lambda: least_duplicated_tokens(
        tokens(), scores(), 9, image_pivots=2, text=floats(BATCH, 2, WIDTH)
    ),
    "recycling": lambda: recycle_tokens(tokens(), scores(), 3, 0.5),
    "no merge": merging(NoMerge()),
    "cluster average": merging(ClusterAverage()),
    "similarity weighted": merging(SimilarityWeighted()),
    "bipartite": merging(BipartiteMatching()),
    "references": merging(NearestReference(), 3),
    "references, mean": merging(NearestReference(combine="mean"), 3),
    "density peaks": merging(DensityPeaks(), 3),
    "matching in the tower": matching,
    "flow": flow,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_host_neither_waits_nor_sends(name: str) -> None:
    with no_host():
        CASES[name]()


WAITING: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda values: values[0, 0].item(),
    "list": lambda values: values.tolist(),
    "condition": lambda values: bool((values > 0).any()),
    "mask": lambda values: values[masks(BATCH, TOKENS)],
    "nonzero": lambda values: values.nonzero(),
    "index by a list": lambda values: values[:, [0, 3]],
    "tensor of a list": lambda values: torch.tensor([1, 2], device=META),
    "send": lambda values: torch.arange(3).to(META),
}


@pytest.mark.parametrize("name", WAITING)
def test_waiting_and_sending_are_found(name: str) -> None:
    """What the test above looks for is refused."""
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), no_host():
        WAITING[name](scores())
