"""The attention that visual tokens receive in the embedded model."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from search.attention_mass import AttentionMass, shares
from search.embedded.benchmark import Sample
from search.embedded.inputs import one_thread
from search.embedded.prompts import chat


def attention_mass(model: Any, processor: Any, samples: Sequence[Sample]) -> AttentionMass:
    """Run the dense model with its attention given out.

    Args:
        model: The embedded model; it stays as it is.
        processor: Its processor.
        samples: Samples of its benchmark.

    Returns:
        The attention by sample, layer and visual token, averaged over heads, and over the text
        tokens behind the image, or over its own tokens.
    """
    eager = deepcopy(model)
    eager.set_attn_implementation("eager")  # the other implementations give no attention out
    cross, own = [], []
    for sample in samples:
        inputs = processor(images=sample.pil(), text=chat(sample.question), return_tensors="pt")
        with one_thread():
            outputs = eager(**inputs, output_attentions=True)
        ids = inputs["input_ids"][0].numpy()
        image = np.flatnonzero(ids == eager.config.image_token_id)
        # (layers, tokens that attend, visual tokens)
        received = np.stack([layer[0].mean(dim=0).numpy() for layer in outputs.attentions])
        received = received[:, :, image].astype(np.float64)
        cross.append(shares(received[:, image[-1] + 1 :].mean(axis=1)))
        own.append(shares(received[:, image].mean(axis=1)))
    return AttentionMass(cross=np.stack(cross), own=np.stack(own))
