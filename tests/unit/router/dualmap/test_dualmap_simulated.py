"""The policies in a small event simulation: a busy pool of prefill workers, conversations with one system prompt.

Workers compute one request at a time, first come first served, and keep the prefixes they computed until their caches are
full. The policies see exact queues and caches; arrivals, lengths and who speaks next are drawn from a seed.
"""

import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import pytest

from tercet.ids import Incarnation, RequestId, WorkerId
from tercet.role import Role
from tercet.router.policies import POLICIES
from tercet.router.policy import Ask, WorkerView
from tercet.router.prefix_names import PrefixName, mix
from tercet.wire import Endpoint, LoadReport

WORKERS = 8
TOKENS_PER_S = 10_000
GRANULE = 512
CACHE_GRANULES = 400
SLO_S = 2.0
LIFE = Incarnation("1")
REPORT = LoadReport(
    Role.PREFILL, 0, 0, 0, 0, 0, 0, 0, 0, prefill_coefficients=(0.0, 1 / TOKENS_PER_S, 0.0)
)


@dataclass
class Machine:
    """One worker."""

    endpoint: Endpoint
    free_s: float = 0.0
    cached: OrderedDict[PrefixName, None] = field(default_factory=OrderedDict)

    def hit(self, names: list[PrefixName]) -> int:
        return next((n for n, name in enumerate(names) if name not in self.cached), len(names))

    def view(self, names: list[PrefixName], now_s: float) -> WorkerView:
        pending = round(max(0.0, self.free_s - now_s) * TOKENS_PER_S)
        hit_tokens = GRANULE * self.hit(names)
        return WorkerView(self.endpoint, REPORT, 0.0, False, pending, pending, 0, hit_tokens)

    def compute(self, names: list[PrefixName], tokens: int, now_s: float) -> float:
        """When the request's first token is there."""
        self.free_s = max(now_s, self.free_s) + tokens / TOKENS_PER_S
        for name in reversed(names):
            self.cached[name] = None
            self.cached.move_to_end(name)
        while len(self.cached) > CACHE_GRANULES:
            self.cached.popitem(last=False)
        return self.free_s


@dataclass
class Pool:
    """The machines as one request sees them."""

    machines: dict[WorkerId, Machine]
    members: frozenset[WorkerId]
    names: list[PrefixName]
    now_s: float

    def find(self, worker: WorkerId) -> WorkerView:
        return self.machines[worker].view(self.names, self.now_s)

    def nearest(self, beyond_tokens: float = 0) -> Iterator[WorkerView]:
        holders = [view for view in self if view.hit_tokens > beyond_tokens]
        return iter(sorted(holders, key=lambda view: -view.hit_tokens))

    def __iter__(self) -> Iterator[WorkerView]:
        return (self.find(worker) for worker in self.machines)


class Turn(NamedTuple):
    """One request: a system granule, and a conversation that has grown to so many granules."""

    at_s: float
    conversation: int
    granules: int

    @property
    def names(self) -> list[PrefixName]:
        own = (mix(1000 * self.conversation + depth) for depth in range(self.granules))
        return [PrefixName(7), *map(PrefixName, own)]


def turns(requests: int, per_s: float) -> Iterator[Turn]:
    """Conversations of four turns on the mean, each turn one to eight granules longer than the last."""
    dice, now_s, lengths = random.Random(3), 0.0, dict.fromkeys(range(40), 0)
    new = 40
    for _ in range(requests):
        now_s += dice.expovariate(per_s)
        chosen = dice.choice(list(lengths))
        if dice.random() < 0.25:
            del lengths[chosen]
            chosen, new = new, new + 1
        lengths[chosen] = lengths.get(chosen, 0) + dice.randint(1, 8)
        yield Turn(now_s, chosen, lengths[chosen])


class Outcome(NamedTuple):
    in_time: float
    """Share of the requests whose first token kept the promise."""
    cached: float
    """Share of all prompt tokens that were found in a cache."""


@cache
def simulate(policy: str, per_s: float, **options: float) -> Outcome:
    if policy == "dualmap":
        options["ttft_slo_ms"] = 1e3 * SLO_S
    chooser = POLICIES.options(policy, options).build(random.Random(1))
    machines = {
        (worker := WorkerId(f"prefill-{number}")): Machine(
            Endpoint(worker, LIFE, Role.PREFILL, "127.0.0.1", 1, host_id="here")
        )
        for number in range(WORKERS)
    }
    in_time = total = hits = count = 0
    for count, turn in enumerate(turns(1500, per_s), start=1):
        names, tokens = turn.names, GRANULE * (1 + turn.granules)
        ask = Ask(RequestId(f"r{count}"), tokens, names=names, block_tokens=GRANULE, at_s=turn.at_s)
        choice = chooser.choose(ask, Pool(machines, frozenset(machines), names, turn.at_s))
        assert choice is not None
        machine = machines[choice.view.worker]
        hit = GRANULE * machine.hit(names)
        done_s = machine.compute(names, max(1, tokens - hit), turn.at_s)
        in_time += done_s - turn.at_s <= SLO_S
        hits, total = hits + hit, total + tokens
    return Outcome(in_time / count, hits / total)


BUSY_PER_S = 25.0


@pytest.mark.parametrize("rival", ["least_pending", "power_of_two", "bounded_hash"])
def test_dualmap_keeps_the_promise_more_often_than(rival: str) -> None:
    dualmap = simulate("dualmap", BUSY_PER_S)
    assert dualmap.in_time > 0.98
    assert dualmap.in_time > simulate(rival, BUSY_PER_S).in_time + 0.3


def test_dualmap_finds_more_in_caches_than_the_earliest_first_token_does() -> None:
    assert simulate("dualmap", BUSY_PER_S).cached > simulate("min_ttft", BUSY_PER_S).cached + 0.01


def test_keys_that_cannot_grow_would_break_it() -> None:
    """Everybody has the same first granule, so all would have the same two homes."""
    assert simulate("dualmap", BUSY_PER_S, requests_min=10**6, escape=0).in_time < 0.1


def test_an_escape_helps_where_pairs_are_full() -> None:
    kept = simulate("dualmap", 30.0, escape=0, switch_by_load=1)
    assert simulate("dualmap", 30.0).in_time > kept.in_time + 0.3
