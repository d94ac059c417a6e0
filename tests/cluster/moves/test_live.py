"""Requests that change their worker while they run, over real sockets and real NIXL: the output is that of one engine."""

import asyncio
import signal

import msgspec
import pytest

from tercet.ids import Epoch
from tercet.wire import Adopt, Cancel, HandedOff, Refused, Submit, Tokens

STEP_S = 0.01


async def running(stage, worker, spec, tokens: int = 5) -> None:
    """The request decodes at that worker and has said so many tokens."""
    stage.door.send(worker, Submit(spec, Epoch(0)))
    await stage.door.says(spec.id, tokens)


def move(stage, source, destination, spec, epoch: int = 0) -> None:
    output = stage.door.logs[spec.id].tokens
    order = Adopt(spec, Epoch(epoch + 1), source.endpoint, Epoch(epoch), list(output), live=True)
    stage.door.send(destination, order)


async def test_a_request_moves_while_it_decodes_and_nobody_can_tell(stage):
    source, destination = await stage.pair(STEP_S)
    specs = [stage.request(f"r{'x' * i}", 30 + 200 * i, max_tokens=200) for i in range(4)]
    for spec in specs:
        await running(stage, source, spec)
    for spec in specs:
        move(stage, source, destination, spec)
    for spec in specs:
        assert await stage.door.finish(spec.id) == stage.expected(spec)
        await stage.door.hears(HandedOff, spec.id)
        assert stage.door.usage[spec.id].pulled_tokens > 0
        assert not stage.door.usage[spec.id].recomputed
    assert (await destination.idle()).committed == 4
    await source.idle()


async def test_a_request_moves_there_and_back_again(stage):
    here, there = await stage.pair(STEP_S)
    spec = stage.request("r", 100, max_tokens=120)
    await running(stage, here, spec)
    for epoch in range(6):
        source, destination = (here, there) if epoch % 2 == 0 else (there, here)
        move(stage, source, destination, spec, epoch)
        await stage.door.speaks(spec.id, Epoch(epoch + 1))
    assert await stage.door.finish(spec.id) == stage.expected(spec)
    await asyncio.gather(here.idle(), there.idle())


async def test_a_prompt_that_is_being_computed_moves_with_what_there_is(stage):
    source, destination = await stage.pair(0.1)
    spec = stage.request("r", 600)
    stage.door.send(source, Submit(spec, Epoch(0)))
    await source.until(lambda status: status.load.blocks_used > 0)
    stage.door.send(destination, Adopt(spec, Epoch(1), source.endpoint, Epoch(0), live=True))
    assert await stage.door.finish(spec.id) == stage.expected(spec)
    assert 0 < stage.door.usage[spec.id].pulled_tokens < 600
    await asyncio.gather(source.idle(), destination.idle())


@pytest.mark.long
async def test_log_probabilities_are_told_for_every_token(stage):
    source, destination = await stage.pair(STEP_S)
    spec = stage.request("r", 100, max_tokens=200)
    sampling = msgspec.structs.replace(spec.sampling, logprobs=2)
    spec = msgspec.structs.replace(spec, sampling=sampling)
    await running(stage, source, spec)
    move(stage, source, destination, spec)
    assert await stage.door.finish(spec.id) == stage.expected(spec)
    told = [m for m in stage.door.said if isinstance(m, Tokens) and m.tokens]
    assert all(m.logprobs and len(m.logprobs) == len(m.tokens) for m in told)


@pytest.mark.long
async def test_a_destination_that_dies_leaves_the_request_to_its_source(stage):
    source, destination = await stage.pair(STEP_S)
    spec = stage.request("r", 600, max_tokens=150)
    await running(stage, source, spec)
    destination.signal(signal.SIGSTOP)  # it never gets as far as to say anything
    move(stage, source, destination, spec)
    destination.signal(signal.SIGKILL)
    assert await stage.door.finish(spec.id) == stage.expected(spec)
    await source.idle()


@pytest.mark.long
async def test_a_full_destination_declines_and_the_source_does_not_even_pause(stage):
    source, destination = await stage.pair(STEP_S)
    full = stage.request("full", 1600, max_tokens=900)
    stage.door.send(destination, Submit(full, Epoch(0)))
    await stage.door.hears(Tokens, full.id)
    spec = stage.request("r", 1000, max_tokens=40)
    await running(stage, source, spec)
    move(stage, source, destination, spec)
    await stage.door.hears(Refused, spec.id)
    assert await stage.door.finish(spec.id) == stage.expected(spec)
    assert not any(isinstance(m, HandedOff) for m in stage.door.said)
    stage.door.send(destination, Cancel(full.id, Epoch(0)))
    await asyncio.gather(source.idle(), destination.idle())


@pytest.mark.long
@pytest.mark.parametrize("to", ["source", "destination"])
async def test_a_cancel_amid_a_move_leaves_nothing_behind(stage, to):
    source, destination = await stage.pair(STEP_S)
    spec = stage.request("r", 600, max_tokens=200)
    await running(stage, source, spec)
    move(stage, source, destination, spec)
    first, second = (source, destination) if to == "source" else (destination, source)
    stage.door.send(first, Cancel(spec.id, Epoch(1)))
    await asyncio.sleep(0.05)
    stage.door.send(second, Cancel(spec.id, Epoch(1)))
    await asyncio.gather(source.idle(), destination.idle())


@pytest.mark.long
async def test_a_front_door_that_leaves_amid_a_move_leaves_nothing_behind(stage):
    source, destination = await stage.pair(STEP_S)
    specs = [stage.request(f"r{'x' * i}", 300, max_tokens=400) for i in range(3)]
    for spec in specs:
        await running(stage, source, spec)
        move(stage, source, destination, spec)
    await stage.door.close()
    await asyncio.gather(source.idle(), destination.idle())
