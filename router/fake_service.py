"""A service with a toy vocabulary on a scripted source: both doors can be opened without a model, a worker or a file.

One token a byte, so that any text can be scripted; two special tokens; a plain chat template.
"""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from tercet.request import RequestSpec
from tercet.router.chat import ChatTemplate
from tercet.router.fake_source import MODEL, FakeSource, Script
from tercet.router.preparation import ModelCard
from tercet.router.service import Service
from tercet.router.tokenizer import Tokenizer

EOS = "<|end|>"
TURN = "<|turn|>"

TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


def toy_core() -> tokenizers.Tokenizer:
    """Byte-level, without merges; ids 0 to 255 are in the order of the byte-level alphabet, the last two are special."""
    alphabet = {
        char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    core = tokenizers.Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([EOS, TURN])
    return core


def toy_tokenizer() -> Tokenizer:
    """The toy vocabulary, ready for use."""
    return Tokenizer(toy_core(), frozenset(spell(EOS)))


def spell(text: str) -> list[int]:
    """The toy vocabulary's tokens of `text`, one a byte."""
    return toy_core().encode(text, add_special_tokens=False).ids


def saying(text: str, *, eos: bool = True) -> Script:
    """Every request is answered by `text`, and then the end token."""
    tokens = spell(text + EOS if eos else text)

    def script(spec: RequestSpec) -> list[int]:
        return tokens

    return script


def fake_service(
    source: FakeSource,
    *,
    context_tokens_max: int = 512,
    calls_max: int = 64,
    body_bytes_max: int = 64 * 1024,
    chat: bool = True,
) -> Service:
    """A service named `toy`."""
    tokenizer = toy_tokenizer()
    template = ChatTemplate(TEMPLATE, {"eos_token": EOS}) if chat else None
    return Service(
        ModelCard(MODEL, 1_700_000_000, context_tokens_max, tokenizer.size),
        source,
        tokenizer,
        template,
        calls_max=calls_max,
        body_bytes_max=body_bytes_max,
    )
