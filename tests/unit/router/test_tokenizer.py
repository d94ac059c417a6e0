import json
from pathlib import Path

import pytest
from tokenizers import processors

from tercet.config import ClusterConfig, EngineConfig, ModelConfig
from tercet.errors import ModelUnsupported
from tercet.router.checkpoint import Checkpoint
from tercet.router.fake_service import EOS, spell, toy_core, toy_tokenizer
from tercet.router.service import context_tokens_max
from tercet.router.tokenizer import LOOP_CHARS_MAX, Tokenizer


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    core = toy_core()
    core.post_processor = processors.TemplateProcessing("<|turn|> $A", None, [("<|turn|>", 257)])
    core.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write(directory: Path, name: str, content: object) -> None:
    (directory / name).write_text(json.dumps(content))


async def test_start_tokens_are_added_on_request_only(directory: Path) -> None:
    tokenizer = Tokenizer.load(Checkpoint(directory))
    assert await tokenizer.encode("a", special_tokens=True) == [257, *spell("a")]
    assert await tokenizer.encode("a", special_tokens=False) == spell("a")


async def test_a_long_text_is_encoded_off_the_loop_and_just_the_same() -> None:
    text = "ab é " * LOOP_CHARS_MAX
    assert await toy_tokenizer().encode(text, special_tokens=False) == spell(text)


@pytest.mark.parametrize("token", ["a", " ", "\n", "é", "€"])
def test_token_bytes_are_the_bytes_of_the_text(token: str) -> None:
    tokenizer = toy_tokenizer()
    assert b"".join(tokenizer.token_bytes(id_) for id_ in spell(token)) == token.encode()


def test_special_tokens_are_spelt_out_and_unknown_ones_are_nothing() -> None:
    tokenizer = toy_tokenizer()
    assert tokenizer.token_bytes(256) == EOS.encode()
    assert tokenizer.token_bytes(100_000) == b""


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("generation_config.json", {"eos_token_id": [256, 257]}, {256, 257}),
        ("config.json", {"eos_token_id": 257}, {257}),
        ("config.json", {"text_config": {"eos_token_id": 257}}, {257}),
        ("tokenizer_config.json", {"eos_token": EOS}, {256}),
        ("tokenizer_config.json", {"eos_token": {"content": EOS, "lstrip": False}}, {256}),
        ("tokenizer_config.json", {}, set()),
    ],
)
def test_end_tokens_are_found_wherever_the_checkpoint_names_them(
    directory: Path, name: str, content: object, expected: set[int]
) -> None:
    write(directory, name, content)
    assert Tokenizer.load(Checkpoint(directory)).eos_token_ids == expected


def test_the_generation_file_has_the_last_word(directory: Path) -> None:
    write(directory, "generation_config.json", {"eos_token_id": 256})
    write(directory, "config.json", {"eos_token_id": 257})
    assert Checkpoint(directory).eos_token_ids == {256}


@pytest.mark.parametrize(
    ("content", "template"),
    [
        ({"chat_template": "plain"}, "plain"),
        ({"chat_template": [{"name": "default", "template": "named"}]}, "named"),
        ({"chat_template": [{"name": "tool_use", "template": "other"}]}, None),
        ({}, None),
    ],
)
def test_the_chat_template_is_found(directory: Path, content: object, template: str | None) -> None:
    write(directory, "tokenizer_config.json", content)
    assert Checkpoint(directory).chat_template() == template


def test_a_template_file_goes_before_the_setting(directory: Path) -> None:
    write(directory, "tokenizer_config.json", {"chat_template": "setting"})
    (directory / "chat_template.jinja").write_text("file")
    assert Checkpoint(directory).chat_template() == "file"


def test_limits_come_from_the_models_own_file(directory: Path) -> None:
    text = {"max_position_embeddings": 128, "vocab_size": 300}
    write(directory, "config.json", {"text_config": text})
    checkpoint = Checkpoint(directory)
    assert (checkpoint.context_tokens_max, checkpoint.vocabulary_size) == (128, 300)


@pytest.mark.parametrize(("blocks", "tokens"), [(4, 64), (0, 128)])
def test_a_context_ends_with_the_kv_pool_unless_a_gpu_sizes_it(
    directory: Path, blocks: int, tokens: int
) -> None:
    write(directory, "config.json", {"max_position_embeddings": 128, "vocab_size": 300})
    config = ClusterConfig(
        model=ModelConfig(path=str(directory)),
        engine=EngineConfig(block_tokens=16, kv_blocks=blocks),
    )
    assert context_tokens_max(config, Checkpoint(directory)) == tokens


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match=r"tokenizer\.json"):
        Checkpoint(tmp_path)


def test_a_broken_file_is_named(directory: Path) -> None:
    (directory / "config.json").write_text("{")
    with pytest.raises(ModelUnsupported, match=r"config\.json"):
        Checkpoint(directory)
