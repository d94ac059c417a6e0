"""Names of things. A NewType each, so that mypy refuses a request id where a worker id belongs."""

import secrets
from typing import NewType

WorkerId = NewType("WorkerId", str)
"""A seat in a pool, stable over restarts: `prefill-0`."""

Incarnation = NewType("Incarnation", str)
"""One life of a process. A restarted worker keeps its id and address and gets a new incarnation."""

FrontDoorId = NewType("FrontDoorId", str)
"""One front-door replica's life; two replicas never share one."""

RequestId = NewType("RequestId", str)
"""One generation of one choice; a client call with `n = 4` becomes four requests."""

Epoch = NewType("Epoch", int)
"""Fencing number of a request's owner: it rises with every change of ownership and never repeats."""

FIRST_EPOCH = Epoch(0)

BlockId = NewType("BlockId", int)
"""Index of a KV block in its worker's pool."""

BlockHash = NewType("BlockHash", bytes)
"""Chained content hash of a full KV block: equal hashes mean equal keys and values."""


def new_incarnation() -> Incarnation:
    """A fresh 64-bit random name for this process's life."""
    return Incarnation(secrets.token_hex(8))


def new_request_id(prefix: str = "req") -> RequestId:
    """A fresh 96-bit random request id, readable in logs: `req-5f0c…`."""
    return RequestId(f"{prefix}-{secrets.token_hex(12)}")
