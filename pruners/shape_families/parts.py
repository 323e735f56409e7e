"""Sizes that several families name alike: the decoder, and CLIP's and SigLIP's vision towers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruners.errors import UnsupportedModelError, shortened, shown
from pruners.shape import VisionShape
from pruners.tower_features import check_feature_layer, check_select_strategy

# config.json files leave out what equals the default of transformers' configuration classes.
_DECODER_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "mistral": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "use_sliding_window": False,
    },
    "qwen3": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
    },
    "qwen2_5_vl_text": {
        "vocab_size": 152064,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "use_sliding_window": False,
    },
    "qwen3_vl_text": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
    },
}
_VISION_DEFAULTS: Mapping[str, Mapping[str, int]] = {
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
    "siglip_vision_model": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 16,
    },
}


def decoder_sizes(values: Mapping[str, Any], model_type: str | None = None) -> dict[str, Any]:
    """Read the sizes of the decoder.

    Args:
        values: Contents of a ``config.json``; older ones of Qwen have the decoder's sizes outside.
        model_type: The decoder's `model_type`, where its own sizes do not name it.

    Returns:
        Fields of `pruners.shape.Shape`.

    Raises:
        KeyError: A size is missing.
    """
    own = values.get("text_config") or values
    known = _DECODER_DEFAULTS.get(model_type or own["model_type"], {})
    sizes = {**known, **{key: value for key, value in own.items() if value is not None}}
    # A window of None switches it off; Qwen's decoders have a switch of their own.
    slides = sizes.get("use_sliding_window", own.get("sliding_window", ...) is not None)
    heads = sizes["num_attention_heads"]
    # Files written before transformers 5 call it torch_dtype.
    dtypes = (part.get(key) for part in (own, values) for key in ("dtype", "torch_dtype"))
    dtype = str(next(filter(None, dtypes), "float16"))
    return {
        "decoder_layers": sizes["num_hidden_layers"],
        "hidden_size": sizes["hidden_size"],
        "intermediate_size": sizes["intermediate_size"],
        "attention_heads": heads,
        "key_value_heads": sizes.get("num_key_value_heads") or heads,
        "head_size": sizes.get("head_dim") or sizes["hidden_size"] // heads,
        "vocabulary_size": sizes["vocab_size"],
        "sliding_window": sizes.get("sliding_window") if slides else None,
        "dtype_bytes": 4 if "float32" in dtype else 2,
    }


def square_tower(values: Mapping[str, Any], *, feature_layer: int) -> VisionShape:
    """Read the sizes of a CLIP or SigLIP tower, which sees square images of one size.

    Args:
        values: Contents of the model's ``config.json``.
        feature_layer: Hidden state whose tokens reach the projector, where the file names none.

    Returns:
        The sizes.

    Raises:
        KeyError: A size is missing.
        UnsupportedModelError: The tower is of another kind, or hands the projector other tokens
            than one layer's patches.
    """
    own = values["vision_config"]
    kind = own["model_type"]
    if kind not in _VISION_DEFAULTS:
        raise UnsupportedModelError(
            f"the vision tower's model_type is {shown(kind)}; shapes of "
            f"{shortened(values['model_type'])} models are read with one of: "
            f"{', '.join(_VISION_DEFAULTS)}. Schedules without a shape can be applied"
        )
    sizes = {**_VISION_DEFAULTS[kind], **own}
    clip = kind == "clip_vision_model"
    width = {"projection_size": sizes["projection_dim"]} if clip else {}
    return VisionShape(
        layers=sizes["num_hidden_layers"],
        hidden_size=sizes["hidden_size"],
        intermediate_size=sizes["intermediate_size"],
        attention_heads=sizes["num_attention_heads"],
        patches=(sizes["image_size"] // sizes["patch_size"]) ** 2,
        patch_size=sizes["patch_size"],
        channels=sizes["num_channels"],
        class_token=clip,
        feature_layer=one_layer_of_patches(values, feature_layer=feature_layer, class_token=clip),
        pooling_head=not clip and sizes.get("vision_use_head", True),
        **width,
    )


def one_layer_of_patches(
    values: Mapping[str, Any], *, feature_layer: int, class_token: bool
) -> int:
    """Read which layer's tokens reach the projector, where they are one layer's patches.

    No schedule can be applied to other models, and their tokens are not as many as is priced.

    Args:
        values: Contents of the model's ``config.json``.
        feature_layer: The layer, where the file names none.
        class_token: Whether the tower has a CLS token.

    Returns:
        Index into the tower's hidden states.

    Raises:
        UnsupportedModelError: It is several layers' tokens, or not the patches alone.
    """
    layer = check_feature_layer(values.get("vision_feature_layer", feature_layer))
    if "vision_feature_select_strategy" in values:
        check_select_strategy(values["vision_feature_select_strategy"], class_token=class_token)
    return layer


def tile_pixels(vision: VisionShape, values: Mapping[str, Any]) -> int:
    """Return the side of the images that a square tower sees, in pixels."""
    own = values["vision_config"].get("image_size")
    return int(own) if own else vision.rows_and_columns[0] * vision.patch_size
