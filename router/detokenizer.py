"""Tokens to text, one step at a time: never half a character, and all pieces together are the text of all tokens.

A token is not a piece of text: a character may be spread over several tokens, and some decoders look at a token's left
neighbour (a leading space vanishes at the start of a text). So a short window of tokens is decoded as a whole each time
and only what is new in it goes out. Characters still incomplete at the end show as U+FFFD and are held back.
"""

from collections.abc import Sequence
from typing import Protocol

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

CONTEXT_TOKENS = 6
"""Tokens already sent that stay in the window, at least. More than three, so that a window that has to begin inside a
character is in step with UTF-8 again before anything new comes."""

HELD_TOKENS_MAX = 32
"""A run of bytes that is no text by then never becomes one; it goes out as U+FFFD."""

PARTIAL_CHARS_MAX = 3
"""An incomplete UTF-8 character has at most three bytes and shows as at most so many U+FFFD."""


class Vocabulary(Protocol):
    """What turns tokens into text."""

    @property
    def special_ids(self) -> frozenset[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


class Detokenizer:
    """The text of one growing sequence of tokens. Each step costs the decoding of a bounded window."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._window: list[int] = []
        self._sent_chars = 0
        """Characters of the window's text that went out."""
        self._held_tokens = 0

    def feed(self, tokens: Sequence[int]) -> str:
        """The text that is certain after `tokens` and was not before."""
        special = self._vocabulary.special_ids
        fresh = [token for token in tokens if token not in special]
        if not fresh:
            return ""
        self._window.extend(fresh)
        self._held_tokens += len(fresh)
        text = self._vocabulary.decode(self._window)
        held = len(text) - len(text.rstrip(REPLACEMENT))
        if held and self._held_tokens > HELD_TOKENS_MAX:
            held = min(held, PARTIAL_CHARS_MAX)
        return self._send(text, len(text) - held)

    def finish(self) -> str:
        """What was held back; no token follows."""
        text = self._vocabulary.decode(self._window) if self._window else ""
        return self._send(text, len(text))

    def _send(self, text: str, certain: int) -> str:
        delta = text[self._sent_chars : certain]
        if delta:
            self._sent_chars = certain
            self._held_tokens = 0
            held = len(text) - certain
            if len(self._window) > 2 * CONTEXT_TOKENS and held <= PARTIAL_CHARS_MAX:
                self._trim(text, held)
        return delta

    def _trim(self, text: str, held_chars: int) -> None:
        """Shorten the window, if possible to where a character begins: its text is then an end of the former text.

        Decoders that spell unknown characters in byte tokens void a whole run of them that begins inside a character.
        """
        for length in range(CONTEXT_TOKENS, CONTEXT_TOKENS + PARTIAL_CHARS_MAX + 1):
            window = self._window[-length:]
            tail = self._vocabulary.decode(window)
            if text.endswith(tail):
                break
        self._window = window
        self._sent_chars = len(tail) - held_chars
