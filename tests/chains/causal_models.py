"""Tiny causal models with random weights, far enough from uniform that their greedy tokens differ."""

from __future__ import annotations

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

VOCABULARY = 23
NO_SPECIAL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def gpt2(**settings: object) -> GPT2LMHeadModel:
    """Learned positions, 64 of them; double precision, evaluation mode."""
    sizes = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
    config = GPT2Config(**(sizes | NO_SPECIAL | {"initializer_range": 0.4} | settings))
    return GPT2LMHeadModel(config).double().eval()


def llama(**settings: object) -> LlamaForCausalLM:
    """Rotary positions, two query heads a key head."""
    return LlamaForCausalLM(LlamaConfig(**(_small() | settings))).double().eval()


def mistral(**settings: object) -> MistralForCausalLM:
    """A window of four tokens, so that most of the cache is masked."""
    return MistralForCausalLM(MistralConfig(**(_small() | {"sliding_window": 4} | settings))).double().eval()


def gemma3() -> Gemma3ForConditionalGeneration:
    """Text and images, so that the sizes of the text stand in a config of their own."""
    text = _small() | {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    sizes = {"image_size": 8, "patch_size": 4}
    config = Gemma3Config(text_config=text, vision_config=vision | sizes, mm_tokens_per_image=4, **NO_SPECIAL)
    return Gemma3ForConditionalGeneration(config).double().eval()


def _small() -> dict[str, object]:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    return sizes | heads | NO_SPECIAL | {"initializer_range": 0.4}


@torch.no_grad()
def one_by_one(model, prompt, n, *, temperature=1.0, generator=None):
    """The oracle: a plain loop without a cache, greedy, or with a generator sampled by Gumbel noise."""
    text = prompt
    for _ in range(n):
        logits = model(input_ids=text, use_cache=False).logits[:, -1].float()
        if generator is not None:
            logits = logits / temperature - torch.empty_like(logits).exponential_(generator=generator).log()
        text = torch.cat((text, logits.argmax(-1, keepdim=True)), 1)
    return text[:, prompt.shape[1] :]
