"""Situations and contenders of the capacity benchmark, and what the simulator is told of both."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import max_match  # noqa: F401 (a policy more)
from capacity_load import Load
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    RouterConfig,
    SloConfig,
)
from tercet.simulator.knowledge import Knowledge
from tercet.simulator.machine_model import IdealModel
from tercet.simulator.options import SimulationOptions
from tercet.simulator.traces import (
    ClosedTrace,
    Trace,
    head_sessions,
    load_trace,
    overlay_hot_prefix,
    regroup_sessions,
    spread,
)

TOKENS_PER_S = 20_000.0
BLOCK_TOKENS = 512
SLO_S = 5.0
NEVER_S = 1e9
NETWORK_S = 0.0005


@dataclass(frozen=True)
class Contender:
    """A policy with its options, and whether requests wait at the door or are sent at once."""

    name: str
    policy: str
    options: dict[str, float] = field(default_factory=dict)
    queues: bool = False
    accounts: bool = False
    own_views: bool = False
    near: float = 0.75
    """The search for its capacity begins at this share of the ceiling."""


LEAST_PENDING = Contender("least pending", "least_pending", near=0.7)
MIN_TTFT = Contender("min TTFT", "min_ttft", near=0.92)
CACHE_AWARE = Contender(
    "cache aware .3/64/1.5",
    "cache_aware",
    {"match_share_min": 0.3, "uneven_requests": 64, "uneven_ratio": 1.5},
)
MAX_MATCH = Contender("max match", "max_match", near=0.9)
ESCAPE = Contender("DualMap + escape", "dualmap", near=0.92)
MAIN = (LEAST_PENDING, MIN_TTFT, CACHE_AWARE, MAX_MATCH, ESCAPE)
RIVALS = (
    *MAIN,
    Contender("round robin", "round_robin", near=0.3),
    Contender(
        "consistent hash, 2 blocks", "bounded_hash", {"key_tokens": 1024, "bound": 1e9}, near=0.2
    ),
    Contender("bounded hash, 2 blocks", "bounded_hash", {"key_tokens": 1024}, near=0.6),
    Contender("KV cost", "kv_cost", near=0.8),
    Contender("power of two", "power_of_two", near=0.6),
    Contender("prefix affinity", "prefix_affinity", near=0.9),
    Contender("DualMap, paper", "dualmap", {"escape": 0, "switch_by_load": 1}, near=0.8),
)
TERCET = Contender("tercet", "dualmap", queues=True, accounts=True, near=0.95)
OWN_VIEWS = replace(TERCET, name="tercet, own views", own_views=True)


@dataclass(frozen=True)
class Cell:
    """One situation."""

    trace: str
    workers: int
    cache_tokens: int
    age_s: float = 0.0
    """0: one front door that sees everything as it is; else four, whose views are so old."""
    noise: float = 0.0
    """Workers' figures of their own speed are off by up to this share, drawn for each report."""

    def __str__(self) -> str:
        views = f"4 front doors, views {self.age_s:g} s old" if self.age_s else "exact views"
        noise = f", estimates ±{self.noise:.0%}" if self.noise else ""
        return f"{self.trace}, {self.workers} workers, {self.cache_tokens / 1e6:g} M tokens, {views}{noise}"


SMALL, LARGE = 500_000, 3_000_000
EXACT = tuple(
    Cell(trace, workers, cache)
    for trace in ("synthetic", "agentic", "ragpulse", "conversation", "conversation, bundled")
    for workers in (8, 32)
    for cache in (SMALL, LARGE)
)
SOME = tuple(
    Cell(trace, workers, cache)
    for trace in ("conversation", "synthetic", "agentic")
    for workers, cache in ((32, LARGE), (8, SMALL))
)
STALE = tuple(replace(cell, age_s=age_s) for cell in SOME for age_s in (0.5, 2.0))
NOISY = tuple(replace(cell, noise=0.2) for cell in SOME)
CELLS = (
    *EXACT,
    Cell("conversation + hot prefix", 32, LARGE),
    *STALE,
    *NOISY,
    Cell("conversation", 32, LARGE, 0.5, 0.2),
)


def traces(folder: Path) -> dict[str, Callable[[], Trace | ClosedTrace]]:
    """By name."""
    mooncake = folder / "mooncake"

    def conversation() -> Trace:
        trace = load_trace(mooncake / "conversation_trace.jsonl")
        assert isinstance(trace, Trace)
        return trace

    return {
        "conversation": lambda: spread(conversation(), 3.0),
        "conversation, bundled": conversation,
        "conversation + hot prefix": lambda: overlay_hot_prefix(spread(conversation(), 3.0)),
        "synthetic": lambda: load_trace(mooncake / "synthetic_trace.jsonl"),
        "ragpulse": lambda: load_trace(folder / "ragpulse" / "0_trace.jsonl"),
    }


def load_of(cell: Cell, folder: Path) -> Load:
    """Agentic sessions are the published ones in order: 80 for 8 workers, all 200 for more."""
    if cell.trace != "agentic":
        return Load(traces(folder)[cell.trace]())
    path = folder / "kvcachetester" / "agentic_conversations.jsonl.xz"
    trace = load_trace(path, lazy=True)
    assert isinstance(trace, ClosedTrace)
    trace = regroup_sessions(head_sessions(trace, 80 if cell.workers <= 8 else 200), BLOCK_TOKENS)
    return Load(replace(trace, sessions=tuple(trace.sessions)))


def config_of(cell: Cell, contender: Contender) -> ClusterConfig:
    # Of the promise, the greater part may pass at the worker: measured, from 0.01 s up; less costs hits, more costs recalls.
    start_within_s = 0.7 * SLO_S if contender.queues else NEVER_S
    return ClusterConfig(
        model=ModelConfig(path="none"),
        pools=Pools(prefill=PoolConfig(replicas=0), decode=PoolConfig(replicas=cell.workers)),
        engine=EngineConfig(
            block_tokens=BLOCK_TOKENS,
            kv_blocks=cell.cache_tokens // BLOCK_TOKENS,
            start_within_s=start_within_s,
        ),
        router=RouterConfig(
            policy=contender.policy,
            policy_options=contender.options,
            prefix_index_blocks_max=2**20,
        ),
        slo=SloConfig(ttft_ms=1e3 * SLO_S),
        front_door=FrontDoorConfig(in_flight_max=10**9, queue_max=10**9, queue_wait_s_max=NEVER_S),
    )


def options_of(cell: Cell, contender: Contender) -> SimulationOptions:
    exact = not cell.age_s
    told = Knowledge.EXACT if exact else Knowledge.SNAPSHOT
    return SimulationOptions(
        model=IdealModel(TOKENS_PER_S),
        front_doors=1 if exact else 4,
        report_age_s=cell.age_s,
        knowledge=Knowledge.OWN if contender.own_views else told,
        accounts=exact or contender.accounts,
        network_s=0.0 if exact else NETWORK_S,
        estimate_noise=cell.noise,
    )
