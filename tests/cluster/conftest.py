"""A real cluster on this machine: Ray, one prefill and two decode workers, and a tiny random model made on the spot.

Every session has its own Ray, its own ports and its own directories, so that two test runs do not disturb each other. All
Ray sessions are children of a process of their own, and none of them may outlive it.
"""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tercet.config import (
    ClusterConfig,
    ControlConfig,
    EngineConfig,
    FrontDoorConfig,
    LinkConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    Resources,
    RouterConfig,
    TransferConfig,
)

LIGHT = PoolConfig(resources=Resources(cpus=0.1))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 0.2 million random weights over bytes."""
    path = tmp_path_factory.mktemp("checkpoint")
    bytes_bpe = Tokenizer(models.BPE())
    bytes_bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bytes_bpe.train_from_iterator(
        [],
        trainers.BpeTrainer(
            vocab_size=257, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_bpe, eos_token="<|end|>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=257,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def config(checkpoint: Path) -> ClusterConfig:
    """One prefill and two decode workers that need almost nothing, on any free ports."""
    return ClusterConfig(
        name="test",
        model=ModelConfig(path=str(checkpoint), name="tiny"),
        engine=EngineConfig(kv_blocks=256),
        pools=Pools(
            prefill=PoolConfig(replicas=1, resources=LIGHT.resources),
            decode=PoolConfig(replicas=2, resources=LIGHT.resources),
        ),
        router=RouterConfig(local_prefill_tokens_max=16),
        transfer=TransferConfig(net_devices="lo"),
        link=LinkConfig(report_period_s=0.1),
        front_door=FrontDoorConfig(http_port=0, grpc_port=0, cpus=0.1),
        control=ControlConfig(start_timeout_s=120.0),
    )
