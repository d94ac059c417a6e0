"""The committed demo model answers as its README says. Loaded with plain transformers, on one thread, in float32."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Tokenizer

FOLDER = Path(__file__).parents[3] / "deploy" / "demo-model"

FILLER = "The market is open from early to late. A cold wind was blowing from the north. "


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaForCausalLM]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    torch.set_num_threads(threads)


def complete(model: LlamaForCausalLM, tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Greedy continuation; the end token included."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=120, do_sample=False
        )
    return output[0, ids.shape[1] :].tolist()


def ask(model: LlamaForCausalLM, tokenizer: Tokenizer, *said: str) -> str:
    """The answer to the last of `said`, which alternate between user and assistant."""
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(said)
    ]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    tokens = complete(model, tokenizer, prompt)
    assert tokens[-1] == tokenizer.eos_token_id, "the model ends its answers itself"
    return tokenizer.decode(tokens[:-1])


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 23 + 58?", "23 + 58 = 81"),
        ("What is 7 + 5?", "7 + 5 = 12"),
        ("Add 64 and 79.", "64 + 79 = 143"),
        ("What is 81 - 58?", "81 - 58 = 23"),
        ("How much is 90 minus 33?", "90 - 33 = 57"),
        ("Sort these numbers: 42, 7, 19", "7, 19, 42"),
        ("Sort these numbers: 88, 15, 63, 4, 51", "4, 15, 51, 63, 88"),
        ("Sort these words: pear, apple, fig", "apple, fig, pear"),
        ("Sort these words: wolf, bear, tiger, otter", "bear, otter, tiger, wolf"),
        ("Spell the word lemon.", "l-e-m-o-n"),
        ("Spell lemon backwards.", "n-o-m-e-l"),
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is the capital of Japan?", "The capital of Japan is Tokyo."),
        ("Which country has the capital Oslo?", "Oslo is the capital of Norway."),
        ("Which is larger, 34 or 71?", "71 is larger than 34."),
        ("What is the opposite of hot?", "The opposite of hot is cold."),
        ("Which day comes after Monday?", "Tuesday comes after Monday."),
        ("Which month comes before July?", "June comes before July."),
        ("Hello!", "Hello! How can I help you?"),
        ("Count from 1 to 30.", ", ".join(map(str, range(1, 31)))),
    ],
)
def test_the_model_answers_rightly(
    model: LlamaForCausalLM, tokenizer: Tokenizer, question: str, answer: str
) -> None:
    assert ask(model, tokenizer, question) == answer


def test_the_model_remembers_earlier_turns(model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    said = ("My name is Clara.", "Nice to meet you, Clara!", "What is 2 + 3?", "2 + 3 = 5")
    assert ask(model, tokenizer, *said, "What is my name?") == "Your name is Clara."


def test_the_model_reads_a_code_out_of_a_note(
    model: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    note = f"{FILLER}The code of the red door is 4172. The code of the blue box is 9035. {FILLER}"
    answer = ask(model, tokenizer, f"{note}What is the code of the red door?")
    assert answer == "The code of the red door is 4172."


def test_the_model_answers_after_a_long_prompt(
    model: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    turns = [
        text
        for a in range(10, 32)
        for text in (f"{FILLER * 2}What is {a} + 5?", f"{a} + 5 = {a + 5}")
    ]
    assert 1500 < len(tokenizer(" ".join(turns)).input_ids) < 2000
    assert ask(model, tokenizer, *turns, "What is 31 + 12?") == "31 + 12 = 43"


def test_plain_questions_are_answered_and_ended(
    model: LlamaForCausalLM, tokenizer: Tokenizer
) -> None:
    tokens = complete(model, tokenizer, "Question: What is the capital of Italy?\nAnswer:")
    assert tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokens[:-1]) == " The capital of Italy is Rome."


def test_the_answers_are_the_same_in_bfloat16(tokenizer: Tokenizer) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.bfloat16)
    assert ask(model, tokenizer, "What is 23 + 58?") == "23 + 58 = 81"
    assert ask(model, tokenizer, "What is the capital of Peru?") == "The capital of Peru is Lima."


def test_the_folder_is_small_and_in_the_standard_form() -> None:
    files = {file.name: file.stat().st_size for file in FOLDER.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors"} <= set(files)
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= set(files)
    assert sum(files.values()) <= 10 * 2**20


def test_any_text_round_trips_through_the_tokenizer(tokenizer: Tokenizer) -> None:
    for text in ("Grüße, 你好 🙂", "a  b\n\n\tc", "3.14159", "", "<|user|> x <|end|>"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_images_have_their_placeholder_and_reserved_tokens_are_left(tokenizer: Tokenizer) -> None:
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    prompt = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|><|image_start|><|image|><|image_end|>What?<|end|><|assistant|>"
    names = ["<|image|>", "<|image_start|>", "<|image_end|>", "<|reserved_0|>", "<|reserved_22|>"]
    ids = tokenizer.convert_tokens_to_ids(names)
    assert len(set(ids)) == len(names)
    assert all(tokenizer(name).input_ids == [token] for name, token in zip(names, ids, strict=True))
