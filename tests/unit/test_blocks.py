from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.blocks import HashDomain, hash_block, hash_blocks

TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=40)
DOMAINS = st.builds(
    HashDomain,
    adapter_id=st.text(max_size=4),
    tenant_salt=st.text(max_size=4),
    media_hashes=st.lists(st.binary(max_size=4), max_size=3).map(tuple),
)


def hashes(
    tokens: list[int], block_tokens: int = 4, domain: HashDomain | None = None
) -> list[bytes]:
    return list(hash_blocks(tokens, block_tokens, domain or HashDomain()))


@given(TOKENS, st.integers(1, 8))
def test_only_full_blocks_have_a_hash(tokens: list[int], block_tokens: int) -> None:
    assert len(hashes(tokens, block_tokens)) == len(tokens) // block_tokens


@given(TOKENS, TOKENS)
def test_a_prefix_keeps_its_hashes_whatever_follows(prefix: list[int], rest: list[int]) -> None:
    assert hashes(prefix + rest)[: len(prefix) // 4] == hashes(prefix)


@given(st.lists(st.integers(0, 999), min_size=4, max_size=40), st.data())
def test_a_changed_token_changes_its_block_and_all_after_it(
    tokens: list[int], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(tokens) - 1))
    changed = [*tokens[:place], tokens[place] + 1, *tokens[place + 1 :]]
    same = [a == b for a, b in zip(hashes(tokens), hashes(changed), strict=True)]
    assert same == [block < place // 4 for block in range(len(tokens) // 4)]


def test_equal_blocks_at_different_places_differ() -> None:
    chain = hashes([1, 2, 3, 4] * 50)
    assert len(set(chain)) == 50


def test_each_hash_is_that_of_the_block_under_its_parent() -> None:
    tokens = list(range(12))
    chain = [HashDomain().root(), *hash_blocks(tokens, 4, HashDomain())]
    for number, (parent, child) in enumerate(pairwise(chain)):
        assert hash_block(parent, tokens[4 * number : 4 * number + 4]) == child


def test_hashes_are_256_bits_and_the_same_in_every_process() -> None:
    # A fixed value: caches on two machines, or before and after an upgrade, must agree.
    (only,) = hash_blocks([1, 2, 3, 4], 4, HashDomain())
    assert only.hex() == "adc01ec7cfd7f2150a79cba6f630a345dae4765ea4e55fdc10efd6c91e832965"


@given(DOMAINS, DOMAINS)
def test_two_domains_share_nothing(one: HashDomain, other: HashDomain) -> None:
    assert (one.root() == other.root()) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HashDomain(adapter_id="a"), HashDomain(tenant_salt="a")),
        (HashDomain(adapter_id="ab"), HashDomain(adapter_id="a", tenant_salt="b")),
        (HashDomain(tenant_salt="a"), HashDomain(media_hashes=(b"a",))),
        (HashDomain(media_hashes=(b"ab",)), HashDomain(media_hashes=(b"a", b"b"))),
        (HashDomain(media_hashes=(b"a", b"b")), HashDomain(media_hashes=(b"b", b"a"))),
        (HashDomain(), HashDomain(media_hashes=(b"",))),
    ],
)
def test_domains_that_look_alike_are_kept_apart(one: HashDomain, other: HashDomain) -> None:
    tokens = [1, 2, 3, 4]
    assert hashes(tokens, domain=one) != hashes(tokens, domain=other)


def test_a_token_beyond_32_bits_is_refused() -> None:
    with pytest.raises(OverflowError):
        hashes([1, 2, 3, 2**32])
