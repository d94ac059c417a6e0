"""Whether a model's heads can be shared out among a pool's processes, as far as its own configuration file tells."""

from collections.abc import Iterator
from math import gcd
from pathlib import Path

import msgspec

from tercet.config import ClusterConfig
from tercet.config_file.checks import Contradiction
from tercet.role import Role


class _Shape(msgspec.Struct):
    """The keys that are looked at; families that name them otherwise are judged by the worker when it loads."""

    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    text_config: "_Shape | None" = None


def indivisible(config: ClusterConfig) -> Iterator[Contradiction]:
    """Pools whose `tensor_parallel` does not divide the model's heads."""
    if all(config.pools.of(role).tensor_parallel == 1 for role in Role):
        return
    try:
        shape = msgspec.json.decode(
            (Path(config.model.path) / "config.json").read_bytes(), type=_Shape
        )
    except msgspec.DecodeError:
        return  # the worker says what is wrong with it
    shape = shape.text_config or shape
    heads = shape.num_attention_heads
    if not heads:
        return
    kv_heads = shape.num_key_value_heads or heads
    for role in Role:
        ranks = config.pools.of(role).tensor_parallel
        if heads % ranks or kv_heads % ranks:
            reason = (
                f"{heads} heads and {kv_heads} KV heads of the model cannot be shared out evenly"
                f" among {ranks} processes"
            )
            hint = f"{gcd(heads, kv_heads)} is the largest number that can be used"
            yield Contradiction(("pools", str(role), "tensor_parallel"), reason, hint)
