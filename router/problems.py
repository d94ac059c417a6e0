"""Our exceptions in the words of both APIs: the one place where an error becomes an HTTP or a gRPC status.

Knows the numbers and names of both; sends nothing.
"""

import math
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from tercet.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    NoWorkers,
    Overloaded,
    RateLimited,
    RequestError,
    RequestFailed,
    Unavailable,
    UnknownModel,
)
from tercet.router.call import BodyTooLarge, ContextExceeded

CLIENT_CLOSED_REQUEST = 499
"""Not in the standard; widely used for a request its client has given up."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one kind of error is called."""

    status: int
    type: str
    code: str | None
    rpc_code: str
    """Name of a gRPC status code."""


VERDICTS: tuple[tuple[type[Exception], Verdict], ...] = (
    (ContextExceeded, Verdict(400, "invalid_request_error", "context_length_exceeded", "INVALID_ARGUMENT")),
    (BodyTooLarge, Verdict(413, "invalid_request_error", "body_too_large", "INVALID_ARGUMENT")),
    (InvalidRequest, Verdict(400, "invalid_request_error", "invalid_value", "INVALID_ARGUMENT")),
    (UnknownModel, Verdict(404, "invalid_request_error", "model_not_found", "NOT_FOUND")),
    (RateLimited, Verdict(429, "rate_limit_error", "rate_limited", "RESOURCE_EXHAUSTED")),
    (Overloaded, Verdict(429, "overloaded_error", "queue_full", "RESOURCE_EXHAUSTED")),
    (NoWorkers, Verdict(503, "unavailable_error", "no_workers", "UNAVAILABLE")),
    (DeadlineExceeded, Verdict(504, "timeout_error", "deadline_exceeded", "DEADLINE_EXCEEDED")),
    (RequestFailed, Verdict(502, "server_error", "request_failed", "INTERNAL")),
    (Cancelled, Verdict(CLIENT_CLOSED_REQUEST, "cancelled_error", "cancelled", "CANCELLED")),
)  # fmt: skip
"""The first that fits counts: subclasses stand before their bases."""

BUG = Verdict(500, "server_error", "internal_error", "INTERNAL")


class ErrorDetail(msgspec.Struct, frozen=True):
    """OpenAI's shape of an error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of a refusal, and the last event of a stream that broke."""

    error: ErrorDetail


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, ready to be told to a client."""

    verdict: Verdict
    message: str
    field: str = ""
    reason: str = ""
    retry_after_s: float | None = None

    @property
    def body(self) -> bytes:
        verdict = self.verdict
        detail = ErrorDetail(self.message, verdict.type, self.field or None, verdict.code)
        return msgspec.json.encode(ErrorBody(detail))

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, as HTTP wants it, and exactly."""
        if self.retry_after_s is None:
            return {}
        return {
            "retry-after": str(math.ceil(self.retry_after_s)),
            "retry-after-ms": str(math.ceil(self.retry_after_s * 1e3)),
        }


def problem_of(error: Exception) -> Problem:
    """What to tell the client. A bug's text stays here: it may show what is none of a client's business."""
    verdict = next((verdict for kind, verdict in VERDICTS if isinstance(error, kind)), None)
    if verdict is None:
        return Problem(BUG, "internal error")
    if isinstance(error, RequestError):
        return Problem(verdict, str(error), error.field, error.reason)
    if isinstance(error, Unavailable):
        return Problem(verdict, str(error), reason=error.reason, retry_after_s=error.retry_after_s)
    return Problem(verdict, str(error), reason=str(error))


def problem_of_status(status: int, message: str) -> Problem:
    """For what the HTTP framework itself refuses: an unknown path, a wrong method."""
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    return Problem(Verdict(status, kind, None, "UNKNOWN"), message)
