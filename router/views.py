"""What the policies may see of each worker: its last report, set right by our own ledger, and what it has cached for us."""

from tercet.role import Role
from tercet.router.ledger import Ledger
from tercet.router.policy import WorkerView
from tercet.router.session import Session


def view_of(session: Session, ledger: Ledger, hit_tokens: int, now_s: float) -> WorkerView:
    """A frozen picture of one worker at `now_s`, for a request of which it has `hit_tokens` cached."""
    worker, report = session.endpoint, session.report
    pending_tokens = ledger.pending_tokens(worker, report)
    unreported = ledger.unreported(worker)
    load_tokens = pending_tokens
    if worker.role is Role.DECODE:
        load_tokens += ledger.context_tokens(worker, report)
    return WorkerView(
        endpoint=worker,
        report=report,
        report_age_s=session.report_age_s(now_s),
        suspect=session.suspect(now_s),
        pending_tokens=pending_tokens,
        load_tokens=load_tokens,
        outstanding=ledger.outstanding(worker),
        hit_tokens=hit_tokens,
        unreported_requests=unreported.requests,
        unreported_context_tokens=unreported.context_tokens,
    )
