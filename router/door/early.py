"""Early rejection by the decode load to come (Mooncake, arXiv 2407.00079, section 7).

    now                       first token of the newcomer
     ├─ decoding ───────┬──────────┤      who is predicted to end before is not counted,
     │       held, prefilling ──┬──┤      who is predicted to begin before is

A request that is let in joins the decodes only when its prefill is over. Whoever looks at the load of now lets in too many
while prompts are on their way, refuses too many when these have arrived, and the load swings. So what counts is the load of
the moment at which the newcomer would begin to decode: the mean over the pool, as if requests were spread evenly. Pure.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from tercet.errors import Overloaded
from tercet.latency import UNFITTED, Coefficients
from tercet.router.door.departures import RETRY_AFTER_S_MAX, RETRY_AFTER_S_MIN, bounded_retry_s
from tercet.wire import LoadReport

REMEMBERED = 256
"""Requests whose time of decoding is remembered."""
RETRY_STEP = 1.25
RETRY_KNOWN_S = 0.25
"""Looking for the moment at which there is room costs thirty looks at everybody; many are refused who come at once."""


class Stay(Protocol):
    """One of our requests. A ticket is one."""

    @property
    def expected_s(self) -> float:
        """When its first token is predicted."""

    @property
    def first_s(self) -> float | None:
        """When it came."""


@dataclass(frozen=True, slots=True)
class Ours:
    """The requests of this door. Who is in the reports and not among those sent is another door's."""

    sent: Collection[Stay]
    held: Collection[Stay]


class Durations:
    """How long requests decoded, of late. Nobody is thought to end before anybody has."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """From the first token to the end."""
        self._seconds.append(seconds)
        self._sorted = []

    def staying(self, ages_s: Iterable[float], more_s: float) -> float:
        """How many of those who have decoded so long go on for so much longer. At a negative age is who begins only then."""
        times = self._sorted = self._sorted or sorted(self._seconds)
        known, unknown, found = len(times), self.staying_share(more_s), 0.0
        for age_s in ages_s:
            older = known - bisect_right(times, age_s)
            if age_s < 0 or not known:
                found += 1 - bisect_right(times, age_s + more_s) / max(1, known)
            elif older:
                found += (known - bisect_right(times, age_s + more_s)) / older
            else:
                found += unknown
        return found

    def staying_share(self, more_s: float) -> float:
        """Of those of whom nothing is known."""
        if not self._seconds:
            return 1.0
        mean_s = sum(self._seconds) / len(self._seconds)
        return math.exp(-more_s / max(mean_s, 1e-6))


@dataclass(frozen=True, slots=True)
class DecodeLoad:
    """What the reports of the workers say together."""

    workers: int
    """Decode workers that know how long their steps take."""
    requests: int
    """On these workers and on prefill workers, whatever they do there."""
    context_tokens: float
    """Of one of them, in the mean."""
    coefficients: Coefficients
    """Of a decode step, in the mean."""

    @classmethod
    def of(cls, decodes: Iterable[LoadReport], prefills: Iterable[LoadReport]) -> "DecodeLoad":
        fitted = [report for report in decodes if report.decode_coefficients != UNFITTED]
        running = sum(report.running for report in fitted)
        workers = max(1, len(fitted))
        c0, c1, c2 = (sum(r.decode_coefficients[i] for r in fitted) / workers for i in range(3))
        before = sum(report.waiting + report.running for report in prefills)
        return cls(
            workers=len(fitted),
            requests=before + running + sum(r.pulling + r.waiting for r in fitted),
            context_tokens=sum(report.context_tokens for report in fitted) / max(1, running),
            coefficients=(c0, c1, c2),
        )

    def itl_s(self, requests: float) -> float:
        """One decode step when so many are spread evenly."""
        fixed_s, request_s, token_s = self.coefficients
        batch = requests / self.workers
        return fixed_s + batch * (request_s + token_s * self.context_tokens)


class Early:
    """Says whom not to let in so that the time between tokens stays below `itl_s_max`."""

    def __init__(self, itl_s_max: float) -> None:
        self.durations = Durations()
        self._itl_s_max = itl_s_max
        self._room_s = self._room_known_s = -math.inf
        """When there will be room, and when that was found out."""

    def objection(
        self, first_s: float, load: DecodeLoad, ours: Ours, now_s: float
    ) -> Overloaded | None:
        """To somebody whose first token is predicted for `first_s`. None where anybody would be idle: waiting would not help."""
        if not load.workers:
            return None
        requests = self.requests_at(first_s, load, ours, now_s)
        itl_s = load.itl_s(requests + 1)
        if requests < load.workers or itl_s <= self._itl_s_max:
            return None
        if now_s - self._room_known_s >= RETRY_KNOWN_S:
            self._room_known_s = now_s
            self._room_s = now_s + self._retry_s(first_s, load, ours, now_s)
        reason = f"{1e3 * itl_s:.0f} ms between tokens are predicted, more than {1e3 * self._itl_s_max:g} ms"
        return Overloaded(reason, bounded_retry_s(self._room_s - now_s))

    def requests_at(self, at_s: float, load: DecodeLoad, ours: Ours, now_s: float) -> float:
        """How many are predicted to decode then, if nobody else comes."""
        ages_s = [
            now_s - (stay.expected_s if stay.first_s is None else stay.first_s)
            for stay in chain(ours.sent, ours.held)
            if stay.first_s is not None or stay.expected_s <= at_s
        ]
        more_s, others = at_s - now_s, max(0, load.requests - len(ours.sent))
        return self.durations.staying(ages_s, more_s) + others * self.durations.staying_share(
            more_s
        )

    def _retry_s(self, first_s: float, load: DecodeLoad, ours: Ours, now_s: float) -> float:
        """After how long there is room for one who comes then, and whose first token takes as long."""
        retry_s = RETRY_AFTER_S_MIN
        while retry_s < RETRY_AFTER_S_MAX:
            requests = self.requests_at(first_s + retry_s, load, ours, now_s)
            if load.itl_s(requests + 1) <= self._itl_s_max:
                break
            retry_s *= RETRY_STEP
        return retry_s
