"""What a routing decision costs: every policy, with 8, 100 and 1,000 workers, for prompts of 8,192 tokens.

The real reception without sockets. Prompts share a system prompt and, four of five, most of a conversation with an earlier one.
A *decision* is everything from tokens to the chosen worker: naming the prompt's prefixes, looking at workers through ledger and
prefix index, the policy. *After* is what follows before the next request can be decided: charging the ledger and remembering
the prefixes. Times are those of this thread on its core. `dualmap, late` is the worst case, every worker being later than
promised, so that each decision looks beyond the pair.
"""

import argparse
import gc
import json
import random
import statistics
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tercet.config import ClusterConfig, ModelConfig, PoolConfig, Pools, RouterConfig, SloConfig
from tercet.ids import Incarnation, RequestId, WorkerId
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.router.dualmap import PairReason
from tercet.router.errand import Errand
from tercet.router.policies import POLICIES
from tercet.router.policy import Rank
from tercet.router.pool import Peer, Roster
from tercet.router.reception import Reception
from tercet.simulator.entrance import Acquaintance
from tercet.simulator.timeline import Timeline
from tercet.wire import Endpoint, LoadReport, Message

PROMPT_TOKENS = 8192
SYSTEM_TOKENS = 512
VOCABULARY = 150_000
CONVERSATIONS = 200
LATE = "dualmap, late"


@dataclass(frozen=True)
class Row:
    """One policy on one size of pool; microseconds of the thread's own time, and bytes."""

    policy: str
    workers: int
    decisions: int
    naming_us_p50: float
    decision_us_p50: float
    decision_us_p99: float
    after_us_p50: float
    escapes: float
    """Share of the decisions for which DualMap looked beyond the pair."""
    memory_bytes: int
    """Of everything the front door remembers after the decisions: prefix index, ledger, hotness, rings."""


class Times(NamedTuple):
    naming_ns: int
    decision_ns: int
    after_ns: int
    escaped: bool


class Seats:
    """Workers that have all just reported the same."""

    def __init__(self, workers: int, pending_tokens: int) -> None:
        self._peers: dict[WorkerId, Peer] = {}
        for number in range(workers):
            worker, life = WorkerId(f"decode-{number}"), Incarnation("bench")
            endpoint = Endpoint(worker, life, Role.DECODE, "127.0.0.1", 1, host_id="here")
            self._peers[worker] = Acquaintance(endpoint, 1e9, _report(pending_tokens))
        self._members = frozenset(self._peers)

    def roster(self, role: Role) -> Roster:
        return Roster(self._peers, self._members) if role is Role.DECODE else Roster()

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def is_left(self, worker: Endpoint) -> bool:
        return False

    def post(self, worker: Endpoint, message: Message) -> None: ...


class Desk:
    """A reception whose requests stay until half as many as there are workers came after them."""

    def __init__(self, policy: str, workers: int, *, late: bool) -> None:
        config = ClusterConfig(
            model=ModelConfig(path="none"),
            pools=Pools(prefill=PoolConfig(replicas=0), decode=PoolConfig(replicas=workers)),
            router=RouterConfig(policy=policy, prefix_index_blocks_max=2**20),
            slo=SloConfig(ttft_ms=1.0 if late else 500.0),
        )
        self._clock = Timeline()
        seats = Seats(workers, pending_tokens=100)
        self._reception = Reception(config, seats, self._clock, self._clock, random.Random(1))
        self._workers = workers
        self._open: deque[ExitStack] = deque()

    def serve(self, number: int, prompt: list[int]) -> Times:
        reception, dispatch = self._reception, self._reception.dispatch
        spec = RequestSpec(RequestId(f"r{number}"), prompt, Sampling())
        stack = ExitStack()
        slot = stack.enter_context(reception.ledger.slot())
        self._clock.call_later(0.01, lambda: None)
        self._clock.run(lambda: True)
        begun = time.thread_time_ns()
        errand = Errand(spec, reception.prefix(spec), slot)
        named = time.thread_time_ns()
        ask = errand.ask(0, self._clock.now_s(), Rank(due_s=self._clock.now_s() + 0.5))
        route = dispatch.plan(ask, frozenset())
        decided = time.thread_time_ns()
        assert route is not None
        dispatch.send(errand, ask, route)
        after = time.thread_time_ns()
        self._open.append(stack)
        if len(self._open) > self._workers // 2:
            self._open.popleft().close()
        escaped = route.choice.reason == PairReason.ESCAPE
        return Times(named - begun, decided - begun, after - decided, escaped)

    def memory_bytes(self) -> int:
        return size_of(self._reception)

    def close(self) -> None:
        while self._open:
            self._open.popleft().close()


def size_of(root: object) -> int:
    """Bytes of everything that hangs on an object and is not a module, class or function."""
    seen: set[int] = set()
    stack, total = [root], 0
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | FunctionType | MethodType):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        stack += gc.get_referents(thing)
    return total


def _report(pending_tokens: int) -> LoadReport:
    return LoadReport(
        role=Role.DECODE,
        waiting=1,
        running=1,
        holding=0,
        pulling=0,
        pending_prefill_tokens=pending_tokens,
        context_tokens=0,
        blocks_total=100_000,
        blocks_used=0,
        prefill_coefficients=(1e-3, 2e-5, 1e-9),
    )


def prompts(dice: random.Random) -> Iterator[list[int]]:
    """System prompt, a conversation's 1,000 to 7,500 tokens, and a tail nobody has seen; every fifth is new after the system.

    Lists are made anew from arrays, as a tokeniser makes them: old lists would be what the garbage collector looks at most.
    """
    system = _tokens(dice, SYSTEM_TOKENS)
    conversations = [_tokens(dice, PROMPT_TOKENS) for _ in range(CONVERSATIONS)]
    while True:
        known = dice.choice(conversations)[: dice.randrange(1000, 7500)]
        body = system + known if dice.random() < 0.8 else system
        yield (body + _tokens(dice, PROMPT_TOKENS - len(body))).tolist()


def _tokens(dice: random.Random, count: int) -> "array[int]":
    return array("I", [dice.randrange(VOCABULARY) for _ in range(count)])


def measure(name: str, workers: int, decisions: int) -> Row:
    """The first fifth of the requests warms up and is not counted."""
    late = name == LATE
    desk = Desk("dualmap" if late else name, workers, late=late)
    times = [desk.serve(n, p) for n, p in enumerate(islice(prompts(random.Random(2)), decisions))]
    memory_bytes = desk.memory_bytes()
    desk.close()
    times = times[decisions // 5 :]
    decision = statistics.quantiles((t.decision_ns / 1e3 for t in times), n=100)
    return Row(
        policy=name,
        workers=workers,
        decisions=len(times),
        naming_us_p50=statistics.median(t.naming_ns for t in times) / 1e3,
        decision_us_p50=decision[49],
        decision_us_p99=decision[98],
        after_us_p50=statistics.median(t.after_ns for t in times) / 1e3,
        escapes=sum(t.escaped for t in times) / len(times),
        memory_bytes=memory_bytes,
    )


def show(rows: list[Row]) -> None:
    table = Table(title=f"microseconds a decision, prompts of {PROMPT_TOKENS} tokens")
    for column in (
        "policy",
        "workers",
        "naming p50",
        "decision p50",
        "p99",
        "after p50",
        "escapes",
        "memory",
    ):
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    for row in rows:
        figures = (row.naming_us_p50, row.decision_us_p50, row.decision_us_p99, row.after_us_p50)
        table.add_row(
            row.policy,
            f"{row.workers:,}",
            *(f"{figure:,.0f}" for figure in figures),
            f"{row.escapes:.1%}",
            f"{row.memory_bytes / 2**20:.0f} MiB",
        )
    Console().print(table)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policies", nargs="+", default=[*POLICIES.names, LATE])
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 100, 1000])
    parser.add_argument("--decisions", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="also write the rows here")


def run(asked: argparse.Namespace) -> None:
    rows = [
        measure(name, workers, asked.decisions)
        for name in asked.policies
        for workers in asked.workers
    ]
    show(rows)
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
