"""`tercet simulate`: its options, and the run. What they mean is in docs/simulator.md."""

from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Option

from tercet.cli.complaints import told
from tercet.cli.output_file import OutputFile
from tercet.cli.progress import watched
from tercet.cli.results_tables import results_tables
from tercet.cli.simulation_request import (
    ClusterRequest,
    MachineKind,
    MachineRequest,
    TraceRequest,
    failure_of,
    pair_of,
)
from tercet.ids import WorkerId
from tercet.router.policies import POLICIES
from tercet.simulator import Knowledge, SimulationOptions
from tercet.simulator import simulate as replay
from tercet.simulator.report import needs_plots, page
from tercet.simulator.traces import FORMATS

_TRACE, _CLUSTER, _DOORS, _OUT = "Trace", "Cluster", "Front doors", "Results"

File = Annotated[Path, Option("--file", "-f", help="The cluster file.")]
TraceFile = Annotated[
    Path, Option("--trace", help="What is replayed.", rich_help_panel=_TRACE, show_default=False)
]
Format = Annotated[
    str,
    Option(help=f"One of {', '.join(FORMATS)}; else as it looks.", rich_help_panel=_TRACE),
]
Head = Annotated[
    int | None,
    Option(min=1, help="Only the first so many requests, or sessions.", rich_help_panel=_TRACE),
]
SpreadS = Annotated[
    float,
    Option(min=0, help="Each arrival later, by lot, by up to this.", rich_help_panel=_TRACE),
]
RateScale = Annotated[
    float, Option(min=1e-6, help="Arrivals so many times as fast.", rich_help_panel=_TRACE)
]
SessionsPerS = Annotated[
    float | None,
    Option("--sessions-per-s", min=1e-9, help="Starts of sessions.", rich_help_panel=_TRACE),
]
SpanS = Annotated[
    float, Option(min=1e-3, help="Length of a trace that is drawn.", rich_help_panel=_TRACE)
]
Stream = Annotated[
    bool,
    Option(
        "--stream",
        help="Read it while it is replayed: for more than fits into memory. It must be in the order of time.",
        rich_help_panel=_TRACE,
    ),
]
Policy = Annotated[
    str,
    Option(
        help=f"Instead of the file's: {', '.join(POLICIES.names)}.",
        rich_help_panel=_CLUSTER,
    ),
]
PolicyOption = Annotated[
    list[str] | None,
    Option(
        help="An option of the policy; again for more.", metavar="K=V", rich_help_panel=_CLUSTER
    ),
]
Instances = Annotated[
    int | None,
    Option(
        min=1,
        help="So many workers in all, shared among the pools as in the file.",
        rich_help_panel=_CLUSTER,
    ),
]
Speed = Annotated[
    list[str] | None,
    Option(
        help="A worker that is not like the others: 0.5 is half as fast.",
        metavar="WORKER=X",
        rich_help_panel=_CLUSTER,
    ),
]
Fail = Annotated[
    list[str] | None,
    Option(
        help="A worker dies, and comes back empty after DOWN_S, or never.",
        metavar="WORKER@S[+DOWN_S]",
        rich_help_panel=_CLUSTER,
    ),
]
Workers = Annotated[
    MachineKind,
    Option(
        "--machine",
        help="Workers by the real scheduler and a model of a GPU, or ideal ones that only prefill.",
        rich_help_panel=_CLUSTER,
    ),
]
ModelProfile = Annotated[
    Path | None,
    Option(
        help="How fast a GPU is: coefficients as JSON, or what `tercet status --json` printed.",
        rich_help_panel=_CLUSTER,
    ),
]
TokensPerS = Annotated[
    float | None, Option(min=1, help="Speed of an ideal machine.", rich_help_panel=_CLUSTER)
]
ReportAgeMs = Annotated[
    float | None,
    Option(
        min=0,
        help="Period of workers' reports, instead of the file's; 0 reports every change.",
        rich_help_panel=_DOORS,
    ),
]
NetworkMs = Annotated[
    float, Option(min=0, help="A message's way to a worker or back.", rich_help_panel=_DOORS)
]
FrontDoors = Annotated[
    int | None, Option(min=1, help="Instead of the file's number.", rich_help_panel=_DOORS)
]
OfCaches = Annotated[
    Knowledge,
    Option(
        help="Of caches: their own and heard dispatches, their own alone, reported contents, or contents as they are.",
        rich_help_panel=_DOORS,
    ),
]
Noise = Annotated[
    float,
    Option(
        min=0,
        max=0.99,
        help="Predictions go by coefficients that are off by up to this share.",
        rich_help_panel=_DOORS,
    ),
]
Seed = Annotated[int, Option(help="Of everything drawn by lot.", rich_help_panel=_OUT)]
WarmUp = Annotated[
    float,
    Option(min=0, max=0.99, help="First part of the time, not counted.", rich_help_panel=_OUT),
]
JsonOut = Annotated[
    Path | None, Option("--json", help="Write the figures there.", rich_help_panel=_OUT)
]
HtmlOut = Annotated[
    Path | None,
    Option("--html", help="Write a page with plots there.", rich_help_panel=_OUT),
]


def simulate(
    file: File,
    trace: TraceFile,
    format: Format = "",
    head: Head = None,
    spread_s: SpreadS = 0.0,
    rate_scale: RateScale = 1.0,
    sessions_per_s: SessionsPerS = None,
    span_s: SpanS = 3600.0,
    stream: Stream = False,
    policy: Policy = "",
    policy_option: PolicyOption = None,
    instances: Instances = None,
    speed: Speed = None,
    fail: Fail = None,
    machine: Workers = MachineKind.ENGINE,
    model_profile: ModelProfile = None,
    tokens_per_s: TokensPerS = None,
    report_age_ms: ReportAgeMs = None,
    network_ms: NetworkMs = 0.05,
    front_doors: FrontDoors = None,
    knowledge: OfCaches = Knowledge.OWN,
    noise: Noise = 0.0,
    seed: Seed = 0,
    warm_up: WarmUp = 0.0,
    json: JsonOut = None,
    html: HtmlOut = None,
) -> None:
    """Replay a trace against the cluster that a file describes, with machines of a model in place of its workers."""
    with told():
        figures, report = OutputFile("--json", json), OutputFile("--html", html)
        if html is not None:
            needs_plots("--html")
        config = ClusterRequest(file, policy, tuple(policy_option or ()), instances).read()
        age_ms = config.link.report_period_s * 1e3 if report_age_ms is None else report_age_ms
        options = SimulationOptions(
            model=MachineRequest(machine, model_profile, tokens_per_s).read(config),
            front_doors=front_doors or config.front_door.replicas,
            report_age_s=age_ms / 1e3,
            knowledge=knowledge,
            network_s=network_ms / 1e3,
            estimate_noise=noise,
            failures=tuple(map(failure_of, fail or ())),
            speeds={WorkerId(k): v for k, v in (pair_of("--speed", text) for text in speed or ())},
            warm_up_share=warm_up,
            seed=seed,
        )
        request = TraceRequest(
            trace, format, head, spread_s, rate_scale, sessions_per_s, span_s, stream, seed
        )
        workload = request.read(config)
        console = Console()
        with watched(workload) as watch:
            results = replay(config, workload, options, watch)
        figures.write(results.json())
        if html is not None:
            report.write(page(results).encode())
        console.print(*results_tables(results), sep="\n")
