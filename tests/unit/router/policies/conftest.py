"""Workers of a made-up pool."""

from collections.abc import Callable

import pytest

from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.router.policy import WorkerView
from tercet.wire import Endpoint, LoadReport

MakeView = Callable[..., WorkerView]


@pytest.fixture
def view() -> MakeView:
    """A worker that computes 1,000 tokens a second."""

    def make(
        name: str,
        *,
        hit: int = 0,
        pending: int = 0,
        contexts: int = 0,
        outstanding: int = 0,
        blocks_used: int = 0,
    ) -> WorkerView:
        report = LoadReport(
            role=Role.DECODE,
            waiting=0,
            running=0,
            holding=0,
            pulling=0,
            pending_prefill_tokens=pending,
            context_tokens=contexts,
            blocks_total=1000,
            blocks_used=blocks_used,
            prefill_coefficients=(0.0, 1e-3, 1e-6),
        )
        life = Incarnation("1")
        endpoint = Endpoint(WorkerId(name), life, Role.DECODE, "127.0.0.1", 1, host_id="here")
        load = pending + contexts
        return WorkerView(endpoint, report, 0.0, False, pending, load, outstanding, hit)

    return make
