"""What a routing decision costs: every policy, with 8, 100 and 1,000 workers, for prompts of 8,192 tokens.

The real reception without sockets. Prompts share a system prompt and, four of five, most of a conversation with an earlier one.
*Checking* makes numbers of the tokenizer's list and looks whether they are in the vocabulary. *Naming* goes from these to the
names of the prompt's prefixes, *deciding* from there to the chosen worker through ledger and prefix index; both together are
the *decision*. *Recording* charges the ledger and remembers the prefixes, before the next request can be decided.
`dualmap, late` is the worst case, every worker being later than promised, so that each decision looks beyond the pair.

Times are those of this thread on its core, startup being spared from the garbage collector as in production. Others on the
machine slow them down all the same, so rows are measured several times, in turns, each beside a loop of 1,000 multiplications
in plain Python: of medians the best is taken, everything else from the repetition in which that loop had the least p99.
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
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import NamedTuple, Self

from rich.console import Console
from rich.table import Table

from tercet.config import ClusterConfig, ModelConfig, PoolConfig, Pools, RouterConfig, SloConfig
from tercet.ids import Incarnation, RequestId, WorkerId
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.router.collector import spare_startup
from tercet.router.dualmap import PairReason
from tercet.router.errand import Errand
from tercet.router.ledger import Slot
from tercet.router.policies import POLICIES
from tercet.router.policy import Rank
from tercet.router.pool import Peer, Roster
from tercet.router.preparation import known_numbers
from tercet.router.reception import Reception
from tercet.simulator.entrance import Acquaintance
from tercet.simulator.timeline import Timeline
from tercet.wire import Endpoint, LoadReport, Message

PROMPT_TOKENS = 8192
SYSTEM_TOKENS = 512
VOCABULARY = 150_000
CONVERSATIONS = 200
LATE = "dualmap, late"

MEDIANS = (
    "checking_us_p50",
    "naming_us_p50",
    "deciding_us_p50",
    "recording_us_p50",
    "decision_us_p50",
    "whole_us_p50",
)
COLUMNS = {
    "checking": "checking_us_p50",
    "naming": "naming_us_p50",
    "deciding": "deciding_us_p50",
    "recording": "recording_us_p50",
    "decision": "decision_us_p50",
    "p99": "decision_us_p99",
    "whole": "whole_us_p50",
    "p99 ": "whole_us_p99",
    "loop": "reference_us_p50",
    "p99  ": "reference_us_p99",
    "collector": "collection_us_max",
}
WIDTH = 150


@dataclass(frozen=True)
class Row:
    """One policy on one size of pool; microseconds of the thread's own time, and bytes."""

    policy: str
    workers: int
    decisions: int
    checking_us_p50: float
    naming_us_p50: float
    deciding_us_p50: float
    recording_us_p50: float
    decision_us_p50: float
    decision_us_p99: float
    whole_us_p50: float
    """Checking, naming, deciding and recording together."""
    whole_us_p99: float
    reference_us_p50: float
    """Of 1,000 multiplications in plain Python meanwhile."""
    reference_us_p99: float
    collection_us_max: float
    """The longest pause by the garbage collector; within the times of the others if it fell there."""
    escapes: float
    """Share of the decisions for which DualMap looked beyond the pair."""
    memory_bytes: int
    """Of everything the front door remembers after the decisions: prefix index, ledger, hotness, rings."""


class Times(NamedTuple):
    checking_ns: int
    naming_ns: int
    deciding_ns: int
    recording_ns: int
    escaped: bool

    @property
    def decision_ns(self) -> int:
        return self.naming_ns + self.deciding_ns

    @property
    def whole_ns(self) -> int:
        return self.checking_ns + self.decision_ns + self.recording_ns


class Pauses:
    """How long the garbage collector has held this thread up, as a context."""

    def __init__(self) -> None:
        self.longest_ns = 0
        self._begun_ns = 0

    def __enter__(self) -> Self:
        gc.callbacks.append(self._tell)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._tell)

    def _tell(self, phase: str, _: dict[str, int]) -> None:
        now_ns = time.thread_time_ns()
        if phase == "start":
            self._begun_ns = now_ns
        else:
            self.longest_ns = max(self.longest_ns, now_ns - self._begun_ns)


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
        self._open: deque[Slot] = deque()

    def serve(self, number: int, prompt: list[int]) -> Times:
        reception, dispatch = self._reception, self._reception.dispatch
        spec = RequestSpec(RequestId(f"r{number}"), prompt, Sampling())
        slot = reception.ledger.slot()
        self._clock.call_later(0.01, lambda: None)
        self._clock.run(lambda: True)
        begun = time.thread_time_ns()
        numbers = known_numbers(prompt, VOCABULARY)
        checked = time.thread_time_ns()
        errand = Errand(spec, reception.prefix(spec, numbers), slot)
        named = time.thread_time_ns()
        ask = errand.ask(0, self._clock.now_s(), Rank(due_s=self._clock.now_s() + 0.5))
        route = dispatch.plan(ask, frozenset())
        decided = time.thread_time_ns()
        assert route is not None
        dispatch.send(errand, ask, route)
        after = time.thread_time_ns()
        self._open.append(slot)
        if len(self._open) > self._workers // 2:
            self._leave()
        escaped = route.choice.reason == PairReason.ESCAPE
        return Times(checked - begun, named - checked, decided - named, after - decided, escaped)

    def memory_bytes(self) -> int:
        return size_of(self._reception)

    def close(self) -> None:
        while self._open:
            self._leave()

    def _leave(self) -> None:
        with self._open.popleft():
            pass


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


@cache
def prompts(count: int) -> "list[array[int]]":
    """System prompt, a conversation's 1,000 to 7,500 tokens, and a tail nobody has seen; every fifth is new after the system.

    Drawn beforehand: between two decisions a front door does not roll dice. Each is made a list where it is served, as a
    tokenizer makes it; lists that are kept would be what the garbage collector looks at most.
    """
    dice = random.Random(2)
    system = _tokens(dice, SYSTEM_TOKENS)
    conversations = [_tokens(dice, PROMPT_TOKENS) for _ in range(CONVERSATIONS)]
    drawn = []
    for _ in range(count):
        known = dice.choice(conversations)[: dice.randrange(1000, 7500)]
        body = system + known if dice.random() < 0.8 else system
        drawn.append(body + _tokens(dice, PROMPT_TOKENS - len(body)))
    return drawn


def _tokens(dice: random.Random, count: int) -> "array[int]":
    return array("I", [dice.randrange(VOCABULARY) for _ in range(count)])


def reference_ns() -> int:
    begun = time.thread_time_ns()
    total = 0
    for number in range(1000):
        total += number * number
    return time.thread_time_ns() - begun


def measure(name: str, workers: int, decisions: int) -> Row:
    """The first fifth of the requests warms up and is not counted."""
    late = name == LATE
    desk = Desk("dualmap" if late else name, workers, late=late)
    times, references = [], []
    with Pauses() as pauses:
        for number, prompt in enumerate(prompts(decisions)):
            times.append(desk.serve(number, prompt.tolist()))
            references.append(reference_ns())
    memory_bytes = desk.memory_bytes()
    desk.close()
    times = times[decisions // 5 :]
    decision = statistics.quantiles((t.decision_ns / 1e3 for t in times), n=100)
    reference = statistics.quantiles((ns / 1e3 for ns in references), n=100)
    whole = statistics.quantiles((t.whole_ns / 1e3 for t in times), n=100)
    return Row(
        policy=name,
        workers=workers,
        decisions=len(times),
        checking_us_p50=statistics.median(t.checking_ns for t in times) / 1e3,
        naming_us_p50=statistics.median(t.naming_ns for t in times) / 1e3,
        deciding_us_p50=statistics.median(t.deciding_ns for t in times) / 1e3,
        recording_us_p50=statistics.median(t.recording_ns for t in times) / 1e3,
        decision_us_p50=decision[49],
        decision_us_p99=decision[98],
        whole_us_p50=whole[49],
        whole_us_p99=whole[98],
        reference_us_p50=reference[49],
        reference_us_p99=reference[98],
        collection_us_max=pauses.longest_ns / 1e3,
        escapes=sum(t.escaped for t in times) / len(times),
        memory_bytes=memory_bytes,
    )


def show(rows: list[Row]) -> None:
    title = f"microseconds, prompts of {PROMPT_TOKENS} tokens; loop: the reference"
    table = Table(title=title)
    for column in ("policy", "workers", *COLUMNS, "escapes", "MiB"):
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.policy,
            f"{row.workers:,}",
            *(f"{getattr(row, field):,.0f}" for field in COLUMNS.values()),
            f"{row.escapes:.1%}",
            f"{row.memory_bytes / 2**20:.0f}",
        )
    Console(width=WIDTH).print(table)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policies", nargs="+", default=[*POLICIES.names, LATE])
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 100, 1000])
    parser.add_argument("--decisions", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the rows here")


def run(asked: argparse.Namespace) -> None:
    spare_startup()
    cells = [(name, workers) for name in asked.policies for workers in asked.workers]
    measured: dict[tuple[str, int], list[Row]] = {cell: [] for cell in cells}
    for _ in range(asked.repetitions):
        for cell in cells:
            measured[cell].append(measure(*cell, asked.decisions))
    rows = [_summary(measured[cell]) for cell in cells]
    show(rows)
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def _summary(rows: list[Row]) -> Row:
    """The best of each median; the rest of the repetition that was disturbed least."""
    quietest = min(rows, key=lambda row: row.reference_us_p99)
    best = {name: min(getattr(row, name) for row in rows) for name in MEDIANS}
    return replace(quietest, **best)
