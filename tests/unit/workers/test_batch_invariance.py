"""What a request's tokens are must not depend on company: not on who else is in the batch, nor on how its prompt was cut.

Random models, every logit and every key and value compared bit by bit with those of the same tokens computed alone, in one piece,
by one thread. Odd sizes, because vector loops treat their rest in another way.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tercet.clock import ManualClock
from tercet.config import EngineConfig, ModelConfig
from tercet.ids import Epoch, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.wire import Tokens
from tercet.workers.engine import Engine
from tercet.workers.events import Run, Said
from tercet.workers.model_runner import ModelRunner
from tercet.workers.runner import Slice

BLOCK_TOKENS, BLOCKS = 16, 256
PROMPT_TOKENS = 300
INTERMEDIATE = 119
"""No multiple of a vector."""

FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "qwen3": {},
    "phi3": {"pad_token_id": 0},
    "gemma2": {"query_pre_attn_scalar": 24, "sliding_window": 64},
    "gemma3_text": {"query_pre_attn_scalar": 24, "sliding_window": 64},
    "olmo2": {},
}

Open = Callable[..., ModelRunner]


@pytest.fixture(scope="module")
def open_runner(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """A runner of a family with random weights; each family's are drawn once."""
    root = tmp_path_factory.mktemp("models")

    def save(family: str) -> Path:
        if not (path := root / family).exists():
            shape = AutoConfig.for_model(
                family,
                vocab_size=131,
                hidden_size=64,
                intermediate_size=INTERMEDIATE,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=24,
                max_position_embeddings=4096,
                initializer_range=0.3,
                bos_token_id=0,
                eos_token_id=None,
                **FAMILIES[family],
            )
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(shape).save_pretrained(path)
        return path

    def load(family: str, dtype: str, threads: int = 1, blocks: int = BLOCKS) -> ModelRunner:
        engine = EngineConfig(block_tokens=BLOCK_TOKENS, kv_blocks=blocks, threads=threads)
        return ModelRunner.load(ModelConfig(path=str(save(family)), dtype=dtype), engine)

    yield load
    torch.set_num_threads(1)


def prompt(number: int, tokens: int = PROMPT_TOKENS) -> list[int]:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(1, 131, (tokens,), generator=generator).tolist()


def table(number: int) -> list[int]:
    return [(number * 40 + 7 * i) % BLOCKS for i in range(-(-PROMPT_TOKENS // BLOCK_TOKENS) + 1)]


def alone(runner: ModelRunner, tokens: list[int], ends: list[int]) -> torch.Tensor:
    """Logits after each of `ends`, and the KV of all but the last, each by a prefill in one piece."""
    rows = [runner.forward([Slice(tokens[:end], 0, table(0), True)]) for end in ends]
    return torch.cat(rows)


def keys_and_values(runner: ModelRunner, number: int, tokens: int) -> torch.Tensor:
    """Of the first so many tokens: `[layers, 2, heads, tokens, dim]`."""
    blocks = runner.kv.tensor[table(number)[: -(-tokens // BLOCK_TOKENS)]]
    return blocks.permute(1, 2, 3, 0, 4, 5).flatten(3, 4)[..., :tokens, :].clone()


def cuts(number: int) -> list[int]:
    """Where a prompt is cut into chunks: short and long ones, one of them a single token."""
    if number == 2:
        return [
            289,
            290,
            PROMPT_TOKENS,
        ]  # 289 x 119 elements are enough for torch to use its threads
    dice = torch.Generator().manual_seed(100 + number)
    ends = torch.randint(1, PROMPT_TOKENS, (6,), generator=dice).tolist()
    return sorted({*ends, ends[0] + 1, PROMPT_TOKENS})


def computed_in_company(runner: ModelRunner, number: int) -> tuple[torch.Tensor, list[int]]:
    """The prompt in chunks, beside others' chunks and decodes; logits after each chunk, and where they end."""
    tokens, ends, rows = prompt(number), cuts(number), []
    others = {other: prompt(other) for other in (11, 12, 13)}
    at = dict.fromkeys(others, 0)
    for turn, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        company = []
        for other, log in others.items():
            length = 1 if (turn + other) % 2 else 5 + 8 * turn
            company.append(Slice(log[at[other] :][:length], at[other], table(other - 10), True))
            at[other] += len(company[-1].tokens)
        mine = Slice(tokens[start:end], start, table(0), True)
        place = turn % (len(company) + 1)
        logits = runner.forward([*company[:place], mine, *company[place:]])
        rows.append(logits[place : place + 1])
    return torch.cat(rows), ends


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_keys_and_values_do_not_depend_on_company_or_chunks(
    open_runner: Open, family: str, dtype: str, threads: int
) -> None:
    calm, busy = open_runner(family, dtype), open_runner(family, dtype, threads)
    for number in (1, 2):
        torch.set_num_threads(threads)
        together, ends = computed_in_company(busy, number)
        theirs = keys_and_values(busy, 0, PROMPT_TOKENS)
        torch.set_num_threads(1)
        expected = alone(calm, prompt(number), ends)
        assert torch.equal(keys_and_values(calm, 0, PROMPT_TOKENS), theirs)
        assert torch.equal(expected, together)
        assert len(set(expected.argmax(-1).tolist())) > 2, "it would prove nothing"


SAMPLINGS = (
    Sampling(max_tokens=40),
    Sampling(max_tokens=40, temperature=1.0, seed=5),
    Sampling(max_tokens=40, temperature=0.8, seed=6, top_p=0.9, top_k=20),
)


def served(
    runner: ModelRunner, engine: EngineConfig, specs: list[RequestSpec]
) -> dict[str, list[int]]:
    """What each is answered, and under `preemptions` how often somebody gave way."""
    serving = Engine(runner, engine, ManualClock())
    for spec in specs:
        serving.handle(Run(spec, Epoch(0), "f"))
    answers: dict[str, list[int]] = {spec.id: [] for spec in specs} | {"preemptions": []}
    while serving.has_work:
        for event in serving.step():
            if isinstance(event, Said) and isinstance(event.message, Tokens):
                answers[event.message.request] += event.message.tokens
                if event.message.usage:
                    answers["preemptions"].append(event.message.usage.preemptions)
    return answers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_greedy_and_seeded_answers_are_the_same_alone_and_in_a_crowd_that_is_short_of_memory(
    open_runner: Open, family: str, dtype: str
) -> None:
    specs = [
        RequestSpec(RequestId(f"r{number}"), prompt(number, 20 + 9 * number), SAMPLINGS[number % 3])
        for number in range(6)
    ]
    roomy = EngineConfig(block_tokens=BLOCK_TOKENS, kv_blocks=BLOCKS)
    narrow = EngineConfig(
        block_tokens=BLOCK_TOKENS, kv_blocks=20, step_tokens_max=13, admission="aggressive"
    )
    alone = {spec.id: served(open_runner(family, dtype), roomy, [spec])[spec.id] for spec in specs}
    runner = open_runner(family, dtype, blocks=20)
    crowded = served(runner, narrow, specs)
    assert sum(crowded.pop("preemptions")) > 0, "nobody gave way"
    assert crowded == alone
