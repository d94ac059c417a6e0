"""Counts while a simulation runs, and says in the end what was found."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

from tercet.config import ClusterConfig
from tercet.ids import RequestId, WorkerId
from tercet.role import Role
from tercet.router.record import RequestRecord
from tercet.simulator.columns import FAILED, REJECTED, Columns, ordered
from tercet.simulator.options import SimulationOptions
from tercet.simulator.plant import Plant
from tercet.simulator.results import (
    LoadSeries,
    Pace,
    Results,
    Series,
    Setup,
    WorkerResult,
    curve,
    gap_curve,
    gap_quantiles,
    load_cv,
    quantiles,
    rounded,
)
from tercet.simulator.samples import Samples
from tercet.simulator.stretches import Gaps, Stretch
from tercet.simulator.timeline import Timeline
from tercet.simulator.traces import Arrival

LOADS_MAX = 50_000
"""Points of all workers' load series together."""

QUEUED, IN_FLIGHT, SERVED_SO_FAR, PROMPT_TOKENS, CACHED_TOKENS, FIRST_BUSY_S = range(6)
"""Columns of the samples."""


class Crowd(Protocol):
    """The requests of the moment."""

    @property
    def queued(self) -> int: ...
    @property
    def here(self) -> int: ...


class Findings:
    """What is added up over all requests, and what is kept of each."""

    def __init__(
        self,
        config: ClusterConfig,
        trace: str,
        options: SimulationOptions,
        timeline: Timeline,
        plant: Plant,
        crowd: Crowd,
    ) -> None:
        self._config, self._trace, self._options = config, trace, options
        self._timeline, self._plant, self._crowd = timeline, plant, crowd
        self._columns = Columns()
        self._samples = Samples(timeline, self._look)
        self._workers = list(plant.lives)
        self._by_worker: Counter[WorkerId] = Counter()
        self._gaps: defaultdict[RequestId, Gaps] = defaultdict(Gaps)
        """Times between the tokens of those who are here."""
        self._all_gaps = Gaps()
        self._served = self._refusals = self._replays = 0
        self._prompt_tokens = self._cached_tokens = self._output_tokens = 0

    @property
    def ended(self) -> int:
        return len(self._columns)

    def start(self) -> None:
        self._samples.start()

    def add(self, arrival: Arrival, record: RequestRecord) -> None:
        """A request has ended."""
        gaps = self._gaps.pop(record.request, Gaps())
        self._all_gaps.merge(gaps)
        self._columns.add(arrival.at_s, record, gaps.longest_s())
        self._refusals += record.refusals
        self._replays += record.replays
        self._output_tokens += record.output_tokens
        if record.finish is None:
            return
        self._served += 1
        self._prompt_tokens += record.prompt_tokens
        self._cached_tokens += record.cached_tokens
        for worker in (record.prefill_worker, record.decode_worker):
            if worker is not None:
                self._by_worker[worker] += 1

    def stretch(self, stretch: Stretch) -> None:
        """Of a request that is here."""
        self._gaps[stretch.request].add(stretch)

    def forget(self, request: RequestId) -> None:
        """What a worker still said of it, when it was over already, counts no more."""
        self._gaps.pop(request, None)

    def stop(self) -> None:
        """The last request has ended."""
        self._samples.stop()

    def results(self, wall_s: float) -> Results:
        counted = self._columns.arrived_after(self._options.warm_up_share)
        ttft_s, tpot_s = ordered(counted.ttft_s), ordered(counted.tpot_s)
        series = self._series()
        duration_s = self._timeline.now_s()
        return Results(
            requests=len(counted),
            failed=counted.count(FAILED),
            rejected=counted.count(REJECTED),
            hit_rate=rounded(counted.hit_rate()),
            slo_attainment=rounded(counted.slo_attainment(self._config.slo)),
            ttft_s=quantiles(ttft_s),
            itl_s=gap_quantiles(self._all_gaps),
            tpot_s=quantiles(tpot_s),
            pause_s=quantiles(ordered(counted.pause_s)),
            load_cv=rounded(self._load_cv()),
            gpu_hours=rounded(self._gpus() * duration_s / 3600),
            duration_s=rounded(duration_s),
            output_tokens_per_s=rounded(self._output_tokens / duration_s if duration_s else 0.0),
            refusals=self._refusals,
            replays=self._replays,
            queued_max=max(series.queued),
            workers=list(self._worker_results(duration_s)),
            series=series,
            load=self._load_series(),
            ttft_curve_s=curve(ttft_s),
            itl_curve_s=gap_curve(self._all_gaps),
            setup=setup_of(self._config, self._trace, self._options),
            pace=Pace(wall_s=wall_s, requests_per_min=self.ended / wall_s * 60 if wall_s else 0.0),
        )

    # ---- workers -----------------------------------------------------------------------------------------------------

    def _pool(self, role: Role) -> list[WorkerId]:
        lives = self._plant.lives
        return [worker for worker in self._workers if lives[worker].endpoint.role is role]

    def _load_cv(self) -> float:
        pools = [self._pool(role) for role in Role]
        busy_s = self._plant.busy_s
        weighed = sum(len(pool) * load_cv({w: busy_s(w) for w in pool}) for pool in pools)
        return weighed / max(1, len(self._workers))

    def _gpus(self) -> float:
        pools = self._config.pools
        return sum(len(self._pool(role)) * (pools.of(role).resources.gpus or 1.0) for role in Role)

    def _worker_results(self, duration_s: float) -> Iterator[WorkerResult]:
        for worker in self._workers:
            busy_s = self._plant.busy_s(worker)
            yield WorkerResult(
                worker=worker,
                role=self._plant.lives[worker].endpoint.role,
                busy_share=rounded(busy_s / duration_s if duration_s else 0.0),
                requests=self._by_worker[worker],
            )

    # ---- series ------------------------------------------------------------------------------------------------------

    def _look(self) -> Sequence[float]:
        """In the order of the columns."""
        totals = (self._served, self._prompt_tokens, self._cached_tokens)
        busy_s = map(self._plant.busy_s, self._workers)
        return (self._crowd.queued, self._crowd.here, *totals, *busy_s)

    def _series(self) -> Series:
        samples = self._samples
        times_s = samples.times_s
        served = rates(times_s, samples.column(SERVED_SO_FAR))
        prompt, cached = (samples.column(column) for column in (PROMPT_TOKENS, CACHED_TOKENS))
        return Series(
            times_s=[rounded(at_s) for at_s in times_s],
            queued=[int(count) for count in samples.column(QUEUED)],
            in_flight=[int(count) for count in samples.column(IN_FLIGHT)],
            requests_per_s=served,
            hit_rate=[
                rounded(hits / tokens) if tokens else None
                for hits, tokens in zip(rates(times_s, cached), rates(times_s, prompt), strict=True)
            ],
        )

    def _load_series(self) -> LoadSeries:
        samples = self._samples
        points = max(2, LOADS_MAX // max(1, len(self._workers)))
        every = -(-len(samples.rows) // points)
        times_s = samples.times_s[::every]
        return LoadSeries(
            times_s=[rounded(at_s) for at_s in times_s],
            workers={
                worker: rates(times_s, samples.column(FIRST_BUSY_S + number)[::every])
                for number, worker in enumerate(self._workers)
            },
        )


def rates(times_s: Sequence[float], sums: Sequence[float]) -> list[float]:
    """How fast sums have grown up to each time since the one before; 0 at the first."""
    steps = zip(times_s, times_s[1:], sums, sums[1:], strict=False)
    return [0.0] + [
        rounded((now - before) / (now_s - before_s)) for before_s, now_s, before, now in steps
    ]


def setup_of(config: ClusterConfig, trace: str, options: SimulationOptions) -> Setup:
    """What was simulated, for whoever reads the figures."""
    pools, router = config.pools, config.router
    first = Role.PREFILL if pools.prefill.replicas else Role.DECODE
    engine = config.engine_of(first)
    return Setup(
        trace=trace,
        cluster=config.name,
        policy=router.policy,
        policy_options=dict(sorted(router.policy_options.items())),
        prefill_workers=pools.prefill.replicas,
        decode_workers=pools.decode.replicas,
        block_tokens=engine.block_tokens,
        cache_tokens=engine.kv_blocks * engine.block_tokens,
        slo_ttft_s=config.slo.ttft_ms / 1e3,
        slo_itl_s=config.slo.itl_ms / 1e3,
        machine=str(options.model),
        front_doors=options.front_doors,
        report_age_s=options.report_age_s,
        knowledge=options.knowledge.value,
        accounts=options.accounts,
        network_s=options.network_s,
        estimate_noise=options.estimate_noise,
        failures=[str(failure) for failure in options.failures],
        speeds=dict(sorted(options.speeds.items())),
        warm_up_share=options.warm_up_share,
        seed=options.seed,
    )
