"""Workers, requests and a front door over real links to fake workers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    LinkConfig,
    ModelConfig,
    RouterConfig,
)
from tercet.ids import FrontDoorId, Incarnation, RequestId, WorkerId
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.router.fake_worker import FakeWorker
from tercet.router.front_door import FrontDoor
from tercet.wire import Endpoint, Membership

MakeEndpoint = Callable[..., Endpoint]
MakeSpec = Callable[..., RequestSpec]


@pytest.fixture
def endpoint() -> MakeEndpoint:
    def make(name: str, incarnation: str = "life-1") -> Endpoint:
        return Endpoint(
            worker=WorkerId(name),
            incarnation=Incarnation(incarnation),
            role=Role.PREFILL if name.startswith("prefill") else Role.DECODE,
            host="127.0.0.1",
            port=1,
            host_id="here",
        )

    return make


@pytest.fixture
def spec() -> MakeSpec:
    def make(
        name: str = "r", prompt_tokens: int = 40, max_tokens: int = 8, **sampling: object
    ) -> RequestSpec:
        prompt = [(7 * position + len(name)) % 1000 for position in range(prompt_tokens)]
        return RequestSpec(
            RequestId(name),
            prompt,
            Sampling(max_tokens=max_tokens, **sampling),  # type: ignore[arg-type]
        )

    return make


@dataclass
class House:
    """A front door and its fake workers."""

    config: ClusterConfig
    front_door: FrontDoor
    peers: dict[WorkerId, FakeWorker] = field(default_factory=dict)
    endpoints: dict[WorkerId, Endpoint] = field(default_factory=dict)
    version: int = 0

    async def add(self, name: str, step_s: float = 0.001, *, heartbeats: bool = True) -> FakeWorker:
        """A new worker, known to the front door with the next `publish`."""
        link = self.config.link
        worker = WorkerId(name)
        role = Role.PREFILL if name.startswith("prefill") else Role.DECODE
        fake = FakeWorker(
            worker,
            role,
            cluster=self.config.name,
            link=link if heartbeats else msgspec.structs.replace(link, heartbeat_s=1000.0),
            peers=self.peers,
            step_s=step_s,
        )
        self.endpoints[worker] = await fake.start()
        return fake

    def publish(self) -> None:
        self.version += 1
        self.front_door.update(Membership(self.version, tuple(self.endpoints.values())))

    async def publish_and_connect(self) -> None:
        """Publish, and wait until every member's link stands."""
        self.publish()
        async with asyncio.timeout(60):
            while not all(seen.connected for seen in self.front_door.status().workers):  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    async def remove(self, name: str) -> None:
        """Kill a worker and take it out of the next membership."""
        worker = WorkerId(name)
        del self.endpoints[worker]
        await self.peers[worker].stop()


OpenHouse = Callable[..., Awaitable[House]]


@pytest.fixture
async def house() -> AsyncIterator[OpenHouse]:
    """Opens houses; afterwards asserts that nothing is left of any request, and closes them."""
    opened: list[House] = []

    async def open_house(*names: str, router: RouterConfig | None = None, **door: object) -> House:
        config = ClusterConfig(
            model=ModelConfig(path="unused"),
            engine=EngineConfig(block_tokens=16),
            router=router or RouterConfig(local_prefill_tokens_max=4),
            link=LinkConfig(heartbeat_s=0.2, dead_after_s=0.6, report_period_s=0.05),
            front_door=FrontDoorConfig(**door),  # type: ignore[arg-type]
        )
        built = House(config, FrontDoor(config, FrontDoorId("front-door")))
        opened.append(built)
        for name in names:
            await built.add(name)
        await built.front_door.start()
        await built.publish_and_connect()
        return built

    yield open_house
    for built in opened:
        status = built.front_door.status()
        assert (status.in_flight, status.queued) == (0, 0)
        assert [seen.outstanding for seen in status.workers] == [0] * len(status.workers)
        await built.front_door.stop()
        for fake in list(built.peers.values()):
            await fake.stop()
