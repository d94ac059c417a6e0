"""The ledger counts at once, believes reports about the past only, and always returns to zero."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.role import Role
from tercet.router.ledger import SETTLE_S, Ledger
from tercet.wire import Endpoint, LoadReport

MakeEndpoint = Callable[..., Endpoint]


def report(pending: int, context: int = 0) -> LoadReport:
    return LoadReport(
        role=Role.PREFILL,
        waiting=0,
        running=0,
        holding=0,
        pulling=0,
        pending_prefill_tokens=pending,
        context_tokens=context,
        blocks_total=0,
        blocks_used=0,
    )


def unreported(ledger: Ledger, worker: Endpoint) -> tuple[int, int]:
    standing = ledger.standing(worker, None)
    return standing.unreported_requests, standing.unreported_context_tokens


def test_a_dispatch_counts_before_any_report_shows_it(endpoint: MakeEndpoint) -> None:
    ledger, worker = Ledger(), endpoint("prefill-0")
    with ledger.slot() as slot:
        slot.charge(worker, tokens=100, context_tokens=120, now_s=1.0)
        assert ledger.pending_tokens(worker, report(7)) == 107
        assert ledger.pending_tokens(worker, None) == 100
        assert ledger.standing(worker, report(0)).context_tokens == 120
        assert ledger.outstanding(worker) == 1


def test_a_dispatch_counts_once_when_a_report_shows_it(endpoint: MakeEndpoint) -> None:
    ledger, worker = Ledger(), endpoint("prefill-0")
    with ledger.slot() as slot:
        slot.charge(worker, tokens=100, context_tokens=100, now_s=1.0)
        ledger.reconcile(worker, 1.0 + SETTLE_S)
        assert ledger.pending_tokens(worker, report(100)) == 100
        ledger.validate()


def test_a_report_that_crossed_the_dispatch_is_not_believed(endpoint: MakeEndpoint) -> None:
    ledger, worker = Ledger(), endpoint("prefill-0")
    with ledger.slot() as slot:
        slot.charge(worker, tokens=100, context_tokens=100, now_s=1.0)
        ledger.reconcile(worker, 1.0 + SETTLE_S / 2)
        assert ledger.pending_tokens(worker, report(0)) == 100


def test_what_was_prefilled_since_the_last_report_counts_no_more(endpoint: MakeEndpoint) -> None:
    ledger, worker = Ledger(), endpoint("prefill-0")
    with ledger.slot() as slot:
        slot.charge(worker, tokens=100, context_tokens=100, now_s=1.0)
        ledger.reconcile(worker, 2.0)
        slot.prefilled(worker)
        slot.prefilled(worker)
        assert ledger.pending_tokens(worker, report(130)) == 30
        ledger.reconcile(worker, 3.0)
        assert ledger.pending_tokens(worker, report(30)) == 30


def test_what_the_report_had_left_out_of_a_prefill_is_not_taken_off_again(
    endpoint: MakeEndpoint,
) -> None:
    """The first of two was computed but for 10 tokens when the worker reported."""
    ledger, worker = Ledger(), endpoint("prefill-0")
    with ledger.slot() as first, ledger.slot() as second:
        for slot in (first, second):
            slot.charge(worker, tokens=100, context_tokens=100, now_s=1.0)
        ledger.reconcile(worker, 2.0)
        first.prefilled(worker)
        assert ledger.pending_tokens(worker, report(110), computed_tokens=12) == 98
        second.prefilled(worker)
        assert ledger.pending_tokens(worker, report(110), computed_tokens=95) == 10
        assert ledger.pending_tokens(worker, report(110), computed_tokens=108) == 2


def test_the_context_of_a_finished_request_counts_no_more(endpoint: MakeEndpoint) -> None:
    """Else its conversation's next turn would flee from the worker that has the cache."""
    ledger, worker = Ledger(), endpoint("decode-0")
    with ledger.slot() as slot:
        slot.charge(worker, tokens=0, context_tokens=100, now_s=1.0)
        ledger.reconcile(worker, 2.0)
        assert ledger.standing(worker, report(0, context=130)).context_tokens == 130
    assert ledger.standing(worker, report(0, context=130)).context_tokens == 30
    ledger.reconcile(worker, 3.0)
    assert ledger.standing(worker, report(0, context=0)).context_tokens == 0


def test_leaving_the_slot_strikes_everything(endpoint: MakeEndpoint) -> None:
    ledger = Ledger()

    def crash() -> None:
        with ledger.slot() as slot:
            slot.charge(endpoint("prefill-0"), tokens=5, context_tokens=5, now_s=0.0)
            slot.charge(endpoint("decode-0"), tokens=0, context_tokens=5, now_s=0.0)
            assert ledger.charges == 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert ledger.charges == 0
    assert ledger.pending_tokens(endpoint("prefill-0"), None) == 0


def test_a_new_life_of_a_worker_begins_at_zero(endpoint: MakeEndpoint) -> None:
    ledger = Ledger()
    with ledger.slot() as slot:
        slot.charge(endpoint("decode-0", "old"), tokens=5, context_tokens=5, now_s=0.0)
        assert ledger.pending_tokens(endpoint("decode-0", "new"), None) == 0
        slot.strike(endpoint("decode-0", "new"))
        assert ledger.outstanding(endpoint("decode-0", "old")) == 1


STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1), st.integers(0, 50)),
    max_size=60,
)


@given(STEPS)
def test_any_order_of_bookings_returns_to_zero(steps: list[tuple[int, int, int, int]]) -> None:
    ledger, now_s = Ledger(), 0.0
    slots = [ledger.slot() for _ in range(3)]
    workers = [
        Endpoint(name, f"{name}-life", Role.DECODE, "", 1, "")  # type: ignore[arg-type]
        for name in ("decode-0", "decode-1")
    ]
    for kind, who, where, amount in steps:
        slot, worker = slots[who], workers[where]
        now_s += amount / 500
        match kind:
            case 0:
                slot.charge(worker, tokens=amount, context_tokens=amount, now_s=now_s)
            case 1:
                slot.prefilled(worker)
            case 2:
                slot.strike(worker)
            case 3:
                ledger.reconcile(worker, now_s)
        ledger.validate()
    for slot in slots:
        with slot:
            pass
    for worker in workers:
        ledger.reconcile(worker, now_s)
        assert ledger.pending_tokens(worker, report(9)) == 9
        assert ledger.standing(worker, None).context_tokens == 0
    assert ledger.charges == 0


def test_what_no_report_shows_yet_is_told_apart_from_what_one_still_shows(
    endpoint: MakeEndpoint,
) -> None:
    ledger, worker = Ledger(), endpoint("decode-0")
    with ledger.slot() as old, ledger.slot() as new:
        old.charge(worker, tokens=0, context_tokens=100, now_s=1.0)
        assert unreported(ledger, worker) == (1, 100)
        ledger.reconcile(worker, 1.0 + SETTLE_S)
        assert unreported(ledger, worker) == (0, 0)
        new.charge(worker, tokens=0, context_tokens=30, now_s=1.2)
        old.strike(worker)
        assert unreported(ledger, worker) == (0, -70), "one began, one is over"
        ledger.validate()
        ledger.reconcile(worker, 1.2)
        assert unreported(ledger, worker) == (1, 30), "this report crossed the dispatch"
        ledger.validate()
    assert unreported(ledger, worker) == (-1, -30), "it may have shown it all the same"
    ledger.reconcile(worker, 2.0)
    assert unreported(ledger, worker) == (0, 0)
