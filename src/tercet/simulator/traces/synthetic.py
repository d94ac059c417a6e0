"""Made-up workloads: a YAML file describes clients, their burstiness, lengths and what they share.

A client starts conversations. Each begins with one of its system prompts, some of them more popular than others, and every
turn holds all turns and answers before it. In an open loop nobody waits: the next turn comes a think time after the last
one's arrival.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tercet.simulator.traces.arrival import Arrival, Trace
from tercet.simulator.traces.format import ArrivalFormat, ReadOptions
from tercet.simulator.traces.lengths import Empirical, Fixed, Lengths
from tercet.simulator.traces.lines import opened, refused
from tercet.simulator.traces.naming import salt_of, stream_names
from tercet.simulator.traces.renewal import GammaGaps, Period, WeibullGaps, arrival_times
from tercet.simulator.traces.replayed import Replayed

TURNS_MAX = 1000

Tokens = Annotated[int, Meta(ge=1, le=1 << 24)]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From here on, conversations start at another rate."""

    from_s: Annotated[float, Meta(gt=0)]
    starts_per_s: Annotated[float, Meta(ge=0)]


class SystemPrompts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The i-th of them is used in proportion to 1 / i^skew."""

    count: Annotated[int, Meta(ge=1, le=1 << 20)]
    tokens: Tokens
    skew: Annotated[float, Meta(ge=0)] = 1.0


class Client(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    starts_per_s: Annotated[float, Meta(ge=0)]
    """Conversations; requests are as many times more as a conversation has turns."""
    steps: list[Step] = []
    cv: Annotated[float, Meta(ge=0.1, le=10)] = 1.0
    """Of the gaps between starts."""
    gaps: Literal["gamma", "weibull"] = "gamma"
    input: Lengths
    """What each turn adds to the prompt."""
    output: Lengths
    turns: Lengths = Fixed(1)
    think_s: Annotated[float, Meta(gt=0)] = 30.0
    """Mean of an exponential distribution."""
    system: SystemPrompts | None = None
    priority: int = 0

    def periods(self, span_s: float) -> Iterator[Period]:
        gaps = GammaGaps.of_cv(self.cv) if self.gaps == "gamma" else WeibullGaps.of_cv(self.cv)
        steps = sorted(self.steps, key=lambda step: step.from_s)
        starts = [0.0, *(step.from_s for step in steps)]
        rates = [self.starts_per_s, *(step.starts_per_s for step in steps)]
        for from_s, until_s, per_s in zip(starts, [*starts[1:], span_s], rates, strict=True):
            yield Period(from_s, min(until_s, span_s), per_s, gaps)


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    clients: Annotated[list[Client], Meta(min_length=1)]
    context_tokens_max: Tokens = 131_072
    """A conversation ends before its prompt and answer would be longer."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """One client at work."""

    client: Client
    options: ReadOptions
    context_tokens_max: int
    dice: random.Random
    salt: int
    input: Callable[[], int]
    output: Callable[[], int]
    turns: Callable[[], int]
    system: Callable[[], int]

    @classmethod
    def of(cls, client: Client, options: ReadOptions, context_tokens_max: int) -> "Speaker":
        dice = random.Random(f"{options.seed}/{client.name}")
        system: Lengths = Fixed(0)
        if client.system:
            places = range(client.system.count)
            shares = [1 / (place + 1) ** client.system.skew for place in places]
            system = Empirical(list(places), shares)
        lengths = (client.input, client.output, client.turns, system)
        drawings = (length.drawing(dice) for length in lengths)
        salt = salt_of("synthetic", options.seed, client.name)
        return cls(client, options, context_tokens_max, dice, salt, *drawings)

    def arrivals(self) -> Iterator[Arrival]:
        """All turns of all conversations, in the order of time; those to come wait in a heap."""
        waiting: list[tuple[float, int, int, Arrival]] = []
        periods = self.client.periods(self.options.span_s)
        for number, start_s in enumerate(arrival_times(periods, self.dice)):
            while waiting and waiting[0][0] <= start_s:
                yield heapq.heappop(waiting)[3]
            for turn, arrival in enumerate(self._conversation(number, start_s)):
                heapq.heappush(waiting, (arrival.at_s, number, turn, arrival))
        while waiting:
            yield heapq.heappop(waiting)[3]

    def _conversation(self, number: int, at_s: float) -> Iterator[Arrival]:
        block_tokens, which = self.options.block_tokens, self.system()
        prompt = self.client.system.tokens if self.client.system else 0
        names = stream_names(~self.salt, which, 0, prompt // block_tokens)
        for _ in range(min(TURNS_MAX, max(1, self.turns()))):
            prompt += max(1, self.input())
            output = max(1, self.output())
            if prompt + output > self.context_tokens_max or at_s >= self.options.span_s:
                return
            names += stream_names(self.salt, number, len(names), prompt // block_tokens)
            session = f"{self.client.name}-{number}"
            tenant, priority = self.client.name, self.client.priority
            yield Arrival(at_s, prompt, output, names, session, tenant, priority)
            prompt += output
            at_s += self.dice.expovariate(1 / self.client.think_s)


def arrivals_of(workload: Workload, options: ReadOptions) -> Iterator[Arrival]:
    """`span_s` seconds of the workload, in the order of time."""
    limit = workload.context_tokens_max
    speakers = [Speaker.of(client, options, limit) for client in workload.clients]
    streams = [speaker.arrivals() for speaker in speakers]
    yield from heapq.merge(*streams, key=lambda arrival: arrival.at_s)


def generated(workload: Workload, options: ReadOptions, name: str = "synthetic") -> Trace:
    """The workload as a trace that is drawn anew, and the same, on each walk."""
    arrivals = Replayed(lambda: arrivals_of(workload, options))
    return Trace(name, options.block_tokens, arrivals)


def read(path: Path, options: ReadOptions, remarks: Counter[str]) -> Iterator[Arrival]:
    """`span_s` seconds of the workload the file describes."""
    with opened(path) as file:
        try:
            workload = msgspec.yaml.decode(file.read(), type=Workload)
        except msgspec.MsgspecError as exc:
            raise refused(path, 0, exc) from exc
    yield from arrivals_of(workload, options)


def recognises(path: Path, head: str) -> bool:
    return path.suffix in (".yaml", ".yml") and "clients:" in head


SYNTHETIC = ArrivalFormat("synthetic", recognises, read, own_clock=True)
