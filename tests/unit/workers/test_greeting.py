"""Front doors are let in, workers only with the same KV."""

import pytest

from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import PROTOCOL_VERSION, Endpoint, Hello, KvRegion, Refuse, Welcome
from tercet.workers.greeting import Greeting

REGION = KvRegion(b"agent", 4096, 64, 8, 8192)
OTHER = KvRegion(b"agent/1", 4096, 64, 8, 0)
STAGED = KvRegion(b"agent", 16384, 32, 4, 20480)


def greeting(name: str, compat: str) -> Greeting:
    return Greeting("c", WorkerId(name), Incarnation(f"{name}-1"), compat, REGION, STAGED, (OTHER,))


def met(compat: str) -> Welcome | Refuse:
    """What `d0` with the given key hears from `p0`."""
    p0 = Endpoint(WorkerId("p0"), Incarnation("p0-1"), Role.PREFILL, "h", 1, "id")
    return greeting("p0", "llama/bf16").answer(greeting("d0", compat).hello(p0))


def test_a_front_door_is_welcome_and_learns_nothing_of_the_memory():
    hello = Hello(PROTOCOL_VERSION, "c", "f", Incarnation("f"), Incarnation("p0-1"))
    expected = Welcome(PROTOCOL_VERSION, WorkerId("p0"), Incarnation("p0-1"))
    assert greeting("p0", "llama/bf16").answer(hello) == expected


def test_a_worker_with_the_same_kv_learns_where_it_lies():
    answer = met("llama/bf16")
    assert isinstance(answer, Welcome)
    assert (answer.kv, answer.staged, answer.others) == (REGION, STAGED, [OTHER])


@pytest.mark.parametrize("compat", ["llama/fp16", "qwen/bf16"])
def test_a_worker_with_other_kv_is_told_both_keys(compat):
    answer = met(compat)
    assert isinstance(answer, Refuse)
    assert compat in answer.reason
    assert "llama/bf16" in answer.reason


def test_a_hello_expects_the_life_of_its_source():
    source = Endpoint(WorkerId("p0"), Incarnation("p0-7"), Role.PREFILL, "h", 1, "id")
    hello = greeting("d0", "k").hello(source)
    assert (hello.expects, hello.incarnation, hello.agent) == ("p0-7", "d0-1", b"agent")
