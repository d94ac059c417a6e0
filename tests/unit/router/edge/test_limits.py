"""What clients of both doors see of tenants and limits: who they are taken for, what counts, and when to come back."""

from collections.abc import AsyncIterator

import grpc
import httpx
import pytest

from tercet.client import AsyncClient, RetryPolicy
from tercet.clock import ManualClock
from tercet.config import LimitsConfig, RateLimits, TenantLimits
from tercet.errors import RateLimited
from tercet.pb import tercet_pb2 as pb
from tercet.pb import tercet_pb2_grpc
from tercet.router.fake_service import saying, spell
from tercet.router.fake_source import MODEL, FakeSource
from tercet.router.rpc import start_grpc
from tercet.router.service import Service

BODY = {"model": MODEL, "prompt": "x" * 10}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def source(clock: ManualClock) -> FakeSource:
    """Two calls, or 100 tokens, at once for each tenant; answers have 6 tokens."""
    limits = LimitsConfig(
        each_tenant=RateLimits(requests_per_s=0.5, tokens_per_s=25.0, burst_s=4.0),
        tenants={"big": TenantLimits(requests_per_s=100.0, tokens_per_s=100.0)},
        models={MODEL: RateLimits(tokens_per_s=250.0, burst_s=4.0)},
    )
    return FakeSource(saying("Hello"), limits=limits, clock=clock)


@pytest.fixture
async def target(service: Service) -> AsyncIterator[str]:
    server, port = await start_grpc(service, "127.0.0.1", 0)
    yield f"127.0.0.1:{port}"
    await server.stop(grace=None)


async def ask(http: httpx.AsyncClient, tenant: str = "", **fields: object) -> httpx.Response:
    headers = {"x-tenant-id": tenant} if tenant else {}
    return await http.post("/v1/completions", json={**BODY, **fields}, headers=headers)


async def test_a_tenant_that_sends_too_many_calls_is_told_which_limit_and_when(
    http: httpx.AsyncClient, source: FakeSource, clock: ManualClock
) -> None:
    assert [(await ask(http, "acme")).status_code for _ in range(2)] == [200, 200]
    clock.advance(0.75)
    reply = await ask(http, "acme", stream=True)
    assert reply.status_code == 429
    assert reply.json()["error"] == {
        "message": "the limit of tenant 'acme' is 0.5 requests a second; retry after 1.2 s",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limited",
    }
    assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("2", "1250")
    assert len(source.specs) == 2, "nothing was generated for it"
    assert (await ask(http, "other")).status_code == 200
    clock.advance(1.25)
    assert (await ask(http, "acme")).status_code == 200


async def test_prompt_and_output_count_as_the_usage_says(
    http: httpx.AsyncClient, clock: ManualClock
) -> None:
    usage = (await ask(http, "acme", prompt="x" * 94)).json()["usage"]
    assert usage["total_tokens"] == 100
    reply = await ask(http, "acme", prompt="x" * 50)
    assert "is 25 tokens a second" in reply.json()["error"]["message"]
    assert reply.headers["retry-after-ms"] == "2000"


async def test_output_that_was_asked_for_and_not_generated_costs_nothing(
    http: httpx.AsyncClient,
) -> None:
    assert (await ask(http, "acme", max_tokens=400)).status_code == 200
    assert (await ask(http, "acme", max_tokens=400, prompt="x" * 84)).status_code == 200


async def test_a_call_is_one_request_and_a_prompt_counts_once_however_many_choices(
    http: httpx.AsyncClient, source: FakeSource
) -> None:
    for _ in range(2):
        reply = await ask(http, "acme", n=4)
        assert (reply.status_code, reply.json()["usage"]["total_tokens"]) == (200, 34)
    assert source.tenants == ["acme"] * 8
    assert (await ask(http, "acme")).status_code == 429


async def test_tokens_behind_a_stop_string_are_not_charged(
    http: httpx.AsyncClient, source: FakeSource
) -> None:
    source.tokens_per_piece = 100
    usage = (await ask(http, "acme", prompt="x" * 90, stop="l")).json()["usage"]
    assert usage["total_tokens"] == 93
    assert (await ask(http, "acme", prompt="x" * 7)).status_code == 200


async def test_the_models_limit_is_for_all_tenants_together(http: httpx.AsyncClient) -> None:
    for number in range(10):
        assert (await ask(http, f"tenant-{number}", prompt="x" * 94)).status_code == 200
    reply = await ask(http, "late", prompt="x" * 94)
    assert reply.status_code == 429
    assert int(reply.headers["retry-after-ms"]) == pytest.approx(376, abs=1)
    assert reply.json()["error"]["message"].startswith("the limit of model 'toy' is 250 tokens")


async def test_a_tenant_with_a_section_has_its_own_limits(http: httpx.AsyncClient) -> None:
    assert [(await ask(http, "big")).status_code for _ in range(10)] == [200] * 10
    reply = await ask(http, "big", prompt="x" * 394)
    assert reply.json()["error"]["message"].startswith("the limit of tenant 'big' is 100 tokens")


async def test_calls_without_a_tenant_share_the_limits_of_one(http: httpx.AsyncClient) -> None:
    assert [(await ask(http)).status_code for _ in range(3)] == [200, 200, 429]


async def test_refusals_are_counted_by_limit_and_not_by_name(http: httpx.AsyncClient) -> None:
    for tenant in ("a", "b"):
        for _ in range(3):
            await ask(http, tenant)
    text = (await http.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("tercet_rate_limited_total")]
    assert sorted(lines) == [
        'tercet_rate_limited_total{limit="model_requests"} 0.0',
        'tercet_rate_limited_total{limit="model_tokens"} 0.0',
        'tercet_rate_limited_total{limit="tenant_requests"} 2.0',
        'tercet_rate_limited_total{limit="tenant_tokens"} 0.0',
    ]


async def test_a_tenants_name_has_a_bound(http: httpx.AsyncClient) -> None:
    reply = await ask(http, "x" * 129)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "x-tenant-id")


async def test_grpc_clients_are_told_the_same(target: str) -> None:
    async with AsyncClient(target, retry=RetryPolicy(attempts_max=1)) as client:
        for _ in range(2):
            await client.generate("hi", tenant="acme")
        with pytest.raises(RateLimited) as whole:
            await client.generate("hi", tenant="acme")
        with pytest.raises(RateLimited) as streamed:
            await anext(client.stream("hi", tenant="acme"))
        for caught in (whole, streamed):
            assert caught.value.reason == "the limit of tenant 'acme' is 0.5 requests a second"
            assert caught.value.retry_after_s == 2.0
        await client.generate("hi", tenant="other")


async def test_metadata_of_a_proxy_say_more_than_the_message(
    target: str, source: FakeSource
) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = tercet_pb2_grpc.TercetStub(channel)  # type: ignore[no-untyped-call]
        request = pb.GenerateRequest(text="hi", tenant="claimed")
        await stub.Generate(request, metadata=(("x-tenant-id", "known"),))
        await stub.Generate(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(pb.GenerateRequest(text="hi", tenant="x" * 129))
    assert source.tenants == ["known", "claimed"]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_toy_prompt_has_a_token_a_character() -> None:
    assert len(spell("x" * 94)) == 94
