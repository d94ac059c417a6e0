"""Text to tokens and back, by the checkpoint's `tokenizer.json`, without torch.

Knows vocabularies; knows neither chat templates nor requests.
"""

import asyncio
import re
from typing import Self

import tokenizers
from tokenizers.decoders import ByteFallback, ByteLevel

from tercet.router.checkpoint import Checkpoint

LOOP_CHARS_MAX = 4000
"""A longer text is encoded on a thread: on the event loop it would hold up every stream (measured: 1 ms at 4,000
characters, 42 ms at 100,000)."""

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """One checkpoint's tokenizer. Safe to use from several threads."""

    def __init__(self, core: tokenizers.Tokenizer, eos_token_ids: frozenset[int]) -> None:
        self._core = core
        self.eos_token_ids = eos_token_ids
        added = core.get_added_tokens_decoder()
        self.special_ids = frozenset(token for token, entry in added.items() if entry.special)
        self.size = core.get_vocab_size(with_added_tokens=True)
        self._added = {token: entry.content for token, entry in added.items()}
        self._byte_level = "ByteLevel" in _decoder_kinds(core)
        self._byte_fallback = "ByteFallback" in _decoder_kinds(core)
        self._bytes: dict[int, bytes] = {}  # at most one entry for each token of the vocabulary

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        core = tokenizers.Tokenizer.from_file(str(checkpoint.tokenizer_file))
        eos = checkpoint.eos_token_ids
        if not eos and (name := checkpoint.special_tokens().get("eos_token")):
            token = core.token_to_id(name)
            eos = frozenset() if token is None else frozenset([token])
        return cls(core, eos)

    async def encode(self, text: str, *, special_tokens: bool) -> list[int]:
        """Token ids of `text`; `special_tokens` adds those the model expects around a plain text, such as BOS."""
        if len(text) <= LOOP_CHARS_MAX:
            return self._core.encode(text, add_special_tokens=special_tokens).ids
        # Of all encoding calls only the batched ones release the interpreter lock.
        [encoding] = await asyncio.to_thread(
            self._core.encode_batch, [text], add_special_tokens=special_tokens
        )
        return list(encoding.ids)

    def decode(self, tokens: list[int]) -> str:
        """The text of `tokens` without special tokens; incomplete characters become U+FFFD."""
        return self._core.decode(tokens, skip_special_tokens=True)

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for in a text; a token beyond the vocabulary stands for none."""
        known = self._bytes.get(token)
        if known is None:
            known = self._spell(token)
            if token < self.size:
                self._bytes[token] = known
        return known

    def _spell(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        piece = self._core.id_to_token(token)
        if piece is None:
            return b""
        if self._byte_level:
            return bytes(_BYTE_OF_CHAR[char] for char in piece if char in _BYTE_OF_CHAR)
        if self._byte_fallback and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        return piece.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()


def _decoder_kinds(core: tokenizers.Tokenizer) -> set[str]:
    """Names of the decoder and, if it is a sequence, of its parts."""
    # The Python object of a sequence does not list its parts, its printed form does.
    text = repr(core.decoder)
    return {kind.__name__ for kind in (ByteLevel, ByteFallback) if f"{kind.__name__}(" in text}


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes each byte as one printable character: itself where printable, else U+0100 and up, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(hidden)})
    return alphabet


_BYTE_OF_CHAR = _byte_alphabet()
