"""What the runtime needs to know of a vision tower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruners.devices import device_of
from pruners.transfer import send, send_numbers
from pruners.vision_outputs import VisionOutputs, VisionParts


@dataclass(frozen=True)
class TowerCall:
    """One call of a vision tower, seen from its end.

    Attributes:
        arguments: What the tower was called with, by name.
        inputs: What the layers that were asked for got: hidden states by layer (negative index).
        rotations: Rotary position embedding that these layers got, cosines and sines, by layer; of
            towers without one, empty.
        output: What the tower returned; it has `last_hidden_state`.
    """

    arguments: Mapping[str, Any]
    inputs: Mapping[int, Tensor]
    rotations: Mapping[int, tuple[Tensor, Tensor]]
    output: Any


@dataclass(frozen=True)
class TowerOutputs:
    """What stages read of the images of one call of a vision tower.

    Attributes:
        batches: Images with as many patches each.
        rows: For each image of the call, its batch and its row there; None for one batch in order.
    """

    batches: tuple[VisionOutputs, ...]
    rows: tuple[tuple[int, int], ...] | None = None

    def tokens(
        self, sources: Sequence[int], patches: Sequence[Tensor | None], device: torch.device
    ) -> VisionOutputs:
        """Read tiles with as many tokens each.

        Args:
            sources: Which image of the call each tile is.
            patches: Patches of each tile's tokens, (tokens, patches of each), the same shape for
                all; None where the tokens are the patches, in order.
            device: Where indices are wanted.

        Returns:
            The outputs of these tiles, token by token.
        """
        where = [self.rows[source] if self.rows else (0, source) for source in sources]
        taken, order = [], []
        for batch in sorted({batch for batch, _ in where}):
            places = [place for place, (own, _) in enumerate(where) if own == batch]
            outputs = self.batches[batch]
            rows = [where[place][1] for place in places]
            if rows != list(range(len(outputs))):
                outputs = outputs.select(send_numbers(rows, device))
            made_of = [own for place in places if (own := patches[place]) is not None]
            if made_of:
                outputs = outputs.of_tokens(send(torch.stack(made_of), device))
            taken.append(outputs)
            order += places
        if len(taken) == 1:
            return taken[0]
        back = torch.tensor(order, device="cpu").argsort()
        return VisionOutputs.joined(taken).select(send(back, device))


class VisionTower(ABC):
    """One vision tower; subclasses know how its input is laid out.

    Attributes:
        module: The tower: called with pixels, returns `last_hidden_state`.
        layers: Its layers.
        class_token: Whether its sequence starts with a CLS token.
        feature_layer: Which hidden states of the tower the projector reads, as a negative index;
            -1 are those after the last layer.
        width: Width of its residual stream.
        shares_text_space: Whether such towers are paired with a text tower, as CLIP's are.
    """

    module: nn.Module
    layers: Sequence[nn.Module]
    class_token: bool
    feature_layer: int
    width: int
    shares_text_space: bool = False

    @property
    def device(self) -> torch.device:
        """Where the tower is, and a call starts."""
        return device_of(self.module)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the tower."""
        return next(self.module.parameters()).dtype

    @abstractmethod
    def layers_read(self, parts: VisionParts) -> frozenset[int]:
        """List the layers whose input `read` needs.

        Args:
            parts: What is read.

        Returns:
            Negative indices.
        """

    @abstractmethod
    def read(
        self, parts: VisionParts, call: TowerCall, embed: Callable[[Tensor], Tensor]
    ) -> TowerOutputs:
        """Compute what stages read of a call.

        Args:
            parts: What to compute.
            call: The call.
            embed: Brings hidden states, (batch, tokens, width), into the space shared with the text
                tower, normalised; called only if `parts` need a text tower.

        Returns:
            The outputs.
        """

    @abstractmethod
    def norm(self, hidden: Tensor) -> Tensor:
        """Apply the norm that stands between the tower and the space shared with a text tower."""
