"""What can be typed. Every command is a few lines: the work is done by modules that know nothing of a command line.

Exit codes: 0 done; 1 it did not work, or the cluster is not ready; 2 the input is wrong, or there is no such cluster or request.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from tercet import __version__, config_file
from tercet.cli.complaints import complain, told
from tercet.cli.draining import drain as drain_worker
from tercet.cli.draining import scale as scale_pools
from tercet.cli.finding import find
from tercet.cli.moving import move_call
from tercet.cli.serving import down as end_cluster
from tercet.cli.serving import serve_detached, serve_here
from tercet.cli.simulate import simulate
from tercet.cli.status_tables import status_tables
from tercet.cli.story import story
from tercet.cli.why import ask_doors
from tercet.cluster.run_record import RunBook
from tercet.config import ClusterConfig
from tercet.demo import run_demo
from tercet.router.policies import POLICIES

app = typer.Typer(
    name="tercet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Look at cluster files.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.command()(simulate)

File = Annotated[Path, typer.Option("--file", "-f", help="The cluster file.")]
Name = Annotated[
    str, typer.Option("--name", help="The cluster's name; not needed when there is one.")
]
Address = Annotated[
    str,
    typer.Option("--address", help="A Ray cluster: `auto`, or `host:port` of its GCS."),
]
RunDir = Annotated[
    Path | None,
    typer.Option("--run-dir", envvar="TERCET_RUN_DIR", help="Where running clusters are noted."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"tercet {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Serves large language models from prefill and decode pools on Ray."""


@app.command()
def serve(
    file: File,
    address: Address = "",
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when it is ready; end it with `tercet down`.")
    ] = False,
    run_dir: RunDir = None,
) -> None:
    """Serve the model that a cluster file describes, until Ctrl-C; nothing is left then.

    Ray is started on this machine, unless --address names a Ray cluster that runs.
    """
    with told():
        config = _read(file)
        start = serve_detached if detach else serve_here
        start(config, file, address, RunBook(run_dir), Console())


@app.command()
def status(
    name: Name = "", address: Address = "", as_json: AsJson = False, run_dir: RunDir = None
) -> None:
    """Show pools, workers, load, requests in flight and hand-offs. Exit code 1 while not everything is up."""
    with told():
        with find(name, address, RunBook(run_dir)) as controller:
            now = controller.status()
        if as_json:
            sys.stdout.buffer.write(msgspec.json.encode(now) + b"\n")
        else:
            Console().print(*status_tables(now), sep="\n")
    if not now.ready:
        raise typer.Exit(1)


@app.command()
def why(
    request: Annotated[
        str,
        typer.Argument(
            help="An answer's `id`, x-request-id or request_id; `-0`, `-1` for one choice."
        ),
    ],
    name: Name = "",
    address: Address = "",
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Tell why a request went where it went, how long it took and what was predicted."""
    with told():
        with find(name, address, RunBook(run_dir)) as controller:
            doors = controller.status().front_doors
        answers = ask_doors(doors, request)
        if as_json:
            sys.stdout.buffer.write(msgspec.json.encode(answers.known) + b"\n")
        else:
            Console().print(*(part for one in answers.known for part in story(one)), sep="\n")
        for silent in answers.silent:
            complain(f"a front door did not answer, {silent}")


@app.command()
def move(
    request: Annotated[
        str,
        typer.Argument(
            help="An answer's `id`, x-request-id or request_id; `-0`, `-1` for one choice, else all of them move."
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", help="A decode worker; the routing policy's choice if not given.")
    ] = "",
    name: Name = "",
    address: Address = "",
    run_dir: RunDir = None,
) -> None:
    """Move a running request to another worker; its client notices a short pause at most. Exit code 1 if it stayed."""
    with told():
        with find(name, address, RunBook(run_dir)) as controller:
            doors = controller.status().front_doors
        endings = move_call(doors, request, to)
    for ending in endings:
        print(ending)
    if not all(ending.moved for ending in endings):
        raise typer.Exit(1)


@app.command()
def drain(
    worker: Annotated[str, typer.Argument(help="As in `tercet status`, for example decode-0.")],
    name: Name = "",
    address: Address = "",
    run_dir: RunDir = None,
) -> None:
    """Move everything off a worker, then end it; no client notices. As the cluster still wants it, a new life of it begins.

    What is left after control.drain_timeout_s begins anew elsewhere. To have fewer workers: `tercet scale`.
    """
    with told(), find(name, address, RunBook(run_dir)) as controller:
        drain_worker(controller, worker, Console())


@app.command()
def scale(
    prefill: Annotated[
        int | None, typer.Option("--prefill", help="Prefill workers; left as it is if not given.")
    ] = None,
    decode: Annotated[
        int | None, typer.Option("--decode", help="Decode workers; left as it is if not given.")
    ] = None,
    name: Name = "",
    address: Address = "",
    run_dir: RunDir = None,
) -> None:
    """Have more or fewer workers from now on, until the cluster ends. Those that are too many are drained first."""
    with told(), find(name, address, RunBook(run_dir)) as controller:
        scale_pools(controller, prefill, decode, Console())


@app.command()
def down(name: Name = "", address: Address = "", run_dir: RunDir = None) -> None:
    """End a cluster: requests in flight may finish first, for a few seconds."""
    with told():
        end_cluster(name, address, RunBook(run_dir), Console())


@app.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Go on serving, and say what to try.")
    ] = False,
    file: Annotated[Path, typer.Option("--file", "-f", help="The cluster file.")] = Path(
        "deploy/cluster.yaml"
    ),
    run_dir: RunDir = None,
) -> None:
    """Start a prefill/decode cluster on this machine, send it a few prompts, and show what it did."""
    with told():
        run_demo(_read(file), RunBook(run_dir), Console(), keep=keep)


@config_app.command("check")
def config_check(file: Path) -> None:
    """Read a cluster file; refuse it with the line and the reason, or say what it asks for."""
    with told():
        config = _read(file)
    pools = config.pools
    print(
        f"{file}: cluster {config.name!r} serves {config.model.name!r} with"
        f" {pools.prefill.replicas} prefill and {pools.decode.replicas} decode workers"
    )


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of cluster files, for editors."""
    print(json.dumps(config_file.schema(), indent=2))


def _read(file: Path) -> ClusterConfig:
    """The cluster file, with a routing policy that exists: a front door would refuse another, but only once it starts."""
    return config_file.load(file, _has_known_policy)


def _has_known_policy(config: ClusterConfig) -> None:
    POLICIES.options(config.router.policy, config.router.policy_options)


def main() -> None:
    """Entry point of the `tercet` command."""
    app()
