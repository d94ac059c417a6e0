"""Hand-offs between worker processes over real sockets and real NIXL: the output is the same whatever happens to whom."""

import asyncio
import signal
import time

import msgspec
import pytest

from tercet.errors import PeerLost, PeerRefused
from tercet.ids import Epoch, RequestId
from tercet.role import Role
from tercet.wire import Adopt, Cancel, HandedOff, Started, Submit, Tokens

SOURCE_EPOCH, OWN_EPOCH = Epoch(0), Epoch(1)


async def hand_off(stage, source, destination, spec) -> None:
    """Steps 4 and 5 of a request's life: the destination is bound when the prefill begins."""
    stage.door.send(source, Submit(spec, SOURCE_EPOCH, hand_off=True))
    await stage.door.hears(Started, spec.id)
    stage.door.send(destination, Adopt(spec, OWN_EPOCH, source.endpoint, SOURCE_EPOCH))


async def test_the_output_is_that_of_one_engine_and_the_kv_was_pulled(stage):
    source, destination = await stage.pair()
    specs = [stage.request(f"r{'x' * i}", prompt_tokens=30 + 37 * i) for i in range(6)]
    await asyncio.gather(*(hand_off(stage, source, destination, spec) for spec in specs))
    for spec in specs:
        assert await stage.door.finish(spec.id) == stage.expected(spec)
        await stage.door.hears(HandedOff, spec.id)
        assert stage.door.usage[spec.id].pulled_tokens > 0
        assert not stage.door.usage[spec.id].recomputed
    again = stage.request("r", prompt_tokens=60)
    again = msgspec.structs.replace(again, id=RequestId("again"))
    await hand_off(stage, source, destination, again)
    assert await stage.door.finish(again.id) == stage.expected(again)
    assert stage.door.usage[again.id].pulled_tokens == 60 - 16, "one block was here already"
    status = await destination.idle()
    assert (status.committed, status.recomputed) == (7, 0)
    assert status.load.pull_bytes > 0
    assert (status.sources, (await source.idle()).readers) == (1, 1), "one link for all"


async def test_a_source_killed_amid_the_prefill_costs_no_token(stage):
    source, destination = await stage.pair(0.15)
    spec = stage.request("r", prompt_tokens=600)
    await hand_off(stage, source, destination, spec)
    await destination.until(lambda status: status.load.pulls >= 2)
    source.signal(signal.SIGKILL)
    assert await stage.door.finish(spec.id) == stage.expected(spec)
    assert stage.door.usage[spec.id].recomputed
    status = await destination.idle()
    assert (status.committed, status.recomputed) == (0, 1)


async def test_a_source_that_freezes_amid_the_prefill_is_given_up_within_the_deadline(stage):
    source, destination = await stage.pair(0.15)
    spec = stage.request("r", prompt_tokens=600)
    await hand_off(stage, source, destination, spec)
    await destination.until(lambda status: status.load.pulls >= 2)
    source.signal(signal.SIGSTOP)
    began_s = time.monotonic()
    assert await stage.door.finish(spec.id) == stage.expected(spec)
    assert time.monotonic() - began_s < stage.config.link.dead_after_s + 4
    source.signal(signal.SIGCONT)
    assert (await destination.idle()).recomputed == 1
    await source.idle()


class Slow:
    """KV large enough, over TCP alone, that a pull takes long enough to be interrupted."""

    @staticmethod
    def prepare(stage) -> None:
        stage.head_dim = 2048  # blocks of 512 KiB
        stage.environment = {"UCX_TLS": "tcp"}
        transfer = msgspec.structs.replace(stage.config.transfer, wait_s=4.0, lease_s=6.0)
        stage.config = msgspec.structs.replace(stage.config, transfer=transfer)

    @staticmethod
    async def pull_in_flight(stage, source, destination, spec) -> None:
        stage.door.send(source, Submit(spec, SOURCE_EPOCH, hand_off=True))
        await stage.door.hears(Tokens, spec.id)
        stage.door.send(destination, Adopt(spec, OWN_EPOCH, source.endpoint, SOURCE_EPOCH))
        await destination.until(lambda status: status.unsettled_pulls > 0)


async def test_a_read_from_a_frozen_source_is_quarantined_until_it_has_ended(stage):
    Slow.prepare(stage)
    source, destination = await stage.pair()
    spec = stage.request("r", prompt_tokens=1200, max_tokens=3)
    await Slow.pull_in_flight(stage, source, destination, spec)
    source.signal(signal.SIGSTOP)
    assert await stage.door.finish(spec.id) == stage.expected(spec)
    assert stage.door.usage[spec.id].recomputed, "the read was over before the source froze"
    status = await destination.status()
    assert status.unsettled_pulls == 1
    assert status.load.quarantined_blocks == 75
    source.signal(signal.SIGCONT)
    status = await destination.idle()
    assert (status.recomputed, status.load.quarantined_blocks) == (1, 0)
    await source.idle()


async def test_a_destination_stops_although_a_read_from_a_frozen_source_will_not_end(stage):
    Slow.prepare(stage)
    source, destination = await stage.pair()
    spec = stage.request("r", prompt_tokens=1200, max_tokens=3)
    await Slow.pull_in_flight(stage, source, destination, spec)
    source.signal(signal.SIGSTOP)
    await destination.stop()
    source.signal(signal.SIGCONT)


async def test_a_source_killed_amid_a_read_costs_no_token(stage):
    Slow.prepare(stage)
    source, destination = await stage.pair()
    spec = stage.request("r", prompt_tokens=1200, max_tokens=3)
    await Slow.pull_in_flight(stage, source, destination, spec)
    source.signal(signal.SIGKILL)
    assert await stage.door.finish(spec.id) == stage.expected(spec)
    assert stage.door.usage[spec.id].recomputed, "the read was over before the source died"
    await destination.idle()


async def test_a_restarted_source_works_at_once_and_its_former_life_is_refused(stage):
    former, destination = await stage.pair()
    before = stage.request("ra", prompt_tokens=100)
    await hand_off(stage, former, destination, before)
    assert await stage.door.finish(before.id) == stage.expected(before)
    former.signal(signal.SIGKILL)
    await former.process.wait()
    source = await stage.start("p0", Role.PREFILL)
    assert source.endpoint.unix == former.endpoint.unix
    after = stage.request("rbb", prompt_tokens=100)
    await hand_off(stage, source, destination, after)
    assert await stage.door.finish(after.id) == stage.expected(after)
    assert not stage.door.usage[after.id].recomputed
    stale = msgspec.structs.replace(former.endpoint, port=source.endpoint.port)
    with pytest.raises(PeerRefused, match="is gone"):
        await stage.door.dial(stale)


async def test_a_reference_to_a_former_life_is_recomputed(stage):
    source, destination = await stage.pair()
    stale = msgspec.structs.replace(source.endpoint, incarnation="former")
    spec = stage.request("r")
    stage.door.send(destination, Adopt(spec, OWN_EPOCH, stale, SOURCE_EPOCH))
    assert await stage.door.finish(spec.id) == stage.expected(spec)
    assert stage.door.usage[spec.id].recomputed


async def test_a_cancel_reaches_both_legs(stage):
    source, destination = await stage.pair(0.05)
    spec = stage.request("r", prompt_tokens=600)
    await hand_off(stage, source, destination, spec)
    await destination.until(lambda status: status.load.pulls >= 1)
    for worker, epoch in ((source, SOURCE_EPOCH), (destination, OWN_EPOCH)):
        stage.door.send(worker, Cancel(spec.id, epoch))
    status, _ = await asyncio.gather(destination.idle(), source.idle())
    assert status.committed == status.recomputed == 0
    assert not any(isinstance(m, Tokens) for m in stage.door.said)


async def test_a_front_door_that_leaves_takes_its_requests_with_it(stage):
    source, destination = await stage.pair(0.05)
    specs = [stage.request(f"r{'x' * i}", prompt_tokens=300, max_tokens=500) for i in range(3)]
    for spec in specs:
        await hand_off(stage, source, destination, spec)
    await stage.door.hears(HandedOff, specs[0].id)
    await stage.door.close()
    await asyncio.gather(destination.idle(), source.idle())
    assert (await source.status()).sessions == 0


async def test_what_nobody_comes_for_is_let_go_after_its_lease(stage):
    source = await stage.start("p0", Role.PREFILL)
    spec = stage.request("r")
    stage.door.send(source, Submit(spec, SOURCE_EPOCH, hand_off=True))
    await source.until(lambda status: status.load.holding == 1)
    began_s = time.monotonic()
    await source.idle()
    assert 1.0 < time.monotonic() - began_s < 4.0


async def test_a_dead_worker_is_no_peer(stage):
    source = await stage.start("p0", Role.PREFILL)
    source.signal(signal.SIGKILL)
    await source.process.wait()
    with pytest.raises(PeerLost):
        await stage.door.dial(source.endpoint)
