"""The cluster file as it is simulated: how many workers, in which pools, with caches in a trace's blocks."""

import math
from collections.abc import Iterator

from msgspec import structs

from tercet.config import ClusterConfig, EngineConfig, PoolConfig, Pools
from tercet.errors import OptionError
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Endpoint

FIRST_LIFE = Incarnation("1")


def scaled(config: ClusterConfig, workers: int) -> ClusterConfig:
    """So many workers in all, shared among the pools as in the file; a pool that has any keeps at least one.

    The prefill pool's share is rounded to whole workers, halves up, and the decode pool has the rest.
    """
    prefill, decode = config.pools.prefill.replicas, config.pools.decode.replicas
    pools = (prefill > 0) + (decode > 0)
    if workers < max(1, pools):
        reason = f"{workers} workers are too few for {pools} pools"
        raise OptionError("--instances", reason, "ask for one for each pool of the file at least")
    share = math.floor(workers * prefill / max(1, prefill + decode) + 0.5)
    most = workers - (decode > 0)
    prefills = min(max(share, 1), most) if prefill else 0
    return _with_replicas(config, prefills, workers - prefills)


def all_in_one(config: ClusterConfig) -> ClusterConfig:
    """For machines that hand nothing off: the pool that computes prompts, alone."""
    pools = config.pools
    if not pools.prefill.replicas:
        return config
    alone = structs.replace(pools.prefill, engine=config.engine_of(Role.PREFILL))
    return structs.replace(config, pools=Pools(prefill=PoolConfig(replicas=0), decode=alone))


def in_blocks_of(config: ClusterConfig, block_tokens: int) -> ClusterConfig:
    """Caches hold as many tokens as before, in blocks of this size: those of a trace cannot be cut."""

    def changed(engine: EngineConfig) -> EngineConfig:
        blocks = max(1, engine.kv_blocks * engine.block_tokens // block_tokens)
        return structs.replace(engine, block_tokens=block_tokens, kv_blocks=blocks)

    def pool(pool: PoolConfig) -> PoolConfig:
        return structs.replace(pool, engine=changed(pool.engine)) if pool.engine else pool

    pools = Pools(prefill=pool(config.pools.prefill), decode=pool(config.pools.decode))
    return structs.replace(config, engine=changed(config.engine), pools=pools)


def seats(config: ClusterConfig) -> Iterator[Endpoint]:
    """Every worker in its first life. Raises OptionError where the file leaves the size of a cache to a GPU."""
    for role in Role:
        if config.pools.of(role).replicas and not config.engine_of(role).kv_blocks:
            reason = "is 0: how many blocks fit is only known where the GPU is"
            raise OptionError("engine.kv_blocks", reason, "give the number that a worker has told")
        for number in range(config.pools.of(role).replicas):
            worker = WorkerId(f"{role.value}-{number}")
            yield Endpoint(worker, FIRST_LIFE, role, "simulated", 1, "simulated")


def _with_replicas(config: ClusterConfig, prefill: int, decode: int) -> ClusterConfig:
    pools = Pools(
        prefill=structs.replace(config.pools.prefill, replicas=prefill),
        decode=structs.replace(config.pools.decode, replicas=decode),
    )
    return structs.replace(config, pools=pools)
