"""A call becomes generations: its prompts are templated and tokenised, its output is fitted into the context.

Knows the model's text side; nothing of queues, workers or replies.
"""

from array import array

import msgspec
import numpy as np

from tercet.errors import InvalidRequest
from tercet.ids import RequestId
from tercet.request import RequestSpec, Sampling
from tercet.router.call import Call, ChatPrompt, ContextExceeded, Prompt, TextPrompt
from tercet.router.chat import ChatTemplate
from tercet.router.choice import Choice
from tercet.router.completion import Part
from tercet.router.prefix_names import numbers_of
from tercet.router.tokenizer import Tokenizer


class ModelCard(msgspec.Struct, frozen=True):
    """The model served here."""

    name: str
    created: int
    """Unix time at which this front door began to serve it."""
    context_tokens_max: int
    """Longest prompt plus output."""
    vocabulary_size: int


class Preparation:
    """Prepares calls for one model. Raises InvalidRequest for what only tokenising can show to be wrong."""

    def __init__(
        self, model: ModelCard, tokenizer: Tokenizer, template: ChatTemplate | None
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._template = template

    async def parts(self, call: Call) -> list[Part]:
        """One part a choice, in the order of their indexes."""
        parts: list[Part] = []
        names = iter(call.requests)
        for prompt in call.prompts:
            tokens = await self._tokens(prompt)
            field = "messages" if isinstance(prompt, ChatPrompt) else "prompt"
            numbers = self._checked(field, tokens)
            sampling = self._fit(call.sampling, len(tokens), field)
            echo = self._echo(prompt, tokens) if call.echo else ""
            for nth in range(call.choices):
                spec = _spec(call, next(names), tokens, _with_seed(sampling, nth))
                choice = Choice(len(parts), self._tokenizer, sampling, call.stop)
                parts.append(Part(spec, numbers, choice, counts_prompt=nth == 0, echo=echo))
        return parts

    async def _tokens(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, ChatPrompt):
            if self._template is None:
                raise InvalidRequest(
                    "messages", f"{self._model.name} has no chat template; send a plain prompt"
                )
            text = self._template.render(prompt.messages, prompt.options)
            # Templates write the model's start tokens themselves.
            return await self._tokenizer.encode(text, special_tokens=False)
        if isinstance(prompt, TextPrompt):
            return await self._tokenizer.encode(prompt.text, special_tokens=True)
        return list(prompt.tokens)

    def _echo(self, prompt: Prompt, tokens: list[int]) -> str:
        return prompt.text if isinstance(prompt, TextPrompt) else self._tokenizer.decode(tokens)

    def _fit(self, sampling: Sampling, tokens: int, field: str) -> Sampling:
        """Sampling with a definite `max_tokens`, after a prompt of so many."""
        self._check_ids("logit_bias", list(sampling.logit_bias))
        self._check_ids("stop_token_ids", list(sampling.stop_token_ids))
        context = self._model.context_tokens_max
        room = context - tokens
        wanted = sampling.max_tokens or max(1, room, sampling.min_tokens)
        if wanted > room:
            raise ContextExceeded(field, context, tokens, wanted)
        if sampling.min_tokens > wanted:
            raise InvalidRequest("min_tokens", f"is more than max_tokens, {wanted}")
        return msgspec.structs.replace(sampling, max_tokens=wanted)

    def _checked(self, field: str, tokens: list[int]) -> "array[int]":
        """The prompt as the router wants it."""
        if not tokens:
            raise InvalidRequest(field, "has no tokens")
        return self._check_ids(field, tokens)

    def _check_ids(self, field: str, ids: list[int]) -> "array[int]":
        size = self._model.vocabulary_size
        numbers = known_numbers(ids, size)
        if numbers is None:
            raise InvalidRequest(field, f"has a token id outside 0 to {size - 1}")
        return numbers


def known_numbers(ids: list[int], vocabulary_size: int) -> "array[int] | None":
    """Token ids as numbers; None if one is outside the vocabulary. A fifth of the time that `min` and `max` of a list take."""
    try:
        numbers = numbers_of(ids)
    except OverflowError:  # one is negative, or has more than 32 bits
        return None
    known = not ids or int(np.frombuffer(numbers, dtype=np.uint32).max()) < vocabulary_size
    return numbers if known else None


def _spec(call: Call, name: RequestId, tokens: list[int], sampling: Sampling) -> RequestSpec:
    return RequestSpec(
        id=name,
        prompt=tokens,
        sampling=sampling,
        priority=call.priority,
        tenant_salt=call.tenant_salt,
        kv_ttl_s=call.kv_ttl_s,
        session=call.session,
    )


def _with_seed(sampling: Sampling, nth: int) -> Sampling:
    """The nth choice of a prompt draws from its own sequence, the same one each time the call is repeated."""
    return msgspec.structs.replace(sampling, seed=(sampling.seed + nth) % 2**63)
