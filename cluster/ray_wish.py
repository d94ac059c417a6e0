"""How many workers the operator wished for last, kept by Ray's GCS: it outlives a controller that dies, and not the cluster.

Ray's key-value store has no public name; what Ray itself keeps there (jobs, runtime environments) lives as long.
"""

import hashlib

import msgspec
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

from tercet.cluster.events import Desired

NAMESPACE = b"tercet"


class Wish(msgspec.Struct, frozen=True):
    """It holds for the cluster file it was wished for, whose digest it carries."""

    config: bytes
    prefill: int
    decode: int


class RayWish:
    """The wish for one cluster; calls block for a moment. `config` is the cluster file, encoded."""

    def __init__(self, cluster: str, config: bytes) -> None:
        self._key = f"tercet-wish:{cluster}".encode()
        self._config = hashlib.sha256(config).digest()

    def read(self) -> Desired | None:
        """None when none was written for this cluster file."""
        encoded = _internal_kv_get(self._key, namespace=NAMESPACE)
        if encoded is None:
            return None
        wish = msgspec.msgpack.decode(encoded, type=Wish)
        return Desired(wish.prefill, wish.decode) if wish.config == self._config else None

    def write(self, desired: Desired) -> None:
        encoded = msgspec.msgpack.encode(Wish(self._config, desired.prefill, desired.decode))
        _internal_kv_put(self._key, encoded, overwrite=True, namespace=NAMESPACE)

    def clear(self) -> None:
        _internal_kv_del(self._key, namespace=NAMESPACE)
