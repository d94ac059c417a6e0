"""DualMap whole: where requests of a conversation go, and what hot prefixes, losses and overload do to that."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from msgspec import structs

from tercet.ids import WorkerId
from tercet.router.dualmap import PairReason
from tercet.router.policies import POLICIES
from tercet.router.policy import Ask, Choice, Chooser, WorkerView
from tercet.router.pool import ListedPool

MakeView = Callable[..., WorkerView]
MakeAsk = Callable[..., Ask]


def dualmap(slo_ms: float = 5000, **options: float) -> Chooser:
    options = {"ttft_slo_ms": slo_ms, "requests_min": 4, **options}
    return POLICIES.options("dualmap", options).build(random.Random(1))


def choose(policy: Chooser, ask: Ask, views: list[WorkerView]) -> Choice:
    choice = policy.choose(ask, ListedPool(views))
    assert choice is not None
    return choice


@pytest.fixture
def idle(view: MakeView) -> list[WorkerView]:
    return [view(f"prefill-{number}") for number in range(8)]


@dataclass
class Glass:
    """A pool that notes who is looked at."""

    pool: ListedPool
    found: list[WorkerId] = field(default_factory=list)

    @property
    def members(self) -> frozenset[WorkerId]:
        return self.pool.members

    def find(self, worker: WorkerId) -> WorkerView | None:
        self.found.append(worker)
        return self.pool.find(worker)

    def nearest(self, beyond_tokens: float = 0) -> Iterator[WorkerView]:
        return self.pool.nearest(beyond_tokens)

    def __iter__(self) -> Iterator[WorkerView]:
        for view in self.pool:
            self.found.append(view.worker)
            yield view


def test_two_workers_are_looked_at_and_the_choice_says_which(
    ask: MakeAsk, idle: list[WorkerView]
) -> None:
    glass = Glass(ListedPool(idle))
    choice = dualmap().choose(ask("r", "a/b"), glass)
    assert choice is not None
    assert len(glass.found) == len(set(glass.found)) <= 3, (
        "the second hash may meet the first owner"
    )
    assert [scored.view.worker for scored in choice.candidates] == sorted(
        glass.found, key=glass.found.index
    )[:2]
    assert choice.reason == PairReason.BALANCE
    assert choice.candidates[0].predicted_ttft_s == pytest.approx(1.024)


def test_who_holds_the_prompt_is_asked_before_the_pair_unless_it_would_be_late(
    ask: MakeAsk, idle: list[WorkerView]
) -> None:
    a = ask("a", "sys/chat/turn/now")
    pair = {scored.view.worker for scored in choose(dualmap(), a, idle).candidates}
    other = next(view.worker for view in idle if view.worker not in pair)

    def choice(hit_tokens: int, pending_tokens: int) -> Choice:
        changed = {"hit_tokens": hit_tokens, "pending_tokens": pending_tokens}
        views = [structs.replace(v, **changed) if v.worker == other else v for v in idle]
        return choose(dualmap(), a, views)

    held = choice(1536, 4000)
    assert (held.view.worker, held.reason) == (other, PairReason.HOLDER)
    assert len(held.candidates) == 2, "and the better one of the pair may draw it"
    assert choice(1536, 5000).reason == PairReason.BALANCE
    assert choice(128, 0).reason == PairReason.BALANCE, "too little to be of use"


def test_the_turns_of_a_conversation_stay_with_two_workers_whatever_their_load(
    ask: MakeAsk, idle: list[WorkerView]
) -> None:
    policy, dice = dualmap(slo_ms=1e9), random.Random(2)
    chosen = set()
    for turn in range(100):
        views = [structs.replace(view, pending_tokens=dice.randrange(10_000)) for view in idle]
        path = "/".join(["chat", *(f"turn-{n}" for n in range(turn % 12))])
        chosen.add(choose(policy, ask(f"r{turn % 3}", path), views).view.worker)
    assert len(chosen) == 2


def test_without_knowing_the_prompt_everybody_gets_his_share(
    ask: MakeAsk, idle: list[WorkerView]
) -> None:
    policy = dualmap()
    counts = Counter(choose(policy, ask(f"r{n}", "", 9), idle).view.worker for n in range(800))
    assert len(counts) == 8
    assert max(counts.values()) < 250


def test_a_system_prompt_that_everybody_shares_does_not_tie_everybody_to_two_workers(
    ask: MakeAsk, idle: list[WorkerView]
) -> None:
    """The paper's conversation trace: each prompt begins with the same 512 tokens, which both of its pair soon have."""
    policy = dualmap()
    counts: Counter[WorkerId] = Counter()
    for number in range(400):
        views = [structs.replace(view, pending_tokens=counts[view.worker]) for view in idle]
        request = ask(f"r{number}", f"system/chat-{number}/turn-1")
        counts[choose(policy, request, views).view.worker] += 1
    assert len(counts) == 8
    assert max(counts.values()) < 1.5 * 400 / 8


def test_with_keys_of_fixed_length_it_would(ask: MakeAsk, idle: list[WorkerView]) -> None:
    policy = dualmap(requests_min=1000)
    requests = [ask(f"r{number}", f"system/chat-{number}") for number in range(50)]
    assert len({choose(policy, request, idle).view.worker for request in requests}) <= 2


def test_a_worker_that_may_not_be_asked_is_followed_by_the_next_on_the_ring(
    ask: MakeAsk, idle: list[WorkerView]
) -> None:
    policy, request = dualmap(), ask("r", "a/b")
    pair = [scored.view.worker for scored in choose(policy, request, idle).candidates]
    views = [structs.replace(view, suspect=view.worker == pair[0]) for view in idle]
    detour = [scored.view.worker for scored in choose(policy, request, views).candidates]
    assert pair[0] not in detour
    assert pair[1] in detour
    views = [view for view in idle if view.worker != pair[0]]
    left = [scored.view.worker for scored in choose(policy, request, views).candidates]
    assert left == detour, "as if it had left"
    assert [s.view.worker for s in choose(policy, request, idle).candidates] == pair, "and back"


def test_one_usable_worker_is_alone(ask: MakeAsk, view: MakeView) -> None:
    choice = choose(dualmap(), ask("r", "a"), [view("a"), view("b", suspect=True)])
    assert (choice.view.worker, choice.reason) == ("a", PairReason.ALONE)
    assert dualmap().choose(ask("r", "a"), ListedPool([view("a", suspect=True)])) is None


def test_more_suspects_than_a_detour_passes_still_leave_a_choice(
    ask: MakeAsk, view: MakeView
) -> None:
    views = [view(f"prefill-{number}", suspect=number != 17) for number in range(60)]
    policy = dualmap()
    for number in range(20):
        assert (
            choose(policy, ask(f"r{number}", f"chat-{number}"), views).view.worker == "prefill-17"
        )


def test_when_neither_of_the_pair_will_do_the_earliest_of_all_is_chosen(
    ask: MakeAsk, idle: list[WorkerView]
) -> None:
    request = ask("r", "a/b")
    pair = {scored.view.worker for scored in choose(dualmap(), request, idle).candidates}
    views = [
        structs.replace(view, pending_tokens=9000 if view.worker in pair else 100 * number)
        for number, view in enumerate(idle)
    ]
    earliest = min((v for v in views), key=lambda v: v.pending_tokens).worker
    choice = choose(dualmap(), request, views)
    assert (choice.view.worker, choice.reason) == (earliest, PairReason.ESCAPE)
    assert len(choice.candidates) == 8
    kept = choose(dualmap(escape=0), request, views)
    assert kept.view.worker in pair
    assert kept.reason is PairReason.ESCAPE


def test_all_front_doors_agree_on_a_prefix(ask: MakeAsk, idle: list[WorkerView]) -> None:
    one, other = dualmap(), dualmap()
    for number in range(50):
        request = ask(f"r{number}", f"chat-{number}/turn")
        views = [structs.replace(view, pending_tokens=number * len(view.worker)) for view in idle]
        pairs = [
            [scored.view.worker for scored in choose(policy, request, order).candidates]
            for policy, order in ((one, views), (other, views[::-1]))
        ]
        assert pairs[0] == pairs[1]
