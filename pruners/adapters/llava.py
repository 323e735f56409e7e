"""LLaVA-1.5: CLIP vision tower, two-layer projector, Llama decoder."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.masking_utils import create_causal_mask

from pruners.adapters.base import DecoderCall, ModelAdapter
from pruners.attention_rows import DecoderLayer, VisionLayer
from pruners.errors import InputError, UnsupportedModelError


class LlavaAdapter(ModelAdapter):
    """Parts of a `LlavaForConditionalGeneration`."""

    family = "llava"

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, LlavaForConditionalGeneration):
            raise UnsupportedModelError(
                f"expected a LlavaForConditionalGeneration, got {type(model).__name__}; load the "
                "model with AutoModelForImageTextToText.from_pretrained"
            )
        self._llava: Any = model
        config = self._llava.config
        vision = config.vision_config
        self.class_token = vision.model_type == "clip_vision_model"
        _check_configuration(config, self.class_token)
        core = self._llava.model
        self.model = cast(nn.Module, model)
        self.core = core
        self.vision_tower = core.vision_tower
        self.vision_layers = list(core.vision_tower.encoder.layers)
        self.projector = core.multi_modal_projector
        self.decoder = core.language_model
        self.decoder_layers = list(core.language_model.layers)
        self.head = self._llava.lm_head
        self.visual_tokens = (vision.image_size // vision.patch_size) ** 2
        self.vision_width = vision.hidden_size
        layers = len(self.vision_layers)
        feature = config.vision_feature_layer
        # Hidden states are numbered from the embeddings, so there is one more than layers.
        self.feature_layer = feature if feature < 0 else feature - layers - 1
        self._signature = inspect.signature(core.forward)

    def vision_layer(self, index: int) -> VisionLayer:
        return cast(VisionLayer, self.vision_layers[index])

    def vision_norm(self, hidden: Tensor) -> Tensor:
        return cast(Tensor, self._llava.model.vision_tower.post_layernorm(hidden))

    def decoder_layer(self, index: int) -> DecoderLayer:
        return cast(DecoderLayer, self.decoder_layers[index])

    def decoder_norm(self, hidden: Tensor) -> Tensor:
        return cast(Tensor, self._llava.model.language_model.norm(hidden))

    def rotation(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        rotary = self._llava.model.language_model.rotary_emb
        return cast(tuple[Tensor, Tensor], rotary(hidden, position_ids=position_ids))

    def causal_mask(self, hidden: Tensor, mask: Tensor | None, cache: Any, layer: int) -> Any:
        return create_causal_mask(
            config=self._llava.model.language_model.config,
            inputs_embeds=hidden,
            attention_mask=mask,
            past_key_values=cache,
            layer_idx=layer,
        )

    def embed(self, input_ids: Tensor) -> Tensor:
        return cast(Tensor, self._llava.get_input_embeddings()(input_ids))

    def image_mask(self, call: DecoderCall) -> Tensor:
        if call.input_ids is not None:
            return call.input_ids == self.image_token_id()
        assert call.inputs_embeds is not None
        # Without ids, placeholders are recognised by their embedding, as the model itself does.
        token = torch.tensor([self.image_token_id()], device=call.inputs_embeds.device)
        return (call.inputs_embeds == self.embed(token)).all(dim=-1)

    def image_token_id(self) -> int:
        return cast(int, self._llava.config.image_token_id)

    def read_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DecoderCall:
        options = dict(self._signature.bind_partial(*args, **kwargs).arguments)
        options.update(options.pop("kwargs", {}))
        for name in ("vision_feature_layer", "vision_feature_select_strategy"):
            value = options.get(name)
            if value is not None and value != getattr(self._llava.config, name):
                raise InputError(
                    f"{name}={value!r} differs from the model's configuration, which the schedule "
                    "was applied to; set it in the configuration before applying the schedule"
                )
        encoded = (options.get("mm_encoder_outputs") or {}).get("image")
        return DecoderCall(
            input_ids=options.get("input_ids"),
            inputs_embeds=options.get("inputs_embeds"),
            has_images=options.get("pixel_values") is not None or encoded is not None,
            encoded_images=encoded,
            cache=options.get("past_key_values"),
            options=options,
        )


def _check_configuration(config: Any, class_token: bool) -> None:
    decoder = config.text_config.model_type
    if decoder != "llama":
        raise UnsupportedModelError(
            f"the decoder's model_type is {decoder!r}; schedules can be applied to LLaVA models "
            "with a 'llama' decoder"
        )
    if not isinstance(config.vision_feature_layer, int):
        raise UnsupportedModelError(
            f"vision_feature_layer is {config.vision_feature_layer!r}; schedules can be applied to "
            "models whose projector reads one layer"
        )
    expected = "default" if class_token else "full"
    if config.vision_feature_select_strategy != expected:
        raise UnsupportedModelError(
            f"vision_feature_select_strategy is {config.vision_feature_select_strategy!r}, but "
            f"pruning needs {expected!r}: visual tokens are patches alone"
        )
