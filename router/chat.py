"""Chat messages to one prompt text, by the checkpoint's own template.

Templates are written for the transformers library; they get the same environment here: a sandbox, the same switches, the
same helpers. Knows messages and text, not tokens and not the wire format of any API.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NoReturn

import jinja2
import msgspec
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tercet.clock import unix_time_s
from tercet.errors import InvalidRequest, ModelUnsupported

TemplateOption = str | int | float | bool | None
"""What a client may hand to a template besides messages, such as `enable_thinking`."""


class Function(msgspec.Struct, frozen=True):
    """A call the assistant made; `arguments` is the decoded JSON, as templates expect it."""

    name: str
    arguments: object


class ToolCall(msgspec.Struct, frozen=True):
    """One call in an assistant's message of the past."""

    id: str
    function: Function
    type: str = "function"


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message as templates know it; what is not set is not there for the template either."""

    role: str
    content: str | None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class ChatTemplate:
    """A compiled template. Raises ModelUnsupported when the source is not a template."""

    def __init__(
        self,
        source: str,
        special_tokens: dict[str, str],
        unix_time: Callable[[], int] = unix_time_s,
    ) -> None:
        self._special_tokens = special_tokens
        self._unix_time = unix_time
        self._knows_developer = "developer" in source
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = self._strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as exc:
            raise ModelUnsupported(f"the chat template cannot be compiled: {exc}") from exc

    def render(
        self, messages: Sequence[ChatMessage], options: dict[str, TemplateOption] | None = None
    ) -> str:
        """The prompt that makes the assistant speak next. Raises InvalidRequest with what the template objects to."""
        plain = msgspec.to_builtins([self._translate(message) for message in messages])
        names = {"add_generation_prompt": True, **self._special_tokens, **(options or {})}
        try:
            return self._template.render(messages=plain, **names)
        except jinja2.TemplateError as exc:
            raise InvalidRequest("messages", f"the chat template refused them: {exc}") from exc
        except (TypeError, ValueError, KeyError, AttributeError, IndexError) as exc:
            # A template that trips over a shape of message it was not written for, e.g. `None + str`.
            raise InvalidRequest(
                "messages", f"the chat template cannot render them: {exc}"
            ) from exc

    def _translate(self, message: ChatMessage) -> ChatMessage:
        """`developer` is the newer word for `system`; templates that do not know it get the one they know."""
        if message.role == "developer" and not self._knows_developer:
            return msgspec.structs.replace(message, role="system")
        return message

    def _strftime_now(self, pattern: str) -> str:
        return datetime.fromtimestamp(self._unix_time(), tz=UTC).strftime(pattern)


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: object, indent: int | None = None) -> str:
    # jinja2's own filter escapes for HTML, which no model has seen in training.
    return json.dumps(value, ensure_ascii=False, indent=indent)
