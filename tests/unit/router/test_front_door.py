"""The front door against fake workers over real links: what clients see when workers refuse, die, stall and return."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tercet.config import RouterConfig
from tercet.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidRequest,
    NoWorkers,
    Overloaded,
    RequestFailed,
)
from tercet.ids import FIRST_EPOCH, FrontDoorId, WorkerId
from tercet.request import FinishReason, RequestSpec
from tercet.router.fake_worker import FakeWorker, fake_output
from tercet.router.front_door import FrontDoor
from tercet.router.record import Outcome
from tercet.router.session import RETRY_S_MIN
from tercet.router.split import SplitReason
from tercet.wire import Adopt, Cancel, Membership, Submit, Tokens

OpenHouse = Callable[..., Awaitable[Any]]
MakeSpec = Callable[..., RequestSpec]


async def collect(door: FrontDoor, spec: RequestSpec, **options: Any) -> list[int]:
    """All tokens of one request."""
    out: list[int] = []
    async with door.generate(spec, **options) as generation:
        async for piece in generation:
            out += piece.tokens
    return out


async def until(condition: Callable[[], bool], timeout_s: float = 3.0) -> None:
    """Wait for something that other tasks bring about."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - it happens at the other end of a socket
            await asyncio.sleep(0.005)


def said(worker: FakeWorker, kind: type) -> list[Any]:
    return [message for message in worker.heard if isinstance(message, kind)]


# ---- the good way ----------------------------------------------------------------------------------------------------


async def test_a_request_is_prefilled_by_one_worker_and_decoded_by_another(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("prefill-0", "decode-0")
    request = spec()
    async with home.front_door.generate(request, session="talk", tenant="acme") as generation:
        pieces = [piece async for piece in generation]
    assert [token for piece in pieces for token in piece.tokens] == fake_output(request)
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish is FinishReason.LENGTH
    record = generation.record
    assert (record.prefill_worker, record.decode_worker) == ("prefill-0", "decode-0")
    assert (record.local, record.reason) == (False, SplitReason.APART)
    assert (record.session, record.tenant) == ("talk", "acme")
    assert (record.prompt_tokens, record.output_tokens, record.pulled_tokens) == (40, 8, 40)
    assert record.outcome is Outcome.LENGTH
    assert 0 <= record.queue_ms <= (record.ttft_ms or 0) <= record.total_ms
    assert home.front_door.history.recent(5) == [record]


async def test_without_prefill_workers_the_decode_worker_does_everything(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("decode-0")
    request = spec()
    async with home.front_door.generate(request) as generation:
        out = [token async for piece in generation for token in piece.tokens]
    assert out == fake_output(request)
    record = generation.record
    assert (record.prefill_worker, record.decode_worker, record.local) == (None, "decode-0", True)
    assert record.reason is SplitReason.NO_PREFILL


async def test_a_second_turn_stays_where_its_prefix_is_cached(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("prefill-0", "decode-0", "decode-1", "decode-2")
    door = home.front_door
    first = spec("first", prompt_tokens=64, max_tokens=33)
    answer = await collect(door, first)
    await collect(door, spec("other", prompt_tokens=40))
    decode_worker = door.history.find(first.id).decode_worker
    second = RequestSpec(spec("second").id, [*first.prompt, *answer], first.sampling)
    await collect(door, second)
    record = door.history.find(second.id)
    assert record.decode_worker == decode_worker
    assert record.reason is SplitReason.SHORT, "all but one token is cached there"
    assert record.predicted_cached_tokens == 96


async def test_many_requests_at_once_are_all_exact(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("prefill-0", "prefill-1", "decode-0", "decode-1")
    requests = [spec(f"r{number:03}" + "x" * number, max_tokens=20) for number in range(40)]
    outputs = await asyncio.gather(*(collect(home.front_door, one) for one in requests))
    assert outputs == [fake_output(one) for one in requests]
    routes = {
        (record.prefill_worker, record.decode_worker)
        for record in home.front_door.history.recent(100)
    }
    assert len(routes) == 4, "the ledger spreads a burst before any report comes"


async def test_a_slow_reader_gets_what_waited_in_one_piece(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("decode-0")
    request = spec(max_tokens=50)
    async with home.front_door.generate(request) as generation:
        await until(lambda: generation.record.outcome is not Outcome.RUNNING)
        pieces = [piece async for piece in generation]
    assert [(piece.tokens, piece.finish) for piece in pieces] == [
        (fake_output(request), FinishReason.LENGTH)
    ]


# ---- refusals and overload -------------------------------------------------------------------------------------------


async def test_a_refused_request_goes_to_the_next_worker(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("prefill-0", "prefill-1", "decode-0", "decode-1")
    for name in ("prefill-0", "decode-0"):
        home.peers[WorkerId(name)].refusals = 1000
    requests = [spec("r" + "x" * number) for number in range(6)]
    outputs = await asyncio.gather(*(collect(home.front_door, one) for one in requests))
    assert outputs == [fake_output(one) for one in requests]
    records = home.front_door.history.recent(10)
    assert {record.decode_worker for record in records} == {"decode-1"}
    assert sum(record.refusals for record in records) > 0
    assert sum(record.replays for record in records) == 0


async def test_workers_that_are_full_for_a_moment_are_asked_again(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("decode-0")
    home.peers[WorkerId("decode-0")].refusals = 3
    request = spec()
    assert await collect(home.front_door, request) == fake_output(request)
    assert home.front_door.history.find(request.id).refusals == 3


async def test_two_front_doors_and_workers_that_refuse_forget_nobody(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("decode-0", "decode-1")
    other = FrontDoor(home.config, FrontDoorId("other"))
    await other.start()
    other.update(Membership(1, tuple(home.endpoints.values())))
    await until(lambda: all(seen.connected for seen in other.status().workers))
    for worker in home.peers.values():
        worker.refusals = 15
    requests = [spec("r" + "x" * number) for number in range(20)]
    doors = [home.front_door, other]
    outputs = await asyncio.gather(
        *(collect(doors[number % 2], one) for number, one in enumerate(requests))
    )
    assert outputs == [fake_output(one) for one in requests]
    status = other.status()
    await other.stop()
    assert (status.in_flight, status.queued) == (0, 0)


async def test_workers_that_stay_full_end_in_overloaded(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("decode-0", queue_wait_s_max=0.1)
    home.peers[WorkerId("decode-0")].refusals = 1000
    with pytest.raises(Overloaded):
        await collect(home.front_door, spec())
    assert home.front_door.history.recent(1)[0].outcome is Outcome.OVERLOADED


async def test_a_full_queue_is_refused_with_a_time_to_come_back(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("decode-0", in_flight_max=1, queue_max=1)
    door = home.front_door
    async with asyncio.TaskGroup() as group, door.generate(spec("first")):
        waiting = group.create_task(collect(door, spec("second")))
        await until(lambda: door.status().queued == 1)
        with pytest.raises(Overloaded) as refused:
            await collect(door, spec("third"))
    assert refused.value.retry_after_s > 0
    assert waiting.result() == fake_output(spec("second"))
    assert door.status().turned_away == 1


async def test_no_workers_at_all_is_said_in_bounded_time(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house(queue_wait_s_max=0.1)
    with pytest.raises(NoWorkers, match="no decode worker"):
        await collect(home.front_door, spec())


async def test_a_request_waits_for_the_first_worker(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house()
    task = asyncio.create_task(collect(home.front_door, spec()))
    await asyncio.sleep(0.05)
    await home.add("decode-0")
    home.publish()
    assert await task == fake_output(spec())


# ---- losses ----------------------------------------------------------------------------------------------------------


async def test_losing_the_decode_worker_mid_stream_continues_exactly_elsewhere(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("prefill-0", "decode-0", "decode-1")
    request, out = spec(max_tokens=60), []
    async with home.front_door.generate(request) as generation:
        async for piece in generation:
            out += piece.tokens
            if len(out) >= 5 and len(home.endpoints) == 3:
                lost = generation.record.decode_worker
                await home.remove(lost)
    assert out == fake_output(request)
    assert generation.record.replays == 1
    assert generation.record.decode_worker != lost


async def test_losing_the_source_while_the_destination_pulls_costs_no_replay(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("decode-0")
    source = await home.add("prefill-0", step_s=30.0)
    await home.publish_and_connect()
    task = asyncio.create_task(collect(home.front_door, spec()))
    await until(lambda: bool(said(home.peers[WorkerId("decode-0")], Adopt)))
    await home.remove("prefill-0")
    assert await task == fake_output(spec())
    assert home.front_door.history.recent(1)[0].replays == 0
    assert said(source, Submit)


async def test_losing_every_worker_waits_for_their_return(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("decode-0")
    request, out = spec(max_tokens=40), []
    async with home.front_door.generate(request) as generation:
        async for piece in generation:
            out += piece.tokens
            if len(out) >= 5 and home.version == 1:
                await home.remove("decode-0")
                await home.add("decode-0")
                home.publish()
    assert out == fake_output(request)
    assert generation.record.replays == 1


async def test_a_silent_worker_is_lost(house: OpenHouse, spec: MakeSpec) -> None:
    """Its process hangs: the socket stays open, heartbeats end."""
    home = await house()
    for name in ("decode-0", "decode-1"):
        await home.add(name, heartbeats=False)
    home.publish()
    request, out = spec(max_tokens=30), []
    async with home.front_door.generate(request) as generation:
        async for piece in generation:
            out += piece.tokens
            if len(out) >= 5 and generation.record.replays == 0:
                home.peers[generation.record.decode_worker].frozen = True
    assert out == fake_output(request)
    assert generation.record.replays == 1


async def test_the_replay_budget_ends_in_request_failed(house: OpenHouse, spec: MakeSpec) -> None:
    router = RouterConfig(replays_max=1)
    home = await house("decode-0", "decode-1", "decode-2", router=router)

    async def read() -> None:
        async with home.front_door.generate(spec(max_tokens=500)) as generation:
            seen = 0
            async for piece in generation:
                seen += len(piece.tokens)
                worker = generation.record.decode_worker
                if seen % 10 == 5 and worker in home.endpoints:
                    await home.remove(worker)

    with pytest.raises(RequestFailed, match="after 1 replays"):
        await read()
    assert home.front_door.history.recent(1)[0].outcome is Outcome.FAILED


async def test_a_worker_without_reports_gets_no_new_work(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("decode-0", "decode-1")
    frozen = home.peers[WorkerId("decode-0")]
    frozen.frozen = True
    await until(lambda: any(seen.suspect for seen in home.front_door.status().workers))
    await asyncio.gather(*(collect(home.front_door, spec("r" + "x" * n)) for n in range(5)))
    assert said(frozen, Submit) == []
    frozen.frozen = False
    await until(lambda: not any(seen.suspect for seen in home.front_door.status().workers))


async def test_a_restarted_worker_is_a_new_one(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("decode-0")
    await collect(home.front_door, spec("a"))
    await home.remove("decode-0")
    again = await home.add("decode-0")
    home.publish()
    assert await collect(home.front_door, spec("bb")) == fake_output(spec("bb"))
    assert len(said(again, Submit)) == 1
    (seen,) = home.front_door.status().workers
    assert seen.incarnation == home.endpoints[WorkerId("decode-0")].incarnation


async def test_a_worker_out_of_the_membership_finishes_what_it_has(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("decode-0", "decode-1")
    door, request, out = home.front_door, spec("first", max_tokens=60), []
    async with door.generate(request) as generation:
        async for piece in generation:
            out += piece.tokens
            if home.version == 1:
                drained = generation.record.decode_worker
                leaving = home.endpoints.pop(drained)
                home.publish()
                await collect(door, spec("second", max_tokens=2))
                assert door.history.recent(1)[0].decode_worker != drained
    assert out == fake_output(request)
    assert generation.record.replays == 0
    await until(lambda: leaving.worker not in {seen.worker for seen in door.status().workers})
    await until(lambda: home.peers[drained].links == 0)


async def test_a_worker_that_was_lost_while_out_of_the_membership_may_come_back(
    house: OpenHouse, spec: MakeSpec
) -> None:
    """A controller that was restarted may leave out a worker at first that it has not heard of yet."""
    home = await house("decode-0", "decode-1")
    async with home.front_door.generate(spec(max_tokens=100_000)):
        await until(lambda: any(worker.jobs for worker in home.peers.values()))
        name = next(name for name, worker in home.peers.items() if worker.jobs)
        worker = home.peers[name]
        del home.endpoints[name]
        home.publish()
        await worker.stop()
        await until(lambda: any(other.jobs for other in home.peers.values()))
        await asyncio.sleep(3 * RETRY_S_MIN)
        home.endpoints[name] = await worker.start()
        await home.publish_and_connect()


async def test_an_older_membership_is_ignored(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("decode-0")
    home.version -= 1
    endpoint = home.endpoints.pop(WorkerId("decode-0"))
    home.publish()
    assert [seen.worker for seen in home.front_door.status().workers] == [endpoint.worker]


# ---- leaving ---------------------------------------------------------------------------------------------------------


async def test_leaving_cancels_both_legs_in_the_same_turn(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("decode-0")
    await home.add("prefill-0", step_s=30.0)
    await home.publish_and_connect()
    source, destination = (home.peers[WorkerId(name)] for name in ("prefill-0", "decode-0"))
    async with home.front_door.generate(spec()):
        await until(lambda: bool(destination.jobs))
        assert source.jobs
    assert [seen.outstanding for seen in home.front_door.status().workers] == [0, 0]
    await until(lambda: not source.jobs and not destination.jobs)
    assert [cancel.epoch for cancel in said(source, Cancel)] == [0]
    assert [cancel.epoch for cancel in said(destination, Cancel)] == [1]
    assert home.front_door.history.recent(1)[0].outcome is Outcome.CANCELLED


async def test_leaving_with_all_one_wanted_counts_as_an_end(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("decode-0")
    worker = home.peers[WorkerId("decode-0")]
    async with home.front_door.generate(spec(max_tokens=10_000)) as generation:
        async for _ in generation:
            generation.satisfied()
            break
    await until(lambda: not worker.jobs)
    assert home.front_door.history.recent(1)[0].outcome is Outcome.STOP


async def test_nothing_refers_to_a_request_that_was_left(house: OpenHouse, spec: MakeSpec) -> None:
    """Not even the timer of a deadline that is far away."""
    home = await house("decode-0")
    async with home.front_door.generate(spec(), deadline_s=1000.0) as generation:
        left = weakref.ref(generation)
    del generation
    gc.collect()
    assert left() is None


async def test_a_cancelled_task_leaves_nothing(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("decode-0")
    worker = home.peers[WorkerId("decode-0")]
    task = asyncio.create_task(collect(home.front_door, spec(max_tokens=10_000)))
    await until(lambda: bool(worker.jobs))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not worker.jobs)


async def test_the_deadline_reaches_the_workers(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("decode-0")
    worker = home.peers[WorkerId("decode-0")]
    with pytest.raises(DeadlineExceeded):
        await collect(home.front_door, spec(max_tokens=10_000), deadline_s=0.05)
    await until(lambda: not worker.jobs)
    assert home.front_door.history.recent(1)[0].output_tokens > 0


async def test_stopping_sends_nobody_who_was_held_to_a_worker(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("decode-0", in_flight_max=1)
    worker = home.peers[WorkerId("decode-0")]
    tasks = [
        asyncio.create_task(collect(home.front_door, spec("r" + "x" * n, max_tokens=10_000)))
        for n in range(4)
    ]
    await until(lambda: bool(worker.jobs) and home.front_door.status().queued == 3)
    await home.front_door.stop()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [RequestFailed] * 4
    await until(lambda: not worker.jobs)
    assert len(said(worker, Submit)) == 1


async def test_who_is_cancelled_in_the_turn_in_which_it_is_sent_leaves_nothing(
    house: OpenHouse, spec: MakeSpec
) -> None:
    """It was sent in the place of the one that left, and its task has not run since."""
    home = await house("decode-0", in_flight_max=1)
    worker = home.peers[WorkerId("decode-0")]
    async with home.front_door.generate(spec("first", max_tokens=10_000)):
        held = asyncio.create_task(collect(home.front_door, spec("held", max_tokens=10_000)))
        await until(lambda: home.front_door.status().queued == 1)
    assert home.front_door.status().in_flight == 1
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    assert home.front_door.status().in_flight == 0
    await until(lambda: not worker.jobs and len(said(worker, Cancel)) == 2)


async def test_a_deadline_ends_a_request_that_is_held(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("decode-0", in_flight_max=1)
    async with home.front_door.generate(spec("first", max_tokens=100_000)):
        with pytest.raises(DeadlineExceeded):
            await collect(home.front_door, spec("held"), deadline_s=0.1)
        assert home.front_door.status().queued == 0


async def test_stopping_fails_what_is_in_flight_and_lets_nothing_in(
    house: OpenHouse, spec: MakeSpec
) -> None:
    home = await house("decode-0")
    worker = home.peers[WorkerId("decode-0")]
    task = asyncio.create_task(collect(home.front_door, spec(max_tokens=10_000)))
    await until(lambda: bool(worker.jobs))
    await home.front_door.stop()
    with pytest.raises(RequestFailed, match="stopping"):
        await task
    await until(lambda: not worker.jobs)
    with pytest.raises(NoWorkers, match="closed"):
        await collect(home.front_door, spec())


async def test_nonsense_from_a_worker_ends_only_the_request_it_names(
    house: OpenHouse, spec: MakeSpec, caplog: pytest.LogCaptureFixture
) -> None:
    home = await house("decode-0")
    door, hit, neighbour = home.front_door, spec("hit", max_tokens=500), spec("neighbour")
    async with asyncio.TaskGroup() as group, door.generate(hit) as generation:
        other = group.create_task(collect(door, neighbour))
        worker = home.peers[WorkerId("decode-0")]
        await until(lambda: bool(said(worker, Submit)))
        name = said(worker, Submit)[0].spec.id
        door.heard(Tokens(name, FIRST_EPOCH, 0, None))  # type: ignore[arg-type]
        with pytest.raises(RequestFailed, match="internal error"):
            _ = [piece async for piece in generation]
    assert other.result() == fake_output(neighbour)
    assert "request hit" in caplog.text
    await until(lambda: not home.peers[WorkerId("decode-0")].jobs)


async def test_one_id_is_served_once_at_a_time(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("decode-0")
    async with home.front_door.generate(spec()):
        with pytest.raises(InvalidRequest, match="request_id"):
            await collect(home.front_door, spec())
    assert await collect(home.front_door, spec()) == fake_output(spec())


async def test_an_id_that_is_used_again_is_another_request_to_workers(
    house: OpenHouse, spec: MakeSpec
) -> None:
    """What is on its way for the first one must not be taken for the second one's."""
    home = await house("decode-0")
    door, worker = home.front_door, home.peers[WorkerId("decode-0")]
    async with door.generate(spec(max_tokens=10_000)):
        await until(lambda: bool(said(worker, Submit)))
    first = said(worker, Submit)[0].spec.id
    async with door.generate(spec()) as generation:
        door.heard(Tokens(first, FIRST_EPOCH, 0, [666]))
        out = [token async for piece in generation for token in piece.tokens]
    assert out == fake_output(spec())
    names = [submit.spec.id for submit in said(worker, Submit)]
    assert len(set(names)) == len(names) == 2
    assert {record.request for record in door.history.recent(9)} == {spec().id}


async def test_two_front_doors_may_serve_one_id_at_once(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("prefill-0", "decode-0")
    other = FrontDoor(home.config, FrontDoorId("other"))
    await other.start()
    other.update(Membership(1, tuple(home.endpoints.values())))
    await until(lambda: all(seen.connected for seen in other.status().workers))
    longer = spec(max_tokens=60)
    both = await asyncio.gather(collect(home.front_door, spec()), collect(other, longer))
    await other.stop()
    assert both == [fake_output(spec()), fake_output(longer)]


async def test_metrics_count_what_happened(house: OpenHouse, spec: MakeSpec) -> None:
    home = await house("prefill-0", "decode-0")
    await collect(home.front_door, spec())
    registry = home.front_door.metrics.registry
    value = registry.get_sample_value
    assert value("tercet_requests_total", {"outcome": "length"}) == 1
    assert value("tercet_ttft_seconds_count") == 1
    assert value("tercet_pulled_bytes_total") == 40 * 1024
    assert value("tercet_in_flight") == 0
    labels = {"worker": "decode-0", "role": "decode"}
    assert value("tercet_worker_connected", labels) == 1
    assert b"tercet_itl_seconds_bucket" in home.front_door.metrics.render()


async def test_the_front_door_is_ready_when_a_decode_worker_is(house: OpenHouse) -> None:
    home = await house("prefill-0")
    assert not home.front_door.status().ready
    await home.add("decode-0")
    home.publish()
    await until(lambda: home.front_door.status().ready)


async def test_an_unknown_policy_opens_no_door(house: OpenHouse) -> None:
    with pytest.raises(ConfigError, match="prefix_affinity"):
        await house(router=RouterConfig(policy="guess"))
