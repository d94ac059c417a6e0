"""A named conversation's last workers are remembered when the prefix index has forgotten, and weighed like any other hit."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from tercet.config import RouterConfig
from tercet.request import RequestSpec
from tercet.role import Role
from tercet.router.conversations import Conversations
from tercet.router.freeness import FreenessReason
from tercet.router.front_door import FrontDoor
from tercet.router.ledger import life_of
from tercet.router.prefix_names import PrefixName, mix
from tercet.router.record import RequestRecord
from tercet.wire import Endpoint

MakeEndpoint = Callable[..., Endpoint]
MakeSpec = Callable[..., RequestSpec]


def chain(*turns: tuple[str, int]) -> list[PrefixName]:
    """So many blocks of each turn; a name stands for all before it."""
    names, state = [], 0
    for turn, blocks in turns:
        for _ in range(blocks):
            state = mix(state ^ int.from_bytes(turn.encode()))
            names.append(PrefixName(state))
    return names


def test_a_next_turn_has_what_the_last_one_left(endpoint: MakeEndpoint) -> None:
    known, home = Conversations(), endpoint("decode-0")
    known.record("talk", home, chain(("one", 9)), now_s=0.0)
    assert known.hits("talk", chain(("one", 9), ("two", 4)), 1.0) == {life_of(home): 9}
    assert known.hits("talk", chain(("one", 9)), 1.0) == {life_of(home): 9}
    assert known.hits("other", chain(("one", 9)), 1.0) == {}


def test_there_is_a_home_in_each_pool_and_the_last_one_counts(endpoint: MakeEndpoint) -> None:
    known = Conversations()
    for name, blocks in (("prefill-0", 2), ("decode-0", 2), ("decode-1", 3)):
        known.record("talk", endpoint(name), chain(("one", blocks)), now_s=0.0)
    hits = known.hits("talk", chain(("one", 4)), 0.0)
    assert hits == {life_of(endpoint("prefill-0")): 2, life_of(endpoint("decode-1")): 3}


@pytest.mark.parametrize(("kept", "found"), [(99, 99), (98, 98), (97, 96), (70, 68), (36, 36)])
def test_a_turn_that_was_rewritten_at_its_end_keeps_its_beginning(
    kept: int, found: int, endpoint: MakeEndpoint
) -> None:
    known, home = Conversations(), endpoint("decode-0")
    known.record("talk", home, chain(("one", 100)), now_s=0.0)
    rewritten = chain(("one", kept), ("otherwise", 50))
    assert known.hits("talk", rewritten, 0.0) == {life_of(home): found}


def test_a_name_that_is_used_for_something_else_finds_nothing(endpoint: MakeEndpoint) -> None:
    known = Conversations()
    known.record("talk", endpoint("decode-0"), chain(("one", 50)), now_s=0.0)
    assert known.hits("talk", chain(("other", 50)), 0.0) == {}
    assert known.hits("talk", [], 0.0) == {}
    known.record("", endpoint("decode-0"), chain(("one", 50)), now_s=0.0)
    assert known.hits("", chain(("one", 50)), 0.0) == {}


def test_conversations_are_forgotten_in_time_and_over_the_bound(endpoint: MakeEndpoint) -> None:
    known, names = Conversations(conversations_max=2, forget_s=10.0), chain(("one", 1))
    for number, name in enumerate(("a", "b", "a", "c")):
        known.record(name, endpoint("decode-0"), names, now_s=float(number))
    assert [bool(known.hits(name, names, 3.0)) for name in "abc"] == [True, False, True]
    assert [bool(known.hits(name, names, 12.0)) for name in "ac"] == [False, True]
    known.record("d", endpoint("decode-0"), names, now_s=12.5)
    assert len(known) == 2


# ---- served ----------------------------------------------------------------------------------------------------------


class House(Protocol):
    front_door: FrontDoor

    async def add(self, name: str) -> object: ...

    async def publish_and_connect(self) -> None: ...


OpenHouse = Callable[..., Awaitable[House]]
FORGETFUL = RouterConfig(prefix_index_blocks_max=3, local_prefill_tokens_max=4)


async def serve(house: House, spec: RequestSpec, session: str = "") -> RequestRecord:
    async with house.front_door.generate(spec, session=session) as generation:
        async for _ in generation:
            pass
    return generation.record


async def test_what_the_index_has_forgotten_a_named_conversation_still_finds(
    house: OpenHouse, spec: MakeSpec
) -> None:
    subject = await house(*(f"decode-{n}" for n in range(6)), "prefill-0", router=FORGETFUL)
    first = await serve(subject, spec("r", 160, max_tokens=2), "talk")
    for number in range(2, 6):
        await serve(subject, spec("x" * number, 64, max_tokens=2))
    again = spec("r", 200, max_tokens=2)
    stranger = await serve(subject, again)
    assert max(each.hit_tokens for note in stranger.choices for each in note.candidates) == 0
    await serve(subject, spec("y" * 8, 64, max_tokens=2))
    second = await serve(subject, again, "talk")
    prefill, decode = second.choices
    assert (prefill.candidates[0].hit_tokens, decode.candidates[0].hit_tokens) == (160, 160)
    assert second.decode_worker == first.decode_worker
    assert (decode.role, decode.reason) == (Role.DECODE, FreenessReason.AFFINITY)


async def test_a_conversation_leaves_a_worker_that_has_no_room(
    house: OpenHouse, spec: MakeSpec
) -> None:
    """Fake workers have 16,384 tokens of memory; the conversation's home is given nearly all of it."""
    subject = await house("decode-0", "prefill-0", router=FORGETFUL)
    first = await serve(subject, spec("r", 160, max_tokens=2), "talk")
    async with subject.front_door.generate(spec("big", 16_300, max_tokens=500)) as generation:
        assert await anext(aiter(generation)), "it runs, on the only one there is"
        await subject.add("decode-1")
        await subject.publish_and_connect()
        second = await serve(subject, spec("r", 200, max_tokens=2), "talk")
    assert (first.decode_worker, second.decode_worker) == ("decode-0", "decode-1")
