"""A simulated worker that is the real one but for GPU, network and clock: scheduler, block pool, queue rules and hand-offs
are those of production, see `tercet.workers`."""

import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVarTuple, cast

from tercet.config import ClusterConfig
from tercet.ids import BlockHash, BlockId, Epoch, FrontDoorId, RequestId
from tercet.request import RequestSpec
from tercet.router.events import WorkerWord
from tercet.simulator.engine_model import EngineModel
from tercet.simulator.fabric import Fabric, FromReader, FromSource
from tercet.simulator.hand_offs import HandOffs
from tercet.simulator.machine import Book, Order, Say
from tercet.simulator.modelled_engine import ModelledEngine
from tercet.simulator.stretches import Stretch
from tercet.simulator.timeline import Timeline
from tercet.wire import Adopt, Cancel, Endpoint, LoadReport, Resume, Submit
from tercet.workers import events
from tercet.workers.sources import agent_name
from tercet.workers.transfer import Pulled, PullFailed

Ts = TypeVarTuple("Ts")

Continued = Callable[[RequestId], Sequence[int]]
"""The names of a prompt that goes on from this request's output, the next turn's, as far as the trace knows it."""

OWN_NAMES = 1 << 64
"""Names in traces are smaller."""


def nobody(stretch: Stretch) -> None:
    """Does not want to know of gaps between tokens."""


def never(request: RequestId) -> Sequence[int]:
    """No trace knows what is said next."""
    return ()


class EngineMachine:
    """One life of one worker. `told` hears of the times between tokens, which messages do not show: a request's tokens come
    as the first one, alone, and the others with its end. `leaps=False` computes every step by itself, and says it so."""

    def __init__(
        self,
        timeline: Timeline,
        endpoint: Endpoint,
        say: Say,
        book: Book,
        config: ClusterConfig,
        model: EngineModel,
        fabric: Fabric,
        *,
        speed: float = 1.0,
        seed: int = 0,
        told: Callable[[Stretch], None] = nobody,
        continued: Continued = never,
        leaps: bool = True,
    ) -> None:
        self.endpoint = endpoint
        self.agent = agent_name(endpoint)
        self._say, self._book, self._continued, self._fabric = say, book, continued, fabric
        engine = config.engine_of(endpoint.role)
        self._block_tokens = engine.block_tokens
        self._block_bytes = engine.block_tokens * model.kv_bytes_per_token
        self.engine = ModelledEngine(
            timeline,
            engine,
            model,
            self._hashes,
            self._deliver,
            told,
            speed=speed,
            dice=random.Random(f"{seed}/{self.agent}"),
            leaps=leaps,
        )
        self._hand_offs = HandOffs(
            self,
            self.engine,
            fabric,
            timeline,
            config,
            block_tokens=engine.block_tokens,
            block_bytes=self._block_bytes,
            tell=self._tell,
        )
        self._owners: set[FrontDoorId] = set()
        self._dead = False
        self._backlog: list[Callable[[], None]] | None = None
        """What has come while the process is stopped; None when it is not."""
        fabric.join(self)

    # ---- what front doors see ----------------------------------------------------------------------------------------

    @property
    def busy_s(self) -> float:
        """Time spent in steps until now."""
        return self.engine.busy_s

    def take(self, owner: FrontDoorId, order: Order) -> None:
        self._when_awake(self._take, owner, order)

    def report(self) -> LoadReport:
        load, pulls = self.engine.load(), self._hand_offs.arrivals.figures
        return LoadReport(
            role=self.endpoint.role,
            waiting=load.waiting,
            running=load.running,
            holding=load.holding,
            pulling=load.pulling,
            pending_prefill_tokens=load.pending_prefill_tokens,
            context_tokens=load.context_tokens,
            blocks_total=load.blocks_total,
            blocks_used=load.blocks_used,
            prefill_coefficients=load.prefill_coefficients,
            decode_coefficients=load.decode_coefficients,
            pull_bytes=pulls.bytes,
            pull_s=pulls.seconds,
            pulls=pulls.pulls,
            pull_failures=pulls.failures,
            quarantined_blocks=load.quarantined_blocks,
            leases=self._hand_offs.departures.leases,
            block_bytes=self._block_bytes,
        )

    def hit(self, names: Sequence[int]) -> int:
        return len(self.engine.pool.lookup(cast("Sequence[BlockHash]", names)))

    def cached(self) -> frozenset[int]:
        return frozenset(cast("Iterable[int]", self.engine.pool.hashes))

    @property
    def hand_offs(self) -> int:
        """Under way, from here and to here."""
        return len(self._hand_offs)

    @property
    def awake(self) -> bool:
        """Somebody who is not sends no reports."""
        return not self._dead and self._backlog is None

    @property
    def alive(self) -> bool:
        return not self._dead

    # ---- life --------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Nothing is left but what it has said already. Another life is another machine."""
        self._flush()
        self.engine.stop()
        self._dead = True
        self._fabric.leave(self)

    def freeze(self) -> None:
        """The process is stopped: it takes no part in anything, but nobody who does not wait for it can know."""
        self._flush()
        self.engine.freeze()
        self._backlog = []

    def thaw(self, *, forsaken: bool) -> None:
        """It goes on. Who is forsaken finds all its links closed, by front doors and workers that had given it up."""
        backlog, self._backlog = self._backlog or [], None
        for call in backlog:
            call()
        if forsaken:
            self._hand_offs.forsaken()
            for owner in sorted(self._owners):
                self._hand_offs.owner_lost(owner)
        self.engine.thaw()

    # ---- what the network brings (`fabric.Member`) -------------------------------------------------------------------

    def linked(self, source: str, there: bool) -> None:
        self._when_awake(self._hand_offs.linked, source, there)

    def from_reader(self, reader: str, message: FromReader) -> None:
        self._when_awake(self._hand_offs.from_reader, reader, message)

    def from_source(self, source: str, message: FromSource) -> None:
        self._when_awake(self._hand_offs.from_source, source, message)

    def unlinked(self, peer: str) -> None:
        self._when_awake(self._hand_offs.unlinked, peer)

    def pulled(self, event: Pulled | PullFailed) -> None:
        self._when_awake(self._hand_offs.pulled, event)

    def beat(self) -> None:
        self._when_awake(self._hand_offs.beat)

    def generations(self, blocks: Sequence[BlockId]) -> tuple[int, ...]:
        return self.engine.pool.generations(blocks)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _when_awake(self, call: Callable[[*Ts], None], *args: *Ts) -> None:
        if self._backlog is not None:
            self._backlog.append(partial(call, *args))
        elif not self._dead:
            call(*args)

    def _take(self, owner: FrontDoorId, order: Order) -> None:
        hand_offs = self._hand_offs
        self._owners.add(owner)
        match order:
            case Submit(spec, epoch, output, hand_off):
                hand_offs.cancel(spec.id, Epoch(epoch - 1))
                if hand_off:
                    hand_offs.open(owner, order)
                self.engine.post(events.Run(spec, epoch, owner, tuple(output), hand_off))
            case Adopt(spec, epoch):
                hand_offs.cancel(spec.id, Epoch(epoch - 1))
                hand_offs.begin(owner, order)
            case Resume():
                hand_offs.resume(owner, order)
            case Cancel(request, epoch):
                hand_offs.cancel(request, epoch)
                self.engine.post(events.Drop(request, epoch))

    def _hashes(self, spec: RequestSpec) -> list[BlockHash]:
        """The names of all blocks that the request will ever fill. Those of its output are nobody else's, unless its next
        turn is known."""
        tokens, prompt_tokens = spec.sampling.max_tokens + len(spec.prompt), len(spec.prompt)
        blocks = tokens // self._block_tokens
        arrival = self._book.get(spec.id)  # none where it ended before its order was handled
        known = arrival.names if arrival is not None else ()
        names = list(known[: prompt_tokens // self._block_tokens])
        names += self._continued(spec.id)[len(names) : blocks]
        own = OWN_NAMES + (zlib.crc32(spec.id.encode()) << 32)
        names += range(own + len(names), own + blocks)
        return cast("list[BlockHash]", names)

    def _deliver(self, step: list[events.Event]) -> None:
        self._hand_offs.on_engine(step)

    def _tell(self, owner: str, word: WorkerWord) -> None:
        self._say(FrontDoorId(owner), word)

    def _flush(self) -> None:
        self._deliver(self.engine.flush())
