"""Pulling KV blocks out of another worker's memory and proving that what arrived is what was published.

`base` is the interface; `thread` owns a backend's agent and holds deadlines, the check of generation words and the
quarantine of reads that will not end; `nixl` and `fake` are the backends: they only move bytes.
"""

from tercet.workers.transfer.base import (
    JobId,
    Memory,
    Pulled,
    PullFailed,
    PullJob,
    Settled,
    Transfer,
    TransferEvent,
)

__all__ = [
    "JobId",
    "Memory",
    "PullFailed",
    "PullJob",
    "Pulled",
    "Settled",
    "Transfer",
    "TransferEvent",
]
