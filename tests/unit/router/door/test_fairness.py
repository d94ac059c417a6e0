"""Whose turn it is: equal shares of tokens, by weight, and nothing saved up."""

from collections import Counter

import pytest

from tercet.router.door import FairShare
from tercet.router.door.fairness import TENANTS_MAX


class Queue:
    """Serves the lowest tag first."""

    def __init__(self, fair: FairShare) -> None:
        self.fair = fair
        self.waiting: list[tuple[float, str, int]] = []

    def ask(self, tenant: str, tokens: int, times: int = 1) -> None:
        self.waiting += [(self.fair.tag(tenant, tokens), tenant, tokens) for _ in range(times)]

    def serve(self, most: int) -> Counter[str]:
        """How many tokens of whom."""
        served: Counter[str] = Counter()
        for _ in range(most):
            first = min(self.waiting)
            self.waiting.remove(first)
            self.fair.served(*first[1:])
            served[first[1]] += first[2]
        return served


@pytest.fixture
def queue() -> Queue:
    return Queue(FairShare(lambda tenant: 3.0 if tenant == "gold" else 1.0))


def test_a_flood_does_not_take_the_turns_of_others(queue: Queue) -> None:
    queue.ask("flood", 100, times=50)
    queue.serve(10)
    queue.ask("other", 100, times=5)
    assert queue.serve(10)["other"] == 500


def test_shares_are_counted_in_tokens(queue: Queue) -> None:
    queue.ask("long", 400, times=50)
    queue.ask("short", 100, times=50)
    served = queue.serve(50)
    assert abs(served["long"] - served["short"]) <= 400


def test_weights_are_shares(queue: Queue) -> None:
    queue.ask("gold", 100, times=60)
    queue.ask("plain", 100, times=60)
    assert queue.serve(40) == {"gold": 3000, "plain": 1000}


def test_who_was_away_has_saved_up_nothing(queue: Queue) -> None:
    queue.ask("away", 100)
    queue.ask("busy", 100, times=150)
    queue.serve(101)
    queue.ask("away", 100, times=20)
    assert 400 <= queue.serve(10)["away"] <= 600


def test_output_counts_when_it_is_there(queue: Queue) -> None:
    queue.fair.tag("talker", 10)
    queue.fair.generated("talker", 1000)
    assert queue.fair.tag("talker", 10) == 1010
    assert queue.fair.tag("listener", 10) == 0


def test_output_counts_from_now_on_for_who_has_fallen_behind(queue: Queue) -> None:
    queue.ask("talker", 10)
    queue.ask("busy", 100, times=51)
    queue.serve(51)
    queue.fair.generated("talker", 100)
    first = queue.fair.tag("talker", 10)
    assert first == queue.fair.tag("newcomer", 10) + 100


def test_a_turn_that_is_not_taken_is_given_back(queue: Queue) -> None:
    """Else a tenant pays for every request that was turned away, and later waits behind everybody."""
    for _ in range(1000):
        queue.fair.tag("refused", 100)
        queue.fair.unserved("refused", 100)
    assert queue.fair.tag("refused", 100) == 0


def test_a_line_that_is_ahead_moves_the_time_by_what_it_served_only(queue: Queue) -> None:
    """The flood is served out of turn in one of many lines: a newcomer waits neither behind the others nor before them."""
    for _ in range(100):
        queue.fair.tag("flood", 100)
    for _ in range(10):  # with tags of 9,000 and more
        queue.fair.served("flood", 100)
    assert queue.fair.tag("newcomer", 100) == 1000


def test_tenants_that_nobody_has_to_remember_are_forgotten() -> None:
    fair = FairShare()
    for number in range(3 * TENANTS_MAX):
        fair.tag(f"t{number}", 100)
        fair.generated(f"u{number}", 1)
        if number:
            fair.served(f"t{number - 1}", 100)
        assert len(fair) <= TENANTS_MAX + 1
    fair.unserved(f"t{number}", 100)
    fair._now = 1e9
    fair.tag("last", 1)
    assert len(fair) == 1


def test_who_waits_is_remembered_however_many_others_there_are() -> None:
    fair = FairShare()
    first = fair.tag("waits", 100)
    for number in range(2 * TENANTS_MAX):
        fair.generated(f"u{number}", 1000)
    fair.served("waits", 100)
    assert fair.tag("waits", 100) == first + 100
