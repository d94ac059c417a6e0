"""A made-up cluster of equal workers, and asks whose prefixes have readable names."""

from collections.abc import Callable, Sequence

import pytest

from tercet.ids import Incarnation, RequestId, WorkerId
from tercet.role import Role
from tercet.router.policy import Ask, WorkerView
from tercet.router.prefix_names import PrefixName, mix
from tercet.wire import Endpoint, LoadReport

MakeView = Callable[..., WorkerView]
MakeAsk = Callable[..., Ask]


@pytest.fixture
def view() -> MakeView:
    """A worker that computes 1,000 tokens a second, or has not measured itself."""

    def make(
        name: str,
        *,
        hit: int = 0,
        pending: int = 0,
        contexts: int = 0,
        suspect: bool = False,
        fitted: bool = True,
        blocks_used: int = 0,
    ) -> WorkerView:
        report = LoadReport(
            role=Role.PREFILL,
            waiting=0,
            running=0,
            holding=0,
            pulling=0,
            pending_prefill_tokens=pending,
            context_tokens=contexts,
            blocks_total=1000,
            blocks_used=blocks_used,
            prefill_coefficients=(0.0, 1e-3 if fitted else 0.0, 0.0),
        )
        endpoint = Endpoint(
            WorkerId(name), Incarnation("1"), Role.PREFILL, "127.0.0.1", 1, host_id="here"
        )
        return WorkerView(endpoint, report, 0.0, suspect, pending, pending + contexts, 0, hit)

    return make


@pytest.fixture
def ask() -> MakeAsk:
    """A request whose granules of 512 tokens, one block each here, are named by a path such as `system/chat-7/turn-2`."""

    def make(request: str, path: str, tokens: int | None = None, at_s: float = 0.0) -> Ask:
        parts: Sequence[str] = path.split("/") if path else []
        names = [PrefixName(_name("/".join(parts[: end + 1]))) for end in range(len(parts))]
        length = 512 * len(names) if tokens is None else tokens
        return Ask(RequestId(request), length, names=names, block_tokens=512, at_s=at_s)

    return make


def _name(text: str) -> int:
    value = 0
    for byte in text.encode():
        value = mix(value ^ byte)
    return value
