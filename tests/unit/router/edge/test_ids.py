"""Requests are found by every id that somebody holds, while they run and afterwards."""

import asyncio
import json

import httpx
import pytest

from tercet.client import AsyncClient
from tercet.errors import InvalidRequest
from tercet.router.fake_source import FakeSource
from tercet.router.rpc import start_grpc
from tercet.router.service import Service

BODY = {"model": "toy", "prompt": "hi"}


async def test_a_call_is_found_by_every_id_that_somebody_holds(http: httpx.AsyncClient) -> None:
    headers = {"x-request-id": "mine/1"}
    reply = await http.post("/v1/completions", json={**BODY, "n": 2}, headers=headers)
    call = reply.json()["id"]
    assert reply.headers["x-request-id"] == "mine/1"
    one = await http.get(f"/tercet/requests/{call}-1")
    assert one.json()["request"] == f"{call}-1"
    for name in (call, "mine%2F1"):
        several = await http.get(f"/tercet/requests/{name}")
        assert several.status_code == 404
        assert f"{call}-0, {call}-1" in several.json()["error"]["message"]
    again = await http.post("/v1/completions", json=BODY, headers=headers)
    found = await http.get("/tercet/requests/mine%2F1")
    assert found.json()["request"] == again.json()["id"]


async def test_an_unknown_request_is_told_what_is_kept_and_who_to_ask(
    http: httpx.AsyncClient,
) -> None:
    await http.post("/v1/completions", json=BODY)
    reply = await http.get("/tercet/requests/nobody")
    assert reply.status_code == 404
    message = reply.json()["error"]["message"]
    assert "the last 1000" in message
    assert "1 now" in message
    assert "tercet why" in message


async def test_a_running_call_is_found_and_its_waiting_choices_are_counted(
    service: Service, source: FakeSource
) -> None:
    source.gate = asyncio.Event()
    server, port = await start_grpc(service, "127.0.0.1", 0)
    async with AsyncClient(f"127.0.0.1:{port}", timeout_s=10.0) as client:
        async with client.stream("hi", n=2, request_id="mine") as stream:
            await anext(stream)
            answer = json.loads(await client.explain("mine"))
            assert len(answer["requests"]) + answer["waiting"] == 2
            assert (answer["front_door"], answer["kept"]) == ("fake", 0)
            [one] = json.loads(await client.explain("mine-0"))["requests"]
            assert (one["request"], one["outcome"]) == ("mine-0", "running")
            source.gate.set()
            async for _ in stream:
                pass
        done = json.loads(await client.explain("mine"))
        assert [record["request"] for record in done["requests"]] == ["mine-0", "mine-1"]
        assert (done["waiting"], done["kept"], done["kept_max"]) == (0, 2, 1000)
        assert json.loads(await client.explain("nobody"))["requests"] == []
        with pytest.raises(InvalidRequest, match="is required"):
            await client.explain("")
    await server.stop(grace=None)
