"""What the policies may see of each worker: its last report, set right by our own ledger, and what it has cached for us."""

from tercet.role import Role
from tercet.router.ledger import Ledger
from tercet.router.policy import WorkerView
from tercet.router.pool import Peer


def view_of(
    peer: Peer, ledger: Ledger, hit_tokens: int, now_s: float, token_s: float = 0.0
) -> WorkerView:
    """A frozen picture of one worker at `now_s`, for a request of which it has `hit_tokens` cached.

    With `token_s`, the time it takes for a token, what it has computed since its report is taken off the report.
    """
    worker, report, age_s = peer.endpoint, peer.report, peer.report_age_s(now_s)
    standing = ledger.standing(worker, report, int(age_s / token_s) if token_s else 0)
    load_tokens = standing.pending_tokens
    if worker.role is Role.DECODE:
        load_tokens += standing.context_tokens
    return WorkerView(
        endpoint=worker,
        report=report,
        report_age_s=age_s,
        suspect=peer.suspect(now_s),
        pending_tokens=standing.pending_tokens,
        load_tokens=load_tokens,
        outstanding=standing.outstanding,
        hit_tokens=hit_tokens,
        unreported_requests=standing.unreported_requests,
        unreported_context_tokens=standing.unreported_context_tokens,
    )


def pending_tokens(peer: Peer, ledger: Ledger, now_s: float, token_s: float) -> int:
    """Prompt tokens that the worker has still to compute at `now_s`."""
    computed_tokens = int(peer.report_age_s(now_s) / token_s) if token_s else 0
    return ledger.pending_tokens(peer.endpoint, peer.report, computed_tokens)
