"""Pages about odd results: nothing served, one request, many workers."""

import pytest

from tercet.simulator import IdealModel, SimulationOptions, simulate
from tercet.simulator.report import page


@pytest.mark.parametrize("workers", [1, 40])
def test_a_page_can_be_drawn_of_a_single_request(cluster, open_trace, workers):
    results = simulate(cluster(workers), open_trace((0.0, 100)), SimulationOptions())
    text = page(results)
    assert f"{workers} decode workers" in text
    assert "decode-0" in text
    assert text.count("<svg") == 4, "it has no second token, so no times between tokens"


def test_a_page_can_be_drawn_where_nobody_was_served(cluster, open_trace):
    results = simulate(cluster(1, kv_blocks=1), open_trace((0.0, 500)), SimulationOptions())
    assert (results.requests, results.failed) == (1, 1)
    assert results.ttft_s.p50 is None
    assert "<td>-</td>" in page(results)


def test_the_same_results_are_the_same_page(cluster, open_trace):
    pages = {
        page(
            simulate(
                cluster(2),
                open_trace((0.0, 300), (1.0, 200)),
                SimulationOptions(model=IdealModel()),
            )
        )
        for _ in range(2)
    }
    assert len(pages) == 1
