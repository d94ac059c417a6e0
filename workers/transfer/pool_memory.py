"""A KV pool, or one rank's part of it, as a transfer sees it."""

from tercet.workers.kv_pool import KvPool
from tercet.workers.transfer.base import HOST, HeadShare, Memory


def pool_memory(kv: KvPool, rank: int = 0, ranks: int = 1) -> Memory:
    """`kv` holds the `rank`-th of `ranks` equal parts of the heads."""
    device = HOST if kv.device.type == "cpu" else kv.device.index or 0
    share = HeadShare(rank, ranks, 2 * kv.geometry.layers, ranks * kv.geometry.kv_heads)
    return Memory(kv.address, kv.block_bytes, kv.blocks, kv.generation_address, device, share)
