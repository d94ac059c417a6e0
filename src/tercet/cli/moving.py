"""Moves a running call: asks every front door for it, and waits at the one that has it until its records say how that went."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tercet.cli.doors import ask_all, ask_one
from tercet.cli.finding import NotFound
from tercet.cli.story import moved
from tercet.cli.why import explain
from tercet.client import Client
from tercet.cluster.status import FrontDoorReport
from tercet.ids import RequestId
from tercet.router.record import Outcome, RequestRecord
from tercet.router.relocation import MoveOrder, Relocation

POLL_S = 0.05
WAIT_S_MAX = 30.0
"""A move that has not ended by then goes on, but is not waited for any longer."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the move of one request ended."""

    request: RequestId
    story: str
    moved: bool

    def __str__(self) -> str:
        return f"{self.request}: {self.story}"


def move_call(doors: Sequence[FrontDoorReport], request: str, to: str) -> list[Ending]:
    """Have the call moved, and wait. Raises NotFound when no front door knows it."""

    def order(client: Client) -> Relocation:
        return msgspec.json.decode(client.move(request, to), type=Relocation)

    answers = ask_all(doors, order)
    endings = [
        _ending(door, one)
        for door, said in answers
        if isinstance(said, Relocation)
        for one in said.moves
    ]
    if not endings:
        silent = [said for _, said in answers if isinstance(said, str)]
        raise NotFound("; ".join([f"no front door knows {request!r}", *silent]))
    return endings


def _ending(door: FrontDoorReport, order: MoveOrder) -> Ending:
    if order.to is None:
        return Ending(order.request, f"stays where it is: {order.reason}", moved=False)
    deadline_s = time.monotonic() + WAIT_S_MAX
    record = ask_one(door, lambda client: _record(client, order.request))
    while not isinstance(record, str) and not _is_over(record) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
        record = ask_one(door, lambda client: _record(client, order.request))
    if isinstance(record, str):
        story = f"goes to {order.to}, but how that went is not known: {record}"
        return Ending(order.request, story, moved=False)
    note = record.moves[-1]
    return Ending(order.request, moved(note), moved=note.took_ms is not None and not note.reason)


def _record(client: Client, request: RequestId) -> RequestRecord:
    found = explain(client, request).requests
    if not found:
        raise NotFound("it has ended, and many others since")
    return found[0]


def _is_over(record: RequestRecord) -> bool:
    """Whether the last move has ended, and the next token, which tells what it cost, has come or will not."""
    note = record.moves[-1]
    if note.took_ms is None:
        return False
    return bool(note.reason) or note.stall_ms is not None or record.outcome is not Outcome.RUNNING
