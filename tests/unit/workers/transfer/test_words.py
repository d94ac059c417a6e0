"""Words are found where they were read to, whatever order and gaps the blocks have, with few copies."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tercet.workers.transfer.runs import numbers, runs
from tercet.workers.transfer.words import COPIES_FEW, GAP_WORDS_MAX, SLOT_WORDS, SLOTS, WordPlaces

BLOCKS = 4096


def landing(arrivals: WordPlaces, local, remote, remote_words=0):
    here, there = numbers(local), numbers(remote)
    return arrivals.land(here, there, runs(here, there), remote_words)


def copy(arrivals: WordPlaces, found, words) -> list[int]:
    """Does what a backend would, with `words` as the peer's memory; returns what was read."""
    for here, there, length in found.spans.tolist():
        at = (here - arrivals.address) // 8
        assert 0 <= at <= at + length // 8 <= len(arrivals.words)
        arrivals.words[at : at + length // 8] = words[there // 8 : (there + length) // 8]
    return arrivals.words[found.places].tolist()


def scattered(count: int, distance: int = 7, first: int = 40) -> list[int]:
    """So many blocks, too many to be posted one by one, in no order."""
    return [first + distance * (5 * i % count) for i in range(count)]


MANY = COPIES_FEW + 5


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=60), st.booleans())
def test_every_word_is_found_where_it_was_read_to(remote, slots_taken):
    arrivals = WordPlaces(BLOCKS)
    if slots_taken:
        for _ in range(SLOTS):
            landing(arrivals, range(MANY), scattered(MANY))
    words = np.arange(100, 9200, dtype=np.uint64)
    local = list(range(107, 107 + len(remote)))
    assert copy(arrivals, landing(arrivals, local, remote), words) == words[remote].tolist()


def test_scattered_words_that_lie_close_are_read_in_one_copy():
    found = landing(WordPlaces(BLOCKS), range(MANY), scattered(MANY))
    assert len(found.spans) == 1
    assert found.spans[0].tolist()[1:] == [40 * 8, (7 * (MANY - 1) + 1) * 8]


def test_words_too_far_apart_are_read_apart():
    far = 40 + 7 * (MANY - 1) + GAP_WORDS_MAX + 1
    found = landing(WordPlaces(BLOCKS), range(MANY + 1), [*scattered(MANY), far])
    assert found.spans[:, 2].tolist() == [(7 * (MANY - 1) + 1) * 8, 8]


def test_a_few_words_are_read_one_by_one():
    found = landing(WordPlaces(BLOCKS), range(COPIES_FEW), scattered(COPIES_FEW))
    assert (len(found.spans), found.slot) == (COPIES_FEW, None)


def test_words_that_would_not_fit_a_slot_go_to_their_blocks_places():
    remote = list(range(0, 2 * SLOT_WORDS, 500))
    found = landing(WordPlaces(BLOCKS), range(len(remote)), remote)
    assert found.slot is None
    assert len(found.spans) == len(remote)


def test_a_slot_is_used_again_once_nothing_is_in_flight():
    arrivals = WordPlaces(BLOCKS)
    found = [
        landing(arrivals, range(i * MANY, (i + 1) * MANY), scattered(MANY))
        for i in range(SLOTS + 1)
    ]
    assert sorted(each.slot for each in found[:-1]) == list(range(SLOTS))
    assert found[-1].slot is None
    arrivals.leave(found[3])
    arrivals.leave(found[-1])
    assert landing(arrivals, range(MANY), scattered(MANY)).slot == found[3].slot


def test_a_word_that_was_not_written_shows():
    arrivals = WordPlaces(BLOCKS)
    arrivals.words[:] = 1
    for count in (3, MANY):
        found = landing(arrivals, range(count), scattered(count))
        assert not arrivals.words[found.places].any()
