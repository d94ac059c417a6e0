"""Values that are fine alone and wrong together. Each check says which value to change."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tercet.config import ClusterConfig, EngineConfig
from tercet.config_file.document import Place
from tercet.role import Role


class Contradiction(NamedTuple):
    """Where the value stands that should change, and why."""

    place: Place
    reason: str
    hint: str = ""


Check = Callable[[ClusterConfig], Iterator[Contradiction]]


def contradictions(config: ClusterConfig) -> Iterator[Contradiction]:
    """All contradictions in `config`, in a fixed order."""
    for check in _CHECKS:
        yield from check(config)


def _pools(config: ClusterConfig) -> Iterator[Contradiction]:
    if config.pools.decode.replicas == 0:
        reason = "at least one decode worker is needed"
        yield Contradiction(("pools", "decode", "replicas"), reason)
    for role in Role:
        pool = config.pools.of(role)
        if config.model.device == "cuda" and pool.replicas and pool.resources.gpus == 0:
            reason = "a worker on cuda needs a share of a GPU, else Ray hides every GPU from it"
            yield Contradiction(
                ("pools", str(role), "resources", "gpus"),
                reason,
                "set it to 1, or model.device to cpu",
            )


def _engine_place(config: ClusterConfig, role: Role, key: str) -> Place:
    own = config.pools.of(role).engine is not None
    return ("pools", str(role), "engine", key) if own else ("engine", key)


def _engines(config: ClusterConfig) -> Iterator[Contradiction]:
    prefill, decode = (config.engine_of(role) for role in (Role.PREFILL, Role.DECODE))
    if config.pools.prefill.replicas and prefill.block_tokens != decode.block_tokens:
        reason = f"prefill blocks of {prefill.block_tokens} tokens do not fit decode blocks of {decode.block_tokens}"
        role = Role.DECODE if config.pools.decode.engine else Role.PREFILL
        yield Contradiction(_engine_place(config, role, "block_tokens"), reason)
    for role in Role:
        engine = config.engine_of(role)
        if engine.kv_blocks == 0:
            if config.model.device == "cpu":
                reason = "0 blocks: only on a GPU as many are taken as fit"
                yield Contradiction(_engine_place(config, role, "kv_blocks"), reason)
            elif config.pools.of(role).tensor_parallel > 1:
                reason = "0 blocks: workers of several processes must be told how many"
                yield Contradiction(_engine_place(config, role, "kv_blocks"), reason)
        elif _capacity_tokens(engine) < config.model.context_tokens_max:
            reason = (
                f"{engine.kv_blocks} blocks of {engine.block_tokens} tokens cannot hold one context"
            )
            hint = f"model.context_tokens_max is {config.model.context_tokens_max}"
            yield Contradiction(_engine_place(config, role, "kv_blocks"), reason, hint)


def _capacity_tokens(engine: EngineConfig) -> int:
    return engine.kv_blocks * engine.block_tokens


def _durations(config: ClusterConfig) -> Iterator[Contradiction]:
    link, transfer, control = config.link, config.transfer, config.control
    if link.heartbeat_s >= link.dead_after_s:
        reason = f"heartbeats every {link.heartbeat_s:g} s are too slow for peers that count as lost after {link.dead_after_s:g} s"
        yield Contradiction(("link", "heartbeat_s"), reason)
    if transfer.renew_s >= transfer.lease_s:
        reason = f"a lease of {transfer.lease_s:g} s ends before its renewal after {transfer.renew_s:g} s"
        yield Contradiction(("transfer", "renew_s"), reason)
    if control.restart_backoff_s > control.restart_backoff_s_max:
        reason = (
            f"the first delay is above restart_backoff_s_max, {control.restart_backoff_s_max:g} s"
        )
        yield Contradiction(("control", "restart_backoff_s"), reason)


def _ports(config: ClusterConfig) -> Iterator[Contradiction]:
    door = config.front_door
    if door.http_port == door.grpc_port != 0:
        reason = f"HTTP has port {door.http_port} already"
        yield Contradiction(("front_door", "grpc_port"), reason)


def _limits(config: ClusterConfig) -> Iterator[Contradiction]:
    for name in config.front_door.limits.models:
        if name != config.model.name:
            reason = f"no model {name!r} is served here"
            hint = f"this cluster serves `{config.model.name}`"
            yield Contradiction(("front_door", "limits", "models", name), reason, hint)


def _ranks(config: ClusterConfig) -> Iterator[Contradiction]:
    for role in Role:
        pool = config.pools.of(role)
        place = ("pools", str(role), "tensor_parallel")
        if pool.tensor_parallel > 1 and config.transfer.codecs:
            reason = "packed KV is of all heads, so it cannot be pulled from or by a worker of several processes"
            yield Contradiction(place, reason, "leave out transfer.codecs, or set it to 1")
        if pool.tensor_parallel > 1 and config.engine_of(role).host_kv_blocks:
            reason = "a worker of several processes keeps no KV in host memory"
            yield Contradiction(place, reason, "leave out engine.host_kv_blocks, or set it to 1")
        if config.model.device == "cuda" and 0 < pool.resources.gpus != pool.tensor_parallel > 1:
            reason = f"{pool.tensor_parallel} processes need a GPU each"
            hint = f"set resources.gpus to {pool.tensor_parallel}; it is {pool.resources.gpus:g}"
            yield Contradiction(place, reason, hint)


_CHECKS: tuple[Check, ...] = (_pools, _ranks, _engines, _durations, _ports, _limits)
