"""One worker: an engine in its thread, a transfer in its thread, and the links around them on the caller's event loop.

Knows nothing of Ray: whoever calls `start` owns the process.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tercet.clock import Clock, MonotonicClock
from tercet.config import ClusterConfig, EngineConfig, ModelConfig
from tercet.errors import TercetError
from tercet.ids import Incarnation, WorkerId
from tercet.link import LinkServer, host_id
from tercet.role import Role
from tercet.wire import (
    DestinationMessage,
    Endpoint,
    FrontDoorMessage,
    LoadFigures,
)
from tercet.workers.codecs import Codecs, Measure, open_codecs
from tercet.workers.engine import Engine
from tercet.workers.engine_thread import SWITCH_INTERVAL_S, EngineThread
from tercet.workers.events import Event
from tercet.workers.greeting import Greeting
from tercet.workers.kv_pool import KvPool
from tercet.workers.move import Outcome, Packed
from tercet.workers.packing_thread import PackingThread
from tercet.workers.parallel.crew import Crew
from tercet.workers.parallel.transfer import ParallelTransfer
from tercet.workers.runner import Runner
from tercet.workers.status import WorkerStatus
from tercet.workers.switchboard import Switchboard
from tercet.workers.transfer.backends import backend
from tercet.workers.transfer.base import TransferEvent
from tercet.workers.transfer.packing import measured_profile
from tercet.workers.transfer.pool_memory import pool_memory
from tercet.workers.transfer.thread import TransferThread

logger = logging.getLogger(__name__)

LoadRunner = Callable[[ModelConfig, EngineConfig], Runner]


def load_model(model: ModelConfig, engine: EngineConfig) -> Runner:
    """The checkpoint of the cluster file, on its device."""
    if model.device == "cuda":
        from tercet.workers.gpu.loading import load_for_gpu  # noqa: PLC0415 -- GPUs only

        return load_for_gpu(model, engine)
    from tercet.workers.model_runner import ModelRunner  # noqa: PLC0415 -- seconds of transformers

    return ModelRunner.load(model, engine)


class WorkerFailed(TercetError):
    """One of the worker's threads ended by an exception; the process is of no use any more."""


class Worker:
    """`start`, then `wait` until it fails or is stopped. `load_runner` is called on the engine's thread, unless the worker
    is several processes, which load the model themselves."""

    def __init__(
        self,
        config: ClusterConfig,
        worker: WorkerId,
        role: Role,
        incarnation: Incarnation,
        *,
        host: str,
        run_dir: Path,
        load_runner: LoadRunner = load_model,
        measure_codec: Measure = measured_profile,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._worker = worker
        self._role = role
        self._incarnation = incarnation
        self._host = host
        self._unix = run_dir / f"{worker}.sock"
        self._load_runner = load_runner
        self._measure_codec = measure_codec
        self._clock = clock or MonotonicClock()
        self._host_id = host_id()
        name = f"{worker}:{incarnation}"
        self._engine = EngineThread(self._open_engine, self._on_engine, self._fail, name)
        self._crew: Crew | None = None
        self._codecs: Codecs | None = None
        self._packing: PackingThread | None = None
        self._transfer: TransferThread | ParallelTransfer | None = None
        self._board: Switchboard | None = None
        self._server: LinkServer | None = None
        self._beating: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._over: asyncio.Future[None] | None = None
        self.endpoint: Endpoint | None = None
        """Where the worker listens; None until it does."""

    # ---- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> Endpoint:
        """Load the model, register its KV memory, listen. Raises what went wrong, with nothing left running."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._over = asyncio.get_running_loop().create_future()
        ranks = self._config.pools.of(self._role).tensor_parallel
        if ranks > 1:
            self._crew = self._open_crew(ranks)
        try:
            runner = (await self._engine.start()).runner
            self._codecs = await asyncio.to_thread(
                open_codecs, runner.kv, self._config.transfer, self._measure_codec
            )
            self._transfer = await self._open_transfer(runner.kv, self._codecs)
            greeting = Greeting(
                self._config.name,
                self._worker,
                self._incarnation,
                runner.compat,
                self._transfer.region,
                self._transfer.staged,
                self._transfer.others,
            )
            self._board = self._open_board(self._transfer, runner.kv, greeting)
            port = await self._listen(self._board, greeting)
        except BaseException:
            await self.stop()
            raise
        self._beating = asyncio.create_task(self._beat(self._board))
        self.endpoint = Endpoint(
            self._worker,
            self._incarnation,
            self._role,
            self._host,
            port,
            self._host_id,
            "" if self._config.link.tls else str(self._unix),
        )
        return self.endpoint

    async def wait(self) -> None:
        """Returns when the worker was stopped; raises `WorkerFailed` when it cannot go on."""
        assert self._over is not None, "not started"
        await asyncio.shield(self._over)

    def check(self) -> None:
        """Raises what `wait` raises when the worker cannot go on."""
        if self._over is not None and self._over.done():
            self._over.result()

    def drain(self) -> None:
        """Ask every front door to take away what it has here, and to send no more; callable once started. Idempotent."""
        assert self._board is not None, "not started"
        self._board.drain(self._role)

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._board is not None and self._board.draining

    def relieve(self, tokens: int, to: WorkerId) -> None:
        """Give requests of at most so many tokens to that worker, if their front doors agree; callable once started."""
        assert self._board is not None, "not started"
        self._board.relieve(tokens, to)

    async def stop(self) -> None:
        """End links, tasks and threads; leaves nothing behind. Idempotent."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if self._closing is not None:
            await self._closing
        if self._server is not None:
            await self._server.close()
        if self._board is not None:
            await self._board.close()
        if self._packing is not None:
            await asyncio.to_thread(self._packing.stop)
        if self._transfer is not None:
            await asyncio.to_thread(self._transfer.stop)
        await self._engine.stop()
        if self._crew is not None:
            await asyncio.to_thread(self._crew.stop)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def status(self) -> WorkerStatus:
        """Callable once started."""
        assert self._board is not None, "not started"
        assert self._transfer is not None, "not started"
        board, outcomes = self._board, self._board.arrivals.outcomes
        return WorkerStatus(
            worker=self._worker,
            role=self._role,
            incarnation=self._incarnation,
            load=msgspec.convert(board.report(self._role), LoadFigures, from_attributes=True),
            sessions=len(board.sessions),
            readers=len(board.readers),
            sources=len(board.sources),
            departures=len(board.departures),
            arrivals=len(board.arrivals),
            unsettled_pulls=self._transfer.unsettled,
            staged_blocks=self._staged_blocks,
            committed=outcomes[Outcome.COMMITTED],
            recomputed=outcomes[Outcome.RECOMPUTED],
            dropped=outcomes[Outcome.DROPPED],
            names_dropped=board.sessions.relay.names_dropped,
        )

    @property
    def _staged_blocks(self) -> int:
        kept = 0 if self._packing is None else self._packing.kept
        return kept + (0 if self._codecs is None else self._codecs.unpacker.kept)

    # ---- parts -------------------------------------------------------------------------------------------------------

    def _open_engine(self) -> Engine:
        config = self._config.engine_of(self._role)
        load = self._load_runner if self._crew is None else self._crew.load
        return Engine(load(self._config.model, config), config, self._clock)

    def _open_crew(self, ranks: int) -> Crew:
        loop = asyncio.get_running_loop()

        def lost(exc: BaseException) -> None:
            loop.call_soon_threadsafe(self._fail, exc)

        return Crew(ranks, f"{self._worker}:{self._incarnation}", lost)

    async def _open_transfer(
        self, kv: KvPool, codecs: Codecs | None
    ) -> TransferThread | ParallelTransfer:
        loop = asyncio.get_running_loop()

        def deliver(event: TransferEvent) -> None:
            loop.call_soon_threadsafe(self._on_transfer, event)

        def crashed(exc: BaseException) -> None:
            loop.call_soon_threadsafe(self._fail, exc)

        name, config = f"{self._worker}:{self._incarnation}", self._config.transfer
        transfer: TransferThread | ParallelTransfer
        if self._crew is None:
            transfer = TransferThread(
                name,
                pool_memory(kv),
                config,
                backend(config),
                deliver,
                crashed,
                decoder=None if codecs is None else codecs.unpacker,
                staging=None if codecs is None else codecs.packer.staging.memory,
            )
        else:
            followers = self._crew.followers
            memory = pool_memory(kv, ranks=1 + len(followers))
            transfer = ParallelTransfer(
                name, memory, config, backend(config), deliver, crashed, followers
            )
        await asyncio.to_thread(transfer.start)
        return transfer

    def _open_packing(self, codecs: Codecs) -> PackingThread:
        loop = asyncio.get_running_loop()

        def deliver(event: Packed) -> None:
            loop.call_soon_threadsafe(self._on_packed, event)

        def crashed(exc: BaseException) -> None:
            loop.call_soon_threadsafe(self._fail, exc)

        name = f"{self._worker}:{self._incarnation}"
        packing = PackingThread(codecs.packer, deliver, crashed, self._clock, name)
        packing.start()
        return packing

    def _open_board(
        self, transfer: TransferThread | ParallelTransfer, kv: KvPool, greeting: Greeting
    ) -> Switchboard:
        if self._codecs is not None:
            self._packing = self._open_packing(self._codecs)
        return Switchboard(
            self._config,
            self._engine,
            transfer,
            greeting.hello,
            block_tokens=kv.geometry.block_tokens,
            host_id=self._host_id,
            clock=self._clock,
            codecs=self._codecs,
            packing=self._packing,
        )

    async def _listen(self, board: Switchboard, greeting: Greeting) -> int:
        self._server = LinkServer(
            greeting.answer,
            board.serve,
            FrontDoorMessage | DestinationMessage,
            self._config.link,
            cluster=self._config.name,
            incarnation=self._incarnation,
        )
        return await self._server.listen(self._host, 0, self._unix)

    # ---- events ------------------------------------------------------------------------------------------------------

    def _on_engine(self, step: list[Event]) -> None:
        with self._failing_loudly():
            if self._board is not None:
                self._board.on_engine(step)

    def _on_transfer(self, event: TransferEvent) -> None:
        with self._failing_loudly():
            if self._board is not None:
                self._board.on_transfer(event)

    def _on_packed(self, event: Packed) -> None:
        with self._failing_loudly():
            if self._board is not None:
                self._board.on_packed(event)

    async def _beat(self, board: Switchboard) -> None:
        with self._failing_loudly():
            while True:
                self._engine.check_step(self._config.control.step_timeout_s)
                board.beat(self._role)
                await asyncio.sleep(self._config.link.report_period_s)

    @contextmanager
    def _failing_loudly(self) -> Iterator[None]:
        """The event loop would log a bug of ours and go on, with requests that hang."""
        try:
            yield
        except Exception as exc:
            logger.exception("%s has failed", self._worker)
            self._fail(exc)

    def _fail(self, exc: BaseException) -> None:
        """Whoever waits for this worker and whoever is linked to it learns of it at once."""
        assert self._over is not None, "failed before it was started"
        if not self._over.done():
            failure = WorkerFailed(f"{self._worker}: {type(exc).__name__}: {exc}")
            failure.__cause__ = exc
            self._over.set_exception(failure)
            if self._server is not None:
                self._closing = asyncio.get_running_loop().create_task(self._server.close())
