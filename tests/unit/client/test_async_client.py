"""The asynchronous client and the gRPC door, over a real connection."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tercet.client import AsyncClient, RetryPolicy
from tercet.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    NoWorkers,
    Overloaded,
    RateLimited,
    RequestFailed,
    TercetError,
    Unavailable,
    UnknownModel,
)
from tercet.request import FinishReason, TokenLogprobs
from tercet.router.fake_service import saying, spell
from tercet.router.fake_source import FakeSource
from tercet.router.service import Service

Until = Callable[[Callable[[], object]], Awaitable[None]]


async def test_a_whole_answer(client: AsyncClient, source: FakeSource) -> None:
    source.cached_tokens = 1
    answer = await client.generate("hi", n=2, seed=5, request_id="mine")
    assert [choice.text for choice in answer.choices] == ["Hello, world"] * 2
    assert answer.text == "Hello, world"
    assert (answer.request_id, answer.model) == ("mine", "toy")
    assert answer.choices[1].finish is FinishReason.STOP
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (2, 26, 1)
    assert [route.choice for route in answer.routes] == [0, 1]
    route = answer.routes[0]
    assert (route.prefill_worker, route.decode_worker) == ("prefill-0", "decode-0")
    assert (route.pulled_bytes, route.ttft_ms, route.itl_ms) == (4096, 12.5, 1.5)
    assert [spec.sampling.seed for spec in source.specs] == [5, 6]


async def test_a_stream_gives_text_tokens_and_a_summary(
    client: AsyncClient, source: FakeSource
) -> None:
    source.script = saying("Grüße 😀")
    stream = client.stream("hi")
    deltas = [delta async for delta in stream]
    assert "".join(delta.text for delta in deltas) == "Grüße 😀"
    ids = [id_ for delta in deltas for id_ in delta.token_ids]
    assert ids == spell("Grüße 😀<|end|>")
    assert deltas[-1].finish is FinishReason.STOP
    assert stream.summary is not None
    assert stream.summary.usage.completion_tokens == len(ids)
    assert stream.request_id == source.specs[0].id


async def test_the_three_kinds_of_prompt(client: AsyncClient, source: FakeSource) -> None:
    await client.generate("ab")
    await client.generate(token_ids=[1, 2, 3])
    await client.generate(messages=[{"role": "user", "content": "hi"}])
    text, tokens, chat = (spec.prompt for spec in source.specs)
    assert text == spell("ab")
    assert tokens == [1, 2, 3]
    assert chat == spell("<|turn|>user\nhi<|turn|>assistant\n")


async def test_every_option_arrives(client: AsyncClient, source: FakeSource) -> None:
    await client.generate(
        "hi",
        max_tokens=9,
        temperature=0.7,
        top_p=0.9,
        top_k=5,
        min_p=0.05,
        repetition_penalty=1.1,
        presence_penalty=-0.5,
        frequency_penalty=0.5,
        logit_bias={7: -1.5},
        seed=2**62,
        stop_token_ids=[3],
        min_tokens=2,
        ignore_eos=True,
        logprobs=1,
        priority=-4,
        cache_salt="tenant",
        session="talk",
        tenant="acme",
        kv_ttl_s=2.5,
    )
    [spec] = source.specs
    sampling = spec.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (9, 0.7, 0.9)
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (5, 0.05, 1.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (-0.5, 0.5)
    assert (sampling.logit_bias, sampling.seed, sampling.logprobs) == ({7: -1.5}, 2**62, 1)
    assert (sampling.stop_token_ids, sampling.min_tokens, sampling.ignore_eos) == ((3,), 2, True)
    assert (spec.priority, spec.tenant_salt) == (-4, "tenant")
    assert (source.sessions, source.tenants) == (["talk"], ["acme"])
    assert (spec.priority, spec.tenant_salt, source.sessions) == (-4, "tenant", ["talk"])
    assert (spec.session, spec.kv_ttl_s) == ("talk", 2.5)


async def test_defaults_are_those_of_http(client: AsyncClient, source: FakeSource) -> None:
    await client.generate("hi")
    sampling = source.specs[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.repetition_penalty) == (1.0, 1.0, 1.0)
    assert (sampling.max_tokens, sampling.logprobs) == (510, None)


async def test_logprobs_come_with_their_tokens(client: AsyncClient, source: FakeSource) -> None:
    source.script = saying("a", eos=False)
    [choice] = (await client.generate("hi", logprobs=1, max_tokens=1)).choices
    [a] = spell("a")
    assert choice.tokens[0].logprobs == TokenLogprobs(-0.5, [(a, -0.5)])


async def test_the_deadline_reaches_the_token_level(
    client: AsyncClient, source: FakeSource
) -> None:
    await client.generate("hi", timeout_s=3.0)
    [deadline_s] = source.deadlines_s
    assert deadline_s is not None
    assert 2.0 < deadline_s < 3.1


async def test_models_are_listed(client: AsyncClient) -> None:
    [model] = await client.models()
    assert (model.name, model.context_tokens_max) == ("toy", 512)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"temperature": 3.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 600}, "prompt"),
        ({"n": 100}, "n"),
        ({"stop": ""}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"logprobs": 21}, "top_logprobs"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"stop_token_ids": [258]}, "stop_token_ids"),
    ],
)
async def test_the_server_names_the_field(
    client: AsyncClient, source: FakeSource, options: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.generate("hi", **options)  # type: ignore[arg-type]
    assert caught.value.field == field
    with pytest.raises(InvalidRequest):
        async for _ in client.stream("hi", **options):  # type: ignore[arg-type]
            pass
    assert not source.specs


@pytest.mark.parametrize(
    ("prompts", "options"),
    [
        ({}, {}),
        ({"prompt": "a", "token_ids": [1]}, {}),
        ({"prompt": "a"}, {"max_tokens": -1}),
        ({"prompt": "a"}, {"temperature": "hot"}),
        ({"prompt": "a"}, {"no_such_option": 1}),
        ({"messages": [{"role": "user", "content": 5}]}, {}),
        ({"messages": [{"role": "nobody", "content": "x"}]}, {}),
        ({"messages": []}, {}),
        ({"token_ids": []}, {}),
    ],
)
async def test_what_is_no_request_is_an_invalid_request(
    client: AsyncClient, prompts: dict[str, object], options: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest):
        await client.generate(**prompts, **options)  # type: ignore[arg-type]


async def test_an_unknown_model_comes_with_the_known_ones(client: AsyncClient) -> None:
    with pytest.raises(UnknownModel, match=r"'gpt'.*serves toy"):
        await client.generate("hi", model="gpt")


@pytest.mark.parametrize(
    "error", [RequestFailed("spent"), DeadlineExceeded("late"), Cancelled("gone")]
)
async def test_an_error_is_of_the_same_type_on_this_side(
    client: AsyncClient, source: FakeSource, error: TercetError
) -> None:
    source.refusal = error
    with pytest.raises(type(error), match=str(error)):
        await client.generate("hi")
    assert len(source.specs) == 1


@pytest.mark.parametrize(
    "error", [Overloaded("full", 0.02), RateLimited("enough", 0.02), NoWorkers("none", 0.02)]
)
async def test_who_is_turned_away_comes_back(
    client: AsyncClient, source: FakeSource, until: Until, error: TercetError
) -> None:
    source.refusal = error
    whole = asyncio.create_task(client.generate("hi"))
    await until(lambda: len(source.specs) == 2)
    source.refusal = None
    assert (await whole).text == "Hello, world"


async def test_a_stream_is_tried_again_before_its_first_delta(
    client: AsyncClient, source: FakeSource, until: Until
) -> None:
    source.refusal = Overloaded("full", 0.02)

    async def read() -> str:
        return "".join([delta.text async for delta in client.stream("hi")])

    reading = asyncio.create_task(read())
    await until(lambda: len(source.specs) == 2)
    source.refusal = None
    assert await reading == "Hello, world"


async def test_a_stream_is_never_tried_again_after_its_first_delta(
    client: AsyncClient, source: FakeSource
) -> None:
    source.failure, source.fails_after_tokens = NoWorkers("all gone", 0.01), 4
    source.pause_s = 0.02
    got = ""
    with pytest.raises(NoWorkers):  # noqa: PT012 - what comes before the error is the point
        async for delta in client.stream("hi"):
            got += delta.text
    # gRPC may drop what its caller has not read when an error follows, but never the other way round.
    assert got
    assert "Hell".startswith(got)
    assert len(source.specs) == 1


async def test_retries_end_and_the_last_error_stays(target: str, source: FakeSource) -> None:
    source.refusal = RateLimited("enough", 0.01)
    retry = RetryPolicy(attempts_max=3, first_s=0.01)
    async with AsyncClient(target, retry=retry) as client:
        with pytest.raises(RateLimited) as caught:
            await client.generate("hi")
    assert (caught.value.reason, caught.value.retry_after_s) == ("enough", 0.01)
    assert len(source.specs) == 3


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    retry = RetryPolicy(attempts_max=2, first_s=0.01)
    async with AsyncClient("127.0.0.1:1", retry=retry, timeout_s=5.0) as client:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await client.models()


async def test_leaving_a_stream_frees_everything(
    client: AsyncClient, source: FakeSource, service: Service, until: Until
) -> None:
    source.gate = asyncio.Event()
    async with client.stream("hi", n=3) as stream:
        await anext(stream)
        assert source.active == 3
    await until(lambda: not service.active_calls)
    assert source.active == 0


async def test_giving_up_a_call_frees_everything(
    client: AsyncClient, source: FakeSource, service: Service, until: Until
) -> None:
    source.gate = asyncio.Event()
    waiting = asyncio.create_task(client.generate("hi"))
    await until(lambda: source.active)
    waiting.cancel()
    await until(lambda: not service.active_calls)
    assert waiting.cancelled()


async def test_a_deadline_that_passes_frees_everything(
    client: AsyncClient, source: FakeSource, service: Service, until: Until
) -> None:
    source.gate = asyncio.Event()
    with pytest.raises(DeadlineExceeded):
        await client.generate("hi", timeout_s=0.2)
    await until(lambda: not service.active_calls)


async def test_cancel_ends_a_call_by_its_id(client: AsyncClient, source: FakeSource) -> None:
    source.gate = asyncio.Event()
    stream = client.stream("hi", request_id="mine")
    await anext(stream)
    assert await client.cancel("mine")
    with pytest.raises(Cancelled):
        async for _ in stream:
            pass
    assert not await client.cancel("mine")


async def test_a_bug_is_reported_without_its_text(
    client: AsyncClient, source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    source.script = lambda spec: [1 // 0]
    with pytest.raises(RequestFailed, match="internal error"):
        await client.generate("hi")
    assert "ZeroDivisionError" in caplog.text


async def test_a_request_larger_than_the_door_reads_is_invalid(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequest, match="larger than max"):
        await client.generate("x" * 100_000)


async def test_a_reason_in_any_script_comes_through(client: AsyncClient) -> None:
    with pytest.raises(UnknownModel, match="模型"):
        await client.generate("hi", model="模型")
