"""The demo's course: start, ask, show, stop, and make sure that nothing is left."""

import os
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape

from tercet.app import Asked, Cluster, asked_to_stop, avoid_taken_ports, launch
from tercet.client import Client, Options
from tercet.cluster.process_tree import descendants
from tercet.cluster.run_record import RunBook
from tercet.config import ClusterConfig
from tercet.demo.http_chat import records, stream_chat
from tercet.demo.invitation import invite, noted
from tercet.demo.questions import QUESTIONS, Door, Question
from tercet.demo.table import request_table
from tercet.errors import TercetError
from tercet.ids import RequestId

ANSWER_TOKENS_MAX = 128
KEEP_POLL_S = 1.0


def run_demo(config: ClusterConfig, book: RunBook, console: Console, *, keep: bool = False) -> None:
    """Run the demo; with `keep` go on serving until SIGINT or SIGTERM. Raises TercetError.

    Ports of the file that are taken are replaced by free ones.
    """
    before = descendants(os.getpid())
    begun_s = time.monotonic()
    with asked_to_stop() as asked:
        try:
            with (
                console.status("starting") as line,
                launch(avoid_taken_ports(config), report=lambda text: line.update(text)) as cluster,
            ):
                asked.listen()  # Ray has put its own handlers in place
                grpc = cluster.wait_ready(lambda text: line.update(text)).front_doors[0].grpc
                line.stop()
                console.print(_introduction(cluster, grpc, time.monotonic() - begun_s))
                _converse(cluster, grpc, console)
                if keep:
                    invite(console, cluster.config.model.name, cluster.http, grpc)
                    with noted(cluster.record(ready=True), book):
                        while True:
                            time.sleep(KEEP_POLL_S)
                line.update("stopping")
                line.start()
        except Asked:
            console.print("stopped")
    left = descendants(os.getpid()) - before
    if left or cluster.killed:
        names = [each.command for each in left] + cluster.killed
        raise TercetError(f"these processes did not end by themselves: {'; '.join(names)}")
    console.print(
        f"Everything has ended, no process is left; {time.monotonic() - begun_s:.0f} s in all."
    )


def _converse(cluster: Cluster, grpc: str, console: Console) -> None:
    doors: dict[RequestId, str] = {}
    with Client(grpc) as client:
        for question in QUESTIONS:
            console.print(
                f"\n[bold]{question.door:>4} >[/] {escape(question.text)}", highlight=False
            )
            console.print("     [green]<[/] ", end="")
            for request, text in _answer(question, cluster, client):
                doors[request] = question.door
                console.print(text, end="", markup=False, highlight=False, style="green")
            console.print()
    console.print()
    done = records(cluster.http, len(QUESTIONS))
    console.print(request_table(done[::-1], doors))
    pulled = [record for record in done if record.pulled_bytes]
    console.print(
        f"{len(pulled)} of {len(done)} requests were prefilled on one worker and decoded on another, which"
        " read their KV cache over NIXL; the others were short, or cached, and stayed with the decode worker."
    )


def _answer(
    question: Question, cluster: Cluster, client: Client
) -> Iterator[tuple[RequestId, str]]:
    if question.door is Door.HTTP:
        model = cluster.config.model.name
        yield from stream_chat(cluster.http, model, question.messages, ANSWER_TOKENS_MAX)
        return
    options = Options(max_tokens=ANSWER_TOKENS_MAX, temperature=0.0)
    with client.stream(messages=question.messages, **options) as stream:
        for delta in stream:
            assert stream.request_id is not None, "a delta without a request"
            yield stream.request_id, delta.text


def _introduction(cluster: Cluster, grpc: str, seconds: float) -> str:
    pools = cluster.config.pools
    return (
        f"{pools.prefill.replicas} prefill and {pools.decode.replicas} decode workers serve"
        f" [bold]{cluster.config.model.name}[/] after {seconds:.0f} s:"
        f" http://{cluster.http}/v1 (OpenAI) and {grpc} (gRPC)"
    )
