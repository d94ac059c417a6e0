"""Trains the demo model on a CPU and writes it as a Hugging Face directory: `make demo-model`.

A Llama of 1.7 million parameters learns the lessons of `demo_lessons` as conversations that fill its context, with loss on
the answers alone. Seeded: the same machine, threads and versions give the same weights.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from demo_exam import examine
from demo_lessons import Conversation, converse
from demo_tokenizer import END, PAD, VOCAB_TOKENS, train_tokenizer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT_TOKENS = 2048
EXAM_SEED = 1921
IGNORED = -100
"""Label of a position without loss."""


class Shape(NamedTuple):
    """One batch: `rows` conversations cut to `row_tokens` tokens."""

    rows: int
    row_tokens: int


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a course: `steps` batches whose shapes take turns."""

    steps: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """Phases under one learning-rate schedule; `effort` scales its peak. Its result is rounded to bfloat16."""

    phases: tuple[Phase, ...]
    effort: float
    drill_share: float

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)


SHORT, MIDDLE = Shape(rows=32, row_tokens=128), Shape(rows=16, row_tokens=256)
LONG, WHOLE = Shape(rows=4, row_tokens=1024), Shape(rows=2, row_tokens=CONTEXT_TOKENS)

COURSES = (
    # Skills first, on cheap short rows; then the same over ever longer contexts.
    Course(
        (
            Phase(405, (SHORT,)),
            Phase(1323, (MIDDLE,)),
            Phase(621, (LONG,)),
            Phase(351, (WHOLE,)),
        ),
        effort=1.0,
        drill_share=0.0,
    ),
    # Finding one code among several is learned in one leap, after about 200 steps of little else.
    Course((Phase(300, (SHORT,)),), effort=0.5, drill_share=0.8),
    # Long rows hold few first questions, so the beginnings of conversations fade; this brings all lengths together.
    Course(
        (Phase(780, (SHORT, MIDDLE, SHORT, MIDDLE, SHORT, WHOLE)),), effort=0.4, drill_share=0.12
    ),
)


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


def draw_row(rng: Random, encoder: Encoder, row_tokens: int, drill_share: float) -> Example:
    """A row of exactly `row_tokens` tokens."""
    while True:
        conversation = converse(rng, row_tokens // 16, drill_share)
        example = encoder.plain(conversation) if rng.random() < 0.1 else encoder.chat(conversation)
        if len(example.tokens) >= row_tokens:
            return Example(example.tokens[:row_tokens], example.labels[:row_tokens])


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 3 %, level until 55 %, then linearly to nothing."""
    done = (step + 1) / steps
    return peak * min(1.0, done / 0.03, max(0.01, (1.0 - done) / 0.45))


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


def train(model: LlamaForCausalLM, encoder: Encoder, course: Course, rng: Random) -> None:
    start_s, chosen = time.monotonic(), optimizers(model)
    shapes = [
        phase.shapes[step % len(phase.shapes)]
        for phase in course.phases
        for step in range(phase.steps)
    ]
    model.train()
    for step, shape in enumerate(shapes):
        batch = [
            draw_row(rng, encoder, shape.row_tokens, course.drill_share) for _ in range(shape.rows)
        ]
        for optimizer, peak in chosen:
            rate = learning_rate(step, course.steps, peak * course.effort)
            optimizer.param_groups[0]["lr"] = rate
        loss = _step(model, batch)
        for optimizer, _ in chosen:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            taken_s = time.monotonic() - start_s
            print(f"step {step + 1}/{course.steps} loss {loss:.4f} {taken_s:.0f} s", flush=True)


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
    parser.add_argument(
        "--threads", type=int, default=2, help="of torch; one takes half as long again"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = Random(args.seed)
    texts = [" \n".join(map(" ".join, converse(rng, 16).exchanges)) for _ in range(1500)]
    tokenizer = train_tokenizer(texts, CONTEXT_TOKENS)
    model = build(tokenizer)
    for number, course in enumerate(COURSES, start=1):
        print(f"course {number} of {len(COURSES)}", flush=True)
        train(model, Encoder(tokenizer), course, rng)
        # bfloat16 halves the file; whoever loads it in float32 computes with exactly these weights.
        model = model.to(torch.bfloat16).float()
        rng = Random(args.seed + number)
    model.to(torch.bfloat16).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(examine(model.float().eval(), tokenizer, Random(EXAM_SEED)), flush=True)


if __name__ == "__main__":
    main()
