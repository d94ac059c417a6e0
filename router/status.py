"""What a front door shows of itself: for operators, for the metrics, and for the readiness check."""

import msgspec

from tercet.ids import FrontDoorId, Incarnation, WorkerId
from tercet.role import Role
from tercet.router.policy import WorkerView
from tercet.router.session import Session
from tercet.wire import Accuracy, LoadReport, TierFigures

NO_REPORT = LoadReport(
    role=Role.DECODE,
    waiting=0,
    running=0,
    holding=0,
    pulling=0,
    pending_prefill_tokens=0,
    context_tokens=0,
    blocks_total=0,
    blocks_used=0,
)
"""Stands for a worker that has not reported since it was connected."""


class WorkerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as this front door sees it; figures from its last report are zero before the first one."""

    worker: WorkerId
    incarnation: Incarnation
    role: Role
    connected: bool
    retired: bool
    """Out of the membership, still finishing what it has."""
    suspect: bool
    report_age_s: float
    outstanding: int
    """Requests of this front door that the worker may still hold."""
    pending_tokens: int
    load_tokens: int
    waiting: int
    running: int
    holding: int
    pulling: int
    context_tokens: int
    blocks_total: int
    blocks_used: int
    pulls: int
    pull_bytes: int
    pull_s: float
    pull_failures: int
    quarantined_blocks: int
    retained_blocks: int
    leases: int
    draining: bool = False
    """It wants no more work, and to be rid of what it has."""
    host: TierFigures = TierFigures()


class FrontDoorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One front door, now."""

    front_door: FrontDoorId
    membership_version: int
    policy: str
    in_flight: int
    queued: int
    turned_away: int
    """Requests that got no place, since the start."""
    known_blocks: int
    """Entries of the prefix index."""
    workers: tuple[WorkerSeen, ...]
    known_names: int = 0
    """Names of prefixes that other front doors are known to have sent."""
    ttft_accuracy: Accuracy = Accuracy()
    """How well the last first tokens were predicted."""

    @property
    def ready(self) -> bool:
        """Whether a request could be served now: at least one decode worker may be asked."""
        return any(
            seen.role is Role.DECODE
            and seen.connected
            and not (seen.retired or seen.draining or seen.suspect)
            for seen in self.workers
        )


def worker_seen(session: Session, view: WorkerView) -> WorkerSeen:
    """Put together what the session and the ledger know."""
    report = view.report or NO_REPORT
    return WorkerSeen(
        worker=view.endpoint.worker,
        incarnation=view.endpoint.incarnation,
        role=view.endpoint.role,
        connected=session.connected,
        retired=session.retired,
        suspect=view.suspect,
        report_age_s=view.report_age_s,
        outstanding=view.outstanding,
        pending_tokens=view.pending_tokens,
        load_tokens=view.load_tokens,
        waiting=report.waiting,
        running=report.running,
        holding=report.holding,
        pulling=report.pulling,
        context_tokens=report.context_tokens,
        blocks_total=report.blocks_total,
        blocks_used=report.blocks_used,
        pulls=report.pulls,
        pull_bytes=report.pull_bytes,
        pull_s=report.pull_s,
        pull_failures=report.pull_failures,
        quarantined_blocks=report.quarantined_blocks,
        retained_blocks=report.retained_blocks,
        leases=report.leases,
        draining=report.draining,
        host=report.host,
    )
