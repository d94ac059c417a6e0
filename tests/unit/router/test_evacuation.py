"""Requests leave a worker that is to have none: those that run move, those in its queue begin elsewhere."""

import asyncio

import pytest

from tercet.ids import WorkerId
from tercet.router.fake_worker import fake_output
from tercet.router.reception import EVACUATING_MAX
from tercet.wire import Adopt, Submit

D0, D1 = WorkerId("decode-0"), WorkerId("decode-1")
P0, P1 = WorkerId("prefill-0"), WorkerId("prefill-1")


async def output(front_door, spec) -> tuple[list[int], object]:
    tokens: list[int] = []
    async with front_door.generate(spec) as generation:
        async for piece in generation:
            tokens += piece.tokens
    return tokens, generation.record


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def crowd(home, spec, requests: int, at: WorkerId) -> tuple[list, list[asyncio.Task]]:
    """So many requests that decode at this worker."""
    for name, fake in home.peers.items():
        fake.draining = name != at
    await until(lambda: sum(seen.suspect for seen in home.front_door.status().workers) == 0)
    await asyncio.sleep(0.12)
    specs = [spec(f"r{'x' * n}", max_tokens=400) for n in range(requests)]
    tasks = [asyncio.create_task(output(home.front_door, one)) for one in specs]
    await until(lambda: len(home.peers[at].jobs) == requests)
    for fake in home.peers.values():
        fake.draining = False
    await asyncio.sleep(0.12)
    return specs, tasks


@pytest.mark.parametrize("how", ["told", "retired"])
async def test_everybody_moves_and_nobody_notices(house, spec, how):
    home = await house("decode-0", "decode-1")
    specs, tasks = await crowd(home, spec, 12, D0)
    if how == "told":
        home.peers[D0].draining = True
    else:
        del home.endpoints[D0]
        home.publish()
    await until(lambda: not home.peers[D0].jobs)
    for one, task in zip(specs, tasks, strict=True):
        tokens, record = await task
        assert tokens == fake_output(one)
        assert record.replays == 0
        (move,) = record.moves
        assert (move.source, move.destination, move.reason) == (D0, D1, "")
        assert move.stall_ms is not None
        assert record.decode_worker == D1
    lives = [message for message in home.peers[D1].heard if isinstance(message, Adopt)]
    assert all(order.live for order in lives)


async def test_who_has_nowhere_to_go_stays(house, spec):
    home = await house("decode-0")
    specs, tasks = await crowd(home, spec, 3, D0)
    home.peers[D0].draining = True
    for one, task in zip(specs, tasks, strict=True):
        tokens, record = await task
        assert tokens == fake_output(one)
        assert record.moves == ()


async def test_a_queue_is_emptied_by_beginning_elsewhere(house, spec):
    home = await house("prefill-0", "prefill-1", "decode-0")
    for name in (P0, P1):
        home.peers[name].starts = False
    tasks = [
        asyncio.create_task(output(home.front_door, spec(f"r{'x' * n}", prompt_tokens=200)))
        for n in range(6)
    ]
    await until(lambda: len(home.peers[P0].jobs) + len(home.peers[P1].jobs) == 6)
    home.peers[P1].starts = True
    home.peers[P0].draining = True
    for task in tasks:
        _, record = await task
        assert record.prefill_worker == P1 or not home.peers[P0].jobs
        assert record.replays == 0
    assert not home.peers[P0].jobs
    assert sum(isinstance(message, Submit) for message in home.peers[P1].heard) >= 1


async def test_a_destination_that_declines_is_asked_again_with_the_next_report_and_not_before(
    house, spec
):
    home = await house("decode-0", "decode-1")
    specs, tasks = await crowd(home, spec, 8, D0)
    home.peers[D1].refusals = declines = 10**9
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    home.peers[D0].draining = True
    await asyncio.sleep(0.3)
    reports = (loop.time() - began_s) / home.config.link.report_period_s
    asked = declines - home.peers[D1].refusals
    assert 0 < asked <= EVACUATING_MAX * (reports + 1)
    home.peers[D1].refusals = 0
    await until(lambda: not home.peers[D0].jobs)
    for one, task in zip(specs, tasks, strict=True):
        tokens, _ = await task
        assert tokens == fake_output(one)


async def test_a_cluster_whose_only_decode_worker_is_to_end_is_not_ready(house):
    home = await house("decode-0")
    assert home.front_door.status().ready
    home.peers[D0].draining = True
    await until(lambda: not home.front_door.status().ready)


async def test_a_worker_that_is_too_full_has_its_wish_and_an_impossible_one_changes_nothing(
    house, spec
):
    home = await house("decode-0", "decode-1")
    specs, tasks = await crowd(home, spec, 3, D0)
    wishes = list(home.peers[D0].jobs)
    home.peers[D0].want_move(wishes[0], D1)
    home.peers[D0].want_move(wishes[1], WorkerId("decode-9"))
    home.peers[D0].want_move(wishes[2], D0)
    await until(lambda: wishes[0] in home.peers[D1].jobs)
    for one, task in zip(specs, tasks, strict=True):
        tokens, record = await task
        assert tokens == fake_output(one)
        assert record.replays == 0
    moved = [(await task)[1].moves for task in tasks]
    assert sorted(map(len, moved)) == [0, 0, 1]
