"""Two engines, their clients, and a transfer that may fail, linger or come late, in any order Hypothesis can think of.

Whatever happens, a client that is not cancelled reads the very tokens that an undisturbed engine gives it, the accounts
of both engines are right after every event, and in the end everything is free.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tercet.clock import ManualClock
from tercet.config import EngineConfig
from tercet.ids import FIRST_EPOCH, BlockId, Epoch, RequestId
from tercet.request import RequestSpec, Sampling, TokenLog
from tercet.wire import Failed, Refused, Started, Tokens
from tercet.workers import interjection
from tercet.workers.engine import Engine
from tercet.workers.events import (
    Absent,
    Arrived,
    Command,
    Commit,
    Drop,
    DropOwner,
    Ended,
    Event,
    Extended,
    Held,
    Published,
    Recompute,
    Release,
    Reserve,
    Reserved,
    Run,
    Said,
    Unquarantine,
)
from tercet.workers.late_runner import LateRunner
from tercet.workers.toy_runner import ToyRunner

BLOCK_TOKENS = 4
SAMPLINGS = (
    Sampling(max_tokens=9),
    Sampling(max_tokens=4, temperature=1.2, seed=11, top_k=20),
    Sampling(max_tokens=12, temperature=0.8, seed=3, presence_penalty=0.7, top_p=0.95),
    Sampling(max_tokens=1),
)
PROMPTS = tuple(
    tuple(range(first, first + length)) for first in (1, 30) for length in (3, 8, 9, 17)
)


def make_engine(blocks: int, step_tokens: int = 6, *, late: bool = False) -> Engine:
    config = EngineConfig(
        block_tokens=BLOCK_TOKENS, kv_blocks=blocks, step_tokens_max=step_tokens, running_max=4
    )
    runner = ToyRunner(config, layers=3, head_dim=2, eos_token_ids=frozenset({5}))
    return Engine(LateRunner(runner) if late else runner, config, ManualClock())


@cache
def expected(prompt: tuple[int, ...], sampling: int) -> list[int]:
    """What an engine says that has nothing else to do."""
    engine, log = make_engine(64, 512), TokenLog()
    spec = RequestSpec(RequestId("x"), list(prompt), SAMPLINGS[sampling])
    engine.handle(Run(spec, Epoch(0), "f"))
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Said) and isinstance(event.message, Tokens):
                log.append(Epoch(0), event.message.index, event.message.tokens)
    return log.tokens


@dataclass
class Client:
    """A request as its front door sees it, and the worker-side state of its move."""

    spec: RequestSpec
    want: list[int]
    owner: str
    epoch: Epoch = FIRST_EPOCH
    log: TokenLog = field(default_factory=TokenLog)
    over: bool = False
    started: bool = False
    """A hand-off that runs at the source and has no destination yet."""
    given: tuple[int, ...] = ()
    """The output that this life of the request started from."""
    published: list[tuple[BlockId, int]] = field(default_factory=list)
    published_tokens: int = 0
    held: Held | None = None
    reserved: Reserved | None = None
    """A pull goes on."""
    arrived: int = 0
    """Blocks that are verified at the destination."""
    given_up: int = -1
    """Epoch of the last hand-off that was: what its source's step has published when it hears of that may still come."""
    in_flight: list[int] = field(default_factory=list)
    """Numbers of the blocks that a READ is writing to."""

    def forget_move(self) -> None:
        self.started, self.held, self.reserved, self.in_flight = False, None, None, []
        self.published, self.published_tokens, self.arrived = [], 0, 0


@dataclass
class Meanwhile:
    """What is outside of an engine: `happen` is called once, in the middle of a step that is long enough."""

    happen: Callable[[], None]
    say: Callable[[list[Event]], None]
    asked: int = 0

    def commands(self) -> list[Command]:
        self.asked += 1
        if self.asked != 2:
            return []
        self.happen()  # tells the engine by itself
        return [Unquarantine(())]


class Pick(Protocol):
    """Chooses one of several: Hypothesis, or the first one."""

    def choice(self, candidates: list[Client]) -> Client: ...


class FirstPick:
    def choice(self, candidates: list[Client]) -> Client:
        return candidates[0]


class Cluster(RuleBasedStateMachine):
    """`source` prefills for `destination`; both also run requests alone."""

    late = False
    """Whether devices are a step behind."""

    def __init__(self) -> None:
        super().__init__()
        self.patient = mock.patch.object(interjection, "SHARE", 1)
        self.patient.start()
        self.source = make_engine(14, late=self.late)
        self.destination = make_engine(12, late=self.late)
        self.clients: list[Client] = []
        self.orphans: list[tuple[BlockId, ...]] = []  # quarantined, and still being written to

    # ---- what front doors do -----------------------------------------------------------------------------------------

    @precondition(lambda self: sum(not c.over for c in self.clients) < 7)
    @rule(
        prompt=st.sampled_from(PROMPTS),
        sampling=st.integers(0, len(SAMPLINGS) - 1),
        priority=st.integers(0, 1),
        owner=st.sampled_from(["f0", "f0", "f1"]),
        hand_off=st.booleans(),
    )
    def submit(
        self, prompt: tuple[int, ...], sampling: int, priority: int, owner: str, hand_off: bool
    ) -> None:
        name = RequestId(f"r{len(self.clients)}")
        spec = RequestSpec(name, list(prompt), SAMPLINGS[sampling], priority)
        client = Client(spec, expected(prompt, sampling), owner)
        self.clients.append(client)
        engine = self.source if hand_off else self.destination
        engine.handle(Run(spec, client.epoch, owner, hand_off=hand_off))

    def replay(self, client: Client) -> None:
        """The request was lost or refused somewhere: forget every leg, and start again from the log."""
        self.drop_legs(client)
        client.epoch = Epoch(client.epoch + 2)
        client.log.raise_fence(client.epoch)
        client.given = tuple(client.log.tokens)
        hand_off = client.epoch % 4 == 0
        engine = self.source if hand_off else self.destination
        engine.handle(Run(client.spec, client.epoch, client.owner, client.given, hand_off))

    def drop_legs(self, client: Client) -> None:
        self.source.handle(Drop(client.spec.id, Epoch(client.epoch + 1)))
        doubtful = self.blocks_in_flight(client)
        self.destination.handle(Drop(client.spec.id, Epoch(client.epoch + 1), doubtful))
        client.forget_move()

    def lose_request(self, pick: Pick) -> None:
        """As if the link to its workers had broken."""
        if client := self.some(pick, lambda c: not c.over):
            self.replay(client)

    def cancel(self, pick: Pick) -> None:
        if client := self.some(pick, lambda c: True):
            self.drop_legs(client)
            client.over = True

    def lose_front_door(self, pick: Pick) -> None:
        owner = "f1"
        for engine in (self.source, self.destination):
            engine.handle(DropOwner(owner))
        for client in self.clients:
            if client.owner == owner:
                self.drop_legs(client)
                client.over = True

    @precondition(lambda self: sum(not c.over for c in self.clients) > 2)
    @rule(
        pick=st.randoms(use_true_random=False),
        what=st.sampled_from(
            ["cancel", "lose_request", "fail_read", "fail_read", "lose_front_door"]
        ),
    )
    def trouble(self, pick: Pick, what: str) -> None:
        getattr(self, what)(pick)

    # ---- what the transfer does --------------------------------------------------------------------------------------

    @precondition(lambda self: self.clients)
    @rule(
        pick=st.randoms(use_true_random=False),
        what=st.lists(
            st.sampled_from(["reserve", "begin_read", "end_read", "commit", "settle"]),
            min_size=1,
            max_size=6,
        ),
    )
    def transfer(self, pick: Pick, what: list[str]) -> None:
        for act in what:
            getattr(self, act)(pick)

    def some(self, pick: Pick, wanted: Callable[[Client], bool]) -> Client | None:
        candidates = [c for c in self.clients if wanted(c)]
        return pick.choice(candidates) if candidates else None

    def reserve(self, pick: Pick) -> None:
        if client := self.some(pick, lambda c: c.started):
            client.started = False
            epoch = Epoch(client.epoch + 1)
            self.destination.handle(Reserve(client.spec, epoch, client.owner, client.given))

    def begin_read(self, pick: Pick) -> None:
        def ready(c: Client) -> bool:
            return bool(c.reserved and not c.in_flight and len(c.published) > c.arrived)

        if client := self.some(pick, ready):
            client.in_flight = list(range(client.arrived, len(client.published)))

    def end_read(self, pick: Pick) -> None:
        if client := self.some(pick, lambda c: bool(c.in_flight)):
            assert client.reserved is not None
            self.copy(client)
            numbers, client.in_flight = client.in_flight, []
            generations = self.source.runner.kv.generations
            stale = any(int(generations[b]) != g for b, g in (client.published[i] for i in numbers))
            if stale:
                self.give_up(client)
                return
            client.arrived = numbers[-1] + 1
            tokens = min(client.arrived * BLOCK_TOKENS, client.published_tokens)
            self.destination.handle(Arrived(client.spec.id, Epoch(client.epoch + 1), tokens))

    def fail_read(self, pick: Pick) -> None:
        if client := self.some(pick, lambda c: c.reserved is not None):
            self.give_up(client)

    def give_up(self, client: Client) -> None:
        epoch, doubtful = Epoch(client.epoch + 1), self.blocks_in_flight(client)
        self.destination.handle(Recompute(client.spec.id, epoch, doubtful))
        self.source.handle(Release(client.spec.id, client.epoch))
        client.given_up = client.epoch
        client.forget_move()

    def commit(self, pick: Pick) -> None:
        def complete(c: Client) -> bool:
            return bool(c.reserved and c.held and c.arrived == len(c.published))

        if client := self.some(pick, complete):
            assert client.held is not None
            epoch = Epoch(client.epoch + 1)
            self.destination.handle(
                Commit(client.spec.id, epoch, client.held.output, client.held.tokens)
            )
            self.source.handle(Release(client.spec.id, client.epoch))
            client.forget_move()

    def settle(self, pick: Pick) -> None:
        if not self.orphans:
            return
        blocks = self.orphans.pop(0)
        self.destination.runner.kv.tensor[list(blocks)] = -1.0  # its last writes
        self.destination.handle(Unquarantine(blocks))

    def copy(self, client: Client) -> None:
        """Reads whatever the source's blocks hold now."""
        assert client.reserved is not None
        for i in client.in_flight:
            theirs, ours = client.published[i][0], client.reserved.blocks[i]
            kv = self.source.runner.kv.tensor[theirs]
            self.destination.runner.kv.tensor[ours] = kv

    def blocks_in_flight(self, client: Client) -> tuple[BlockId, ...]:
        """The blocks a transfer may still write into; from now on somebody else's concern."""
        if not (client.reserved and client.in_flight):
            return ()
        doubtful = tuple(client.reserved.blocks[i] for i in client.in_flight)
        self.orphans.append(doubtful)
        return doubtful

    # ---- what engines do ---------------------------------------------------------------------------------------------

    @rule(source=st.integers(0, 4), destination=st.integers(0, 4))
    def step(self, source: int, destination: int) -> None:
        for _ in range(source):
            self.deliver(self.source.step())
        for _ in range(destination):
            self.late_writes()
            self.deliver(self.destination.step())

    @precondition(lambda self: self.clients)
    @rule(
        prompt=st.sampled_from(PROMPTS[:2]),
        pick=st.randoms(use_true_random=False),
        what=st.lists(
            st.sampled_from(["cancel", "lose_request", "lose_front_door", "end_read", "commit"]),
            max_size=2,
        ),
    )
    def step_while_things_happen(
        self, prompt: tuple[int, ...], pick: Pick, what: list[str]
    ) -> None:
        """A short request comes amid a step of either engine, before or after troubles."""

        def happen() -> None:
            for act in what[:1]:
                getattr(self, act)(pick)
            if sum(not c.over for c in self.clients) < 7:
                self.submit(prompt, 0, 0, "f0", hand_off=self.amid is self.source)
            for act in what[1:]:
                getattr(self, act)(pick)

        for engine in (self.source, self.destination):
            self.amid = engine
            self.late_writes()
            self.deliver(engine.step(Meanwhile(happen, self.deliver)))

    def late_writes(self) -> None:
        """They land only where nobody reads."""
        for blocks in self.orphans:
            self.destination.runner.kv.tensor[list(blocks)] = -1.0

    def deliver(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Said(owner, message):
                    client = self.client(message.request)
                    assert owner == client.owner
                    self.hear(client, message)
                case Published():
                    self.hear_published(self.client(event.request), event)
                case Held():
                    client = self.client(event.request)
                    if event.epoch == client.epoch and not client.over:
                        client.held = event
                case Reserved():
                    self.hear_reserved(self.client(event.request), event)
                case Extended() | Ended() | Absent():
                    pass

    def hear(self, client: Client, message: Started | Tokens | Refused | Failed) -> None:
        if client.over or message.epoch < max(client.epoch, client.log.fence):
            return
        match message:
            case Started():
                client.started = True
            case Tokens():
                client.log.append(message.epoch, message.index, message.tokens)
                if message.finish:
                    assert client.log.tokens == client.want
                    client.over = True
                    self.drop_legs(client)  # with its first token, if the source said it
            case Refused():
                self.replay(client)
            case Failed():
                raise AssertionError(f"everything here can be served: {message.reason}")

    def hear_published(self, client: Client, event: Published) -> None:
        if client.given_up < event.epoch == client.epoch and not client.over:
            assert event.first == len(client.published)
            client.published += zip(event.blocks, event.generations, strict=True)
            client.published_tokens = event.tokens

    def hear_reserved(self, client: Client, event: Reserved) -> None:
        if client.over or event.epoch != client.epoch + 1:
            return  # its legs were dropped meanwhile
        client.reserved, client.arrived = event, event.held_blocks

    def client(self, request: RequestId) -> Client:
        return self.clients[int(request[1:])]

    @invariant()
    def the_accounts_are_right(self) -> None:
        self.source.check_integrity()
        self.destination.check_integrity()

    def teardown(self) -> None:
        """Everybody gets what they came for, and nothing is left."""
        self.patient.stop()
        for _ in range(400):
            if all(c.over for c in self.clients) and not self.orphans:
                break
            self.step(1, 1)
            for act in (self.reserve, self.begin_read, self.end_read, self.commit, self.settle):
                act(FirstPick())
        else:
            raise AssertionError(f"somebody waits for ever: {self.clients}")
        self.deliver(self.source.step())
        self.deliver(self.destination.step())
        for client in self.clients:
            self.drop_legs(client)
        for engine in (self.source, self.destination):
            load = engine.load()
            assert (load.waiting, load.running, load.holding, load.pulling) == (0, 0, 0, 0)
            assert (load.blocks_used, load.quarantined_blocks) == (0, 0)


class LateCluster(Cluster):
    late = True


TestMoves = Cluster.TestCase
TestMoves.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestLateMoves = LateCluster.TestCase
TestLateMoves.settings = settings(max_examples=15, stateful_step_count=60, deadline=None)
