"""Random checkpoints in standard directories: speed does not depend on what the weights say."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def llama(
    path: Path, *, hidden: int, layers: int, vocabulary: int = 8192, positions: int = 4096
) -> Path:
    """A Llama with heads of 64 values, two query heads a KV head, and a byte-level tokenizer; returns `path`."""
    tokenizer().save_pretrained(path)
    torch.manual_seed(0)
    heads = hidden // 64
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens; ids beyond them decode to nothing, which costs the front door the same."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=257, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    bytes_only = Tokenizer(models.BPE())
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.train_from_iterator([], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, eos_token="<|end|>", chat_template=TEMPLATE
    )
