"""Asks every front door of a cluster at once: a call is known where it runs, and nobody else knows which one that is."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tercet.client import Client, RetryPolicy
from tercet.cluster.status import FrontDoorReport
from tercet.errors import TercetError

ASK_TIMEOUT_S = 5.0
ASKED_AT_ONCE_MAX = 16

T = TypeVar("T")


def ask_all(
    doors: Sequence[FrontDoorReport], question: Callable[[Client], T]
) -> list[tuple[FrontDoorReport, T | str]]:
    """Every front door with its answer, or with `host:port: reason` where there was none, in the order given."""

    def ask(door: FrontDoorReport) -> tuple[FrontDoorReport, T | str]:
        return door, ask_one(door, question)

    with ThreadPoolExecutor(ASKED_AT_ONCE_MAX) as threads:
        return list(threads.map(ask, doors))


def ask_one(door: FrontDoorReport, question: Callable[[Client], T]) -> T | str:
    """The answer, or `host:port: reason`."""
    once = RetryPolicy(attempts_max=1)
    try:
        with Client(door.grpc, timeout_s=ASK_TIMEOUT_S, retry=once) as client:
            return question(client)
    except TercetError as exc:
        return f"{door.grpc}: {exc}"
