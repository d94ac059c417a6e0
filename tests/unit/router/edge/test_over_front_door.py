"""Both doors over the real front door, with real links to fake workers."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import httpx

from tercet.client import AsyncClient
from tercet.config import LimitsConfig, RateLimits
from tercet.router.fake_service import toy_tokenizer
from tercet.router.front_door import FrontDoor
from tercet.router.http import build_api
from tercet.router.preparation import ModelCard
from tercet.router.rpc import start_grpc
from tercet.router.service import Service

Until = Callable[[Callable[[], object]], Awaitable[None]]


class House(Protocol):
    """A front door and its fake workers."""

    front_door: FrontDoor

    async def remove(self, name: str) -> None: ...
    def publish(self) -> None: ...


OpenHouse = Callable[..., Awaitable[House]]


def service_of(house: House) -> Service:
    tokenizer = toy_tokenizer()
    return Service(
        ModelCard("toy", 0, 4096, tokenizer.size),
        house.front_door,
        tokenizer,
        None,
        calls_max=8,
        body_bytes_max=65536,
    )


def client_of(service: Service) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=build_api(lambda: service))
    return httpx.AsyncClient(transport=transport, base_url="http://toy")


async def test_http_counts_and_remembers_what_the_workers_did(house: OpenHouse) -> None:
    built = await house("prefill-0", "decode-0")
    async with client_of(service_of(built)) as http:
        body = {"model": "toy", "prompt": list(range(40)), "max_tokens": 8}
        reply = (await http.post("/v1/completions", json=body)).json()
        assert reply["usage"]["completion_tokens"] == 8
        assert reply["choices"][0]["finish_reason"] == "length"
        record = (await http.get(f"/tercet/requests/{reply['id']}")).json()
        assert (record["prefill_worker"], record["decode_worker"]) == ("prefill-0", "decode-0")
        assert (record["prompt_tokens"], record["output_tokens"]) == (40, 8)
        assert 'tercet_requests_total{outcome="length"} 1.0' in (await http.get("/metrics")).text


async def test_a_refused_call_reaches_no_worker_and_leaves_no_record(house: OpenHouse) -> None:
    limits = LimitsConfig(each_tenant=RateLimits(tokens_per_s=1.0, burst_s=48.0))
    built = await house("prefill-0", "decode-0", limits=limits)
    body = {"model": "toy", "prompt": list(range(40)), "max_tokens": 8}
    async with client_of(service_of(built)) as http:
        for tenant, status in (("a", 200), ("a", 429), ("b", 200)):
            headers = {"x-tenant-id": tenant}
            reply = await http.post("/v1/completions", json=body, headers=headers)
            assert reply.status_code == status
        records = (await http.get("/tercet/requests")).json()
        assert [record["tenant"] for record in records] == ["b", "a"]
        refused = 'tercet_rate_limited_total{limit="tenant_tokens"} 1.0'
        assert refused in (await http.get("/metrics")).text


async def test_ready_follows_the_decode_workers(house: OpenHouse) -> None:
    built = await house("prefill-0", "decode-0")
    async with client_of(service_of(built)) as http:
        assert (await http.get("/ready")).status_code == 200
        await built.remove("decode-0")
        built.publish()
        assert (await http.get("/ready")).status_code == 503
        assert len((await http.get("/tercet/status")).json()["workers"]) == 1


async def test_leaving_a_grpc_stream_reaches_the_workers(house: OpenHouse, until: Until) -> None:
    built = await house("prefill-0", "decode-0")
    service = service_of(built)
    server, port = await start_grpc(service, "127.0.0.1", 0)
    async with AsyncClient(f"127.0.0.1:{port}", timeout_s=10.0) as client:
        async with client.stream(token_ids=list(range(40)), max_tokens=2000, n=2) as stream:
            await anext(stream)
            assert built.front_door.status().in_flight == 2
        await until(lambda: built.front_door.status().in_flight == 0)
        whole = await client.generate(token_ids=list(range(40)), max_tokens=4)
        assert len(whole.choices[0].tokens) == 4
        assert whole.routes[0].decode_worker == "decode-0"
        assert whole.routes[0].ttft_ms is not None
    await server.stop(grace=None)
