"""A burst of equal requests spreads over equal workers before anybody has reported anything, whatever the policy."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

OpenHall = Callable[..., Any]
EVEN = ("round_robin", "least_pending", "min_ttft", "prefix_affinity", "kv_cost", "cache_aware")


@pytest.mark.parametrize("policy", EVEN)
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_burst_spreads_evenly_without_any_report(
    hall: OpenHall, policy: str, workers: int
) -> None:
    home = hall(workers, policy=policy, ahead_s=0.5)
    for worker in home.pool.workers.values():
        worker.report = None
    tickets = [home.enter(tokens=1600) for _ in range(8 * workers)]
    waiting = Counter(ticket.worker for ticket in tickets if ticket.route is not None)
    spread = waiting + Counter(home.sent.values())
    assert spread.total() == 8 * workers
    assert len(spread) == workers
    assert max(spread.values()) - min(spread.values()) <= 2, spread
    assert sum(Counter(home.sent.values()).values()) >= 2 * workers, "and nobody is idle"


def test_dualmap_spreads_distinct_prefixes(hall: OpenHall) -> None:
    """Each may go to two of eight workers; nobody is idle and nobody has twice as much as another one."""
    home = hall(8, policy="dualmap")
    for worker in home.pool.workers.values():
        worker.report = None
    tickets = [home.enter(tokens=1600) for _ in range(128)]
    waiting = Counter(ticket.worker for ticket in tickets if ticket.route is not None)
    spread = waiting + Counter(home.sent.values())
    assert spread.total() == 128
    assert len(spread) == 8
    assert max(spread.values()) <= 2 * min(spread.values()), spread
