"""Prometheus metrics of one front door, on a registry of its own; gauges are read when they are asked for."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tercet.router.limits import LimitKind
from tercet.router.record import RequestRecord
from tercet.router.status import FrontDoorStatus, WorkerSeen

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What `Metrics.render` returns, for an HTTP header."""

TTFT_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
ITL_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
TOKENS = (16, 64, 256, 1024, 4096, 16384, 65536)
ERROR_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ERROR_RATIO = (-0.9, -0.75, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0)
POOL = ("pool",)

WORKER_GAUGES: dict[str, tuple[str, Callable[[WorkerSeen], float]]] = {
    "connected": ("1 when its link stands", lambda seen: float(seen.connected)),
    "suspect": ("1 when its reports are late", lambda seen: float(seen.suspect)),
    "outstanding": ("Requests of this front door it may hold", lambda seen: seen.outstanding),
    "pending_tokens": ("Prompt tokens it has not computed", lambda seen: seen.pending_tokens),
    "waiting": ("Requests not started", lambda seen: seen.waiting),
    "running": ("Requests in its batch", lambda seen: seen.running),
    "holding": ("Requests held for a destination", lambda seen: seen.holding),
    "pulling": ("Requests whose KV is on its way", lambda seen: seen.pulling),
    "context_tokens": ("Context of the running batch", lambda seen: seen.context_tokens),
    "blocks": ("KV blocks", lambda seen: seen.blocks_total),
    "blocks_used": ("KV blocks referenced", lambda seen: seen.blocks_used),
    "pulls": ("KV pulls since it started", lambda seen: seen.pulls),
    "pull_bytes": ("KV bytes pulled since it started", lambda seen: seen.pull_bytes),
    "pull_seconds": ("Seconds of pulls since it started", lambda seen: seen.pull_s),
    "pull_failures": ("Pulls that did not deliver", lambda seen: seen.pull_failures),
    "quarantined_blocks": (
        "Blocks a late transfer could write",
        lambda seen: seen.quarantined_blocks,
    ),
    "retained_blocks": (
        "Cached blocks that requests asked to keep",
        lambda seen: seen.retained_blocks,
    ),
    "host_blocks": ("KV blocks in host memory", lambda seen: seen.host.blocks),
    "host_blocks_used": ("Those with content", lambda seen: seen.host.blocks_used),
    "saved_blocks": (
        "KV blocks copied to the host since it started",
        lambda seen: seen.host.saved_blocks,
    ),
    "saved_bytes": ("The same in bytes", lambda seen: seen.host.saved_bytes),
    "fetched_blocks": (
        "KV blocks copied back since it started",
        lambda seen: seen.host.fetched_blocks,
    ),
    "fetched_bytes": ("The same in bytes", lambda seen: seen.host.fetched_bytes),
    "device_hit_tokens": (
        "Tokens not computed since it started, found on the device; counted where there is host memory",
        lambda seen: seen.host.device_hit_tokens,
    ),
    "host_hit_tokens": (
        "Tokens not computed since it started, copied back from the host",
        lambda seen: seen.host.host_hit_tokens,
    ),
    "leases": ("Leases others hold on it", lambda seen: seen.leases),
}


class StatusCollector(Collector):
    """Gauges made from the front door's status at the moment of the scrape."""

    def __init__(self, status: Callable[[], FrontDoorStatus]) -> None:
        self._status = status

    def describe(self) -> Iterator[Metric]:
        """Nothing at registration: there may be no event loop, and no worker, yet."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        turned_away = "Requests that got no place"
        yield CounterMetricFamily("tercet_turned_away", turned_away, status.turned_away)
        yield GaugeMetricFamily("tercet_in_flight", "Requests being served", status.in_flight)
        yield GaugeMetricFamily("tercet_queued", "Requests waiting", status.queued)
        yield GaugeMetricFamily("tercet_known_blocks", "Prefix index size", status.known_blocks)
        for name, (text, value) in WORKER_GAUGES.items():
            family = GaugeMetricFamily(f"tercet_worker_{name}", text, labels=("worker", "role"))
            for seen in status.workers:
                family.add_metric((seen.worker, seen.role), value(seen))
            yield family


class Metrics:
    """Counts finished requests. One per front door; nothing is global."""

    def __init__(self, status: Callable[[], FrontDoorStatus]) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._requests = Counter(
            "tercet_requests", "Requests by how they ended", ("outcome",), registry=registry
        )
        self._routes = Counter(
            "tercet_routes", "Requests by local or apart, and why", ("reason",), registry=registry
        )
        self._ttft = self._histogram("ttft_seconds", "Call to first token", TTFT_S)
        self._itl = self._histogram("itl_seconds", "Mean time between a request's tokens", ITL_S)
        self._pause = self._histogram("itl_max_seconds", "A request's longest pause", ITL_S)
        self._queue = self._histogram("queue_seconds", "Call to first dispatch", TTFT_S)
        self._exposed = self._histogram("pull_exposed_seconds", "Delay by the hand-off", ITL_S)
        self._prompt = self._histogram("prompt_tokens", "Prompt length", TOKENS)
        self._output = self._histogram("output_tokens", "Output length", TOKENS)
        self._error = self._histogram(
            "ttft_error_seconds", "Predicted from real dispatch to first token", ERROR_S, POOL
        )
        self._error_ratio = self._histogram(
            "ttft_error_ratio", "The same, later is positive, by the prediction", ERROR_RATIO, POOL
        )
        self._hits = Counter(
            "tercet_cached_tokens", "Prompt tokens found cached", ("kind",), registry=registry
        )
        self._pulled = Counter("tercet_pulled_bytes", "KV bytes pulled", registry=registry)
        self._replays = Counter("tercet_replays", "Replays after losses", registry=registry)
        self._refusals = Counter("tercet_refusals", "Refusals by workers", registry=registry)
        self._rate_limited = Counter(
            "tercet_rate_limited", "Calls refused, by the limit", ("limit",), registry=registry
        )
        for kind in LimitKind:
            self._rate_limited.labels(kind)  # there from the start, so that the first one is a step
        registry.register(StatusCollector(status))

    def rate_limited(self, kind: LimitKind) -> None:
        """A call was refused, and is no request."""
        self._rate_limited.labels(kind).inc()

    def ended(self, record: RequestRecord) -> None:
        """A request that had a place is over."""
        self._requests.labels(record.outcome).inc()
        self._replays.inc(record.replays)
        self._refusals.inc(record.refusals)
        if record.ttft_ms is None:
            return
        self._routes.labels(record.reason).inc()
        self._hits.labels("predicted").inc(record.predicted_cached_tokens)
        self._hits.labels("real").inc(record.cached_tokens)
        self._pulled.inc(record.pulled_bytes)
        self._prompt.observe(record.prompt_tokens)
        self._output.observe(record.output_tokens)
        self._times(record, record.ttft_ms)

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _times(self, record: RequestRecord, ttft_ms: float) -> None:
        self._ttft.observe(ttft_ms / 1e3)
        self._queue.observe(record.queue_ms / 1e3)
        if record.itl_ms is not None:
            self._itl.observe(record.itl_ms / 1e3)
        if record.itl_ms_max is not None:
            self._pause.observe(record.itl_ms_max / 1e3)
        if record.pulled_bytes:
            self._exposed.observe(record.pull_exposed_ms / 1e3)
        error_ms, predicted_ms = record.ttft_error_ms, record.predicted_ttft_ms
        if error_ms is not None and predicted_ms:
            self._error.labels(record.began_in).observe(abs(error_ms) / 1e3)
            self._error_ratio.labels(record.began_in).observe(error_ms / predicted_ms)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        return Histogram(f"tercet_{name}", text, labels, buckets=buckets, registry=self.registry)
