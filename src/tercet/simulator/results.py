"""What a simulation found: figures, each with its definition, and series for plots. Equal inputs give equal bytes of JSON."""

import math
from array import array
from collections.abc import Mapping

import msgspec

from tercet.ids import WorkerId
from tercet.role import Role
from tercet.simulator.stretches import Gaps

CURVE_POINTS = 200


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything in the results."""


class Quantiles(Record, frozen=True, kw_only=True):
    """By nearest rank, of the requests that have the figure; None where none has."""

    p50: float | None
    p90: float | None
    p99: float | None


class WorkerResult(Record, frozen=True, kw_only=True):
    """One worker from the start to the end of the last request."""

    worker: WorkerId
    role: Role
    busy_share: float
    """The share of the time in which it computed."""
    requests: int
    """Those it prefilled or decoded to their end; a request that was handed off counts at both."""


class Series(Record, frozen=True, kw_only=True):
    """At most 500 points. A rate is that of the time since the point before; None where nothing ended."""

    times_s: list[float]
    queued: list[int]
    """Requests that wait at front doors."""
    in_flight: list[int]
    """Requests that have arrived and not ended, queued ones included."""
    requests_per_s: list[float]
    """Served."""
    hit_rate: list[float | None]


class LoadSeries(Record, frozen=True, kw_only=True):
    """The share of the time since the point before in which each worker computed. The more workers, the fewer points."""

    times_s: list[float]
    workers: dict[WorkerId, list[float]]


class Setup(Record, frozen=True, kw_only=True):
    """What was simulated."""

    trace: str
    cluster: str
    policy: str
    policy_options: dict[str, float]
    prefill_workers: int
    decode_workers: int
    block_tokens: int
    cache_tokens: int
    """Of one worker that computes prompts."""
    slo_ttft_s: float
    slo_itl_s: float
    machine: str
    front_doors: int
    report_age_s: float
    knowledge: str
    accounts: bool
    network_s: float
    estimate_noise: float
    failures: list[str]
    speeds: dict[WorkerId, float]
    warm_up_share: float
    seed: int


class Pace(Record, frozen=True, kw_only=True):
    """How fast the simulator itself was. Differs from run to run, so it is in no JSON."""

    wall_s: float
    requests_per_min: float


class Results(Record, frozen=True, kw_only=True):
    """Requests that arrived during the warm-up are in none of the figures up to `pause_s`, and in all others."""

    requests: int
    """All that were counted: served, failed and rejected."""
    failed: int
    """Ended by an error that was not a refusal to take them: too many losses, or no worker could ever serve them."""
    rejected: int
    """Turned away by a front door: the queue was full, or they waited too long, or no worker was there."""
    hit_rate: float
    """Of the prompt tokens of served requests: the share that the worker which prefilled found in its cache."""
    slo_attainment: float
    """The share of all requests, failed and rejected ones included, that were served with their first token within
    `slo.ttft_ms` and a mean time between tokens within `slo.itl_ms`."""
    ttft_s: Quantiles
    """From the arrival at the front door to the first token, of requests that got one."""
    tpot_s: Quantiles
    """The mean time between tokens of a request, of requests with at least two."""
    pause_s: Quantiles
    """The longest time between two tokens of a request, of those requests."""
    itl_s: Quantiles
    """Of all times between two tokens of a request, of all requests together; known to 1 %."""
    load_cv: float
    """Standard deviation over mean of the workers' busy times; of two pools, each by itself, weighed by their sizes."""
    gpu_hours: float
    """Workers times GPUs of each (one where the file reserves none) times the duration; a worker that is down counts."""
    duration_s: float
    """From the start of the trace to the end of the last request."""
    output_tokens_per_s: float
    """Over the whole duration."""
    refusals: int
    """Times that a worker said no and a request went back to the door."""
    replays: int
    """Times that a request began again because its worker was lost."""
    queued_max: int
    """The longest queue at all front doors together, of the times in `series`."""
    workers: list[WorkerResult]
    series: Series
    load: LoadSeries
    ttft_curve_s: list[float]
    """Quantiles 0, 1/200 … 1 of `ttft_s`; empty where there is none."""
    itl_curve_s: list[float]
    """The same of `itl_s`."""
    setup: Setup
    pace: Pace

    def json(self) -> bytes:
        """Everything but the simulator's own pace, so that equal inputs give equal bytes."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "pace"}
        return msgspec.json.format(msgspec.json.encode(fields), indent=1)


def quantiles(ordered: "array[float]") -> Quantiles:
    """Of numbers in order."""
    p50, p90, p99 = (_rank(ordered, share) for share in (0.5, 0.9, 0.99))
    return Quantiles(p50=p50, p90=p90, p99=p99)


def gap_quantiles(gaps: Gaps) -> Quantiles:
    """Of many requests' times between tokens."""
    p50, p90, p99 = (gap and rounded(gap) for gap in map(gaps.quantile_s, (0.5, 0.9, 0.99)))
    return Quantiles(p50=p50, p90=p90, p99=p99)


def gap_curve(gaps: Gaps) -> list[float]:
    """The same as evenly spaced quantiles."""
    points = [gaps.quantile_s(i / CURVE_POINTS) for i in range(CURVE_POINTS + 1)]
    return [rounded(point) for point in points if point is not None]


def curve(ordered: "array[float]") -> list[float]:
    """Evenly spaced quantiles of numbers in order: a distribution to be drawn."""
    if not ordered:
        return []
    last = len(ordered) - 1
    return [rounded(ordered[round(i / CURVE_POINTS * last)]) for i in range(CURVE_POINTS + 1)]


def load_cv(busy_s: Mapping[WorkerId, float]) -> float:
    """Standard deviation over mean; 0 where nobody did anything."""
    mean = sum(busy_s.values()) / max(1, len(busy_s))
    if not mean:
        return 0.0
    return math.sqrt(sum((s - mean) ** 2 for s in busy_s.values()) / len(busy_s)) / mean


def rounded(number: float) -> float:
    """To microseconds, or millionths: more digits would say nothing."""
    return round(number, 6)


def _rank(ordered: "array[float]", share: float) -> float | None:
    if not ordered:
        return None
    return rounded(ordered[max(0, math.ceil(share * len(ordered)) - 1)])
