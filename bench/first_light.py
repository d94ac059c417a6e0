"""The first figures of a whole cluster on this machine, printed as tables and saved as JSON and a plot.

    python bench/first_light.py [--quick] [--out bench/results/first_light]

    added latency   TTFT and ITL through front door, prefill and decode worker against the bare engine, in one run
    hand-off        time and GB/s of the KV pulled by NIXL, by prompt length
    front door      tokens per second and core it can stream
    engine          tokens per second against transformers' `generate`, same threads

Everything shares one machine, so the cluster's three engines compete for its cores; the figures say what is left.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: the bare engine gets what one worker gets

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

import checkpoint
import hand_off
import latency_added
from tercet.app import launch
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    LinkConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    Resources,
    RouterConfig,
    TransferConfig,
)

HERE = Path(__file__).parent
Rows = Sequence[Mapping[str, str | float]]

console = Console()


def cluster_config(model: Path) -> ClusterConfig:
    light = Resources(cpus=0.1)
    return ClusterConfig(
        name="bench",
        model=ModelConfig(path=str(model), name="bench"),
        engine=EngineConfig(kv_blocks=4096),
        pools=Pools(
            prefill=PoolConfig(replicas=1, resources=light),
            decode=PoolConfig(replicas=2, resources=light),
        ),
        router=RouterConfig(local_prefill_tokens_max=0),
        transfer=TransferConfig(net_devices="lo"),
        link=LinkConfig(report_period_s=0.1),
        front_door=FrontDoorConfig(http_port=0, grpc_port=0, cpus=0.1),
    )


def measure_cluster(quick: bool) -> dict[str, Rows]:
    with tempfile.TemporaryDirectory() as directory:
        model = checkpoint.llama(Path(directory) / "model", hidden=256, layers=8)
        with launch(cluster_config(model), report=console.log) as cluster:
            status = cluster.wait_ready(console.log)
            grpc = status.front_doors[0].grpc
            added = []
            for concurrent in (1, 32):
                console.log(f"added latency, {concurrent} at once")
                added += latency_added.measure(
                    cluster.config,
                    grpc,
                    concurrent=concurrent,
                    prompt_tokens=256,
                    max_tokens=64,
                    rounds=1 if quick else 20 if concurrent == 1 else 3,
                )
            console.log("hand-off by prompt length")
            lengths = [64, 256, 1024, 3584]
            moved = hand_off.run(f"http://{cluster.http}", grpc, lengths, 2 if quick else 9)
    return {"added latency": added, "hand-off": moved}


def measure_alone(script: str, *arguments: str) -> Rows:
    """A benchmark that needs no cluster, in a process of its own."""
    console.log(f"{script} {' '.join(arguments)}")
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "result.json"
        command = [sys.executable, str(HERE / script), *arguments, "--json", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(out.read_text())["rows"]
    return [flat(row) for row in rows]


def flat(row: Mapping[str, object]) -> dict[str, str | float]:
    """`{"ours": {"cpu_s": 1}}` as `{"ours_cpu_s": 1}`: one column a figure."""
    columns: dict[str, str | float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            columns |= {f"{name}_{inner}": number for inner, number in value.items()}
        else:
            columns[name] = value  # type: ignore[assignment]
    return columns


def show(title: str, rows: Rows) -> None:
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)


def plot(results: dict[str, Rows], path: Path) -> None:
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 -- after the backend is chosen

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    added = results["added latency"]
    for offset, side in ((-0.2, "engine"), (0.2, "cluster")):
        where = [index + offset for index in range(len(added))]
        left.barh(where, [row[f"{side}_ms"] for row in added], height=0.4, label=side)
    left.set_yticks(range(len(added)), [row["figure"] for row in added])
    left.set_xscale("log")
    left.set_xlabel("ms")
    left.legend()
    moved = results["hand-off"]
    right.plot([r["pulled_mib"] for r in moved], [r["pull_ms"] for r in moved], "o-", label="pull")
    right.plot(
        [r["pulled_mib"] for r in moved], [r["exposed_ms"] for r in moved], "s--", label="exposed"
    )
    right.set_xlabel("KV pulled (MiB)")
    right.set_ylabel("ms")
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "first_light")
    arguments = parser.parse_args()
    results = measure_cluster(arguments.quick)
    results["front door"] = measure_alone("front_door.py")
    results["engine against transformers"] = measure_alone("engine_cpu.py")
    for title, rows in results.items():
        show(title, rows)
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "ray", "nixl-cu12")},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    saved = arguments.out.with_suffix(".json")
    saved.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    plot(results, arguments.out.with_suffix(".png"))
    console.print(f"saved {saved} and {arguments.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
