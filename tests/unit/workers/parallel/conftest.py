"""Tiny checkpoints of several families, and models shared out among threads of this process."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from tercet.config import EngineConfig, ModelConfig
from tercet.workers.parallel.group import Group
from tercet.workers.parallel.part import Part, load_part
from tercet.workers.parallel.shared_sum import Mesh
from tercet.workers.runner import BetweenLayers, Slice, go_on

ENGINE = EngineConfig(block_tokens=4, kv_blocks=64)
OUTPUT_TOKENS = 10
SMALL: dict[str, object] = dict(
    vocab_size=128,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=4,
    max_position_embeddings=256,
    initializer_range=0.3,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=0,
)

Save = Callable[..., tuple[Path, PreTrainedModel]]


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Writes a checkpoint of a family with random weights, biases included; gives the directory and the model."""

    def write(family: str, **options: object) -> tuple[Path, PreTrainedModel]:
        path = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **{**SMALL, **options})
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.5)
        model.save_pretrained(path)
        return path, model

    return write


class Ranks:
    """One model on several ranks, each a thread: what rank 0 gives is the whole's answer."""

    def __init__(self, path: Path, ranks: int) -> None:
        self._threads = ThreadPoolExecutor(ranks)
        groups = [Group(rank, ranks) for rank in range(ranks)]
        model = ModelConfig(path=str(path))
        self.parts: list[Part] = [load_part(model, ENGINE, group) for group in groups]
        self._mesh = Mesh(ranks)
        for group in groups:
            group.join(self._mesh.side(group.rank))
        self.kv = self.parts[0].runner.kv

    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        silent = [Slice(part.tokens, part.start, part.blocks, sample=False) for part in slices]
        asked = [slices, *([silent] * (len(self.parts) - 1))]
        answers = self._threads.map(lambda part, what: part.runner.forward(what), self.parts, asked)
        return next(iter(list(answers)))

    def close(self) -> None:
        self._mesh.close()
        self._threads.shutdown()


@pytest.fixture
def share_out() -> Iterator[Callable[[Path, int], Ranks]]:
    made: list[Ranks] = []

    def make(path: Path, ranks: int) -> Ranks:
        made.append(Ranks(path, ranks))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def generate() -> Callable[[PreTrainedModel, list[int]], list[int]]:
    """The greedy output of transformers' own `generate`."""

    def greedy(model: PreTrainedModel, prompt: list[int]) -> list[int]:
        settings = GenerationConfig(
            max_new_tokens=OUTPUT_TOKENS, do_sample=False, pad_token_id=0, eos_token_id=None
        )
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        tokens: list[int] = out[0, len(prompt) :].tolist()
        return tokens

    return greedy
