"""Density-peak clustering of tokens, and SparseVLM's recycling by it."""

from __future__ import annotations

import torch
from torch import Tensor

from pruners.merging import sum_by_group
from pruners.selection import gather_tokens, top_tokens


def density_peak_clusters(tokens: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cluster tokens around those in dense neighbourhoods far from denser ones.

    Density peaks (Rodriguez and Laio, Science 2014) by nearest neighbours, as in SparseVLM's
    released code: distances are Euclidean, divided by ``sqrt(width)``; the density of a token is
    ``exp(-mean of the squared distances to its `count` nearest tokens)``, itself included; centres
    have the highest products of density and distance to the nearest denser token (for the densest
    one, the largest distance in the sample). Of equally dense tokens the earlier counts as denser,
    where the released code adds noise.

    Args:
        tokens: Token vectors, (batch, tokens, width).
        count: Clusters, from 1 to `tokens`.

    Returns:
        Indices of the centres in rising order, (batch, count), and for each token the number of its
        cluster: that of the nearest centre (the earlier of equal ones), (batch, tokens).
    """
    batch, total, width = tokens.shape
    distances = _distances(tokens) / width**0.5
    nearest = distances.sort(dim=-1).values[..., :count]
    density = (-nearest.square().mean(dim=-1)).exp()  # batch x tokens
    place = torch.arange(total, device=tokens.device)
    is_denser = density.unsqueeze(1) > density.unsqueeze(2)
    is_denser |= (density.unsqueeze(1) == density.unsqueeze(2)) & (place < place.unsqueeze(1))
    largest = distances.amax(dim=(1, 2), keepdim=True)
    to_denser = torch.where(is_denser, distances, largest).amin(dim=-1)
    centres = top_tokens(to_denser * density, count)
    columns = centres.unsqueeze(1).expand(-1, total, -1)
    clusters = distances.gather(2, columns).argmin(dim=-1)
    # A centre stays its own even where an earlier one is equal to it.
    numbers = torch.arange(count, device=tokens.device).expand(batch, -1)
    return centres, clusters.scatter(-1, centres, numbers)


def recycle_tokens(
    tokens: Tensor, scores: Tensor, count: int, recycled: float
) -> tuple[Tensor, Tensor]:
    """Cluster the best of the dropped tokens into contextual ones (SparseVLM, arXiv 2410.04417).

    Args:
        tokens: Vectors of the dropped tokens, (batch, dropped, width).
        scores: Their scores, (batch, dropped).
        count: Contextual tokens to make, from 1 to `dropped`.
        recycled: Share of the dropped tokens that is clustered (rounded down, plus one, and at
            least `count`), in (0, 1]; 0.3 in the released code. The rest is lost.

    Returns:
        Plain means of the clusters, (batch, count, width), and which of the dropped tokens is the
        centre of each, rising, (batch, count).
    """
    dropped = tokens.shape[1]
    best = top_tokens(scores, min(max(int(recycled * dropped) + 1, count), dropped))
    candidates = gather_tokens(tokens, best)
    centres, clusters = density_peak_clusters(candidates, count)
    sums, sizes = sum_by_group(candidates, clusters, count)
    return (sums / sizes).to(tokens.dtype), best.gather(-1, centres)


def _distances(tokens: Tensor) -> Tensor:
    """Euclidean distances of all pairs, float32, (batch, tokens, tokens)."""
    tokens = tokens.float()
    # By differences: through dot products, near tokens lose all digits, and the sum depends on the
    # batch.
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(tokens, tokens, compute_mode=mode)
