"""Every family we name gives, in fp32, the very tokens that transformers' own `generate` gives."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from tercet.config import EngineConfig, ModelConfig
from tercet.workers.model_runner import ModelRunner
from tercet.workers.runner import Slice

SMALL = dict(
    vocab_size=128,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.3,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=0,
)
WINDOWED = dict(head_dim=16, sliding_window=8, query_pre_attn_scalar=16, tie_word_embeddings=False)
TURNS = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES: dict[str, dict[str, object]] = {
    "llama": dict(tie_word_embeddings=True),
    "llama-scaled-rope": dict(
        model_type="llama",
        rope_parameters=dict(
            rope_type="llama3",
            rope_theta=1e4,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "mistral": dict(sliding_window=8),
    "qwen2": dict(),
    "qwen2-windowed": dict(
        model_type="qwen2", use_sliding_window=True, sliding_window=8, layer_types=TURNS
    ),
    "qwen3": dict(head_dim=24),
    "gemma2": dict(WINDOWED, attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
    "gemma3_text": dict(WINDOWED, layer_types=TURNS),
    "phi3": dict(sliding_window=8),
    "olmo2": dict(),
    "qwen3_moe": dict(
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        decoder_sparse_step=1,
    ),
    "gpt_oss": dict(
        head_dim=16,
        sliding_window=8,
        layer_types=TURNS,
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
}
ENGINE = EngineConfig(block_tokens=4, kv_blocks=64)
PROMPT_TOKENS, OUTPUT_TOKENS = 29, 12

Save = Callable[[str], tuple[Path, PreTrainedModel]]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a checkpoint of a family with random weights; gives the directory and the model."""

    def write(family: str) -> tuple[Path, PreTrainedModel]:
        options: dict[str, object] = dict(SMALL, model_type=family) | FAMILIES[family]
        config: PreTrainedConfig = AutoConfig.for_model(str(options.pop("model_type")), **options)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "sinks")):
                torch.nn.init.normal_(parameter, std=0.5)
        model.save_pretrained(tmp_path / family)
        return tmp_path / family, model

    return write


def prompts(count: int, tokens: int = PROMPT_TOKENS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 128, (count, tokens), generator=generator).tolist()


def generate(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    settings = GenerationConfig(
        max_new_tokens=OUTPUT_TOKENS, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    tokens: list[int] = out[0, len(prompt) :].tolist()
    return tokens


def load(path: Path, dtype: str = "float32") -> ModelRunner:
    return ModelRunner.load(ModelConfig(path=str(path), dtype=dtype), ENGINE)


def table(request: int) -> list[int]:
    """Blocks of one request, dealt so that neighbours are not adjacent."""
    return [(request * 11 + 17 * i) % 64 for i in range(11)]


def greedy(runner: ModelRunner, slices: Sequence[Slice]) -> list[int]:
    tokens: list[int] = runner.forward(slices).argmax(dim=-1).tolist()
    return tokens


def decode(runner: ModelRunner, logs: list[list[int]], count: int) -> None:
    """Extends all logs by `count` tokens in one batch; each one's last token has no KV yet."""
    for _ in range(count):
        slices = [Slice(log[-1:], len(log) - 1, table(r), True) for r, log in enumerate(logs)]
        for log, token in zip(logs, greedy(runner, slices), strict=True):
            log.append(token)


@pytest.mark.parametrize("family", FAMILIES)
def test_chunked_prefill_beside_running_decodes_gives_the_tokens_of_generate(
    save: Save, family: str
) -> None:
    path, model = save(family)
    first, second = prompts(2)
    runner = load(path)
    # The first prompt in three chunks; the second prefills while the first decodes.
    assert greedy(runner, [Slice(first[:10], 0, table(0), False)]) == []
    greedy(runner, [Slice(first[10:11], 10, table(0), False)])
    log = first + greedy(runner, [Slice(first[11:], 11, table(0), True)])
    at = len(first)
    token, _ = greedy(
        runner, [Slice(log[-1:], at, table(0), True), Slice(second[:20], 0, table(1), True)]
    )
    log.append(token)
    started, token = greedy(
        runner, [Slice(second[20:], 20, table(1), True), Slice(log[-1:], at + 1, table(0), True)]
    )
    logs = [[*log, token], [*second, started]]
    decode(runner, logs, OUTPUT_TOKENS - 1)
    assert logs[0][at : at + OUTPUT_TOKENS] == generate(model, first)
    assert logs[1][len(second) :] == generate(model, second)
    assert len(set(logs[0][at:])) > 2, "outputs are constant: this test would prove nothing"


def test_a_shared_prefix_is_read_from_another_requests_blocks(save: Save) -> None:
    path, model = save("qwen3")
    (first, second), runner = prompts(2), load(path)
    second = first[:16] + second[16:]
    greedy(runner, [Slice(first, 0, table(0), True)])
    blocks = table(0)[:4] + table(1)[4:]
    log = second + greedy(runner, [Slice(second[16:], 16, blocks, True)])
    while len(log) < len(second) + OUTPUT_TOKENS:
        log += greedy(runner, [Slice(log[-1:], len(log) - 1, blocks, True)])
    assert log[len(second) :] == generate(model, second)


def test_blocks_copied_to_another_runner_continue_the_request(save: Save) -> None:
    path, model = save("gemma3_text")
    (prompt,), source, destination = prompts(1), load(path), load(path)
    assert source.compat == destination.compat
    log = prompt + greedy(source, [Slice(prompt, 0, table(0), True)])
    destination.kv.tensor[table(3)] = source.kv.tensor[table(0)]
    while len(log) < len(prompt) + OUTPUT_TOKENS:
        log += greedy(destination, [Slice(log[-1:], len(log) - 1, table(3), True)])
    assert log[len(prompt) :] == generate(model, prompt)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma2"])
def test_a_replay_has_the_very_bits_of_what_it_replays(save: Save, family: str, dtype: str) -> None:
    """Failover is exact in any type only if a prefill computes what decoding beside others computed."""
    runner = load(save(family)[0], dtype)
    logs = prompts(3, tokens=13)
    for request, log in enumerate(logs):
        log += greedy(runner, [Slice(log, 0, table(request), True)])
    decode(runner, logs, 16)
    (log, *_), known = logs, logs[0][:-1]
    last = [Slice(part[-2:-1], len(part) - 2, table(r), True) for r, part in enumerate(logs)]
    decoded = runner.forward(last)[0]
    replayed = runner.forward([Slice(known, 0, table(4), True)])[0]
    full = len(known) // ENGINE.block_tokens
    before, after = (runner.kv.tensor[table(request)[:full]] for request in (0, 4))
    assert torch.equal(before, after)
    assert torch.equal(decoded, replayed)
    assert replayed.argmax() == log[-1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_as_exact_as_the_models_own(save: Save, dtype: str) -> None:
    path, model = save("llama")
    several = prompts(8)  # one may have bad luck, in models of random weights

    def logits(own: PreTrainedModel) -> torch.Tensor:
        answers: torch.Tensor = own(torch.tensor(several)).logits[:, -1]
        return answers.detach().float()

    exact = logits(model)
    own_error = (logits(model.to(getattr(torch, dtype))) - exact).norm()
    runner = load(path, dtype)
    ours = torch.cat([runner.forward([Slice(prompt, 0, table(0), True)]) for prompt in several])
    assert ours.dtype == torch.float32
    assert (ours - exact).norm() < 1.5 * own_error
    assert own_error < 0.1 * exact.norm()


def test_a_fresh_runner_has_an_empty_pool(save: Save) -> None:
    runner = load(save("llama")[0])
    assert runner.kv.blocks == ENGINE.kv_blocks
    assert not runner.kv.tensor.any()
    assert not runner.kv.generations.any()


def test_the_checkpoint_says_where_generations_end(save: Save) -> None:
    path, _ = save("llama")
    assert load(path).eos_token_ids == frozenset()
    GenerationConfig(eos_token_id=[2, 5]).save_pretrained(path)
    runner = load(path)
    assert runner.eos_token_ids == {2, 5}
    assert (runner.vocab_size, runner.context_tokens_max) == (128, 256)
