"""Hand-offs and live moves between hosts that share nothing but a network, whatever happens to that: the output is one engine's.

The tests share their workers, so each one also shows that they got over the one before.
"""

import asyncio
from contextlib import contextmanager

import pytest

from tercet.ids import Epoch
from tercet.link.address import uses_unix
from tercet.wire import Adopt, HandedOff, Refused, Resume, Started, Submit, Tokens

pytestmark = [pytest.mark.netlab, pytest.mark.asyncio(loop_scope="module")]

LONG = 1200
"""Prompt tokens whose KV is long enough on the way to be interrupted, where the cable is slow."""
SLOW_MBIT = 10


async def hand_off(hall, to, spec, *, after: type = Started) -> None:
    door = hall.stage.door
    door.send(hall.source.worker, Submit(spec, Epoch(0), hand_off=True))
    await door.hears(after, spec.id)
    door.send(to.worker, Adopt(spec, Epoch(1), hall.source.worker.endpoint, Epoch(0)))


async def run(hall, spec, tokens: int = 5) -> None:
    """The request decodes at the source and has said so many tokens."""
    hall.stage.door.send(hall.source.worker, Submit(spec, Epoch(0)))
    await hall.stage.door.says(spec.id, tokens)


def move(hall, to, spec) -> None:
    output = list(hall.stage.door.logs[spec.id].tokens)
    source = hall.source.worker.endpoint
    hall.stage.door.send(to.worker, Adopt(spec, Epoch(1), source, Epoch(0), output, live=True))


async def finishes_rightly(hall, spec, *, recomputed: bool) -> None:
    output = await hall.stage.door.finish(spec.id)
    # On a thread, because a front door that is silent for too long is given up.
    assert output == await asyncio.to_thread(hall.stage.expected, spec)
    assert hall.stage.door.usage[spec.id].recomputed is recomputed


async def both_ways_work(hall, to, prompt_tokens: int = 300) -> None:
    """A hand-off and a live move go through, with their KV pulled over the cable."""
    before = hall.source.host.sent_bytes()
    handed, moved = hall.request(prompt_tokens), hall.request(prompt_tokens, max_tokens=150)
    await hand_off(hall, to, handed)
    await run(hall, moved)
    move(hall, to, moved)
    for spec in (handed, moved):
        await finishes_rightly(hall, spec, recomputed=False)
        await hall.stage.door.hears(HandedOff, spec.id)
        assert hall.stage.door.usage[spec.id].pulled_tokens > 0
    await hall.idle(hall.source, to)
    kv_bytes = 2 * (prompt_tokens // 16) * hall.stage.head_dim * 256
    assert hall.source.host.sent_bytes() - before > kv_bytes, "it came by another way"


async def a_pull_is_in_flight(to) -> None:
    await to.worker.until(lambda status: status.unsettled_pulls > 0)


@contextmanager
def slow(*seats, mbit_per_s: int = SLOW_MBIT):
    for seat in seats:
        seat.host.limit(mbit_per_s)
    try:
        yield
    finally:
        for seat in seats:
            seat.host.limit(0)


async def test_no_two_hosts_take_each_other_for_themselves(hall):
    endpoints = [seat.worker.endpoint for seat in (hall.source, hall.near, hall.far)]
    assert len({endpoint.host_id for endpoint in endpoints}) == 3
    for endpoint in endpoints:
        own = endpoint.host_id
        assert [uses_unix(other, own, None) for other in endpoints].count(True) == 1


async def test_requests_go_from_host_to_host(hall):
    await both_ways_work(hall, hall.near)


async def test_requests_go_from_host_to_host_at_50_mbit(hall):
    with slow(hall.source, hall.near, mbit_per_s=50):
        await both_ways_work(hall, hall.near, prompt_tokens=600)


async def test_requests_go_from_host_to_host_where_packets_come_late_or_never(hall):
    hall.far.host.wire.delay_s, hall.far.host.wire.loss = 0.005, 0.02
    await both_ways_work(hall, hall.far)


async def test_a_cut_amid_a_live_move_leaves_the_request_where_it_was(hall):
    spec = hall.request(LONG, max_tokens=200)
    await run(hall, spec)
    with slow(hall.source), parting(hall.source, hall.near):
        move(hall, hall.near, spec)
        await a_pull_is_in_flight(hall.near)
        cut(hall.source, hall.near)
        await hall.stage.door.hears(Refused, spec.id)
        hall.stage.door.send(
            hall.source.worker, Resume(spec.id, Epoch(0), Epoch(1))
        )  # as a front door does
    await finishes_rightly(hall, spec, recomputed=False)
    assert not any(
        isinstance(said, HandedOff) and said.request == spec.id for said in hall.stage.door.said
    )
    await hall.idle(hall.source, hall.near)
    await both_ways_work(hall, hall.near)


async def test_a_cut_amid_a_hand_off_costs_a_second_prefill_and_no_token(hall):
    spec = hall.request(LONG)
    with slow(hall.source), parting(hall.source, hall.near):
        await hand_off(hall, hall.near, spec, after=Tokens)
        await a_pull_is_in_flight(hall.near)
        cut(hall.source, hall.near)
        await finishes_rightly(hall, spec, recomputed=True)
    await hall.idle(hall.source, hall.near)
    await both_ways_work(hall, hall.near)


async def test_a_host_that_freezes_amid_a_pull_is_given_up_and_works_again_when_it_wakes(hall):
    spec = hall.request(LONG)
    with slow(hall.source):
        await hand_off(hall, hall.near, spec, after=Tokens)
        await a_pull_is_in_flight(hall.near)
        hall.source.host.freeze()
        try:
            await finishes_rightly(hall, spec, recomputed=True)
            status = await hall.near.worker.status()
            assert status.load.quarantined_blocks == LONG // 16, "the read was over before"
        finally:
            hall.source.host.thaw()
    await hall.idle(hall.source, hall.near)
    await hall.stage.door.dial(hall.source.worker.endpoint)
    await both_ways_work(hall, hall.near)


async def test_a_host_that_dies_amid_a_pull_costs_a_second_prefill_and_no_token(hall):
    spec = hall.request(LONG)
    hall.source.host.limit(SLOW_MBIT)
    await hand_off(hall, hall.near, spec, after=Tokens)
    await a_pull_is_in_flight(hall.near)
    hall.source.host.end()
    await finishes_rightly(hall, spec, recomputed=True)
    await hall.source.worker.process.wait()
    await hall.idle(hall.near, hall.far)


def cut(*seats) -> None:
    for seat in seats:
        seat.host.part()


@contextmanager
def parting(*seats):
    """Whatever becomes of the cut, it is healed afterwards."""
    try:
        yield
    finally:
        for seat in seats:
            seat.host.rejoin()
