"""Chained hashing of KV blocks: the name under which a block of keys and values may be shared.

A block's hash covers everything its content depends on: all tokens before it (through the parent's hash), its own
tokens, the adapter that computed it, the media that stands behind its placeholder tokens, and the tenant's salt. A
collision would hand one prompt's KV to another, so the hash is BLAKE3 with its full 256 bits.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from blake3 import blake3

from tercet.ids import BlockHash


class HashDomain(NamedTuple):
    """What separates caches that must never share: the roots of two different domains differ."""

    adapter_id: str = ""
    tenant_salt: str = ""
    media_hashes: tuple[bytes, ...] = ()

    def root(self) -> BlockHash:
        """The parent of a sequence's first block."""
        hasher = blake3(b"tercet/kv/1")
        for part in (self.adapter_id.encode(), self.tenant_salt.encode(), *self.media_hashes):
            hasher.update(len(part).to_bytes(4, "little") + part)
        return BlockHash(hasher.digest())


def hash_block(parent: BlockHash, tokens: Sequence[int]) -> BlockHash:
    """The hash of one full block whose predecessor hashes to `parent`; token ids must fit 32 bits."""
    return BlockHash(blake3(parent + array("I", tokens).tobytes()).digest())


def hash_blocks(
    tokens: Sequence[int], block_tokens: int, domain: HashDomain
) -> Iterator[BlockHash]:
    """The hashes of all *full* blocks of `tokens`, in order; a partial last block has none."""
    parent = domain.root()
    for start in range(0, len(tokens) - block_tokens + 1, block_tokens):
        parent = hash_block(parent, tokens[start : start + block_tokens])
        yield parent
