"""A worker's listening side and the means to reach it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tercet.config import LinkConfig
from tercet.ids import Incarnation, WorkerId
from tercet.link import Link, LinkServer, host_id
from tercet.role import Role
from tercet.wire import (
    PROTOCOL_VERSION,
    Endpoint,
    FrontDoorMessage,
    Hello,
    Message,
    Refuse,
    Welcome,
)

CLUSTER = "test"
LIFE = Incarnation("life-1")


class Host:
    """Starts servers and remembers them."""

    def __init__(self, directory: Path) -> None:
        self.unix = directory / "w.sock"
        self.servers: list[LinkServer] = []
        self.refusal = ""

    def greet(self, hello: Hello) -> Welcome | Refuse:
        if self.refusal:
            return Refuse(self.refusal)
        return Welcome(PROTOCOL_VERSION, WorkerId("w"), LIFE)

    @property
    def has_socket(self) -> bool:
        return self.unix.exists()

    async def serve(
        self,
        handle: Callable[[Hello, Link[Message]], Awaitable[None]],
        config: LinkConfig,
        *,
        unix: bool = True,
        life: Incarnation = LIFE,
        inbound: object = FrontDoorMessage,
    ) -> Endpoint:
        server = LinkServer(self.greet, handle, inbound, config, cluster=CLUSTER, incarnation=life)
        self.servers.append(server)
        port = await server.listen("127.0.0.1", 0, self.unix if unix else None)
        path = str(self.unix) if unix else ""
        return Endpoint(WorkerId("w"), life, Role.DECODE, "127.0.0.1", port, host_id(), path)


@pytest.fixture
def own_host(tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[Host]]:
    """For tests that choose their own event loop."""

    @asynccontextmanager
    async def open_host() -> AsyncIterator[Host]:
        host = Host(tmp_path)
        yield host
        for server in host.servers:
            await server.close()
            assert server.links == 0
        assert not host.has_socket

    return open_host


@pytest.fixture
async def host(own_host: Callable[[], AbstractAsyncContextManager[Host]]) -> AsyncIterator[Host]:
    async with own_host() as host:
        yield host


@pytest.fixture
def hello() -> Callable[..., Hello]:
    def make(
        *, protocol: int = PROTOCOL_VERSION, cluster: str = CLUSTER, expects: str = LIFE
    ) -> Hello:
        return Hello(protocol, cluster, "f", Incarnation("i"), Incarnation(expects))

    return make
