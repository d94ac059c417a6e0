"""Dynamo's own KV router in its own offline replay of a trace: its policies on its made-up workers, on a virtual clock.

    <Dynamo's python> dynamo_replay.py SETTINGS     prints one line of JSON for each router mode

Runs in Dynamo's virtual environment and knows nothing of ours.
"""

import json
import os
import sys
from importlib.metadata import version

MODES = ("round_robin", "kv_router")
STEP_TOKENS_MAX = 8192
RUNNING_MAX = 256
FIGURES = {
    "requests": "completed_requests",
    "hit_rate": "prefix_cache_reused_ratio",
    "ttft_ms_mean": "mean_ttft_ms",
    "ttft_ms_p50": "median_ttft_ms",
    "ttft_ms_p90": "p90_ttft_ms",
    "ttft_ms_p99": "p99_ttft_ms",
    "itl_ms_mean": "mean_itl_ms",
}


def figures(mode: str, trace: str, speedup: float, workers: int, blocks: int) -> dict[str, object]:
    """One replay; the model behind the times is the one Dynamo takes by default."""
    from dynamo.replay import run_trace_replay  # noqa: PLC0415 -- reads the environment when it is imported

    engine = {
        "backend": "vllm",
        "worker_type": "aggregated",
        "block_size": 512,
        "num_gpu_blocks": blocks,
        "max_num_seqs": RUNNING_MAX,
        "max_num_batched_tokens": STEP_TOKENS_MAX,
        "enable_prefix_caching": True,
    }
    report = run_trace_replay(
        [trace],
        extra_engine_args={"engine": engine},
        num_workers=workers,
        router_mode=mode,
        arrival_speedup_ratio=speedup,
        trace_block_size=512,
        trace_format="mooncake",
        replay_mode="offline",
    )
    return {
        "side": f"dynamo:{mode}",
        "version": version("ai-dynamo-runtime"),
        **{ours: report.summary[theirs] for ours, theirs in FIGURES.items()},
    }


if __name__ == "__main__":
    os.environ.setdefault("DYN_LOG", "error")  # else every choice is a line
    settings = json.loads(sys.argv[1])
    for mode in MODES:
        print(json.dumps(figures(mode, **settings)), flush=True)
