"""The index remembers who saw which prefix, within its bound."""

from tercet.blocks import HashDomain, hash_blocks
from tercet.ids import BlockHash, Incarnation, WorkerId
from tercet.router.prefix_index import Prefix, PrefixIndex

A = (WorkerId("a"), Incarnation("1"))
B = (WorkerId("b"), Incarnation("1"))
C = (WorkerId("c"), Incarnation("1"))


def chain(*names: str) -> list[BlockHash]:
    return [BlockHash(name.encode()) for name in names]


def test_each_worker_gets_the_length_of_its_own_prefix() -> None:
    index = PrefixIndex(100)
    index.record(A, chain("x", "y", "z"))
    index.record(B, chain("x"))
    index.record(C, chain("other"))
    assert index.hits(chain("x", "y", "w")) == {A: 2, B: 1}
    assert index.hits(chain("x", "y", "z")) == {A: 3, B: 1}


def test_an_unknown_or_empty_prefix_hits_nobody() -> None:
    index = PrefixIndex(100)
    index.record(A, chain("x"))
    assert index.hits(chain("y")) == {}
    assert index.hits([]) == {}


def test_a_block_without_its_predecessors_is_no_hit() -> None:
    index = PrefixIndex(100)
    index.record(A, chain("y"))
    index.record(B, chain("x"))
    assert index.hits(chain("x", "y")) == {B: 1}


def test_the_bound_holds_and_the_least_recently_used_deepest_blocks_go_first() -> None:
    index = PrefixIndex(4)
    index.record(A, chain("1", "2", "3"))
    index.record(A, chain("x", "y"))
    assert len(index) == 4
    assert index.hits(chain("1", "2", "3")) == {A: 2}
    assert index.hits(chain("x", "y")) == {A: 2}


def test_a_prompt_longer_than_the_bound_keeps_its_beginning() -> None:
    index = PrefixIndex(2)
    index.record(A, chain("1", "2", "3", "4"))
    assert index.hits(chain("1", "2", "3")) == {A: 2}


def test_a_forgotten_worker_is_no_hit_and_its_blocks_are_freed() -> None:
    index = PrefixIndex(100)
    index.record(A, chain("x", "y"))
    index.record(B, chain("x"))
    index.forget(A)
    assert index.hits(chain("x", "y")) == {B: 1}
    assert len(index) == 1
    index.record(C, chain("x", "y"))
    assert index.hits(chain("x", "y")) == {B: 1, C: 2}


def test_only_the_lives_that_are_kept_remain() -> None:
    index = PrefixIndex(100)
    index.record(A, chain("x"))
    index.record(B, chain("x"))
    index.keep_only({B, C})
    assert index.hits(chain("x")) == {B: 1}


def test_extending_a_prefix_equals_hashing_the_whole() -> None:
    domain = HashDomain(tenant_salt="salt")
    tokens = list(range(100))
    for cut in (0, 3, 16, 40, 100):
        prefix = Prefix(tokens[:cut], 16, domain)
        assert prefix.extended(tokens[cut:]) == list(hash_blocks(tokens, 16, domain))
    assert Prefix(tokens, 16, domain).tokens(3) == 48
