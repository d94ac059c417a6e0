"""What the text level reads from a Hugging Face checkpoint directory: names of special tokens, templates, limits.

Knows the files, not what they are used for. Weights are never opened, so that a front door needs no torch.
"""

from pathlib import Path
from typing import TypeVar

import msgspec

from tercet.errors import ModelUnsupported

T = TypeVar("T")


class AddedToken(msgspec.Struct, frozen=True):
    """A special token written as an object; only its text matters here."""

    content: str


class NamedTemplate(msgspec.Struct, frozen=True):
    """One of several chat templates of a checkpoint."""

    name: str
    template: str


class TokenizerSettings(msgspec.Struct, frozen=True):
    """`tokenizer_config.json`, as far as it concerns us."""

    bos_token: str | AddedToken | None = None
    eos_token: str | AddedToken | None = None
    pad_token: str | AddedToken | None = None
    unk_token: str | AddedToken | None = None
    chat_template: str | list[NamedTemplate] | None = None


class GenerationSettings(msgspec.Struct, frozen=True):
    """`generation_config.json`: only the end tokens. Its sampling defaults are not taken, see `docs/api.md`."""

    eos_token_id: int | list[int] | None = None


class TextSettings(msgspec.Struct, frozen=True):
    """The text part of a `config.json` that has several parts."""

    eos_token_id: int | list[int] | None = None
    max_position_embeddings: int = 0
    vocab_size: int = 0


class ModelSettings(msgspec.Struct, frozen=True):
    """`config.json`, as far as it concerns us."""

    eos_token_id: int | list[int] | None = None
    max_position_embeddings: int = 0
    vocab_size: int = 0
    text_config: TextSettings = TextSettings()


class Checkpoint:
    """A checkpoint directory. Raises ModelUnsupported when a file that is needed is missing or not what it should be."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tokenizer_file = directory / "tokenizer.json"
        if not self.tokenizer_file.is_file():
            raise ModelUnsupported(f"{directory} has no tokenizer.json")
        self.tokenizer = self._read("tokenizer_config.json", TokenizerSettings)
        self._generation = self._read("generation_config.json", GenerationSettings)
        self._model = self._read("config.json", ModelSettings)

    @property
    def context_tokens_max(self) -> int:
        """Longest sequence the model was made for; 0 when the checkpoint does not say."""
        return (
            self._model.max_position_embeddings or self._model.text_config.max_position_embeddings
        )

    @property
    def vocabulary_size(self) -> int:
        """Rows of the model's embedding; 0 when the checkpoint does not say."""
        return self._model.vocab_size or self._model.text_config.vocab_size

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a generation; empty when the checkpoint names none by number."""
        for found in (
            self._generation.eos_token_id,
            self._model.eos_token_id,
            self._model.text_config.eos_token_id,
        ):
            if found is not None:
                return frozenset([found] if isinstance(found, int) else found)
        return frozenset()

    def chat_template(self) -> str | None:
        """The source of the (default) chat template; None when the checkpoint has none."""
        file = self.directory / "chat_template.jinja"
        if file.is_file():
            return file.read_text(encoding="utf-8")
        template = self.tokenizer.chat_template
        if isinstance(template, list):
            by_name = {named.name: named.template for named in template}
            return by_name.get("default")
        return template

    def special_tokens(self) -> dict[str, str]:
        """Texts of the special tokens by the names templates use for them, such as `bos_token`."""
        settings = self.tokenizer
        tokens = {
            "bos_token": settings.bos_token,
            "eos_token": settings.eos_token,
            "pad_token": settings.pad_token,
            "unk_token": settings.unk_token,
        }
        return {
            name: token.content if isinstance(token, AddedToken) else token
            for name, token in tokens.items()
            if token is not None
        }

    def _read(self, name: str, kind: type[T]) -> T:
        path = self.directory / name
        if not path.is_file():
            return kind()
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except msgspec.DecodeError as exc:
            raise ModelUnsupported(f"{path} cannot be read: {exc}") from exc
