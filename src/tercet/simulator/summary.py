"""The results in words and figures for people, whatever they are shown on."""

from collections.abc import Iterator

import msgspec

from tercet.simulator.results import Quantiles, Results, Setup


def title(setup: Setup) -> str:
    """What was simulated, in a line."""
    return f"{setup.trace} by {setup.policy} on {_workers(setup)} workers"


def latencies(results: Results) -> Iterator[tuple[str, Quantiles, float | None]]:
    """Names, quantiles, and what was promised, in seconds."""
    yield "first token", results.ttft_s, results.setup.slo_ttft_s
    yield "between tokens", results.itl_s, None
    yield "a request's mean", results.tpot_s, results.setup.slo_itl_s
    yield "a request's longest", results.pause_s, None


def figures(results: Results) -> Iterator[tuple[str, str]]:
    """Names and figures, besides latencies."""
    yield "requests", f"{results.requests:,}"
    yield "promises kept", f"{results.slo_attainment:.2%}"
    yield "failed", f"{results.failed:,}"
    yield "rejected", f"{results.rejected:,}"
    yield "refusals by workers", f"{results.refusals:,}"
    yield "replays", f"{results.replays:,}"
    yield "prompt tokens found in caches", f"{results.hit_rate:.2%}"
    yield "output tokens per second", f"{results.output_tokens_per_s:,.1f}"
    yield "longest queue", f"{results.queued_max:,}"
    yield "busiest, idlest worker", _extremes(results)
    yield "coefficient of variation of load", f"{results.load_cv:.3f}"
    yield "simulated", f"{results.duration_s:,.0f} s"
    yield "GPU hours", f"{results.gpu_hours:.2f}"


def settings(setup: Setup) -> Iterator[tuple[str, str]]:
    """Everything that was set, by name; what is empty is left out."""
    for name, value in msgspec.to_builtins(setup).items():
        if value not in ({}, []):
            yield name.replace("_", " "), _flat(value)


def duration(seconds: float | None) -> str:
    """With three digits, in a unit that suits it."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"


def _workers(setup: Setup) -> str:
    pools = (("prefill", setup.prefill_workers), ("decode", setup.decode_workers))
    return " and ".join(f"{count} {role}" for role, count in pools if count)


def _extremes(results: Results) -> str:
    shares = [worker.busy_share for worker in results.workers]
    return f"{max(shares):.1%}, {min(shares):.1%}" if shares else "-"


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {each:g}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
