"""What stages read of images, computed once for all schedules, where a family allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from pruners.adapters import adapter_for
from pruners.errors import DataError, PrunetuneError
from pruners.runtime import PrunedModel
from pruners.text_tower import TextTower
from pruners.vision import all_parts, encode_images
from pruners.vision_outputs import VisionOutputs, VisionParts
from pruners.vision_towers.batched import BatchedTower
from search.shrinking_batches import ShrinkingBatches, is_out_of_memory
from search.tasks.disk_cache import DiskCache, cache_key
from search.tasks.generation import Prepared, out_of_memory
from search.tasks.live_model import LiveModel

_PIXELS = "pixel_values"


class ImageEncoder:
    """Runs the vision tower once per image, whatever the schedule.

    Families whose visual tokens are arranged behind the projector (tiles, dynamic resolution)
    encode images in every call; for those nothing is kept.

    Args:
        live: The model.
        cache: Keeps what was computed.
        batch_size: Questions per call of the tower; halved for good when memory runs out.
    """

    def __init__(self, live: LiveModel, cache: DiskCache, batch_size: int) -> None:
        self._live = live
        self._cache = cache
        self._batches = ShrinkingBatches(batch_size)
        adapter = adapter_for(live.model)
        self._encodes = adapter.projector is not None and isinstance(
            adapter.towers["image"], BatchedTower
        )

    def encoded(
        self, questions: Sequence[Prepared], keys: Sequence[str], tower: TextTower | None
    ) -> list[Prepared]:
        """Add what stages read of the images.

        Args:
            questions: The questions.
            keys: Key of everything that each one's inputs depend on.
            tower: The text tower that the schedule reads, if any.

        Returns:
            The questions; those without images, or of other families, as they are.

        Raises:
            DataError: Images cannot be encoded, or those of one question need more memory than
                there is; the message names the questions.
        """
        done = list(questions)
        if not self._encodes:
            return done
        parts = replace(all_parts(adapter_for(self._live.model), tower), pixels=False)
        keys = [
            cache_key(
                kind="vision",
                sample=key,
                parts=repr(sorted(map(str, parts.saliency_layers))) + repr(sorted(parts.encodings)),
                text_tower=tower.name if tower is not None else "",
                device=self._live.device.type,
            )
            for key in keys
        ]
        missing = []
        for place, question in enumerate(questions):
            if _PIXELS not in question.inputs:
                continue
            found = self._cache.get(keys[place])
            if found is None:
                missing.append(place)
            else:
                done[place] = replace(question, vision=VisionOutputs.from_tensors(found))
        work = partial(self._encode, questions, tower, parts)
        failure = partial(_failure, questions)
        for places, outputs in self._batches.run(missing, work, failure):
            first = 0
            for place in places:
                images = len(questions[place].inputs[_PIXELS])
                chosen = torch.arange(first, first + images, device=self._live.device)
                first += images
                vision = outputs.select(chosen).to("cpu")
                self._cache.put(keys[place], vision.to_tensors())
                done[place] = replace(questions[place], vision=vision)
        return done

    @torch.inference_mode()
    def _encode(
        self,
        questions: Sequence[Prepared],
        tower: TextTower | None,
        parts: VisionParts,
        places: Sequence[int],
    ) -> VisionOutputs:
        """Encode the images of the questions at some places."""
        pixels = torch.cat([questions[place].inputs[_PIXELS] for place in places])
        return encode_images(self._live.model, pixels, tower, parts)

    def arguments(self, handle: PrunedModel, batch: Sequence[Prepared]) -> dict[str, Any] | None:
        """Make the arguments that take the place of a batch's pixels.

        Args:
            handle: The schedule that is applied.
            batch: Questions as `encoded` returned them.

        Returns:
            The arguments, or None where images were not encoded before.
        """
        visions = [question.vision for question in batch if question.vision is not None]
        if not visions or len(visions) < len(batch):
            return None
        return handle.encoded_images(VisionOutputs.joined(visions).to(self._live.device))


def _failure(questions: Sequence[Prepared], places: Sequence[int], error: Exception) -> Exception:
    """Name the questions whose images cannot be encoded."""
    if isinstance(error, PrunetuneError):
        return error
    if is_out_of_memory(error):
        return out_of_memory(questions[places[0]])
    names = ", ".join(questions[place].identifier for place in places)
    return DataError(
        f"the images of {names} cannot be encoded ({type(error).__name__}: {error}); "
        "mend these samples or leave their task out"
    )
