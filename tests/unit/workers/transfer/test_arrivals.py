"""Words are found where they were read to, whatever order and gaps the blocks have, with few copies."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tercet.workers.transfer.arrivals import GAP_WORDS_MAX, SLOT_WORDS, SLOTS, Arrivals
from tercet.workers.transfer.runs import numbers, runs

BLOCKS = 4096


def landing(arrivals: Arrivals, local, remote, remote_words=0):
    here, there = numbers(local), numbers(remote)
    return arrivals.land(here, there, runs(here, there), remote_words)


def copy(arrivals: Arrivals, found, words) -> list[int]:
    """Does what a backend would, with `words` as the peer's memory; returns what was read."""
    for here, there, length in found.spans.tolist():
        at = (here - arrivals.address) // 8
        assert 0 <= at <= at + length // 8 <= len(arrivals.words)
        arrivals.words[at : at + length // 8] = words[there // 8 : (there + length) // 8]
    return arrivals.words[found.places].tolist()


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=60), st.booleans())
def test_every_word_is_found_where_it_was_read_to(remote, slots_taken):
    arrivals = Arrivals(BLOCKS)
    if slots_taken:
        for _ in range(SLOTS):
            landing(arrivals, [0, 1], [5, 9])
    words = np.arange(100, 9200, dtype=np.uint64)
    local = list(range(7, 7 + len(remote)))
    assert copy(arrivals, landing(arrivals, local, remote), words) == words[remote].tolist()


def test_scattered_words_that_lie_close_are_read_in_one_copy():
    found = landing(Arrivals(BLOCKS), [5, 9, 2], [40, 7, 90])
    assert len(found.spans) == 1
    assert found.spans[0].tolist()[1:] == [7 * 8, 84 * 8]


def test_words_too_far_apart_are_read_apart():
    found = landing(Arrivals(BLOCKS), [5, 9, 2], [0, 7, 8 + GAP_WORDS_MAX])
    assert found.spans[:, 2].tolist() == [8 * 8, 8]


def test_words_that_would_not_fit_a_slot_go_to_their_blocks_places():
    remote = list(range(0, 2 * SLOT_WORDS, 500))
    found = landing(Arrivals(BLOCKS), list(range(len(remote))), remote)
    assert found.slot is None
    assert len(found.spans) == len(remote)


def test_a_slot_is_used_again_once_nothing_is_in_flight():
    arrivals = Arrivals(BLOCKS)
    found = [landing(arrivals, [2 * i, 2 * i + 1], [9, 5]) for i in range(SLOTS + 1)]
    assert sorted(each.slot for each in found[:-1]) == list(range(SLOTS))
    assert found[-1].slot is None
    arrivals.leave(found[3])
    arrivals.leave(found[-1])
    assert landing(arrivals, [0, 1], [9, 5]).slot == found[3].slot


def test_a_word_that_was_not_written_shows():
    arrivals = Arrivals(BLOCKS)
    arrivals.words[:] = 1
    assert not arrivals.words[landing(arrivals, [3, 1, 2], [7, 700, 8]).places].any()
