"""Whatever is shared out gives the tokens of the whole; what cannot be shared out is refused with the reason."""

import pytest
import torch

from tercet.config import EngineConfig, ModelConfig
from tercet.errors import ModelUnsupported
from tercet.workers.checkpoint import open_checkpoint
from tercet.workers.model_runner import ModelRunner
from tercet.workers.parallel.group import Group
from tercet.workers.parallel.part import load_part
from tercet.workers.parallel.sharding import shard
from tercet.workers.runner import Slice

ENGINE = EngineConfig(block_tokens=4, kv_blocks=64)
FAMILIES = {
    "llama": dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    "qwen2": dict(),
    "qwen3": dict(head_dim=24),
    "mistral": dict(sliding_window=8),
    "gemma2": dict(
        head_dim=16,
        sliding_window=8,
        query_pre_attn_scalar=16,
        tie_word_embeddings=False,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
    ),
    "gemma3_text": dict(
        head_dim=16, sliding_window=8, query_pre_attn_scalar=16, tie_word_embeddings=False
    ),
}


def table(request: int) -> list[int]:
    return [(request * 11 + 17 * i) % 64 for i in range(11)]


def prompts(count: int, tokens: int = 23) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 128, (count, tokens), generator=generator).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_batches_and_shared_prefixes_give_the_tokens_of_generate(
    save, share_out, generate, family
):
    path, model = save(family, **FAMILIES[family])
    runner = share_out(path, 2)
    runner.parts[0].trial.hold(runner)
    first, second = prompts(2)
    second = first[:8] + second[8:]
    runner.forward([Slice(first[:10], 0, table(0), False)])
    blocks = [table(0)[:2] + table(1)[2:], table(0)]
    logs = [second, first]
    starts = [8, 10]  # the first two blocks of the second prompt are the first's
    for _ in range(10):
        slices = [
            Slice(log[start:], start, table, True)
            for log, start, table in zip(logs, starts, blocks, strict=True)
        ]
        starts = [len(log) for log in logs]
        drawn = runner.forward(slices).argmax(dim=-1).tolist()
        logs = [[*log, token] for log, token in zip(logs, drawn, strict=True)]
    assert logs[0][len(second) :] == generate(model, second)
    assert logs[1][len(first) :] == generate(model, first)
    assert len(set(logs[1][len(first) :])) > 2, (
        "outputs are constant: this test would prove nothing"
    )


def test_four_ranks_have_the_logits_of_one_and_each_a_quarter_of_its_kv(save, share_out):
    path, _ = save("llama")
    whole, parts = ModelRunner.load(ModelConfig(path=str(path)), ENGINE), share_out(path, 4)
    (prompt,) = prompts(1)
    ask = [Slice(prompt, 0, table(0), True)]
    torch.testing.assert_close(parts.forward(ask), whole.forward(ask), rtol=1e-3, atol=1e-3)
    for rank, part in enumerate(parts.parts):
        assert part.runner.compat == whole.compat
        own = part.runner.kv.tensor[table(0)]
        assert own.shape[3] == 1
        theirs = whole.kv.tensor[table(0)][:, :, :, rank : rank + 1]
        torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-3)


def test_a_part_holds_its_share_of_the_weights_and_only_rank_0_the_head(save):
    path, model = save("llama", tie_word_embeddings=False)
    embedding = model.get_input_embeddings().weight.numel()
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    layers = sum(p.numel() for p in model.parameters()) - 2 * embedding - norms
    for rank in range(2):
        part = open_checkpoint(ModelConfig(path=str(path))).model
        shard(part, Group(rank, 2))
        kept = sum(parameter.numel() for parameter in part.parameters())
        assert kept == layers / 2 + norms + embedding * (2 - rank)


@pytest.mark.parametrize(
    ("family", "options", "ranks", "reason"),
    [
        ("llama", dict(), 3, "8 heads and 4 KV heads of llama cannot be shared out evenly"),
        ("llama", dict(), 8, "a divisor of 4"),
        ("llama", dict(intermediate_size=97), 2, r"by which the 97 of model.layers.0.mlp"),
        ("phi3", dict(), 2, "'rowwise_split_input' in its plan"),
        ("gpt2", dict(n_embd=64, n_layer=2, n_head=4), 2, "no plan for how to share out gpt2"),
    ],
)
def test_what_cannot_be_shared_out_is_refused_with_the_reason(save, family, options, ranks, reason):
    path, _ = save(family, **options)
    with pytest.raises(ModelUnsupported, match=reason):
        load_part(ModelConfig(path=str(path)), ENGINE, Group(0, ranks))
