"""What a model's image and video encoding leaves for its prefill."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pruners.adapters import ModelAdapter
from pruners.media import Kind, Medium
from pruners.per_thread import PerThread
from pruners.sequence import Selection
from pruners.tower import TowerPruning
from pruners.vision import VisionRecorder
from pruners.vision_towers import TowerOutputs

_ATTRIBUTE = "prunetune_media"


@dataclass(frozen=True)
class EncodedMedia:
    """The images, or the videos, of one call.

    Attributes:
        media: How they stand in the prompt.
        outputs: What stages read of them; None where they read nothing.
        left: What is left of them, one selection per image, once they have gone through a tower
            that drops tokens; else None.
    """

    media: tuple[Medium, ...]
    outputs: TowerOutputs | None = None
    left: Selection | None = None


class MediaRecorder:
    """Records what each call of ``get_image_features`` and ``get_video_features`` makes.

    Both are methods, not modules, so they are wrapped on the instance. The record is attached to
    what they return, where `recorded` finds it: `generate` encodes long before the decoder runs.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        encoding: Callable[[], None],
        encoded: Callable[[Kind, EncodedMedia], None],
    ) -> None:
        """Wrap the methods.

        Args:
            adapter: The model.
            encoding: Called before each call.
            encoded: Called with each record.
        """
        self._core: Any = adapter.core
        # What the instance itself had by these names, such as another library's wrapper.
        self._before: dict[str, Any] = {}
        running: PerThread[Kind] = PerThread()
        for kind in adapter.towers:
            name = f"get_{kind}_features"
            original = getattr(self._core, name)
            self._before[name] = vars(self._core).get(name)
            setattr(
                self._core, name, _Encoding(adapter, kind, original, encoding, encoded, running)
            )

    def remove(self) -> None:
        """Take the wrappers off."""
        for name, before in self._before.items():
            if before is None:
                delattr(self._core, name)
            else:
                setattr(self._core, name, before)
        self._before.clear()

    @staticmethod
    def recorded(features: Any) -> EncodedMedia | None:
        """Find the record of some features; None where they were made without these wrappers."""
        return getattr(features, _ATTRIBUTE, None)

    @staticmethod
    def attach(features: Any, media: EncodedMedia) -> None:
        """Attach a record to features, where `recorded` finds it."""
        object.__setattr__(features, _ATTRIBUTE, media)


class _Encoding:
    """A wrapped method; an object, so that a copy of the model has one that is its own."""

    def __init__(
        self,
        adapter: ModelAdapter,
        kind: Kind,
        original: Callable[..., Any],
        encoding: Callable[[], None],
        encoded: Callable[[Kind, EncodedMedia], None],
        running: PerThread[Kind],
    ) -> None:
        self._adapter = adapter
        self._kind = kind
        self._original = original
        self._encoding = encoding
        self._encoded = encoded
        self._running = running
        # `generate` looks at the signature for what to pass.
        self.__signature__ = inspect.signature(original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._running.value is not None:  # Qwen3-VL encodes videos by its method for images.
            return self._original(*args, **kwargs)
        self._encoding()
        self._running.value = self._kind
        try:
            features = self._original(*args, **kwargs)
        finally:
            self._running.value = None
        if isinstance(features, tuple):  # Without return_dict there is nothing to attach to.
            return features
        arguments = self.__signature__.bind_partial(*args, **kwargs).arguments
        record = EncodedMedia(
            self._adapter.media(self._kind, arguments, features),
            VisionRecorder.recorded(features),
            TowerPruning.recorded(features),
        )
        MediaRecorder.attach(features, record)
        self._encoded(self._kind, record)
        return features
