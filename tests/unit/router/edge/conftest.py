"""Both doors of a service that speaks from a script."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import httpx
import pytest

from tercet.router.fake_service import fake_service, saying
from tercet.router.fake_source import FakeSource
from tercet.router.http import build_api
from tercet.router.service import Service

Until = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Wait, not for ever, for something that has no event of its own."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - the condition is another part's plain figure
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def source() -> Iterator[FakeSource]:
    source = FakeSource(saying("Hello, world"))
    yield source
    assert source.active == 0, "a generation was not left"


@pytest.fixture
def service(source: FakeSource) -> Iterator[Service]:
    service = fake_service(source)
    yield service
    assert service.active_calls == 0, "a call was not left"


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=build_api(lambda: service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://toy") as client:
        yield client
