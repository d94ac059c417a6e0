"""Names of prefixes: equal for equal prefixes, different for all others, and much cheaper than hashing."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.blocks import HashDomain
from tercet.router.prefix_names import PrefixName, mix, numbers_of, prefix_names, root_of

ROOT = root_of(HashDomain())
tokens_lists = st.lists(st.integers(0, 2**32 - 1), max_size=70)


@given(tokens_lists, tokens_lists)
def test_names_agree_exactly_as_far_as_the_tokens_do(one: list[int], other: list[int]) -> None:
    names = zip(prefix_names(one, 4, ROOT), prefix_names(other, 4, ROOT), strict=False)
    for block, (name, other_name) in enumerate(names):
        end = 4 * (block + 1)
        assert (name == other_name) is (one[:end] == other[:end])


@given(tokens_lists, st.integers(0, 16))
def test_a_prompt_can_be_named_in_parts(tokens: list[int], blocks: int) -> None:
    whole = prefix_names(tokens, 4, ROOT)
    cut = min(blocks, len(whole))
    parent = PrefixName(whole[cut - 1]) if cut else ROOT
    assert whole[:cut] + prefix_names(tokens[4 * cut :], 4, parent, 4 * cut) == whole


def test_a_partial_block_has_no_name() -> None:
    assert [len(prefix_names([1] * count, 4, ROOT)) for count in (0, 3, 4, 7, 8)] == [0, 0, 1, 1, 2]


def test_tenants_adapters_and_media_have_names_of_their_own() -> None:
    domains = [
        HashDomain(),
        HashDomain(tenant_salt="a"),
        HashDomain(adapter_id="a"),
        HashDomain(media_hashes=(b"a",)),
    ]
    assert len({prefix_names([1, 2], 2, root_of(domain))[0] for domain in domains}) == 4


def test_prompts_that_differ_little_never_collide() -> None:
    """Near prompts are what a weak sum would confuse: one token changed by one, two tokens swapped, a shift."""
    prompt = [random.Random(1).randrange(1000) for _ in range(64)]
    near = [prompt[1:] + prompt[:1]]
    for i in range(64):
        near += [[*prompt[:i], prompt[i] + by, *prompt[i + 1 :]] for by in range(1, 200)]
        for j in range(i):
            swapped = list(prompt)
            swapped[i], swapped[j] = prompt[j], prompt[i]
            near.append(swapped)
    different = {tuple(tokens) for tokens in near}
    assert len({prefix_names(tokens, 64, ROOT)[0] for tokens in different}) == len(different)


def test_names_outlive_their_process() -> None:
    """Front doors are replaced one by one and must agree; whoever changes the function changes this line knowingly."""
    names = [1129044178771627325, 393848772012764186]
    assert list(prefix_names([1, 2, 3, 4], 2, PrefixName(0))) == names
    assert list(prefix_names(numbers_of([1, 2, 3, 4, 5]), 2, PrefixName(0))) == names


def test_what_is_no_token_id_is_no_number() -> None:
    for wrong in (-1, 2**32):
        with pytest.raises(OverflowError):
            numbers_of([0, wrong])


def test_mix_spreads_neighbours_over_all_bits() -> None:
    flips = [bin(mix(value) ^ mix(value + 1)).count("1") for value in range(1000)]
    assert 30 < sum(flips) / len(flips) < 34
    assert min(flips) > 10
