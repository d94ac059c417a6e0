"""A client's call as the text level knows it, whichever door it came through; and what is acceptable in one.

Names of fields are those of the HTTP API, which the gRPC API shares. Knows neither JSON nor protobuf.
"""

import secrets
from dataclasses import dataclass, field
from typing import NamedTuple

from tercet.errors import InvalidRequest
from tercet.ids import RequestId
from tercet.request import Sampling
from tercet.router.chat import ChatMessage, TemplateOption

CHOICES_MAX = 64
"""Generations one call may ask for: prompts times `n`."""

STOP_STRINGS_MAX = 16
STOP_STRING_CHARS_MAX = 1024
TOP_LOGPROBS_MAX = 20
NAME_CHARS_MAX = 128
"""Length of identifiers that clients choose."""
TENANT = "x-tenant-id"
"""The header, or metadata, that names a tenant."""
KV_TTL_S_MAX = 86_400.0
"""Workers keep nothing longer than their own `engine.retention_s_max`."""
INTEGER_MAX = 2**31 - 1
SEED_MAX = 2**63 - 1


class ContextExceeded(InvalidRequest):
    """Prompt and output together are longer than the model's context."""

    def __init__(self, field: str, context: int, prompt: int, output: int) -> None:
        super().__init__(
            field,
            f"this model's context is {context} tokens, but {prompt + output} were requested: "
            f"{prompt} in the prompt and {output} for the output",
        )


class BodyTooLarge(InvalidRequest):
    """The body is longer than this front door reads."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__("", f"the body must have at most {bytes_max} bytes")


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages for the chat template."""

    messages: tuple[ChatMessage, ...]
    options: dict[str, TemplateOption] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Text to be continued; the model's own start tokens are added."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids, taken as they are."""

    tokens: tuple[int, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `len(prompts) * choices` generations; choice number `p * choices + i` belongs to prompt `p`."""

    id: RequestId
    model: str
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    """`max_tokens` 0 stands for as many as the context has room for; choice `i` of a prompt uses `seed + i`."""
    choices: int = 1
    stop: tuple[str, ...] = ()
    echo: bool = False
    """Begin each text with its prompt."""
    priority: int = 0
    tenant_salt: str = ""
    session: str = ""
    """The client's name for a conversation."""
    tenant: str = ""
    """Whose limits count; empty for calls without a name."""
    kv_ttl_s: float = 0.0
    """How long its KV will probably be wanted again."""
    deadline_s: float | None = None
    """Seconds from now."""
    name: str = ""
    """The client's own, besides the id; any number of calls may have the same."""

    @property
    def requests(self) -> tuple[RequestId, ...]:
        """The ids of its generations, by choice."""
        count = len(self.prompts) * self.choices
        if count == 1:
            return (self.id,)
        return tuple(RequestId(f"{self.id}-{index}") for index in range(count))

    def check(self) -> None:
        """Raises InvalidRequest with the first field whose value cannot be served."""
        if not self.prompts:
            raise InvalidRequest("prompt", "must not be empty")
        _check_range("n", self.choices, 1, CHOICES_MAX)
        if len(self.prompts) * self.choices > CHOICES_MAX:
            raise InvalidRequest(
                "n", f"times the number of prompts must be at most {CHOICES_MAX} generations"
            )
        _check_range("priority", self.priority, -INTEGER_MAX, INTEGER_MAX)
        if len(self.tenant_salt) > NAME_CHARS_MAX:
            raise InvalidRequest("cache_salt", f"must have at most {NAME_CHARS_MAX} characters")
        if len(self.session) > NAME_CHARS_MAX:
            raise InvalidRequest("session", f"must have at most {NAME_CHARS_MAX} characters")
        if len(self.tenant) > NAME_CHARS_MAX:
            raise InvalidRequest("tenant", f"must have at most {NAME_CHARS_MAX} characters")
        if self.deadline_s is not None and not 0 < self.deadline_s < float("inf"):
            raise InvalidRequest("deadline", "must be a positive, finite time")
        _check_range("kv_ttl_s", self.kv_ttl_s, 0, KV_TTL_S_MAX)
        check_stop(self.stop)
        check_sampling(self.sampling)


def random_seed() -> int:
    """For a call that brought none: a request always has a seed, so that a replay draws the same tokens."""
    return secrets.randbelow(SEED_MAX + 1)


def check_stop(strings: tuple[str, ...]) -> None:
    """Raises InvalidRequest when these cannot be looked for."""
    if len(strings) > STOP_STRINGS_MAX:
        raise InvalidRequest("stop", f"must have at most {STOP_STRINGS_MAX} strings")
    if not all(0 < len(string) <= STOP_STRING_CHARS_MAX for string in strings):
        raise InvalidRequest("stop", f"strings must have 1 to {STOP_STRING_CHARS_MAX} characters")


class Range(NamedTuple):
    """Inclusive bounds of a field of Sampling."""

    field: str
    least: float
    most: float


RANGES = (
    Range("max_tokens", 0, INTEGER_MAX),
    Range("min_tokens", 0, INTEGER_MAX),
    Range("temperature", 0.0, 2.0),
    Range("top_k", 0, INTEGER_MAX),
    Range("min_p", 0.0, 1.0),
    Range("repetition_penalty", 0.01, 100.0),
    Range("presence_penalty", -2.0, 2.0),
    Range("frequency_penalty", -2.0, 2.0),
    Range("seed", 0, SEED_MAX),
)


def check_sampling(sampling: Sampling) -> None:
    """Raises InvalidRequest with the first field out of its range."""
    for name, least, most in RANGES:
        _check_range(name, getattr(sampling, name), least, most)
    if not 0.0 < sampling.top_p <= 1.0:
        raise InvalidRequest("top_p", f"must be above 0 and at most 1, is {sampling.top_p}")
    if sampling.logprobs is not None:
        _check_range("top_logprobs", sampling.logprobs, 0, TOP_LOGPROBS_MAX)
    if sampling.max_tokens and sampling.min_tokens > sampling.max_tokens:
        raise InvalidRequest("min_tokens", f"is more than max_tokens, {sampling.max_tokens}")
    for bias in sampling.logit_bias.values():
        _check_range("logit_bias", bias, -100.0, 100.0)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    # Written so that NaN, which is not comparable, fails too.
    if not least <= value <= most:
        raise InvalidRequest(name, f"must be between {least} and {most}, is {value}")
