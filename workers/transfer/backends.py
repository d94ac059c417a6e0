"""The backends by name. NIXL's library is loaded when it is asked for."""

from collections.abc import Callable
from functools import cache

from tercet.config import TransferConfig
from tercet.workers.transfer.base import OpenAgent
from tercet.workers.transfer.fake import FakeNetwork
from tercet.workers.transfer.nixl import nixl_backend


@cache
def process_network() -> FakeNetwork:
    """The fake network that workers of this process share unless a test gives them one of their own."""
    return FakeNetwork()


def _fake(config: TransferConfig) -> OpenAgent:
    return process_network().backend()


BACKENDS: dict[str, Callable[[TransferConfig], OpenAgent]] = {"nixl": nixl_backend, "fake": _fake}


def backend(config: TransferConfig) -> OpenAgent:
    """The backend that `config.backend` names."""
    return BACKENDS[config.backend](config)
