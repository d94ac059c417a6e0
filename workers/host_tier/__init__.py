"""A second pool of KV blocks in host memory, for what the device has no room for but may be wanted again.

                    rests, is among the next to be evicted, and is not in the host pool yet
    device block  ─────────────────────────── save ──────────────────────────►  host block
                  ◄────────────────────────── fetch ──────────────────────────
                    the first in the queue wants it, before its prefill begins

Blocks are saved before they are evicted, not when they are: an eviction waits for no copy. What waits for its turn to run again,
a request that gave way or a conversation's last turn, is the same to it: blocks that rest in the prefix cache.

`host_pool` keeps the books of host memory, `host_tier` decides what is copied, both pure; a `Copier` copies.
"""

from tercet.workers.host_tier.copies import Copier, Copies, Direction
from tercet.workers.host_tier.host_pool import HostBlock, HostPool
from tercet.workers.host_tier.host_tier import HostTier
from tercet.workers.host_tier.tier import NoTier, Tier

__all__ = ["Copier", "Copies", "Direction", "HostBlock", "HostPool", "HostTier", "NoTier", "Tier"]
