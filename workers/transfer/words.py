"""Where generation words of peers are read to, and with how few copies.

Scattered blocks have scattered words, and a copy of eight bytes costs as much as one of thousands. So words between two
wanted ones are read along with them, into one of a few slots; without a free slot each word goes to its block's own place.
"""

from dataclasses import dataclass, field

import numpy as np

from tercet.workers.transfer.base import Spans, Words
from tercet.workers.transfer.runs import Blocks, Runs

WORD_BYTES = 8
GAP_WORDS_MAX = 512
"""Reading 4 KiB along takes about as long as one more copy would."""
COPIES_FEW = 16
"""So many copies are posted sooner than it is found out how to make fewer of them."""
SLOTS = 8
SLOT_WORDS = 8192


@dataclass(frozen=True, slots=True)
class Landing:
    """What to read for one pull and where to find it afterwards."""

    spans: Spans
    places: Blocks
    """Index of each block's word in `WordPlaces.words`."""
    slot: int | None


@dataclass(slots=True)
class WordPlaces:
    """Of a pool of `blocks` blocks: a place for each one's word, then `SLOTS` slots. Registered once, never moved."""

    blocks: int
    words: Words = field(init=False)
    _free: list[int] = field(default_factory=lambda: list(range(SLOTS)))

    def __post_init__(self) -> None:
        self.words = np.zeros(self.blocks + SLOTS * SLOT_WORDS, dtype=np.uint64)

    @property
    def address(self) -> int:
        return int(self.words.ctypes.data)

    @property
    def nbytes(self) -> int:
        return self.words.nbytes

    def land(self, local: Blocks, remote: Blocks, found: Runs, remote_words: int) -> Landing:
        """For words of blocks `remote`, which lie from address `remote_words` on; takes a slot until `leave`.

        `found` are the runs of both. No other landing may have any of the places `local` meanwhile.
        """
        landing = None
        if len(found.length) > COPIES_FEW and self._free:
            landing = self._together(remote, remote_words, len(found.length))
        if landing is None:
            copies = self._spans(found.local, remote_words, found.remote, found.length)
            landing = Landing(copies, local, slot=None)
        # Generations start at 1, so a word that was not written shows.
        self.words[landing.places] = 0
        return landing

    def leave(self, landing: Landing) -> None:
        """Nothing of this landing is in flight any more."""
        if landing.slot is not None:
            self._free.append(landing.slot)

    def _together(self, remote: Blocks, remote_words: int, copies_max: int) -> Landing | None:
        """All that lies close together in one copy each, or None where that does not fit or saves nothing."""
        order = np.argsort(remote)
        ascending = remote[order]
        apart = ascending[1:] - ascending[:-1] > GAP_WORDS_MAX
        ends = np.concatenate((np.flatnonzero(apart) + 1, [len(ascending)]))
        starts = np.concatenate(([0], ends[:-1]))
        first = ascending[starts]
        length = ascending[ends - 1] - first + 1
        if len(length) >= copies_max or length.sum() > SLOT_WORDS:
            return None
        slot = self._free.pop()
        start = self.blocks + slot * SLOT_WORDS + np.cumsum(length) - length
        places = np.empty_like(remote)
        places[order] = ascending + np.repeat(start - first, ends - starts)
        return Landing(self._spans(start, remote_words, first, length), places, slot)

    def _spans(self, place: Blocks, remote_words: int, remote: Blocks, length: Blocks) -> Spans:
        return spans(self.address, place, remote_words, remote, length, WORD_BYTES)


def spans(here: int, local: Blocks, there: int, remote: Blocks, length: Blocks, size: int) -> Spans:
    """Copies of `length[i]` items of `size` bytes each, counted from addresses `here` and `there`."""
    found = np.empty((len(length), 3), dtype=np.uint64)
    found[:, 0] = here + local * size
    found[:, 1] = there + remote * size
    found[:, 2] = length * size
    return found
