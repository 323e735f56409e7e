"""The sizes of a vision-language model that decide its cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pruners.errors import UnsupportedModelError

SUPPORTED_FAMILIES = ("llava",)
"""Hugging Face `model_type` values that `Shape.from_config` reads."""

PAPER_TEXT_TOKENS = 63
"""Prompt length of the published figures: Vicuna's 35-token prefix and a 28-token question.

It is the length at which the cost formula gives back VisionDrop's reported 9.06 and 46.25 TFLOPs.
"""


# config.json files leave out what equals the default of transformers' configuration classes.
_DECODER_DEFAULTS = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
}
_VISION_DEFAULTS = {
    "clip_vision_model": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "projection_dim": 512,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 32,
    },
}


class VisionShape(BaseModel):
    """The sizes of the vision tower.

    Attributes:
        layers: Transformer layers of the tower, all of which run.
        hidden_size: Width of its residual stream.
        intermediate_size: Width of its feed-forward layers.
        attention_heads: Heads per layer.
        patches: Patches per tile.
        patch_size: Side of a patch, in pixels.
        channels: Colour channels of the image.
        class_token: Whether a CLS token precedes the patches.
        feature_layer: Index into the tower's hidden states whose tokens reach the projector.
        projection_size: Width of the space shared with the paired text tower.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    attention_heads: int = Field(gt=0)
    patches: int = Field(gt=0)
    patch_size: int = Field(gt=0)
    channels: int = Field(default=3, gt=0)
    class_token: bool = True
    feature_layer: int = -2
    projection_size: int = Field(default=768, gt=0)


class TextTowerShape(BaseModel):
    """The sizes of the CLIP text tower that similarity scoring runs.

    Attributes:
        layers: Transformer layers.
        hidden_size: Width of its residual stream.
        intermediate_size: Width of its feed-forward layers.
        attention_heads: Heads per layer.
        projection_size: Width of the space shared with the vision tower.
        tokens: Question length assumed for pricing (DeSAP's cost example uses 30).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    attention_heads: int = Field(gt=0)
    projection_size: int = Field(gt=0)
    tokens: int = Field(default=30, gt=0)


class Shape(BaseModel):
    """The sizes of a vision-language model that decide its cost.

    Attributes:
        name: What the shape is called in messages, for example ``"llava-1.5-7b"``.
        decoder_layers: Layers of the language model.
        hidden_size: Width of its residual stream.
        intermediate_size: Width of its gated feed-forward layers.
        attention_heads: Query heads per layer.
        key_value_heads: Key and value heads per layer; fewer with grouped-query attention.
        head_size: Width of a head.
        vocabulary_size: Rows of the output head.
        visual_tokens: Image-derived positions of the dense model over all tiles (N).
        newline_tokens: Separator positions between rows of tiles; never pruned.
        text_tokens: Prompt length beside the image, in tokens.
        tiles: Images that the vision tower sees per sample.
        dtype_bytes: Bytes per element of the key-value cache.
        vision: Sizes of the vision tower.
        text_tower: Sizes of the paired text tower, or None when there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    decoder_layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    attention_heads: int = Field(gt=0)
    key_value_heads: int = Field(gt=0)
    head_size: int = Field(gt=0)
    vocabulary_size: int = Field(gt=0)
    visual_tokens: int = Field(gt=0)
    newline_tokens: int = Field(default=0, ge=0)
    text_tokens: int = Field(default=PAPER_TEXT_TOKENS, ge=0)
    tiles: int = Field(default=1, gt=0)
    dtype_bytes: int = Field(default=2, gt=0)
    vision: VisionShape
    text_tower: TextTowerShape | None = None

    @classmethod
    def from_config(
        cls,
        config: Any,
        *,
        name: str | None = None,
        text_tokens: int = PAPER_TEXT_TOKENS,
        text_tower: TextTowerShape | None = None,
    ) -> Shape:
        """Read the shape off a Hugging Face configuration.

        Args:
            config: A configuration object (anything with ``to_dict``), or the dictionary that its
                ``config.json`` holds.
            name: Name of the shape; by default the configuration's own path, or its family.
            text_tokens: Prompt length beside the image, in tokens.
            text_tower: Sizes of the paired text tower, which the configuration does not know.

        Returns:
            The shape, priced in bytes of the configuration's dtype (2 bytes when it names none).

        Raises:
            UnsupportedModelError: The family is not one of `SUPPORTED_FAMILIES`, or a size that
                decides the cost is missing.
        """
        values = config.to_dict() if hasattr(config, "to_dict") else config
        if not isinstance(values, Mapping):
            raise UnsupportedModelError(
                f"a shape is read off a Hugging Face configuration, not {type(config).__name__}; "
                "pass model.config or the contents of its config.json"
            )
        family = values.get("model_type")
        if family not in SUPPORTED_FAMILIES:
            raise UnsupportedModelError(
                f"model_type is {family!r}; supported: {', '.join(SUPPORTED_FAMILIES)}. "
                "See CONTRIBUTING.md for how to add a family"
            )
        tower = (values.get("vision_config") or {}).get("model_type")
        if tower is not None and tower not in _VISION_DEFAULTS:
            raise UnsupportedModelError(
                f"the vision tower's model_type is {tower!r}; shapes are read of models with one "
                f"of: {', '.join(_VISION_DEFAULTS)}. Schedules without a shape can be applied"
            )
        path = getattr(config, "_name_or_path", "") or values.get("_name_or_path")
        try:
            return _llava_shape(
                values, name=name or path or family, text_tokens=text_tokens, text_tower=text_tower
            )
        except (KeyError, TypeError, ValidationError) as error:
            raise UnsupportedModelError(
                f"the {family} configuration does not name all sizes that decide its cost: "
                f"{error} is missing or wrong; pass a loaded model's config, which names them all"
            ) from error


def _with_defaults(
    part: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    return {**defaults.get(part["model_type"], {}), **part}


def _llava_shape(
    values: Mapping[str, Any],
    *,
    name: str,
    text_tokens: int,
    text_tower: TextTowerShape | None,
) -> Shape:
    decoder = _with_defaults(values["text_config"], _DECODER_DEFAULTS)
    vision = _with_defaults(values["vision_config"], _VISION_DEFAULTS)
    heads = decoder["num_attention_heads"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    # Files written before transformers 5 call it torch_dtype.
    dtypes = (part.get(key) for part in (decoder, values) for key in ("dtype", "torch_dtype"))
    dtype = str(next(filter(None, dtypes), "float16"))
    return Shape(
        name=name,
        decoder_layers=decoder["num_hidden_layers"],
        hidden_size=decoder["hidden_size"],
        intermediate_size=decoder["intermediate_size"],
        attention_heads=heads,
        key_value_heads=decoder.get("num_key_value_heads") or heads,
        head_size=decoder.get("head_dim") or decoder["hidden_size"] // heads,
        vocabulary_size=decoder["vocab_size"],
        visual_tokens=patches,
        text_tokens=text_tokens,
        dtype_bytes=4 if "float32" in dtype else 2,
        vision=VisionShape(
            layers=vision["num_hidden_layers"],
            hidden_size=vision["hidden_size"],
            intermediate_size=vision["intermediate_size"],
            attention_heads=vision["num_attention_heads"],
            patches=patches,
            patch_size=vision["patch_size"],
            channels=vision["num_channels"],
            feature_layer=values.get("vision_feature_layer", -2),
            projection_size=vision["projection_dim"],
        ),
        text_tower=text_tower,
    )


LLAVA_1_5_7B = Shape(
    name="llava-1.5-7b",
    decoder_layers=32,
    hidden_size=4096,
    intermediate_size=11008,
    attention_heads=32,
    key_value_heads=32,
    head_size=128,
    # Vicuna's own vocabulary: the published figures count it, not the checkpoint's padded 32,064.
    vocabulary_size=32000,
    visual_tokens=576,
    vision=VisionShape(
        layers=24,
        hidden_size=1024,
        intermediate_size=4096,
        attention_heads=16,
        patches=576,
        patch_size=14,
    ),
    text_tower=TextTowerShape(
        layers=12,
        hidden_size=768,
        intermediate_size=3072,
        attention_heads=12,
        projection_size=768,
    ),
)
"""LLaVA-1.5-7B with CLIP ViT-L/14-336 and its paired text tower: the shape of the papers."""
