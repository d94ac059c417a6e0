"""Trains the demo model on a CPU and writes it as a Hugging Face directory: `make demo-model`.

A Llama of 1.7 million parameters learns the lessons of `demo_lessons` as conversations that fill its context, with loss on
the answers alone. Seeded: the same machine, threads and versions give the same weights.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from demo_exam import examine
from demo_lessons import Conversation, converse
from demo_tokenizer import END, PAD, VOCAB_TOKENS, train_tokenizer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT_TOKENS = 2048
IGNORED = -100
"""Label of a position without loss."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training: `steps` batches of `rows` conversations cut to `row_tokens` tokens."""

    steps: int
    rows: int
    row_tokens: int


@dataclass(frozen=True, slots=True)
class Example:
    """One row: `tokens` and, for each, the token that should follow (or `IGNORED`)."""

    tokens: list[int]
    labels: list[int]


class Encoder:
    """Turns conversations into rows, either in the chat template's format or as plain questions and answers."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._end = tokenizer.convert_tokens_to_ids(END)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def chat(self, conversation: Conversation) -> Example:
        tokens: list[int] = []
        labels: list[int] = []
        if conversation.system:
            tokens += self._ids(f"<|system|>{conversation.system}<|end|>")
        for question, answer in conversation.exchanges:
            tokens += self._ids(f"<|user|>{question}<|end|><|assistant|>")
            labels += [IGNORED] * (len(tokens) - 1 - len(labels))
            reply = [*self._ids(answer), self._end]
            labels += [*reply, IGNORED]
            tokens += reply
        return Example(tokens, labels)

    def plain(self, conversation: Conversation) -> Example:
        """After an answer the model should end, though here the next question follows."""
        tokens: list[int] = []
        labels: list[int] = []
        for question, answer in conversation.exchanges:
            tokens += self._ids(f"Question: {question}\nAnswer:")
            labels += [IGNORED] * (len(tokens) - 1 - len(labels))
            reply = self._ids(f" {answer}")
            labels += [*reply, self._end]
            tokens += [*reply, *self._ids("\n")]
        return Example(tokens, labels[: len(tokens)] + [IGNORED] * (len(tokens) - len(labels)))


def rows(rng: Random, encoder: Encoder, phase: Phase) -> Iterator[Example]:
    """Endless rows of exactly `row_tokens` tokens."""
    while True:
        conversation = converse(rng, phase.row_tokens // 16)
        example = encoder.plain(conversation) if rng.random() < 0.1 else encoder.chat(conversation)
        if len(example.tokens) >= phase.row_tokens:
            yield Example(example.tokens[: phase.row_tokens], example.labels[: phase.row_tokens])


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 3 %, then a cosine down to 2 % of the peak."""
    warm = min(1.0, (step + 1) / (0.03 * steps))
    return peak * warm * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * step / steps)))


def build(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_TOKENS,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT_TOKENS,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.convert_tokens_to_ids(END),
            pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        )
    )


def optimizers(model: LlamaForCausalLM) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms; each with its peak learning rate."""
    inside = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in inside}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        (torch.optim.Muon(inside, lr=0.02, weight_decay=0.01, momentum=0.95), 0.02),
        (torch.optim.AdamW(others, lr=3e-3, weight_decay=0.0, betas=(0.9, 0.98)), 3e-3),
    ]


def train(
    model: LlamaForCausalLM, encoder: Encoder, phases: tuple[Phase, ...], rng: Random
) -> None:
    total, step, start_s = sum(phase.steps for phase in phases), 0, time.monotonic()
    chosen = optimizers(model)
    model.train()
    for phase in phases:
        source = rows(rng, encoder, phase)
        for _ in range(phase.steps):
            batch = [next(source) for _ in range(phase.rows)]
            for optimizer, peak in chosen:
                optimizer.param_groups[0]["lr"] = learning_rate(step, total, peak)
            loss = _step(model, batch)
            for optimizer, _ in chosen:
                optimizer.step()
                optimizer.zero_grad()
            step += 1
            if step % 50 == 0:
                print(
                    f"step {step}/{total} loss {loss:.4f} {time.monotonic() - start_s:.0f} s",
                    flush=True,
                )


def _step(model: LlamaForCausalLM, batch: list[Example]) -> float:
    """Forward and backward of one batch; returns the mean loss of an answer token."""
    tokens = torch.tensor([row.tokens for row in batch])
    labels = torch.tensor([row.labels for row in batch])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(tokens, use_cache=False).last_hidden_state
        taught = labels != IGNORED
        logits = model.lm_head(hidden[taught])
    loss = nn.functional.cross_entropy(logits.float(), labels[taught])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "demo-model")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--steps", type=int, default=2400, help="steps of 4,096 tokens with short rows"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = Random(args.seed)
    texts = [" \n".join(map(" ".join, converse(rng, 16).exchanges)) for _ in range(1500)]
    tokenizer = train_tokenizer(texts, CONTEXT_TOKENS)
    model = build(tokenizer)
    phases = (
        Phase(args.steps // 4, rows=32, row_tokens=128),
        Phase(args.steps * 3 // 4, rows=16, row_tokens=256),
        Phase(args.steps // 12, rows=2, row_tokens=CONTEXT_TOKENS),
    )
    train(model, Encoder(tokenizer), phases, rng)
    # bfloat16 halves the file; whoever loads it in float32 computes with exactly these weights.
    model = model.to(torch.bfloat16)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(examine(model.float().eval(), tokenizer, Random(args.seed + 1)), flush=True)


if __name__ == "__main__":
    main()
