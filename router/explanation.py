"""Why a call went where it went, as whoever asks is told: all that is known of it, or a line that fits into a header.

Knows records, and neither HTTP nor gRPC.
"""

import json
from collections.abc import Iterator, Mapping

import msgspec

from tercet.errors import InvalidRequest
from tercet.ids import FrontDoorId
from tercet.router.note import ChoiceNote
from tercet.router.record import RequestRecord

EXPLAIN = "x-tercet-explain"
"""The header, or metadata, by which a client asks for the line."""
ROUTE = "x-tercet-route"
"""The one that answers."""
ROUTE_CHARS_MAX = 3072
"""Proxies and gRPC take 8 KiB of headers for granted, and a line is not alone there."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What one front door knows of a call."""

    front_door: FrontDoorId
    kept: int
    """Finished requests it remembers now."""
    kept_max: int
    waiting: int = 0
    """Choices that run or will run here and have no worker yet."""
    requests: tuple[RequestRecord, ...] = ()
    """By choice; empty, with `waiting` 0, where the call is not known."""

    @property
    def is_known(self) -> bool:
        return bool(self.requests or self.waiting)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The route of one choice of the answer; fields that have their names from `RequestRecord` mean the same."""

    index: int
    """The choice's number in the answer."""
    reason: str
    queue_ms: float
    waits: int
    refusals: int
    replays: int
    predicted_ttft_ms: float | None
    choices: tuple[ChoiceNote, ...]


class RouteLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a line says."""

    routes: list[Route]
    left_out: int = 0
    """Choices of the answer that found no room in the line."""
    waiting: int = 0
    """Choices of the answer that had no worker yet."""


def asks_for_route(value: str | None) -> bool:
    """Whether `x-tercet-explain`, None where it was not sent, asks for the line. Raises InvalidRequest."""
    if value not in (None, "0", "1"):
        raise InvalidRequest(EXPLAIN, f"must be 1 or 0, is {value!r}")
    return value == "1"


def route_line(records: Mapping[int, RequestRecord], choices: int) -> str:
    """One line of ASCII JSON about the choices that have a worker. Where it would be too long it names fewer candidates,
    then the chosen ones only, then fewer choices."""
    waiting = choices - len(records)
    for line in _ever_shorter(records):
        text = _ascii(msgspec.structs.replace(line, waiting=waiting))
        if len(text) <= ROUTE_CHARS_MAX:
            return text
    raise AssertionError(f"no route fits into {ROUTE_CHARS_MAX} characters")


def _ever_shorter(records: Mapping[int, RequestRecord]) -> Iterator[RouteLine]:
    routes = [_route(index, record) for index, record in records.items()]
    yield RouteLine(routes=routes)
    for candidates in (2, 1, 0):
        routes = [_with_fewer(route, candidates) for route in routes]
        yield RouteLine(routes=routes)
    for count in range(len(routes) - 1, -1, -1):
        yield RouteLine(routes=routes[:count], left_out=len(routes) - count)


def _route(index: int, record: RequestRecord) -> Route:
    return Route(
        index=index,
        reason=record.reason,
        queue_ms=round(record.queue_ms, 3),
        waits=record.waits,
        refusals=record.refusals,
        replays=record.replays,
        predicted_ttft_ms=_rounded(record.predicted_ttft_ms),
        choices=record.choices,
    )


def _rounded(time_ms: float | None) -> float | None:
    return None if time_ms is None else round(time_ms, 3)


def _with_fewer(route: Route, candidates: int) -> Route:
    choices = tuple(
        msgspec.structs.replace(choice, candidates=choice.candidates[:candidates])
        for choice in route.choices
    )
    return msgspec.structs.replace(route, choices=choices)


def _ascii(line: RouteLine) -> str:
    return json.dumps(msgspec.to_builtins(line), separators=(",", ":"))


def not_remembered(name: str, explanation: Explanation) -> str:
    """What to tell whoever asked for a call that is not known here, and what to do."""
    return (
        f"no request {name!r} is remembered here; this front door keeps the last {explanation.kept_max}"
        f" requests that a worker was looked for, {explanation.kept} now; another front door may have it:"
        " `tercet why` asks them all"
    )


def no_single(name: str, explanation: Explanation) -> str:
    """What to tell whoever asked for one request by a name that several have, or one that has no worker yet."""
    if not explanation.requests:
        return f"{name!r} is still waiting for a worker"
    names = ", ".join(record.request for record in explanation.requests)
    return f"{name!r} stands for {len(explanation.requests)} requests; ask for one of them: {names}"
