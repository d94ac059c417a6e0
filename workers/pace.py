"""How fast this engine is: step times fitted online, and what they mean for somebody who has to wait.

Knows what was in a step and how long it took; reads no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tercet.latency import UNFITTED, Coefficients, LatencyModel, attended_tokens
from tercet.workers.batch import Chunk

RETRY_S = 0.5
"""What a refused request is told to wait while nothing has been measured."""
RETRY_S_MIN = 0.1
RETRY_S_MAX = 10.0


@dataclass(slots=True)
class StepContents:
    """What a step computes, in the latency model's terms; counted before the step changes the sequences."""

    decodes: int = 0
    decode_context: int = 0
    prefill_tokens: int = 0
    prefill_token_context: int = 0

    @classmethod
    def of(cls, chunks: Iterable[Chunk]) -> "StepContents":
        contents = cls()
        for chunk in chunks:
            context = chunk.sequence.front + chunk.tokens
            if chunk.sequence.remaining == 1:
                contents.decodes += 1
                contents.decode_context += context
            else:
                contents.prefill_tokens += chunk.tokens
                contents.prefill_token_context += attended_tokens(chunk.tokens, context)
        return contents


class Pace:
    """A latency model and who feeds it."""

    def __init__(self) -> None:
        self._model = LatencyModel()

    @property
    def prefill_coefficients(self) -> Coefficients:
        return self._model.prefill_coefficients

    @property
    def decode_coefficients(self) -> Coefficients:
        return self._model.decode_coefficients

    def observe(self, step: StepContents, seconds: float) -> None:
        """A mixed step counts as prefill, less what its decodes are predicted to take; unusable until that is known."""
        if not step.prefill_tokens:
            self._model.observe_decode(step.decodes, step.decode_context, seconds)
        elif not step.decodes:
            self._model.observe_prefill(step.prefill_tokens, step.prefill_token_context, seconds)
        elif self.decode_coefficients != UNFITTED:
            decodes_s = self._model.predict_decode_s(step.decodes, step.decode_context)
            self._model.observe_prefill(
                step.prefill_tokens, step.prefill_token_context, seconds - decodes_s
            )

    def wait_s(self, pending_prefill_tokens: int) -> float:
        """How long the prefill that is pending will take, by its tokens alone; 0 while nothing is known."""
        return self.prefill_coefficients[1] * pending_prefill_tokens

    def retry_after_s(self, pending_prefill_tokens: int) -> float:
        """When a refused request may find room: after the prefill that is pending."""
        if self.prefill_coefficients == UNFITTED:
            return RETRY_S
        seconds = self.wait_s(pending_prefill_tokens)
        return min(max(seconds, RETRY_S_MIN), RETRY_S_MAX)
