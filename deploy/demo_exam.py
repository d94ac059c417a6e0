"""Examines a model on the lessons: greedy answers, one question a conversation, right or wrong by the letter."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from demo_lessons import (
    LESSONS,
    Exchange,
    Lesson,
    add,
    converse,
    drill_codes,
    remember_codes,
    remember_name,
    subtract,
)
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class Mark:
    """The result in one subject. `margin_min` is the smallest logit gap between best and second best of right answers."""

    subject: str
    right: int
    asked: int
    margin_min: float
    mistake: str

    def __str__(self) -> str:
        text = f"| {self.subject} | {self.right}/{self.asked} | {self.margin_min:.2f} |"
        return f"{text} {self.mistake} |" if self.mistake else f"{text} |"


Draw = Callable[[Random], Sequence[Exchange]]


def _alone(lesson: Lesson) -> Draw:
    """A conversation of this one exchange."""
    return lambda rng: [lesson(rng)]


SUBJECTS: dict[str, Draw] = {
    "sums not taught": lambda rng: [add(rng, held_out=True)],
    "differences not taught": lambda rng: [subtract(rng, held_out=True)],
    **{lesson.__name__.replace("_", " "): _alone(lesson) for lesson in LESSONS},
    "remember a name": lambda rng: list(remember_name(rng)),
    "remember codes": lambda rng: list(remember_codes(rng)),
    "find one code of several": lambda rng: list(drill_codes(rng))[:1],
    "after 10 exchanges": lambda rng: converse(rng, 10).exchanges,
    "after 40 exchanges": lambda rng: converse(rng, 40).exchanges,
}
"""Subject → a conversation whose last exchange is the question."""


def examine(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rng: Random, asked: int = 100
) -> str:
    """A table of marks, one row a subject."""
    lines = ["| subject | right | smallest margin | a mistake |", "|---|---|---|---|"]
    for subject, draw in SUBJECTS.items():
        tries = asked // 2 if subject.startswith("after") else asked
        lines.append(str(_mark(model, tokenizer, subject, [draw(rng) for _ in range(tries)])))
    return "\n".join(lines)


def _mark(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    subject: str,
    conversations: list[Sequence[Exchange]],
) -> Mark:
    right, margin_min, mistake = 0, float("inf"), ""
    for conversation in conversations:
        answer, margin = answer_last(model, tokenizer, conversation)
        wanted = conversation[-1].answer
        if answer == wanted:
            right, margin_min = right + 1, min(margin, margin_min)
        else:
            mistake = mistake or f"{conversation[-1].question[-60:]} → {answer}"
    return Mark(subject, right, len(conversations), margin_min, mistake)


@torch.inference_mode()
def answer_last(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, conversation: Sequence[Exchange]
) -> tuple[str, float]:
    """The greedy answer to the conversation's last question, and the smallest logit margin on the way."""
    messages = []
    for question, answer in conversation:
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    text = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    generated = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=200,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.cat(generated.logits).topk(2).values
    answer = tokenizer.decode(generated.sequences[0, prompt.shape[1] :], skip_special_tokens=True)
    return answer, (best[:, 0] - best[:, 1]).min().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a directory written by train_demo_model.py")
    parser.add_argument("--seed", type=int, default=1921)
    parser.add_argument("--asked", type=int, default=100, help="questions a subject")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.model)
    print(examine(model, tokenizer, Random(args.seed), args.asked))


if __name__ == "__main__":
    main()
