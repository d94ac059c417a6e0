"""Whole workers of this process, with toy runners and fake transfers, as front doors and other workers meet them."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from tercet.clock import MonotonicClock
from tercet.cluster.status import WorkerFigures
from tercet.config import (
    ClusterConfig,
    ControlConfig,
    EngineConfig,
    LinkConfig,
    ModelConfig,
    TransferConfig,
)
from tercet.errors import PeerLost, PeerRefused
from tercet.ids import Epoch, Incarnation, RequestId, WorkerId
from tercet.link import Link, connect, host_id
from tercet.request import RequestSpec, Sampling, TokenLog
from tercet.role import Role
from tercet.wire import (
    PROTOCOL_VERSION,
    Adopt,
    Cancel,
    Endpoint,
    Failed,
    HandedOff,
    Hello,
    LoadReport,
    Message,
    Pull,
    SourceMessage,
    Started,
    Submit,
    Tokens,
    Usage,
    WorkerMessage,
)
from tercet.workers.engine import Engine
from tercet.workers.events import Run, Said
from tercet.workers.runner import Runner, go_on
from tercet.workers.toy_runner import ToyRunner
from tercet.workers.transfer.backends import process_network
from tercet.workers.transfer.fake import Fault
from tercet.workers.worker import LoadRunner, Worker, WorkerFailed

CONFIG = ClusterConfig(
    model=ModelConfig(path="/nowhere"),
    engine=EngineConfig(kv_blocks=64, step_tokens_max=64),
    link=LinkConfig(heartbeat_s=0.1, dead_after_s=2.0, report_period_s=0.02),
    transfer=TransferConfig(backend="fake", lease_s=1.0, renew_s=0.1, wait_s=0.2),
)
SPEC = RequestSpec(
    RequestId("r"), [(7 * i) % 60 for i in range(200)], Sampling(max_tokens=8, ignore_eos=True)
)


def toy(model: ModelConfig, engine: EngineConfig) -> Runner:
    return ToyRunner(engine)


def slow_toy(model: ModelConfig, engine: EngineConfig) -> Runner:
    return ToyRunner(engine, step_s=0.05)


def unlike_toy(model: ModelConfig, engine: EngineConfig) -> Runner:
    return ToyRunner(engine, head_dim=8)


class StuckRunner(ToyRunner):
    """Comes back from its second step only when it is freed."""

    def __init__(self, engine: EngineConfig, freed: threading.Event) -> None:
        super().__init__(engine)
        self.freed = freed
        self.steps = itertools.count()

    def forward(self, slices, between_layers=go_on):
        if next(self.steps):
            assert self.freed.wait(30), "nobody freed it"
        return super().forward(slices, between_layers)


IMPATIENT = msgspec.structs.replace(CONFIG, control=ControlConfig(step_timeout_s=0.5))


def expected(spec: RequestSpec) -> list[int]:
    engine = Engine(ToyRunner(CONFIG.engine), CONFIG.engine, MonotonicClock())
    engine.handle(Run(spec, Epoch(0), "nobody"))
    tokens: list[int] = []
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Said) and isinstance(event.message, Tokens):
                tokens += event.message.tokens
    return tokens


class Talk:
    """A link to one worker and all that came over it."""

    def __init__(self, link: Link[Message]) -> None:
        self.link = link
        self.heard: list[Message] = []

    async def hear(self, kind: type[Message], when: Callable[[Message], bool] = bool) -> Message:
        """The next message of this kind that has not been asked for yet."""
        async with asyncio.timeout(60):
            while True:
                for message in self.heard:
                    if isinstance(message, kind) and when(message):
                        self.heard.remove(message)
                        return message
                self.heard += await anext(self.link)

    async def finish(self) -> tuple[list[int], Usage]:
        log = TokenLog()
        while True:
            tokens = await self.hear(Tokens)
            assert isinstance(tokens, Tokens)
            log.append(tokens.epoch, tokens.index, tokens.tokens)
            if tokens.usage is not None:
                return log.tokens, tokens.usage


class House:
    """Starts workers and links, and ends them."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.workers: dict[WorkerId, Worker] = {}
        self.links: list[Link[Message]] = []

    def build(
        self,
        name: str,
        load_runner: LoadRunner = toy,
        host: str = "127.0.0.1",
        config: ClusterConfig = CONFIG,
    ) -> Worker:
        worker = Worker(
            config,
            WorkerId(name),
            Role.PREFILL if name.startswith("p") else Role.DECODE,
            Incarnation(f"life-of-{name}"),
            host=host,
            run_dir=self.run_dir,
            load_runner=load_runner,
        )
        self.workers[WorkerId(name)] = worker
        return worker

    async def start(self, name: str, load_runner: LoadRunner = toy) -> tuple[Endpoint, Talk]:
        endpoint = await self.build(name, load_runner).start()
        return endpoint, await self.dial(endpoint)

    async def dial(
        self, endpoint: Endpoint, compat: str = "", inbound: object = WorkerMessage
    ) -> Talk:
        hello = Hello(
            PROTOCOL_VERSION, "tercet", "f", Incarnation("f-1"), endpoint.incarnation, compat
        )
        link: Link[Message]
        link, _ = await connect(endpoint, hello, inbound, CONFIG.link, host_id())
        self.links.append(link)
        return Talk(link)

    def sockets(self) -> list[Path]:
        return list(self.run_dir.iterdir())

    async def idle(self, name: str) -> None:
        worker = self.workers[WorkerId(name)]
        async with asyncio.timeout(60):
            while True:
                status = worker.status()
                load = status.load
                kept = status.departures + status.arrivals + status.unsettled_pulls
                kept += load.blocks_used + load.quarantined_blocks + load.leases
                if not kept + load.waiting + load.running + load.holding + load.pulling:
                    return
                await asyncio.sleep(0.01)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    for link in house.links:
        await link.close()
    for name, worker in house.workers.items():
        if worker.endpoint is not None:
            await house.idle(name)
        await worker.stop()
    ours = ("engine", "transfer")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(ours)]
    assert house.sockets() == [], "a socket file was left"
    unused = list(process_network().faults)
    process_network().faults.clear()
    assert unused == []
    assert not process_network().members


@pytest.fixture
async def stuck(house: House) -> AsyncIterator[Talk]:
    """The link to `p0`, whose second step does not end before the test does; by then it must have given up."""
    freed = threading.Event()
    worker = house.build("p0", lambda _, engine: StuckRunner(engine, freed), config=IMPATIENT)
    yield await house.dial(await worker.start())
    freed.set()
    with pytest.raises(WorkerFailed):
        worker.check()
    await house.workers.pop(WorkerId("p0")).stop()


async def hand_off(house: House, destination: LoadRunner = toy) -> tuple[Talk, Talk]:
    """A source that holds the request, and a destination that has been told to pull it."""
    source, at_source = await house.start("p0")
    _, at_destination = await house.start("d0", destination)
    at_source.link.post(Submit(SPEC, Epoch(0), hand_off=True))
    await at_source.hear(Tokens)
    at_destination.link.post(Adopt(SPEC, Epoch(1), source, Epoch(0)))
    return at_source, at_destination


async def test_a_worker_serves_a_request_alone(house):
    _, talk = await house.start("d0")
    talk.link.post(Submit(SPEC, Epoch(0)))
    tokens, usage = await talk.finish()
    assert tokens == expected(SPEC)
    assert usage.computed_tokens == 200


async def test_a_hand_off_repeats_the_first_token_and_reports_what_was_pulled(house):
    at_source, at_destination = await hand_off(house)
    first = await at_destination.hear(Tokens)
    assert isinstance(first, Tokens)
    assert (first.epoch, first.index, first.tokens) == (1, 0, expected(SPEC)[:1])
    at_destination.heard.insert(0, first)
    tokens, usage = await at_destination.finish()
    assert tokens == expected(SPEC)
    assert (usage.pulled_tokens, usage.pulled_bytes) == (200, 13 * 1024)
    over = await at_source.hear(HandedOff)
    assert over == HandedOff(SPEC.id, Epoch(0), Usage(computed_tokens=200))
    report = await at_destination.hear(LoadReport, lambda m: m.pulls > 0)
    assert isinstance(report, LoadReport)
    assert (report.pull_bytes, report.pull_failures) == (13 * 1024, 0)


@pytest.mark.parametrize(
    "fault", [Fault(failure="cable cut"), Fault(delay_s=0.6)], ids=["failed", "late"]
)
async def test_a_pull_that_fails_is_recomputed_to_the_same_tokens(house, fault):
    process_network().faults.append(fault)
    _, at_destination = await hand_off(house)
    tokens, usage = await at_destination.finish()
    assert tokens == expected(SPEC)
    assert usage.recomputed


async def test_kv_overwritten_while_it_is_read_never_reaches_the_output(house):
    def overwrite() -> None:
        kv = pool[0]
        kv.tensor.fill_(7.0)
        kv.generations[:] += 1

    pool = []

    def source_toy(model: ModelConfig, engine: EngineConfig) -> Runner:
        runner = ToyRunner(engine)
        pool.append(runner.kv)
        return runner

    source, at_source = await house.start("p0", source_toy)
    _, at_destination = await house.start("d0")
    at_source.link.post(Submit(SPEC, Epoch(0), hand_off=True))
    await at_source.hear(Tokens)
    process_network().faults.append(Fault(meanwhile=overwrite))
    at_destination.link.post(Adopt(SPEC, Epoch(1), source, Epoch(0)))
    tokens, usage = await at_destination.finish()
    assert tokens == expected(SPEC)
    assert usage.recomputed


async def test_a_late_read_keeps_its_blocks_out_of_circulation(house):
    process_network().faults.append(Fault(delay_s=1.0))
    _, at_destination = await hand_off(house)
    await at_destination.finish()
    report = await at_destination.hear(LoadReport, lambda m: m.quarantined_blocks > 0)
    assert isinstance(report, LoadReport)
    assert report.quarantined_blocks == 13
    await at_destination.hear(LoadReport, lambda m: m.quarantined_blocks == 0)


async def test_unlike_kv_makes_the_pair_unroutable_and_the_request_is_recomputed(house):
    _, at_destination = await hand_off(house, unlike_toy)
    _, usage = await at_destination.finish()
    assert usage.recomputed
    source = house.workers[WorkerId("p0")]
    assert source.status().readers == 0
    assert (await house.dial(source.endpoint)).link, "it lives"


async def test_a_peer_with_unlike_kv_is_told_why(house):
    endpoint, _ = await house.start("p0")
    with pytest.raises(PeerRefused, match="is not KV of p0"):
        await house.dial(endpoint, compat="another model", inbound=SourceMessage)


async def test_a_front_door_may_not_pull_and_a_peer_may_not_order(house):
    endpoint, talk = await house.start("p0")
    talk.link.post(Pull(SPEC.id, Epoch(0), 0))
    with pytest.raises(PeerLost):
        await talk.hear(Tokens)
    compat = ToyRunner(CONFIG.engine).compat
    peer = await house.dial(endpoint, compat, SourceMessage)
    peer.link.post(Submit(SPEC, Epoch(0)))
    with pytest.raises(PeerLost):
        await peer.hear(Tokens)


async def test_an_order_given_twice_is_carried_out_once(house):
    at_source, at_destination = await hand_off(house)
    source = house.workers[WorkerId("p0")].endpoint
    at_destination.link.post(Adopt(SPEC, Epoch(1), source, Epoch(0)))
    tokens, usage = await at_destination.finish()
    assert tokens == expected(SPEC)
    assert not usage.recomputed
    await at_source.hear(HandedOff)


async def test_a_replay_replaces_a_hand_off_that_still_pulls(house):
    process_network().faults.append(Fault(delay_s=0.5))
    _, at_destination = await hand_off(house)
    await at_destination.hear(LoadReport, lambda m: m.pulling == 1)
    assert house.workers[WorkerId("d0")].status().unsettled_pulls == 1
    at_destination.link.post(Submit(SPEC, Epoch(2)))
    tokens, usage = await at_destination.finish()
    assert tokens == expected(SPEC)
    assert usage.pulled_tokens == 0


async def test_a_cancel_of_nothing_is_fine(house):
    _, talk = await house.start("d0")
    talk.link.post(Cancel(RequestId("never seen"), Epoch(3)))
    talk.link.post(Submit(SPEC, Epoch(0)))
    assert (await talk.finish())[0] == expected(SPEC)


async def test_what_nobody_pulls_is_failed_to_its_owner_after_the_lease(house):
    _, talk = await house.start("p0")
    talk.link.post(Submit(SPEC, Epoch(0), hand_off=True))
    failed = await talk.hear(Failed)
    assert isinstance(failed, Failed)
    assert failed.retryable
    assert "within the lease" in failed.reason


async def test_load_is_reported_while_a_request_runs_and_when_it_is_over(house):
    _, talk = await house.start("d0", slow_toy)
    talk.link.post(Submit(SPEC, Epoch(0)))
    busy = await talk.hear(LoadReport, lambda m: m.running == 1)
    assert isinstance(busy, LoadReport)
    assert busy.blocks_used > 0
    await talk.finish()
    talk.heard.clear()
    idle = await talk.hear(LoadReport, lambda m: m.running == 0)
    assert isinstance(idle, LoadReport)
    assert (idle.blocks_used, idle.context_tokens, idle.blocks_total) == (0, 0, 64)


async def test_a_status_names_its_figures_and_the_controller_understands_it(house):
    await house.start("d0", toy)
    status = house.workers[WorkerId("d0")].status()
    sent = msgspec.json.encode(status)
    assert msgspec.json.decode(sent)["load"]["blocks_total"] == CONFIG.engine.kv_blocks
    assert msgspec.json.decode(sent, type=WorkerFigures).load == status.load


async def test_a_model_that_cannot_be_loaded_fails_the_start_and_leaves_nothing(house):
    def fail(model: ModelConfig, engine: EngineConfig) -> Runner:
        raise FileNotFoundError(model.path)

    with pytest.raises(FileNotFoundError, match="/nowhere"):
        await house.build("d0", fail).start()


async def test_a_host_that_is_not_ours_fails_the_start_and_leaves_nothing(house):
    with pytest.raises(OSError, match="203"):
        await house.build("d0", host="203.0.113.1").start()


async def test_a_worker_whose_engine_breaks_says_so_to_everybody(house):
    class Broken(BaseException):
        pass

    class BrokenRunner(ToyRunner):
        def forward(self, slices, between_layers=go_on):
            raise Broken("cosmic ray")

    _, talk = await house.start("d0", lambda model, engine: BrokenRunner(engine))
    talk.link.post(Submit(SPEC, Epoch(0)))
    with pytest.raises(WorkerFailed, match="cosmic ray"):
        async with asyncio.timeout(60):
            await house.workers[WorkerId("d0")].wait()
    with pytest.raises(PeerLost):
        await talk.hear(Tokens)
    await house.workers.pop(WorkerId("d0")).stop()


async def test_a_worker_stuck_in_a_step_says_so_to_everybody(house, stuck):
    worker = house.workers[WorkerId("p0")]
    worker.check()
    stuck.link.post(Submit(SPEC, Epoch(0)))
    with pytest.raises(PeerLost):
        await stuck.hear(Tokens)
    for said in (worker.wait(), asyncio.to_thread(worker.check)):
        with pytest.raises(WorkerFailed, match=r"more than 0.5 s.*control\.step_timeout_s"):
            await said


async def test_a_destination_does_not_wait_for_a_source_that_is_stuck(house, stuck, caplog):
    source = house.workers[WorkerId("p0")].endpoint
    _, at_destination = await house.start("d0")
    stuck.link.post(Submit(SPEC, Epoch(0), hand_off=True))
    await stuck.hear(Started)
    at_destination.link.post(Adopt(SPEC, Epoch(1), source, Epoch(0)))
    tokens, usage = await at_destination.finish()
    assert tokens == expected(SPEC)
    assert usage.recomputed
    assert "recomputed here instead of pulled" in caplog.text
    assert "said nothing" not in caplog.text, "it waited for its own patience to end"


async def test_stop_ends_what_runs_and_wait_returns(house):
    _, talk = await house.start("d0", slow_toy)
    talk.link.post(
        Submit(msgspec.structs.replace(SPEC, sampling=Sampling(max_tokens=500)), Epoch(0))
    )
    await talk.hear(Tokens)
    worker = house.workers.pop(WorkerId("d0"))
    await worker.stop()
    await worker.stop()
    await worker.wait()
    with pytest.raises(PeerLost):
        await talk.hear(Tokens, lambda m: m.finish is not None)


async def test_a_worker_that_is_to_drain_says_so_at_once_and_goes_on_with_what_it_has(
    house: House,
) -> None:
    _, talk = await house.start("d", slow_toy)
    talk.link.post(Submit(SPEC, Epoch(0)))
    first = await talk.hear(LoadReport)
    assert isinstance(first, LoadReport)
    assert not first.draining
    house.workers[WorkerId("d")].drain()
    await talk.hear(LoadReport, lambda report: report.draining)
    assert house.workers[WorkerId("d")].status().load.draining
    tokens, _ = await talk.finish()
    assert tokens == expected(SPEC)
