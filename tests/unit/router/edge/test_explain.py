"""Whoever asks is told why a call went where it went, over both doors; whoever does not ask notices nothing."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc
import httpx
import openai
import pytest
import uvicorn

from tercet.config import RouterConfig
from tercet.ids import RequestId
from tercet.pb import tercet_pb2 as pb
from tercet.pb import tercet_pb2_grpc
from tercet.router.dualmap import PairReason
from tercet.router.fake_service import toy_tokenizer
from tercet.router.fake_worker import FakeWorker
from tercet.router.freeness import FreenessReason
from tercet.router.front_door import FrontDoor
from tercet.router.http import build_api
from tercet.router.preparation import ModelCard
from tercet.router.rpc import start_grpc
from tercet.router.service import Service

Until = Callable[[Callable[[], object]], Awaitable[None]]
DUALMAP = RouterConfig(policy="dualmap", local_prefill_tokens_max=4)
ASK = {"x-tercet-explain": "1"}
BODY = {"model": "toy", "prompt": list(range(40)), "max_tokens": 6}


class House(Protocol):
    """A front door and its fake workers."""

    front_door: FrontDoor
    peers: dict[str, FakeWorker]


OpenHouse = Callable[..., Awaitable[House]]


@pytest.fixture
async def home(house: OpenHouse) -> House:
    return await house("prefill-0", "prefill-1", "decode-0", "decode-1", router=DUALMAP)


@pytest.fixture
def service(home: House) -> Service:
    tokenizer = toy_tokenizer()
    card = ModelCard("toy", 0, 4096, tokenizer.size)
    return Service(card, home.front_door, tokenizer, None, calls_max=8, body_bytes_max=65536)


@asynccontextmanager
async def openai_client(service: Service, until: Until) -> AsyncIterator[openai.AsyncOpenAI]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(build_api(lambda: service), log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            yield client
        server.should_exit = True
        await serving


@asynccontextmanager
async def grpc_target(service: Service) -> AsyncIterator[str]:
    server, port = await start_grpc(service, "127.0.0.1", 0)
    yield f"127.0.0.1:{port}"
    await server.stop(grace=None)


def generate_request(n: int = 1, request_id: str = "") -> pb.GenerateRequest:
    return pb.GenerateRequest(
        tokens=pb.TokenIds(ids=range(40)),
        sampling=pb.Sampling(max_tokens=6),
        n=n,
        request_id=request_id,
    )


def trailing_route(entries: Any) -> Any:
    values = [value for key, value in entries if key == "x-tercet-route"]
    return json.loads(values[0]) if values else None


def assert_both_pools(route: dict[str, Any]) -> None:
    """A prefill and a decode choice, each with its reason, and the chosen one first among two candidates."""
    assert route["reason"] == "apart"
    assert [choice["role"] for choice in route["choices"]] == ["prefill", "decode"]
    for choice in route["choices"]:
        assert choice["reason"] in {*PairReason, *FreenessReason}
        assert choice["considered"] == len(choice["candidates"]) == 2
        assert choice["candidates"][0]["worker"] == choice["worker"]
        assert {"hit_tokens", "load_tokens"} <= choice["candidates"][0].keys()
    assert route["choices"][0]["candidates"][0]["predicted_ttft_ms"] > 0


async def test_a_whole_answer_carries_its_route_when_asked(
    service: Service, http: httpx.AsyncClient
) -> None:
    reply = await http.post("/v1/completions", json=BODY, headers=ASK)
    [route] = json.loads(reply.headers["x-tercet-route"])["routes"]
    assert (route["index"], route["refusals"], route["replays"]) == (0, 0, 0)
    assert_both_pools(route)
    record = (await http.get(f"/tercet/requests/{reply.json()['id']}")).json()
    chosen = [record["prefill_worker"], record["decode_worker"]]
    assert [choice["worker"] for choice in route["choices"]] == chosen


@pytest.mark.parametrize("headers", [{}, {"x-tercet-explain": "0"}])
@pytest.mark.parametrize("stream", [False, True])
async def test_without_asking_there_is_no_trace_of_it(
    http: httpx.AsyncClient, headers: dict[str, str], stream: bool
) -> None:
    reply = await http.post("/v1/completions", json={**BODY, "stream": stream}, headers=headers)
    assert reply.status_code == 200
    assert "x-tercet-route" not in reply.headers
    assert "x-tercet-route" not in reply.text


async def test_nonsense_in_the_header_is_refused(http: httpx.AsyncClient) -> None:
    headers = {"x-tercet-explain": "please"}
    reply = await http.post("/v1/completions", json=BODY, headers=headers)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "x-tercet-explain")


async def test_every_choice_has_its_route(http: httpx.AsyncClient) -> None:
    reply = await http.post("/v1/completions", json={**BODY, "n": 3}, headers=ASK)
    line = json.loads(reply.headers["x-tercet-route"])
    assert [route["index"] for route in line["routes"]] == [0, 1, 2]
    for route in line["routes"]:
        assert_both_pools(route)


async def test_a_stream_has_the_first_choice_in_its_headers_and_all_in_its_last_comment(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post("/v1/completions", json={**BODY, "stream": True}, headers=ASK)
    [early] = json.loads(reply.headers["x-tercet-route"])["routes"]
    assert early["choices"][0]["role"] == "prefill"
    *events, comment, done = [block for block in reply.text.split("\n\n") if block]
    assert done == "data: [DONE]"
    assert all(event.startswith("data: {") for event in events)
    [late] = json.loads(comment.removeprefix(": x-tercet-route "))["routes"]
    assert_both_pools(late)
    assert late["choices"][0] == early["choices"][0]


@pytest.mark.parametrize("n", [1, 3])
async def test_the_official_openai_client_streams_an_explained_answer_like_any_other(
    service: Service, until: Until, n: int
) -> None:
    async with openai_client(service, until) as client:
        texts = []
        for headers in ({}, ASK):
            stream = await client.completions.create(
                model="toy",
                prompt=list(range(40)),
                max_tokens=6,
                n=n,
                stream=True,
                stream_options={"include_usage": True},
                seed=1,
                extra_headers=headers,
            )
            text, last = [""] * n, None
            async for chunk in stream:
                for choice in chunk.choices:
                    text[choice.index] += choice.text
                last = chunk
            assert last is not None
            assert last.usage is not None, "usage is still the last chunk"
            assert stream.response.headers.get("x-tercet-route", "") or not headers
            texts.append(text)
    assert texts[0] == texts[1]


async def test_the_official_openai_client_gets_an_id_to_ask_with(
    service: Service, until: Until
) -> None:
    async with openai_client(service, until) as client:
        reply = await client.completions.create(model="toy", prompt="hello", max_tokens=2)
    assert reply._request_id == reply.id
    assert service.explain(reply.id).requests[0].request == reply.id


async def test_a_stream_that_breaks_tells_where_it_had_gone(
    home: House, http: httpx.AsyncClient, until: Until
) -> None:
    for name in ("decode-0", "decode-1"):
        home.peers[name].step_s = 0.05
    body = {**BODY, "max_tokens": 500, "stream": True}
    asked = asyncio.create_task(http.post("/v1/completions", json=body, headers=ASK))
    await until(lambda: any(peer.jobs for peer in home.peers.values()))
    await asyncio.sleep(0.1)  # a few tokens
    await home.front_door.stop()
    blocks = [block for block in (await asked).text.split("\n\n") if block]
    assert blocks[-2].startswith(": x-tercet-route {")
    assert "the front door is stopping" in blocks[-1]


async def test_grpc_answers_in_trailing_metadata(service: Service) -> None:
    async with grpc_target(service) as target, grpc.aio.insecure_channel(target) as channel:
        stub = tercet_pb2_grpc.TercetStub(channel)  # type: ignore[no-untyped-call]
        metadata = tuple(ASK.items())
        whole = stub.Generate(generate_request(n=2), metadata=metadata)
        await whole
        line = trailing_route(await whole.trailing_metadata())
        assert [route["index"] for route in line["routes"]] == [0, 1]
        stream = stub.GenerateStream(generate_request(), metadata=metadata)
        assert [chunk async for chunk in stream][-1].HasField("final")
        [route] = trailing_route(await stream.trailing_metadata())["routes"]
        assert_both_pools(route)
        silent = stub.Generate(generate_request())
        await silent
        assert trailing_route(await silent.trailing_metadata()) is None


async def test_grpc_refuses_nonsense_and_keeps_the_route_beside_an_error(
    home: House, service: Service, until: Until
) -> None:
    async with grpc_target(service) as target, grpc.aio.insecure_channel(target) as channel:
        stub = tercet_pb2_grpc.TercetStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError, match="must be 1 or 0"):
            await stub.Generate(generate_request(), metadata=(("x-tercet-explain", "yes"),))
        for peer in home.peers.values():
            peer.step_s = 0.05
        request = generate_request(request_id="mine")
        request.sampling.max_tokens = 500
        stream = stub.GenerateStream(request, metadata=tuple(ASK.items()))
        await stream.read()
        assert service.cancel(RequestId("mine"))
        assert await stream.code() is grpc.StatusCode.CANCELLED
        metadata = await stream.trailing_metadata()
        assert_both_pools(trailing_route(metadata)["routes"][0])
        assert "tercet-reason" in dict(metadata)


async def test_refusals_and_waits_are_told(home: House, http: httpx.AsyncClient) -> None:
    for name in ("decode-0", "decode-1"):
        home.peers[name].refusals = 1
    reply = await http.post("/v1/completions", json=BODY, headers=ASK)
    [route] = json.loads(reply.headers["x-tercet-route"])["routes"]
    assert route["refusals"] == 2
    assert route["waits"] >= 1, "all had refused"
