"""One step's requests as attention sees them: runs of query rows, and the pages their keys and values live in.

Built once a step on the host and used by every layer. Knows no tensors of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class PagedBatch:
    """Rows `query_starts[r] … query_starts[r + 1] - 1` belong to request `r`, at positions `contexts[r] …`.

    `tables[r, i]` is the page that holds its positions `i * page_tokens …`; unused places are 0. `query_starts` has one
    place more than there are requests.
    """

    query_starts: Ints
    contexts: Ints
    tables: Ints
    page_tokens: int

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        contexts: Sequence[int],
        tables: Sequence[Sequence[int]],
        page_tokens: int,
    ) -> "PagedBatch":
        """From each request's number of new rows, number of tokens before them, and pages."""
        starts = np.zeros(len(lengths) + 1, dtype=np.int32)
        np.cumsum(lengths, out=starts[1:])
        padded = np.zeros((len(tables), max(map(len, tables))), dtype=np.int32)
        for row, table in zip(padded, tables, strict=True):
            row[: len(table)] = table
        batch = cls(starts, np.array(contexts, dtype=np.int32), padded, page_tokens)
        for length, context, table in zip(lengths, contexts, tables, strict=True):
            assert length >= 1, "a request without rows has no place in a batch"
            assert context + length <= len(table) * page_tokens, (
                f"{length} rows after {context} tokens do not fit {len(table)} pages of {page_tokens}"
            )
        return batch

    @property
    def requests(self) -> int:
        return len(self.contexts)

    @property
    def rows(self) -> int:
        return int(self.query_starts[-1])

    @cached_property
    def lengths(self) -> Ints:
        """New rows of each request."""
        return np.diff(self.query_starts)

    @cached_property
    def row_requests(self) -> Ints:
        """The request each row belongs to."""
        return np.repeat(np.arange(self.requests, dtype=np.int32), self.lengths)

    @cached_property
    def positions(self) -> Ints:
        """The position of each row in its own sequence."""
        offsets = self.contexts - self.query_starts[:-1]
        return np.arange(self.rows, dtype=np.int32) + np.repeat(offsets, self.lengths)

    @cached_property
    def row_pages(self) -> Ints:
        """The page each row's key and value belong in."""
        return self.tables[self.row_requests, self.positions // self.page_tokens]
