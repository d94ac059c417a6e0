"""DualMap in a front door, over real links to fake workers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from tercet.config import RouterConfig
from tercet.request import RequestSpec
from tercet.router.dualmap import PairReason
from tercet.router.front_door import FrontDoor
from tercet.router.record import RequestRecord
from tercet.router.split import SplitReason

MakeSpec = Callable[..., RequestSpec]
CONFIG = RouterConfig(
    policy="dualmap", policy_options={"granule_tokens": 32}, local_prefill_tokens_max=4
)


class House(Protocol):
    front_door: FrontDoor

    async def add(self, name: str) -> object: ...

    async def remove(self, name: str) -> None: ...

    async def publish_and_connect(self) -> None: ...


OpenHouse = Callable[..., Awaitable[House]]


async def serve(house: House, spec: RequestSpec) -> RequestRecord:
    async with house.front_door.generate(spec) as generation:
        async for _ in generation:
            pass
    return generation.record


async def test_a_prompt_stays_with_its_pair_and_its_record_says_why(
    house: OpenHouse, spec: MakeSpec
) -> None:
    prefills, decodes = [f"prefill-{n}" for n in range(4)], [f"decode-{n}" for n in range(3)]
    subject = await house(*prefills, *decodes, router=CONFIG)
    first = await serve(subject, spec("r0", 64, max_tokens=2))
    assert first.reason is SplitReason.APART
    assert [(note.role, note.considered) for note in first.choices] == [
        ("prefill", 2),
        ("decode", 2),
    ]
    assert first.choices[0].worker == first.prefill_worker
    assert first.choices[1].worker == first.decode_worker
    assert first.choices[0].reason == PairReason.BALANCE
    assert first.choices[0].candidates[0].predicted_ttft_ms is not None
    longer = await serve(subject, spec("r1", 128, max_tokens=2))
    assert longer.prefill_worker == first.prefill_worker
    assert longer.choices[0].reason == PairReason.AFFINITY
    assert longer.choices[0].candidates[0].hit_tokens == 64
    assert {candidate.worker for candidate in longer.choices[0].candidates} == {
        candidate.worker for candidate in first.choices[0].candidates
    }


async def test_workers_come_and_go(house: OpenHouse, spec: MakeSpec) -> None:
    subject = await house("prefill-0", "prefill-1", "decode-0", router=CONFIG)
    chosen = {
        (await serve(subject, spec("r" * n, 64, max_tokens=2))).prefill_worker for n in (1, 2)
    }
    assert chosen <= {"prefill-0", "prefill-1"}
    await subject.remove("prefill-0")
    await subject.remove("prefill-1")
    await subject.add("prefill-2")
    await subject.publish_and_connect()
    records = await asyncio.gather(
        *(serve(subject, spec("x" * n, 64, max_tokens=2)) for n in range(3, 11))
    )
    assert {record.prefill_worker for record in records} == {"prefill-2"}
    assert {record.choices[0].reason for record in records} == {PairReason.ALONE}
    assert {record.choices[1].considered for record in records} == {1}


async def test_without_a_prefill_pool_decode_workers_are_chosen_by_promise(
    house: OpenHouse, spec: MakeSpec
) -> None:
    subject = await house("decode-0", "decode-1", router=CONFIG)
    record = await serve(subject, spec("r", 64, max_tokens=2))
    assert record.reason is SplitReason.NO_PREFILL
    [note] = record.choices
    assert (note.role, note.considered) == ("decode", 2)
