"""What a routing decision costs: every policy, with 8, 100 and 1,000 workers, for prompts of 8,192 tokens.

The real parts without sockets: naming the prompt's prefixes, the live pool with ledger and prefix index, the policy. Prompts
share a system prompt and, four of five, most of a conversation with an earlier one. A *decision* is everything from tokens
to the chosen worker; *after* is what follows before the next request can be decided: charging the ledger and remembering the
prefixes. Times are those of this thread on its core, whatever else the machine does. `dualmap, late` is the worst case, every worker being later than promised, so that each decision looks at all.
"""

import argparse
import json
import random
import statistics
import time
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tercet.blocks import HashDomain
from tercet.clock import ManualClock
from tercet.config import LinkConfig
from tercet.ids import Incarnation, RequestId, WorkerId
from tercet.role import Role
from tercet.router.dualmap import PairReason
from tercet.router.ledger import Ledger, life_of
from tercet.router.policies import POLICIES
from tercet.router.policy import Ask, Choice, Chooser, WorkerView
from tercet.router.pool import LivePool, Roster
from tercet.router.prefix_index import Prefix, PrefixIndex
from tercet.router.session import Session
from tercet.router.views import view_of
from tercet.wire import PROTOCOL_VERSION, Endpoint, Hello, LoadReport

BLOCK_TOKENS = 16
PROMPT_TOKENS = 8192
SYSTEM_TOKENS = 512
VOCABULARY = 150_000
CONVERSATIONS = 200
LATE = "dualmap, late"


@dataclass(frozen=True)
class Row:
    """One policy on one size of pool; microseconds."""

    policy: str
    workers: int
    decisions: int
    naming_us_p50: float
    decision_us_p50: float
    decision_us_p99: float
    after_us_p50: float
    escapes: float
    """Share of the decisions for which DualMap looked at everybody."""


class Times(NamedTuple):
    naming_ns: int
    decision_ns: int
    after_ns: int
    escaped: bool


class Connected(Session):
    """A session whose link is thought to stand."""

    @property
    def connected(self) -> bool:
        return True

    @property
    def usable(self) -> bool:
        return True


class Desk:
    """What `tercet.router.dispatch` does, with a clock read between its steps."""

    def __init__(self, policy: Chooser, workers: int, *, pending_tokens: int) -> None:
        self._policy = policy
        self._clock = ManualClock()
        self._ledger, self._index = Ledger(), PrefixIndex(2**20)
        seats = [_session(number, pending_tokens, self._clock) for number in range(workers)]
        sessions = {session.endpoint.worker: session for session in seats}
        self._roster = Roster(sessions, frozenset(sessions))
        self._open: deque[ExitStack] = deque()

    def serve(self, number: int, prompt: list[int]) -> Times:
        """One request; it stays in the ledger until half as many as there are workers came after it."""
        begun = time.thread_time_ns()
        prefix = Prefix(prompt, BLOCK_TOKENS, HashDomain())
        named = time.thread_time_ns()
        request = RequestId(f"r{number}")
        ask = Ask(
            request, len(prompt), names=prefix.names, block_tokens=BLOCK_TOKENS, at_s=0.01 * number
        )
        choice = self._policy.choose(ask, self._pool(prefix))
        decided = time.thread_time_ns()
        assert choice is not None
        self._charge(prefix, choice)
        after = time.thread_time_ns()
        if len(self._open) > len(self._roster.sessions) // 2:
            self._open.popleft().close()
        escaped = choice.reason == PairReason.ESCAPE
        return Times(named - begun, decided - begun, after - decided, escaped)

    def close(self) -> None:
        while self._open:
            self._open.popleft().close()

    def _pool(self, prefix: Prefix) -> LivePool:
        def one(session: Session) -> WorkerView:
            blocks = self._index.hit(life_of(session.endpoint), prefix.names)
            return view_of(session, self._ledger, prefix.tokens(blocks), 0.0)

        def everybody(sessions: Iterator[Session]) -> Iterator[WorkerView]:
            hits = self._index.hits(prefix.names)
            for session in sessions:
                blocks = hits.get(life_of(session.endpoint), 0)
                yield view_of(session, self._ledger, prefix.tokens(blocks), 0.0)

        return LivePool(self._roster, frozenset(), one, everybody)

    def _charge(self, prefix: Prefix, choice: Choice) -> None:
        worker, stack = choice.view.endpoint, ExitStack()
        slot = stack.enter_context(self._ledger.slot())
        miss_tokens = PROMPT_TOKENS - choice.view.hit_tokens
        slot.charge(worker, tokens=miss_tokens, context_tokens=PROMPT_TOKENS, now_s=0.0)
        self._index.record(life_of(worker), prefix.names)
        self._open.append(stack)


class Deaf:
    """Listens to nothing: no session of this benchmark is ever opened."""

    def heard(self, word: object) -> None: ...

    def reported(self, worker: Endpoint) -> None: ...

    def connected(self, worker: Endpoint) -> None: ...

    def lost(self, worker: Endpoint, reason: str) -> None: ...


def _session(number: int, pending_tokens: int, clock: ManualClock) -> Session:
    worker, life = WorkerId(f"prefill-{number}"), Incarnation("bench")
    endpoint = Endpoint(worker, life, Role.PREFILL, "127.0.0.1", 1, host_id="here")
    hello = Hello(PROTOCOL_VERSION, "bench", "f", life, life)
    session = Connected(
        endpoint, hello, config=LinkConfig(), host_id="here", clock=clock, listener=Deaf()
    )
    session.report = LoadReport(
        role=Role.PREFILL,
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
    return session


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
    options = POLICIES.options("dualmap" if late else name, {"ttft_slo_ms": 1} if late else {})
    desk = Desk(options.build(random.Random(1)), workers, pending_tokens=100)
    times = [desk.serve(n, p) for n, p in enumerate(islice(prompts(random.Random(2)), decisions))]
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
    ):
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    for row in rows:
        figures = (row.naming_us_p50, row.decision_us_p50, row.decision_us_p99, row.after_us_p50)
        table.add_row(
            row.policy,
            f"{row.workers:,}",
            *(f"{figure:,.0f}" for figure in figures),
            f"{row.escapes:.1%}",
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
