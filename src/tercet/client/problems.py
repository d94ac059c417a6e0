"""gRPC's errors become ours, in this one place."""

from typing import Protocol

import grpc

from tercet.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    NoWorkers,
    Overloaded,
    RateLimited,
    RequestFailed,
    TercetError,
    Unavailable,
    UnknownModel,
)

UNREACHABLE_RETRY_S = 0.0
"""A server that cannot be reached names no time; the backoff alone decides."""


class RpcFailure(Protocol):
    """What both of grpc's exceptions for a failed call offer."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> object: ...


def error_of(failure: RpcFailure, model: str) -> TercetError:
    """The exception to raise instead; `model` is the name that was asked for."""
    code, text = failure.code(), failure.details() or ""
    metadata = _metadata(failure)
    reason = metadata.get("tercet-reason", text)
    retry_after_s = float(metadata.get("retry-after-ms", 0)) / 1e3
    ours = "tercet-reason" in metadata
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequest(metadata.get("tercet-field", ""), reason)
        case grpc.StatusCode.NOT_FOUND if "tercet-models" in metadata:
            return UnknownModel(model, metadata["tercet-models"].split(","))
        case grpc.StatusCode.RESOURCE_EXHAUSTED if ours:
            limited = metadata.get("tercet-code") == "rate_limited"
            return (RateLimited if limited else Overloaded)(reason, retry_after_s)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return InvalidRequest("", text)  # grpc's own: the message is too large
        case grpc.StatusCode.UNAVAILABLE if ours:
            return NoWorkers(reason, retry_after_s)
        case grpc.StatusCode.UNAVAILABLE:
            return Unavailable(f"the front door cannot be reached: {text}", UNREACHABLE_RETRY_S)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(text)
        case grpc.StatusCode.CANCELLED:
            return Cancelled(text)
        case _:
            return RequestFailed(f"{code.name}: {text}")


def _metadata(failure: RpcFailure) -> dict[str, str]:
    entries = failure.trailing_metadata()
    if entries is None:
        return {}
    assert hasattr(entries, "__iter__"), entries
    return {key: value for key, value in entries if isinstance(value, str)}
