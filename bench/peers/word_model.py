"""Random Llamas whose every token is a word of its own, so that a stream's text says which tokens it has, and how many."""

from pathlib import Path
from typing import NamedTuple

import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

POSITIONS, LAYERS = 1024, 8


class Shape(NamedTuple):
    """Sizes of a Llama with heads of 64 values, two query heads a KV head."""

    hidden: int
    intermediate: int
    vocabulary: int


SHAPES = {"50M": Shape(512, 2048, 16384), "10M": Shape(256, 768, 8192)}


def kv_bytes_per_token(shape: Shape, dtype: str) -> int:
    """Keys and values of all layers."""
    return 2 * LAYERS * shape.hidden // 2 * (4 if dtype == "float32" else 2)


def save_llama(path: Path, shape: Shape) -> None:
    """The checkpoint, in fp32. Token 0 ends an answer and is never the likeliest."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=LAYERS,
        num_attention_heads=shape.hidden // 64,
        num_key_value_heads=shape.hidden // 128,
        max_position_embeddings=POSITIONS,
        initializer_range=0.05,  # with less of it the likeliest token hardly depends on the prompt
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[0] = 0.0  # of thousands of random logits the largest is above zero
    model.save_pretrained(path)
    words = {f"w{number}": number for number in range(shape.vocabulary)}
    core = tokenizers.Tokenizer(models.WordLevel(words, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="w0").save_pretrained(path)
