import pytest

from tercet.kernels.paged_batch import PagedBatch


def test_rows_know_their_position_request_and_page() -> None:
    batch = PagedBatch.of([3, 1], [2, 5], [[7, 8], [4, 5, 6]], page_tokens=4)
    assert (batch.requests, batch.rows) == (2, 4)
    assert batch.query_starts.tolist() == [0, 3, 4]
    assert batch.positions.tolist() == [2, 3, 4, 5]
    assert batch.row_requests.tolist() == [0, 0, 0, 1]
    assert batch.row_pages.tolist() == [7, 7, 8, 5]


def test_rows_without_a_page_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="do not fit"):
        PagedBatch.of([2], [3], [[0]], page_tokens=4)


def test_a_request_without_rows_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="without rows"):
        PagedBatch.of([0], [3], [[0]], page_tokens=4)
