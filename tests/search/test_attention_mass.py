"""Attention that visual tokens receive, against attention worked out by hand."""

from __future__ import annotations

import numpy as np
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from search.analytic import BEST_TOKENS, AnalyticEvaluator
from search.attention_mass import AttentionEvaluator
from search.embedded.benchmark import load_split
from search.embedded.prompts import chat
from search.embedded_evaluator import EmbeddedEvaluator

EMBEDDED = EmbeddedEvaluator()
SAMPLES = [3, 40]


def test_both_evaluators_look_into_attention() -> None:
    for evaluator in (EMBEDDED, AnalyticEvaluator()):
        assert isinstance(evaluator, AttentionEvaluator)
        mass = evaluator.attention_mass("search", SAMPLES)
        for received in (mass.cross, mass.own):
            assert received.shape == (2, 8, 144)
            np.testing.assert_allclose(received.sum(axis=-1), 1)
            assert (received >= 0).all()


def test_the_embedded_models_attention_is_softmax_of_queries_and_keys() -> None:
    sample = load_split("search")[SAMPLES[1]]
    mass = EMBEDDED.attention_mass("search", SAMPLES)
    model = EMBEDDED.model
    inputs = EMBEDDED.processor(
        images=sample.pil(), text=chat(sample.question), return_tensors="pt"
    )
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states
        places = torch.arange(hidden[0].shape[1])[None]
        decoder = model.model.language_model
        cos, sin = decoder.rotary_emb(hidden[0], places)
        image = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
        for number in (0, 5):
            layer = decoder.layers[number]
            normed = layer.input_layernorm(hidden[number])
            queries, keys = (
                project(normed)[0].view(len(places[0]), 4, 32).transpose(0, 1)[None]
                for project in (layer.self_attn.q_proj, layer.self_attn.k_proj)
            )
            queries, keys = apply_rotary_pos_emb(queries, keys, cos, sin)
            logits = queries @ keys.transpose(-1, -2) / 32**0.5
            later = torch.ones_like(logits[0, 0]).triu(1).bool()
            rows = logits.masked_fill(later, -torch.inf).softmax(-1)[0].mean(0)[:, image]
            for attending, given in (
                (rows[image[-1] + 1 :], mass.cross),
                (rows[image], mass.own),
            ):
                expected = attending.sum(0) / attending.sum()
                np.testing.assert_allclose(given[1, number], expected.numpy(), rtol=1e-4)


def test_the_analytic_problem_attends_to_the_tokens_that_it_needs() -> None:
    received = AnalyticEvaluator().attention_mass("search", [0]).own[0]
    for layer, needed in enumerate(BEST_TOKENS):
        assert received[layer, :needed].sum() > 0.9
        assert received[layer, :needed].min() > received[layer, needed:].max()
