"""The sizes of a vision-language model that decide its cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pruners.errors import UnsupportedModelError, shortened, shown
from pruners.shape_limits import MOST_LAYERS, MOST_TILES, MOST_TOKENS, Layers, Tokens, Width

PAPER_TEXT_TOKENS = 63
"""Prompt length of the published figures: Vicuna's 35-token prefix and a 28-token question.

It is the length at which the cost formula gives back VisionDrop's reported 9.06 and 46.25 TFLOPs.
"""

Family = Literal[
    "llava",
    "llava_next",
    "llava_onevision",
    "video_llava",
    "qwen2_5_vl",
    "qwen3_vl",
    "internvl",
]
"""Model families, by their Hugging Face `model_type`."""

SUPPORTED_FAMILIES: tuple[Family, ...] = get_args(Family)
"""Hugging Face `model_type` values that `Shape.from_config` reads."""


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
        grid: Rows and columns of patches of a tile; None for a square.
        frames_per_patch: Frames that a patch spans; Qwen's towers embed two at a time.
        gated: Whether the feed-forward layers are gated (three matrices instead of two).
        windowed_layers: Layers in which patches attend within windows only (Qwen2.5-VL).
        window_patches: Side of these windows, in patches; 0 without windowed layers.
        merge_size: Side of the square of patches that becomes one visual token.
        fused_projections: Whether one matrix makes queries, keys and values, so that scores which
            read some of them compute all (Qwen).
        pooling_head: Whether the tower also runs its head over a pooled token, which no visual
            token comes from (SigLIP checkpoints that were saved with it).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: Layers
    hidden_size: Width
    intermediate_size: Width
    attention_heads: Width
    patches: Tokens
    patch_size: Width
    channels: Width = 3
    class_token: bool = True
    feature_layer: int = Field(default=-2, ge=-MOST_LAYERS, le=MOST_LAYERS)
    projection_size: Width = 768
    grid: tuple[Tokens, Tokens] | None = None
    frames_per_patch: Width = 1
    gated: bool = False
    windowed_layers: int = Field(default=0, ge=0, le=MOST_LAYERS)
    window_patches: int = Field(default=0, ge=0, le=MOST_TOKENS)
    merge_size: Width = 1
    fused_projections: bool = False
    pooling_head: bool = False

    @property
    def rows_and_columns(self) -> tuple[int, int]:
        """The grid of patches of a tile."""
        side = math.isqrt(self.patches)
        return self.grid or (side, side)


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

    layers: Layers
    hidden_size: Width
    intermediate_size: Width
    attention_heads: Width
    projection_size: Width
    tokens: Tokens = 30


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
        visual_tokens: Image-derived positions of the dense model over all tiles (N), separators
            left out.
        newline_tokens: Separator positions, such as those between rows of tiles, or the CLS tokens
            of video frames; never pruned.
        text_tokens: Prompt length beside the image, in tokens; marks around images are text.
        tiles: Images, parts of images or frames that go through the vision tower per sample, each
            on its own.
        dtype_bytes: Bytes per element of the key-value cache.
        vision: Sizes of the vision tower.
        text_tower: Sizes of the paired text tower, or None when there is none.
        family: Hugging Face `model_type` of the model.
        tile_tokens: Prunable visual tokens of each tile, where they differ (an image that does not
            fill its grid of tiles); empty where all tiles have equally many.
        projector_tokens: Tokens that the projector makes, where that is not `visual_tokens`: parts
            of tiles that are padding, or what a video's frames have before they are pooled.
        projector_hidden_size: Width between the projector's two matrices; None for the decoder's.
        sliding_window: Places that decoder layers see back, their own included; None for all. Their
            caches then hold no more; attention is counted in full, as it is computed.
        deepstack_mergers: Projectors beside the main one that take features of earlier vision
            layers to the first decoder layers (Qwen3-VL).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    decoder_layers: Layers
    hidden_size: Width
    intermediate_size: Width
    attention_heads: Width
    key_value_heads: Width
    head_size: Width
    vocabulary_size: Width
    visual_tokens: Tokens
    newline_tokens: int = Field(default=0, ge=0, le=MOST_TOKENS)
    text_tokens: int = Field(default=PAPER_TEXT_TOKENS, ge=0, le=MOST_TOKENS)
    tiles: int = Field(default=1, gt=0, le=MOST_TILES)
    dtype_bytes: int = Field(default=2, gt=0, le=16)
    vision: VisionShape
    text_tower: TextTowerShape | None = None

    family: Family = "llava"
    tile_tokens: tuple[Annotated[int, Field(ge=0)], ...] = ()
    projector_tokens: Tokens | None = None
    projector_hidden_size: Width | None = None
    sliding_window: int | None = Field(default=None, gt=0, le=2**62)
    deepstack_mergers: int = Field(default=0, ge=0, le=MOST_LAYERS)

    @model_validator(mode="after")
    def _check_tile_tokens(self) -> Self:
        if not self.tile_tokens:
            return self
        found = len(self.tile_tokens), sum(self.tile_tokens)
        if found != (self.tiles, self.visual_tokens):
            raise ValueError(
                f"tile_tokens names {found[0]} tiles of {found[1]} tokens together; expected "
                f"{self.tiles} tiles of {self.visual_tokens}"
            )
        return self

    @property
    def prunes_before_projector(self) -> bool:
        """Whether the projector sees only the tokens that a stage at layer 0 keeps.

        So it is in LLaVA-1.5. Other families arrange, merge or pool tokens in or behind the
        projector, which therefore sees all of them.
        """
        return self.family == "llava"

    @property
    def shares_text_space(self) -> bool:
        """Whether the vision tower is of CLIP's kind, which is trained with a text tower."""
        return self.family in ("llava", "llava_next", "video_llava") and self.vision.class_token

    @property
    def has_paired_text_tower(self) -> bool:
        """Whether that text tower is CLIP's own, which the papers' methods name.

        Video-LLaVA's towers are LanguageBind's, and so is the text tower they are paired with.
        """
        return self.shares_text_space and self.family != "video_llava"

    @property
    def tokens_per_tile(self) -> tuple[int, ...]:
        """Prunable visual tokens of each tile."""
        share, remainder = divmod(self.visual_tokens, self.tiles)
        return self.tile_tokens or tuple(share + (n < remainder) for n in range(self.tiles))

    @classmethod
    def from_config(
        cls,
        config: Any,
        *,
        name: str | None = None,
        text_tokens: int = PAPER_TEXT_TOKENS,
        text_tower: TextTowerShape | None = None,
        image_size: tuple[int, int] | None = None,
        images: int = 1,
        frames: int | None = None,
        tiles: int | None = None,
    ) -> Shape:
        """Read the shape off a Hugging Face configuration, for one kind of input.

        Args:
            config: A configuration object (anything with ``to_dict``), or the dictionary that its
                ``config.json`` holds.
            name: Name of the shape; by default the configuration's own path, or its family.
            text_tokens: Prompt length beside the image, in tokens.
            text_tower: Sizes of the paired text tower, which the configuration does not know.
            image_size: Height and width of each image or frame, in pixels, as it is given to the
                family's processor. By default a square: for LLaVA-NeXT and LLaVA-OneVision one of
                2 x 2 tiles, for Qwen one of 576 tokens; other families resize to their tower's.
                Sizes that Qwen's processor would enlarge or shrink must be given as it makes them.
            images: Images per sample.
            frames: Frames of one video, which then takes the images' place.
            tiles: Tiles that the processor cuts each image into, thumbnail included; InternVL's
                alone. 1 by default.

        Returns:
            The shape, priced in bytes of the configuration's dtype (2 bytes when it names none).

        Raises:
            UnsupportedModelError: The family is not one of `SUPPORTED_FAMILIES`, a size that
                decides the cost is missing, or the family has no such input.
        """
        from pruners.shape_families import Inputs, read_shape  # they make shapes themselves

        values = config.to_dict() if hasattr(config, "to_dict") else config
        if not isinstance(values, Mapping):
            raise UnsupportedModelError(
                f"a shape is read off a Hugging Face configuration, not {type(config).__name__}; "
                "pass model.config or the contents of its config.json"
            )
        family = values.get("model_type")
        if family not in SUPPORTED_FAMILIES:
            raise UnsupportedModelError(
                f"model_type is {shown(family)}; supported: {', '.join(SUPPORTED_FAMILIES)}. "
                "See CONTRIBUTING.md for how to add a family"
            )
        path = getattr(config, "_name_or_path", "") or values.get("_name_or_path")
        inputs = Inputs(image_size=image_size, images=images, frames=frames, tiles=tiles)
        try:
            shape = read_shape(values, inputs)
            return cls.model_validate(
                {
                    **shape.model_dump(),
                    "name": name or path or family,
                    "text_tokens": text_tokens,
                    "text_tower": text_tower,
                }
            )
        # A file may hold anything in the place of a number.
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UnsupportedModelError(
                f"the {family} configuration does not name all sizes that decide its cost: "
                f"{shortened(error)} is missing or wrong; pass a loaded model's config, which "
                "names them all"
            ) from error


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
