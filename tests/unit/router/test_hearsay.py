"""What front doors tell of prompts, and what another one makes of it."""

from hypothesis import given
from hypothesis import strategies as st

from tercet.ids import Incarnation, WorkerId
from tercet.router.hearsay import TOLD_MAX, Hearsay
from tercet.router.prefix_names import PrefixName, mix

A = (WorkerId("a"), Incarnation("1"))
B = (WorkerId("b"), Incarnation("1"))
BLOCK = 64
BLOCKS = 512 // BLOCK
"""In a granule."""


def prompt(blocks: int, seed: int = 0) -> list[PrefixName]:
    return [PrefixName(mix(1000 * seed + depth)) for depth in range(blocks)]


def hearsay(names_max: int = 1000, block_tokens: int = BLOCK) -> Hearsay:
    return Hearsay(names_max, block_tokens)


def test_what_one_tells_another_finds_to_the_last_whole_granule() -> None:
    names, subject = prompt(3 * BLOCKS - 1), hearsay()
    subject.learn(A, subject.told(names))
    subject.learn(B, subject.told(names[:BLOCKS]))
    assert subject.hits(names) == {A: 2 * BLOCKS, B: BLOCKS}
    assert subject.hit(A, names) == 2 * BLOCKS
    assert subject.hit(A, names[: BLOCKS - 1]) == 0
    assert list(subject.nearest(names)) == [A, B]


def test_a_prompt_shorter_than_a_granule_is_not_told() -> None:
    assert hearsay().told(prompt(BLOCKS - 1)) == b""
    assert hearsay().told([]) == b""


def test_of_a_long_prompt_the_beginning_is_told() -> None:
    names, subject = prompt((TOLD_MAX + 10) * BLOCKS), hearsay()
    told = subject.told(names)
    assert len(told) == 8 * TOLD_MAX
    subject.learn(A, told)
    assert subject.hit(A, names) == TOLD_MAX * BLOCKS


def test_blocks_longer_than_a_granule_are_told_one_by_one() -> None:
    subject = hearsay(block_tokens=1024)
    subject.learn(A, subject.told(prompt(3)))
    assert subject.hits(prompt(4)) == {A: 3}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=8))
def test_many_prompts_in_one_word_are_as_good_as_one_by_one(sent: list[tuple[int, int]]) -> None:
    prompts = [prompt(blocks, seed) for seed, blocks in sent]
    together, apart = hearsay(), hearsay()
    together.learn(A, b"".join(together.told(names) for names in prompts))
    for names in prompts:
        apart.learn(A, apart.told(names))
    for seed in range(4):
        assert together.hits(prompt(50, seed)) == apart.hits(prompt(50, seed))


def test_a_word_that_ends_within_a_name_counts_up_to_there() -> None:
    names, subject = prompt(2 * BLOCKS), hearsay()
    subject.learn(A, subject.told(names)[:-1])
    assert subject.hits(names) == {A: BLOCKS}


def test_the_bound_holds_and_departed_lives_are_forgotten() -> None:
    subject = hearsay(names_max=4)
    subject.learn(A, subject.told(prompt(3 * BLOCKS, 1)))
    subject.learn(B, subject.told(prompt(2 * BLOCKS, 2)))
    assert len(subject) == 4
    assert subject.hits(prompt(3 * BLOCKS, 1)) == {A: 2 * BLOCKS}
    subject.keep_only({B})
    assert subject.hits(prompt(3 * BLOCKS, 1)) == {}
    assert subject.hits(prompt(2 * BLOCKS, 2)) == {B: 2 * BLOCKS}
