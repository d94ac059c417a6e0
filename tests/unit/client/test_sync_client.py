"""The synchronous client does what its twin does; it runs on a thread here, the server on the loop."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tercet.client import Client, Generation
from tercet.errors import Cancelled, InvalidRequest, NoWorkers, Overloaded
from tercet.router.fake_source import FakeSource
from tercet.router.service import Service

Until = Callable[[Callable[[], object]], Awaitable[None]]


async def test_a_whole_answer_and_a_stream(target: str) -> None:
    def use() -> tuple[Generation, str, int]:
        with Client(target, timeout_s=10.0) as client:
            whole = client.generate(messages=[{"role": "user", "content": "hi"}])
            stream = client.stream("hi")
            text = "".join(delta.text for delta in stream)
            assert stream.summary is not None
            return whole, text, stream.summary.usage.completion_tokens

    whole, text, tokens = await asyncio.to_thread(use)
    assert whole.text == text == "Hello, world"
    assert tokens == whole.usage.completion_tokens == 13


async def test_models_and_errors(target: str) -> None:
    def use() -> list[str]:
        with Client(target, timeout_s=10.0) as client:
            with pytest.raises(InvalidRequest) as caught:
                client.generate("hi", top_p=2.0)
            assert caught.value.field == "top_p"
            return [model.name for model in client.models()]

    assert await asyncio.to_thread(use) == ["toy"]


async def test_who_is_turned_away_comes_back(target: str, source: FakeSource, until: Until) -> None:
    source.refusal = Overloaded("full", 0.02)

    def use() -> tuple[str, str]:
        with Client(target, timeout_s=10.0) as client:
            whole = client.generate("hi").text
            return whole, "".join(delta.text for delta in client.stream("hi"))

    using = asyncio.create_task(asyncio.to_thread(use))
    await until(lambda: len(source.specs) == 2)
    source.refusal = None
    assert await using == ("Hello, world", "Hello, world")


async def test_a_stream_is_never_tried_again_after_its_first_delta(
    target: str, source: FakeSource
) -> None:
    source.failure, source.fails_after_tokens = NoWorkers("all gone", 0.01), 4
    source.pause_s = 0.02

    def use() -> str:
        got = ""
        with Client(target, timeout_s=10.0) as client, pytest.raises(NoWorkers):  # noqa: PT012
            for delta in client.stream("hi"):
                got += delta.text
        return got

    got = await asyncio.to_thread(use)
    # gRPC may drop what its caller has not read when an error follows, but never the other way round.
    assert got
    assert "Hell".startswith(got)
    assert len(source.specs) == 1


async def test_leaving_a_stream_frees_everything(
    target: str, source: FakeSource, service: Service, until: Until
) -> None:
    source.gate = asyncio.Event()

    def use() -> None:
        with Client(target, timeout_s=10.0) as client, client.stream("hi") as stream:
            next(stream)
            assert source.active == 1

    await asyncio.to_thread(use)
    await until(lambda: not service.active_calls)
    assert source.active == 0


async def test_cancel_ends_a_call_by_its_id(target: str, source: FakeSource) -> None:
    source.gate = asyncio.Event()

    def use() -> bool:
        with Client(target, timeout_s=10.0) as client:
            stream = client.stream("hi", request_id="mine")
            next(stream)
            assert client.cancel("mine")
            with pytest.raises(Cancelled):
                list(stream)
            return client.cancel("mine")

    assert not await asyncio.to_thread(use)
