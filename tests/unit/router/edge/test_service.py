"""A call's life: places, choices, cancellation, and that nothing of it remains."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tercet.errors import (
    Cancelled,
    InvalidRequest,
    NoWorkers,
    Overloaded,
    RequestFailed,
    UnknownModel,
)
from tercet.ids import RequestId
from tercet.request import FinishReason, Sampling
from tercet.router.call import Call, ChatPrompt, ContextExceeded, TextPrompt, TokenPrompt
from tercet.router.chat import ChatMessage
from tercet.router.fake_service import fake_service, saying, spell
from tercet.router.fake_source import FakeSource
from tercet.router.service import Service

Until = Callable[[Callable[[], object]], Awaitable[None]]


def call(
    *prompts: str,
    max_tokens: int = 0,
    seed: int = 0,
    choices: int = 1,
    stop: tuple[str, ...] = (),
    echo: bool = False,
    model: str = "toy",
    id_: str = "call",
) -> Call:
    return Call(
        id=RequestId(id_),
        model=model,
        prompts=tuple(TextPrompt(prompt) for prompt in prompts or ("hi",)),
        sampling=Sampling(max_tokens=max_tokens, seed=seed),
        choices=choices,
        stop=stop,
        echo=echo,
    )


async def texts(service: Service, asked: Call) -> list[str]:
    async with service.generate(asked) as completion:
        return [answer.text for answer in await completion.whole()]


async def test_choices_have_their_own_seeds_and_ids(service: Service, source: FakeSource) -> None:
    assert await texts(service, call("a", "b", choices=2, seed=7)) == ["Hello, world"] * 4
    assert [spec.sampling.seed for spec in source.specs] == [7, 8, 7, 8]
    assert [spec.id for spec in source.specs] == ["call-0", "call-1", "call-2", "call-3"]
    assert [spec.prompt for spec in source.specs] == [spell(p) for p in ("a", "a", "b", "b")]


async def test_a_single_choice_keeps_the_calls_id(service: Service, source: FakeSource) -> None:
    await texts(service, call())
    assert source.specs[0].id == "call"


async def test_usage_counts_each_prompt_once_and_every_token(
    service: Service, source: FakeSource
) -> None:
    source.cached_tokens = 2
    async with service.generate(call("abc", "de", choices=2)) as completion:
        await completion.whole()
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (5, 4 * 13, 4)
    assert usage.total_tokens == 5 + 4 * 13


async def test_max_tokens_defaults_to_the_rest_of_the_context(source: FakeSource) -> None:
    service = fake_service(source, context_tokens_max=20)
    source.script = saying("x" * 100, eos=False)
    assert await texts(service, call("abcde")) == ["x" * 15]


@pytest.mark.parametrize("max_tokens", [16, 2**31 - 1])
async def test_what_does_not_fit_is_refused_with_the_numbers(
    source: FakeSource, max_tokens: int
) -> None:
    service = fake_service(source, context_tokens_max=20)
    with pytest.raises(ContextExceeded, match="context is 20 tokens") as caught:
        await texts(service, call("abcde", max_tokens=max_tokens))
    assert "5 in the prompt" in str(caught.value)
    with pytest.raises(ContextExceeded):
        await texts(service, call("a" * 20))
    assert not source.specs
    assert service.active_calls == 0


@pytest.mark.parametrize(
    ("sampling", "prompt", "field"),
    [
        (Sampling(), TokenPrompt(()), "prompt"),
        (Sampling(), TokenPrompt((258,)), "prompt"),
        (Sampling(), TextPrompt(""), "prompt"),
        (Sampling(logit_bias={258: 1.0}), TextPrompt("a"), "logit_bias"),
        (Sampling(stop_token_ids=(300,)), TextPrompt("a"), "stop_token_ids"),
    ],
)
async def test_what_only_the_vocabulary_can_judge_is_judged(
    service: Service, sampling: Sampling, prompt: TextPrompt | TokenPrompt, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await texts(service, Call(RequestId("c"), "toy", (prompt,), sampling))
    assert caught.value.field == field


async def test_without_a_template_there_is_no_chat(source: FakeSource) -> None:
    service = fake_service(source, chat=False)
    prompt = ChatPrompt((ChatMessage("user", "hi"),))
    with pytest.raises(InvalidRequest, match="no chat template"):
        await texts(service, Call(RequestId("c"), "toy", (prompt,), Sampling()))


async def test_an_unknown_model_is_refused(service: Service) -> None:
    with pytest.raises(UnknownModel, match="toy"):
        await texts(service, call(model="other"))


async def test_echo_begins_with_the_prompt(service: Service) -> None:
    assert await texts(service, call("Well. ", echo=True)) == ["Well. Hello, world"]


async def test_a_stop_string_ends_one_choice_and_leaves_the_other(
    service: Service, source: FakeSource
) -> None:
    answers = {7: spell("abcdefgh"), 8: spell("xyz")}
    source.script = lambda spec: answers[spec.sampling.seed]
    async with service.generate(call(choices=2, seed=7, stop=("cd",))) as completion:
        first, second = await completion.whole()
    assert (first.text, first.finish) == ("ab", FinishReason.STOP)
    assert (second.text, second.finish) == ("xyz", FinishReason.STOP)


async def test_leaving_early_leaves_every_generation(service: Service, source: FakeSource) -> None:
    source.gate = asyncio.Event()
    async with service.generate(call(choices=3)) as completion:
        async for deltas in completion:
            assert deltas
            break
        assert source.active == 3
    assert source.active == 0


@pytest.mark.parametrize("error", [Overloaded("full", 2.0), NoWorkers("none", 1.0)])
async def test_one_choice_without_a_place_fails_the_call(
    service: Service, source: FakeSource, error: Exception
) -> None:
    source.refusal = error  # type: ignore[assignment]
    with pytest.raises(type(error)):
        await texts(service, call(choices=3))


async def test_what_arrived_before_a_failure_is_delivered_first(
    service: Service, source: FakeSource
) -> None:
    source.failure, source.fails_after_tokens = RequestFailed("spent"), 4
    got = ""
    with pytest.raises(RequestFailed):  # noqa: PT012 - what comes before the error is the point
        async with service.generate(call()) as completion:
            async for deltas in completion:
                got += deltas[0].text
    assert got == "Hell"


async def test_a_bug_below_is_not_swallowed(service: Service, source: FakeSource) -> None:
    source.script = lambda spec: [1 // 0]
    with pytest.raises(ZeroDivisionError):
        await texts(service, call())


async def test_a_cancelled_call_ends_for_whoever_waits_for_it(
    service: Service, source: FakeSource, until: Until
) -> None:
    source.gate = asyncio.Event()
    waiting = asyncio.create_task(texts(service, call()))
    await until(lambda: source.active)
    assert service.cancel(RequestId("call"))
    with pytest.raises(Cancelled):
        await waiting
    assert not service.cancel(RequestId("call"))


async def test_a_call_can_be_cancelled_while_it_is_tokenised(
    source: FakeSource, until: Until
) -> None:
    service = fake_service(source, context_tokens_max=10**6)
    waiting = asyncio.create_task(texts(service, call("a" * 400_000)))
    await until(lambda: service.active_calls)
    assert service.cancel(RequestId("call"))
    with pytest.raises(Cancelled):
        await waiting
    assert not source.specs


async def test_an_id_serves_one_call_at_a_time(service: Service, source: FakeSource) -> None:
    source.gate = asyncio.Event()
    async with service.generate(call()):
        with pytest.raises(InvalidRequest, match="in use"):
            await texts(service, call())
    source.gate = None
    assert await texts(service, call()) == ["Hello, world"]


async def test_more_calls_than_places_are_turned_away(source: FakeSource) -> None:
    service = fake_service(source, calls_max=1)
    source.gate = asyncio.Event()
    async with service.generate(call(id_="first")):
        with pytest.raises(Overloaded):
            await texts(service, call(id_="second"))


async def test_a_slow_reader_gets_everything_in_one_delta(service: Service) -> None:
    async with service.generate(call()) as completion:
        for _ in range(100):
            await asyncio.sleep(0)
        batches = [deltas async for deltas in completion]
    assert [[delta.text for delta in deltas] for deltas in batches] == [["Hello, world"]]
