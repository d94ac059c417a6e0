"""One choice of a call: its tokens become text, until it ends by itself or by a stop string.

Knows one sequence of tokens; neither where they come from nor how they are sent.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tercet.request import FinishReason, Sampling, TokenLogprobs
from tercet.router.detokenizer import Detokenizer, Vocabulary
from tercet.router.source import Piece
from tercet.router.stop import StopStrings


class EndingVocabulary(Vocabulary, Protocol):
    """A vocabulary that knows which tokens end a generation."""

    @property
    def eos_token_ids(self) -> frozenset[int]: ...


class OutputToken(NamedTuple):
    """A token that was sent. Its text begins at character `offset` of the choice's text."""

    id: int
    offset: int
    logprobs: TokenLogprobs | None


@dataclass(slots=True)
class Delta:
    """What is new in one choice; the last one carries `finish`."""

    choice: int
    text: str = ""
    tokens: list[OutputToken] = field(default_factory=list)
    finish: FinishReason | None = None

    def add(self, later: "Delta") -> None:
        """Append what came after this."""
        assert later.choice == self.choice, (later.choice, self.choice)
        assert self.finish is None, "nothing comes after the end"
        self.text += later.text
        self.tokens += later.tokens
        self.finish = later.finish


class _Pending(NamedTuple):
    token: OutputToken
    end: int


class Choice:
    """The text of one choice. Tokens go out with their text: those behind a held-back or cut-off text stay in."""

    def __init__(
        self, index: int, vocabulary: EndingVocabulary, sampling: Sampling, stop: tuple[str, ...]
    ) -> None:
        self.index = index
        self.generated_tokens = 0
        """Tokens taken in, whether they were sent or not."""
        self.finish: FinishReason | None = None
        self._min_tokens = sampling.min_tokens
        self._endings = vocabulary.eos_token_ids | frozenset(sampling.stop_token_ids)
        self._detokenizer = Detokenizer(vocabulary)
        self._stop = StopStrings(stop)
        self._pending: deque[_Pending] = deque()
        self._chars = 0
        """Characters of text so far, sent or held back."""
        self._sent_chars = 0

    def feed(self, piece: Piece) -> Delta | None:
        """What can be sent after `piece`; None when it is nothing. Pieces after the end are ignored."""
        if self.finish is not None:
            return None
        delta = Delta(self.index)
        # A sampled end token stands for no text, be it called special or not.
        silent = len(piece.tokens) - 1 if piece.finish is FinishReason.STOP else len(piece.tokens)
        for position, token in enumerate(piece.tokens):
            logprobs = piece.logprobs[position] if piece.logprobs is not None else None
            ends = position == silent and token in self._endings
            if self._take(delta, token, logprobs, silent=ends):
                break
        if piece.finish is not None and self.finish is None:
            self._end(delta, piece.finish)
        return delta if delta.text or delta.tokens or delta.finish else None

    def _take(
        self, delta: Delta, token: int, logprobs: TokenLogprobs | None, *, silent: bool
    ) -> bool:
        """Add one token; True when a stop string is complete with it."""
        text = "" if silent else self._detokenizer.feed((token,))
        self.generated_tokens += 1
        output = OutputToken(token, self._chars, logprobs)
        self._chars += len(text)
        self._pending.append(_Pending(output, self._chars))
        checked = self._stop.feed(text, armed=self.generated_tokens >= self._min_tokens)
        self._release(delta, checked.text, stopped=checked.stopped)
        return checked.stopped

    def _end(self, delta: Delta, reason: FinishReason) -> None:
        """The generation is over: what was held back is decided now."""
        rest = self._detokenizer.finish()
        self._chars += len(rest)
        checked = self._stop.feed(rest, armed=self.generated_tokens >= self._min_tokens)
        self._release(delta, checked.text, stopped=checked.stopped)
        if self.finish is None:
            self._release(delta, self._stop.finish(), stopped=False)
            self.finish = delta.finish = reason

    def _release(self, delta: Delta, text: str, *, stopped: bool) -> None:
        delta.text += text
        self._sent_chars += len(text)
        while self._pending and self._goes_out(self._pending[0], stopped=stopped):
            delta.tokens.append(self._pending.popleft().token)
        if stopped:
            self.finish = delta.finish = FinishReason.STOP
            self._pending.clear()

    def _goes_out(self, pending: _Pending, *, stopped: bool) -> bool:
        if pending.end <= self._sent_chars:
            return True
        return stopped and pending.token.offset < self._sent_chars
