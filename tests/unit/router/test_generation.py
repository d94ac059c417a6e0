"""What a reader of a generation sees, whatever the order of deliveries and reads."""

import asyncio

import pytest

from tercet.errors import RequestFailed
from tercet.ids import RequestId
from tercet.request import FinishReason, TokenLogprobs
from tercet.router.generation import Generation, Piece
from tercet.router.record import Tally


def generation() -> Generation:
    tally = Tally(RequestId("r"), prompt_tokens=3, started_s=0.0)
    return Generation(lambda: tally.record(1.0, replays=0, refusals=0))


async def test_a_waiting_reader_is_woken_once_for_what_arrives_together() -> None:
    stream = generation()
    reader = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    stream.deliver([1], None)
    stream.deliver([2, 3], None)
    assert await reader == Piece([1, 2, 3])


async def test_tokens_before_a_failure_are_read_first() -> None:
    stream = generation()
    stream.deliver([1], [TokenLogprobs(-0.5)])
    stream.fail(RequestFailed("lost"))
    assert await anext(stream) == Piece([1], [TokenLogprobs(-0.5)])
    for _ in range(2):
        with pytest.raises(RequestFailed, match="lost"):
            await anext(stream)


async def test_the_finish_comes_with_the_last_tokens_or_alone() -> None:
    together, alone = generation(), generation()
    together.deliver([1], None)
    together.finish(FinishReason.STOP)
    assert [piece async for piece in together] == [Piece([1], None, FinishReason.STOP)]
    alone.finish(FinishReason.STOP)
    assert [piece async for piece in alone] == [Piece([], None, FinishReason.STOP)]
    assert [piece async for piece in alone] == []


async def test_logprobs_stay_with_their_tokens() -> None:
    stream = generation()
    stream.deliver([1], [TokenLogprobs(-1.0)])
    stream.deliver([2], [TokenLogprobs(-2.0)])
    assert await anext(stream) == Piece([1, 2], [TokenLogprobs(-1.0), TokenLogprobs(-2.0)])


async def test_a_reader_that_stopped_waiting_can_read_again() -> None:
    stream = generation()
    reader = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    stream.deliver([1], None)
    assert await anext(stream) == Piece([1])


async def test_an_abandoned_generation_ends() -> None:
    stream = generation()
    reader = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0)
    stream.end()
    assert await reader is None
    assert stream.record.prompt_tokens == 3
