"""All deltas together are the text of all tokens, and none of them ends inside a character."""

from itertools import pairwise

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers

from tercet.router.detokenizer import CONTEXT_TOKENS, HELD_TOKENS_MAX, REPLACEMENT, Detokenizer
from tercet.router.fake_service import EOS, spell, toy_core
from tercet.router.tokenizer import Tokenizer


def sentencepiece_core() -> tokenizers.Tokenizer:
    """As Llama 2 has it: words begin with U+2581, unknown characters are spelt in bytes, the first space goes."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefgh", "▁a", "▁b"]
    pieces += ["ab", "▁ab"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    merges = [("▁", "a"), ("▁", "b"), ("a", "b"), ("▁a", "b")]
    core = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return core


BYTES = Tokenizer(toy_core(), frozenset())
PIECES = Tokenizer(sentencepiece_core(), frozenset())


def deltas(vocabulary: Tokenizer, tokens: list[int], cuts: list[int]) -> list[str]:
    """Feed `tokens` in runs that end at `cuts`."""
    detokenizer = Detokenizer(vocabulary)
    ends = sorted({0, len(tokens), *(cut % (len(tokens) + 1) for cut in cuts)})
    out = [detokenizer.feed(tokens[start:end]) for start, end in pairwise(ends)]
    return [*out, detokenizer.finish()]


@given(st.lists(st.integers(0, 257), max_size=200), st.lists(st.integers(0, 200)))
@example([128] * 150, list(range(150)))
@example([*spell("abcdefghijklm"), *[128] * 20, *spell("n")], [33])
def test_any_bytes_come_out_as_they_are_decoded_at_once(tokens: list[int], cuts: list[int]) -> None:
    assert "".join(deltas(BYTES, tokens, cuts)) == BYTES.decode(tokens)


@given(st.text(max_size=60))
def test_text_given_byte_by_byte_never_shows_half_a_character(text: str) -> None:
    tokens = spell(text)
    out = deltas(BYTES, tokens, list(range(len(tokens))))
    assert "".join(out) == text
    assert text.count(REPLACEMENT) == sum(delta.count(REPLACEMENT) for delta in out)


@given(st.text("ab cé€😀", max_size=40))
def test_sentencepiece_text_keeps_its_spaces_and_its_byte_spelt_characters(text: str) -> None:
    tokens = sentencepiece_core().encode(text).ids
    out = deltas(PIECES, tokens, list(range(len(tokens))))
    assert "".join(out) == PIECES.decode(tokens) == text


@given(st.lists(st.integers(257, 269), max_size=80), st.lists(st.integers(0, 80)))
def test_any_pieces_come_out_as_they_are_decoded_at_once(
    tokens: list[int], cuts: list[int]
) -> None:
    assert "".join(deltas(PIECES, tokens, cuts)) == PIECES.decode(tokens)


def test_a_character_comes_with_its_last_byte() -> None:
    detokenizer = Detokenizer(BYTES)
    assert [detokenizer.feed([token]) for token in spell("€!")] == ["", "", "€", "!"]


def test_special_tokens_are_no_text() -> None:
    detokenizer = Detokenizer(BYTES)
    assert detokenizer.feed([*spell("a"), *spell(EOS), *spell("b")]) == "ab"


def test_an_unfinished_character_comes_out_at_the_end() -> None:
    detokenizer = Detokenizer(BYTES)
    assert detokenizer.feed(spell("é")[:1]) == ""
    assert detokenizer.finish() == REPLACEMENT


class CountingVocabulary:
    """Remembers the longest window it was asked to decode."""

    special_ids: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.longest = 0

    def decode(self, tokens: list[int]) -> str:
        self.longest = max(self.longest, len(tokens))
        return BYTES.decode(tokens)


@pytest.mark.parametrize("tokens", [spell("x" * 5000), spell("é")[:1] * 5000])
def test_the_window_is_bounded_whatever_the_bytes_are(tokens: list[int]) -> None:
    vocabulary = CountingVocabulary()
    detokenizer = Detokenizer(vocabulary)
    text = "".join(detokenizer.feed([token]) for token in tokens) + detokenizer.finish()
    assert text == BYTES.decode(tokens)
    assert vocabulary.longest <= 2 * CONTEXT_TOKENS + HELD_TOKENS_MAX + 1
