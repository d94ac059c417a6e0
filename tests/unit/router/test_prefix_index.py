"""The index remembers who saw which prefix, within its bound."""

from hypothesis import given
from hypothesis import strategies as st

from tercet.blocks import HashDomain
from tercet.ids import Incarnation, WorkerId
from tercet.router.ledger import Life
from tercet.router.prefix_index import LOOKS_MAX, PLACES_MAX, Prefix, PrefixIndex
from tercet.router.prefix_names import PrefixName

A = (WorkerId("a"), Incarnation("1"))
B = (WorkerId("b"), Incarnation("1"))
C = (WorkerId("c"), Incarnation("1"))


def chain(*names: str) -> list[PrefixName]:
    return [PrefixName(int.from_bytes(name.encode())) for name in names]


def test_each_worker_gets_the_length_of_its_own_prefix() -> None:
    index = PrefixIndex(100)
    index.record(A, chain("x", "y", "z"))
    index.record(B, chain("x"))
    index.record(C, chain("other"))
    assert index.hits(chain("x", "y", "w")) == {A: 2, B: 1}
    assert index.hits(chain("x", "y", "z")) == {A: 3, B: 1}


def test_who_has_seen_most_of_a_prompt_is_told_first() -> None:
    index = PrefixIndex(100)
    index.record(B, chain("x"))
    index.record(A, chain("x", "y", "z"))
    index.record(C, chain("x", "y", "other"))
    assert list(index.nearest(chain("x", "y", "z"))) == [A, C, B]
    index.forget(A)
    assert list(index.nearest(chain("x", "y", "z"))) == [C, B]
    assert list(index.nearest(chain("w"))) == list(index.nearest([])) == []


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


def test_what_was_recorded_again_outlives_what_came_after_it() -> None:
    index = PrefixIndex(4)
    for prompt in (chain("1", "2"), chain("x", "y"), chain("1", "2"), chain("z")):
        index.record(A, prompt)
    assert index.hits(chain("1", "2")) == {A: 2}
    assert index.hits(chain("x", "y")) == {A: 1}
    index.record(A, chain("u", "v"))
    assert index.hits(chain("1", "2")) == {A: 1}


def test_what_is_recorded_again_and_again_does_not_fill_the_memory() -> None:
    index = PrefixIndex(4)
    index.record(A, chain("1", "2"))
    for _ in range(100 * PLACES_MAX):
        index.record(B, chain("x"))
    assert index.hits(chain("1", "2")) == {}, "a whole memory of others came since"
    assert index.hits(chain("x")) == {B: 1}


def test_where_nearly_all_was_recorded_again_the_bound_is_kept_soon() -> None:
    count = 2 * LOOKS_MAX
    index = PrefixIndex(count)
    names = [PrefixName(number) for number in range(count)]
    index.record(A, names)
    index.record(B, names)
    for number in range(8):
        index.record(A, [PrefixName(count + number)])
        assert index.hits([PrefixName(count + number)]) == {A: 1}
        assert len(index) <= count + 4
    assert len(index) == count


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


BLOCKS = chain(*map(str, range(1, 15)))


def test_with_steps_a_prompt_that_goes_on_finds_all_of_the_one_before_it() -> None:
    index = PrefixIndex(100, step=4)
    index.record(A, BLOCKS[:10])
    assert len(index) == 7, "the fourth of ten blocks and all after it"
    assert index.hit(A, BLOCKS[:12]) == 10
    index.record(A, BLOCKS[:12])
    assert index.hit(A, BLOCKS) == 12


def test_with_steps_another_last_question_finds_all_before_it() -> None:
    index = PrefixIndex(100, step=4)
    index.record(A, BLOCKS[:12])
    assert index.hit(A, BLOCKS[:11] + chain("x", "y")) == 11


def test_with_steps_a_prompt_that_leaves_another_one_earlier_finds_the_step_before() -> None:
    index = PrefixIndex(100, step=4)
    index.record(A, BLOCKS)
    index.record(B, BLOCKS[:3])
    asked = BLOCKS[:6] + chain("x", "y")
    assert index.hits(asked) == {A: 4, B: 3}
    assert list(index.nearest(asked)) == [A, B]
    index.take_back(A, BLOCKS[3:])
    assert index.hits(asked) == {B: 3}


def test_extending_a_prefix_equals_hashing_the_whole() -> None:
    domain = HashDomain(tenant_salt="salt")
    tokens = list(range(100))
    for cut in (0, 3, 16, 40, 100):
        prefix = Prefix(tokens[:cut], 16, domain)
        assert prefix.extended(tokens[cut:]) == Prefix(tokens, 16, domain).names
    assert Prefix(tokens, 16, domain).tokens(3) == 48


def test_one_workers_hit_is_what_all_hits_say() -> None:
    index = PrefixIndex(100)
    index.record(A, chain("x", "y", "z"))
    index.record(B, chain("x"))
    asked = chain("x", "y", "w")
    assert {life: index.hit(life, asked) for life in (A, B, C)} == {A: 2, B: 1, C: 0}


prompts = st.lists(st.sampled_from("ab"), min_size=1, max_size=6)


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), prompts), max_size=30),
    st.integers(1, 12),
    st.sampled_from([None, A, B]),
    prompts,
)
def test_bisection_finds_what_a_walk_along_the_prompt_finds(
    sent: list[tuple[Life, list[str]]], bound: int, lost: Life | None, asked: list[str]
) -> None:
    def names(prompt: list[str]) -> list[PrefixName]:
        return chain(*("".join(prompt[: end + 1]) for end in range(len(prompt))))

    index = PrefixIndex(bound)
    for life, prompt in sent:
        index.record(life, names(prompt))
    if lost is not None:
        index.forget(lost)
    walked = dict.fromkeys((A, B, C), 0)
    for depth, name in enumerate(names(asked)):
        for life in walked:
            if walked[life] == depth and index.hits([name]).get(life):
                walked[life] += 1
    assert index.hits(names(asked)) == {life: depth for life, depth in walked.items() if depth}
    nearest = list(index.nearest(names(asked)))
    assert [walked[life] for life in nearest] == sorted(filter(None, walked.values()), reverse=True)
    assert len(set(nearest)) == len(nearest)
    assert {life: index.hit(life, names(asked)) for life in walked} == walked


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), prompts), max_size=30),
    st.integers(1, 4),
    st.integers(1, 12),
    prompts,
)
def test_with_steps_no_more_is_found_than_was_seen_and_little_less(
    sent: list[tuple[Life, list[str]]], step: int, bound: int, asked: list[str]
) -> None:
    whole, forgetful = PrefixIndex(1000, step), PrefixIndex(bound, step)
    seen = dict.fromkeys((A, B, C), 0)
    for life, prompt in sent:
        names = chain(*("".join(prompt[: end + 1]) for end in range(len(prompt))))
        whole.record(life, names)
        forgetful.record(life, names)
        common = [one == other for one, other in zip(prompt, asked, strict=False)]
        seen[life] = max(seen[life], ([*common, False]).index(False))
    names = chain(*("".join(asked[: end + 1]) for end in range(len(asked))))
    assert all(seen[life] - step < whole.hit(life, names) <= seen[life] for life in seen)
    for index in (whole, forgetful):
        hits = {life: index.hit(life, names) for life in seen}
        assert index.hits(names) == {life: depth for life, depth in hits.items() if depth}
        for beyond in range(3):
            found = [hits[life] for life in index.nearest(names, beyond)]
            assert found == sorted((hit for hit in hits.values() if hit > beyond), reverse=True)
    assert len(forgetful) <= bound
    assert all(forgetful.hit(life, names) <= whole.hit(life, names) for life in seen)
