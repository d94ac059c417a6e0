"""An operator has a running call moved, over both doors; its client notices nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import httpx
import msgspec
import pytest

from tercet.cli.finding import NotFound
from tercet.cli.moving import move_call
from tercet.client import AsyncClient
from tercet.cluster.status import FrontDoorReport
from tercet.ids import FrontDoorId, RequestId, WorkerId
from tercet.router.fake_service import toy_tokenizer
from tercet.router.fake_source import FakeSource
from tercet.router.fake_worker import FakeWorker
from tercet.router.front_door import FrontDoor
from tercet.router.preparation import ModelCard
from tercet.router.relocation import Relocation
from tercet.router.rpc import start_grpc
from tercet.router.service import Service

Until = Callable[[Callable[[], object]], Awaitable[None]]
BODY = {"model": "toy", "prompt": "hi", "max_tokens": 6}


class House(Protocol):
    """A front door and its fake workers."""

    front_door: FrontDoor
    peers: dict[str, FakeWorker]


OpenHouse = Callable[..., Awaitable[House]]


def moves(reply: httpx.Response) -> list[dict[str, str]]:
    assert reply.status_code == 202, reply.text
    return list(reply.json()["moves"])


async def test_a_call_nobody_knows_is_not_found(http: httpx.AsyncClient) -> None:
    reply = await http.post("/tercet/requests/cmpl-lost/move")
    assert reply.status_code == 404
    assert "no request 'cmpl-lost' is remembered here" in reply.json()["error"]["message"]


async def test_a_call_that_has_ended_stays_where_it_was(http: httpx.AsyncClient) -> None:
    done = (await http.post("/v1/completions", json=BODY)).json()["id"]
    reply = await http.post(f"/tercet/requests/{done}/move", json={"to": "decode-1"})
    assert reply.status_code == 409
    assert reply.json()["error"]["message"] == f"{done}: it has ended"


async def test_a_body_of_nonsense_is_refused(http: httpx.AsyncClient) -> None:
    reply = await http.post("/tercet/requests/x/move", json={"too": "decode-1"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_all_choices_move_or_the_one_that_is_named(
    http: httpx.AsyncClient, source: FakeSource, until: Until
) -> None:
    source.gate = asyncio.Event()
    headers = {"x-request-id": "my/own"}
    call = asyncio.create_task(http.post("/v1/completions", json={**BODY, "n": 2}, headers=headers))
    await until(lambda: source.active == 2)
    first, second = sorted(spec.id for spec in source.specs)
    every = moves(await http.post("/tercet/requests/my/own/move", json={"to": "decode-1"}))
    assert every == [{"request": first, "to": "decode-1"}, {"request": second, "to": "decode-1"}]
    assert moves(await http.post(f"/tercet/requests/{second}/move")) == [
        {"request": second, "to": "decode-0"}
    ]
    assert source.relocated == [(first, "decode-1"), (second, "decode-1"), (second, None)]
    source.stays = "decode-1 may not be asked now"
    refused = await http.post(f"/tercet/requests/{first}/move")
    assert refused.status_code == 409
    assert refused.json()["error"]["message"] == f"{first}: decode-1 may not be asked now"
    source.gate.set()
    await call


async def test_a_front_door_moves_by_the_callers_name_and_says_what_it_does_not_know(
    house: OpenHouse, until: Until
) -> None:
    home = await house("decode-0", "decode-1")
    for peer in home.peers.values():
        peer.step_s = 0.01
    tokenizer = toy_tokenizer()
    card = ModelCard("toy", 0, 4096, tokenizer.size)
    service = Service(card, home.front_door, tokenizer, None, calls_max=8, body_bytes_max=65536)
    server, port = await start_grpc(service, "127.0.0.1", 0)
    report = FrontDoorReport(front_door=FrontDoorId("front-door"), grpc=f"127.0.0.1:{port}")
    async with AsyncClient(report.grpc, timeout_s=10.0) as client:
        options = {"max_tokens": 100, "request_id": "mine"}
        call = asyncio.create_task(client.generate(token_ids=list(range(40)), **options))
        await until(lambda: any(peer.jobs for peer in home.peers.values()))
        owner = next(name for name, peer in home.peers.items() if peer.jobs)
        other = next(name for name in home.peers if name != owner)
        await until(lambda: service.explain("mine").requests)
        [ending] = await asyncio.to_thread(move_call, [report], "mine", other)
        assert ending.moved, ending
        assert f"mine: {owner} → {other}: taken over after" in str(ending)
        [again] = await asyncio.to_thread(move_call, [report], "mine", other)
        assert str(again) == f"mine: stays where it is: it is at {other} already"
        lost = msgspec.json.decode(await client.move("nobody"), type=Relocation)
        assert lost.moves == ()
        with pytest.raises(NotFound, match="no front door knows 'nobody'"):
            await asyncio.to_thread(move_call, [report], "nobody", "")
        assert len((await call).choices[0].tokens) == 100
    await server.stop(grace=None)
    assert home.front_door.history.find(RequestId("mine")).decode_worker == WorkerId(other)
