"""Over a real socket, with OpenAI's own client; and what happens when a client goes away."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import openai
import pytest
import uvicorn

from tercet.errors import Overloaded
from tercet.router.fake_service import saying
from tercet.router.fake_source import FakeSource
from tercet.router.http import build_api
from tercet.router.service import Service

Until = Callable[[Callable[[], object]], Awaitable[None]]

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def url(service: Service, until: Until) -> AsyncIterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(build_api(lambda: service), log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_the_openai_client_gets_a_whole_answer(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(model="toy", messages=HI, n=2, logprobs=True)
    assert [choice.message.content for choice in reply.choices] == ["Hello, world"] * 2
    assert reply.choices[0].logprobs is not None
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 26


async def test_the_openai_client_streams(client: openai.AsyncOpenAI, source: FakeSource) -> None:
    source.script = saying("Grüße, 世界 😀!")
    text, usage = "", None
    stream = await client.chat.completions.create(
        model="toy", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == "Grüße, 世界 😀!"
    assert usage is not None
    assert usage.completion_tokens == len("Grüße, 世界 😀!".encode()) + 1


async def test_the_openai_client_streams_plain_completions(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(model="toy", prompt="x", stream=True, max_tokens=5)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello"
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_the_openai_client_understands_refusals(
    client: openai.AsyncOpenAI, source: FakeSource
) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="gpt", messages=HI)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="toy", messages=HI, temperature=3)
    assert caught.value.param == "temperature"
    source.refusal = Overloaded("full", 1.0)
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="toy", messages=HI)
    assert len((await client.models.list()).data) == 1


async def test_the_openai_client_retries_when_told_to(
    url: str, source: FakeSource, until: Until
) -> None:
    source.refusal = Overloaded("full", 0.05)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=2) as client:
        asked = asyncio.create_task(client.chat.completions.create(model="toy", messages=HI))
        await until(lambda: source.specs)
        source.refusal = None
        assert (await asked).choices[0].message.content == "Hello, world"
    assert len(source.specs) == 2


@pytest.mark.parametrize("choices", [1, 3])
async def test_a_client_that_leaves_a_stream_frees_everything(
    url: str, source: FakeSource, service: Service, until: Until, choices: int
) -> None:
    source.gate = asyncio.Event()
    body = {"model": "toy", "messages": HI, "stream": True, "n": choices}
    async with (
        httpx.AsyncClient(base_url=url) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as reply,
    ):
        await anext(reply.aiter_lines())
        assert source.active == choices
    await until(lambda: not service.active_calls)
    assert source.active == 0


async def test_a_client_that_leaves_before_the_first_token_frees_everything(
    url: str, source: FakeSource, service: Service, until: Until
) -> None:
    source.pause_s = 60.0
    async with httpx.AsyncClient(base_url=url) as client:
        body = {"model": "toy", "messages": HI}
        asked = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await until(lambda: source.active)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    await until(lambda: not service.active_calls)
    assert source.active == 0
