"""Asking several front doors, some of which know the call and some of which do not answer."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tercet.cli.finding import NotFound
from tercet.cli.why import ask_doors
from tercet.client import AsyncClient
from tercet.cluster.status import FrontDoorReport
from tercet.ids import FrontDoorId
from tercet.router.fake_service import fake_service, saying
from tercet.router.fake_source import FakeSource
from tercet.router.rpc import start_grpc

NOBODY = "127.0.0.1:1"


@pytest.fixture
async def targets() -> AsyncIterator[list[str]]:
    """Two front doors; the second one has served the call `mine` with two choices."""
    services = [fake_service(FakeSource(saying("Hello"))) for _ in range(2)]
    servers = [await start_grpc(service, "127.0.0.1", 0) for service in services]
    addresses = [f"127.0.0.1:{port}" for _, port in servers]
    async with AsyncClient(addresses[1], timeout_s=10.0) as client:
        await client.generate("hi", n=2, request_id="mine")
    yield addresses
    for server, _ in servers:
        await server.stop(grace=None)


def doors(*addresses: str) -> list[FrontDoorReport]:
    return [
        FrontDoorReport(front_door=FrontDoorId(f"door-{number}"), grpc=address)
        for number, address in enumerate(addresses)
    ]


async def test_whichever_door_knows_the_call_answers(targets: list[str]) -> None:
    answers = await asyncio.to_thread(ask_doors, doors(NOBODY, *targets), "mine")
    [known] = answers.known
    assert [record.request for record in known.requests] == ["mine-0", "mine-1"]
    assert len(answers.unknown) == 1
    assert [silent.split(":")[0] for silent in answers.silent] == ["127.0.0.1"]


async def test_an_unknown_call_is_told_with_what_is_kept_and_what_to_do(
    targets: list[str],
) -> None:
    with pytest.raises(NotFound) as caught:
        await asyncio.to_thread(ask_doors, doors(*targets, NOBODY), "lost")
    told = str(caught.value)
    assert "no front door remembers 'lost'" in told
    assert "0 of at most 1000, 2 of at most 1000" in told
    assert f"not asked, as it did not answer: {NOBODY}" in told
    assert "x-request-id" in told


@pytest.mark.parametrize("addresses", [(), (NOBODY,)])
def test_without_a_door_that_answers_it_says_so(addresses: tuple[str, ...]) -> None:
    with pytest.raises(NotFound, match="no front door could be asked"):
        ask_doors(doors(*addresses), "mine")
