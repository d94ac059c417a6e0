"""The client library: typed access to a Tercet front door over gRPC, asynchronous and synchronous.

    async with AsyncClient("127.0.0.1:9000") as client:
        async for delta in client.stream("Once upon a time", max_tokens=32):
            print(delta.text, end="")

Errors are those of `tercet.errors`: RequestError for a wrong request, Unavailable for a full or empty cluster (after the
retries that fitted into the timeout), RequestFailed, DeadlineExceeded, Cancelled.
"""

from tercet.client.async_client import AsyncClient, AsyncStream
from tercet.client.generation import Choice, Delta, Generation, Model, Route, Token, Usage
from tercet.client.options import ChatMessage, Options
from tercet.client.retry import RetryPolicy
from tercet.client.sync_client import Client, Stream

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "ChatMessage",
    "Choice",
    "Client",
    "Delta",
    "Generation",
    "Model",
    "Options",
    "RetryPolicy",
    "Route",
    "Stream",
    "Token",
    "Usage",
]
