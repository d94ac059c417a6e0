"""A cluster under `tercet serve`: answers, status, and what happens when its processes die."""

import os
import signal
import threading
from pathlib import Path

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tercet.client import Client
from tercet.cluster.process_tree import process, survivors
from tercet.cluster.seat import Phase
from tercet.cluster.status import ClusterStatus, WorkerReport
from tercet.ids import WorkerId

pytestmark = pytest.mark.slow

GONE_S_MAX = 10.0
LONG = "It was a bright cold day in April, and the clocks were striking thirteen."


def seat(status: ClusterStatus, worker: str) -> WorkerReport:
    return {w.worker: w for w in status.workers}[WorkerId(worker)]


def places(status: ClusterStatus) -> set[str]:
    """The placement groups there should be: one for each worker that lives, and no other."""
    return {f"tercet-worker:test:{w.worker}:{w.incarnation}" for w in status.workers}


def pid_of(status: ClusterStatus, worker: str) -> int:
    figures = seat(status, worker).figures
    assert figures is not None, f"{worker} gave no figures"
    return figures.pid


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> str:
    """What transformers says to LONG."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    prompt = tokenizer(LONG, return_tensors="pt")["input_ids"]
    output = model.generate(prompt, max_new_tokens=16, do_sample=False)
    return str(tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True))


def test_status_names_every_worker_and_every_front_door(served):
    status = served.status()
    assert status.ready
    assert [w.worker for w in status.workers] == ["prefill-0", "decode-0", "decode-1"]
    assert all(w.phase is Phase.UP and w.restarts == 0 for w in status.workers)
    assert [door.workers for door in status.front_doors] == [3]
    assert served.places() == places(status)
    shown = served.tercet("status")
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in ("prefill-0", "decode-0", "decode-1", "127.0.0.1"))


def test_a_handed_off_answer_is_the_one_that_transformers_gives(served, expected):
    assert served.complete(LONG, 16) == expected
    record = served.last_record()
    assert record["prefill_worker"] == "prefill-0"
    assert record["pulled_bytes"] > 0
    pulls = sum(w.figures.worker.load.pulls for w in served.status().workers)
    assert pulls > 0


def test_the_grpc_door_streams_the_same_answer(served, expected):
    with Client(served.status().front_doors[0].grpc) as client:
        stream = client.stream(LONG, max_tokens=16, temperature=0.0)
        assert "".join(delta.text for delta in stream) == expected


def test_a_streamed_answer_arrives_in_pieces(served):
    body = {"model": "tiny", "prompt": LONG, "max_tokens": 16, "stream": True, "temperature": 0}
    with httpx.stream("POST", f"{served.url}/v1/completions", json=body, timeout=60) as reply:
        events = [line for line in reply.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "data: [DONE]"
    assert len(events) > 3


@pytest.mark.parametrize(
    ("worker", "number"),
    [("decode-0", signal.SIGKILL), ("prefill-0", signal.SIGTERM), ("decode-1", signal.SIGSTOP)],
)
def test_a_worker_that_dies_or_hangs_is_replaced_and_no_request_notices(
    served, expected, worker, number
):
    before = served.status()
    former = process(pid_of(before, worker))
    stopping, errors = threading.Event(), []

    def ask() -> None:
        while not stopping.is_set():
            try:
                assert served.complete(LONG, 16) == expected
            except Exception as error:
                errors.append(error)
                return

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        os.kill(former.pid, number)
        after = served.until(
            lambda s: s.ready and seat(s, worker).incarnation != seat(before, worker).incarnation
        )
    finally:
        stopping.set()
        asking.join()
    assert not errors, errors
    assert not survivors({former}, GONE_S_MAX), "it keeps its memory, and on a GPU its place"
    assert after.membership_version > before.membership_version
    assert seat(after, worker).restarts == 1
    others = {w.worker: w.incarnation for w in before.workers if w.worker != worker}
    assert others == {w.worker: w.incarnation for w in after.workers if w.worker != worker}
    assert served.places() == places(after)
    assert "raylet" not in served.log.read_text(), "the status says what was lost, and why"


def test_losing_the_controller_stops_no_request_and_no_worker(served, expected):
    before = served.status()
    os.kill(before.controller_pid, signal.SIGKILL)
    assert served.complete(LONG, 16) == expected
    after = served.until(lambda s: s.ready)
    assert after.controller_pid != before.controller_pid
    assert after.membership_version > before.membership_version
    lives = [(w.worker, w.incarnation) for w in after.workers]
    assert lives == [(w.worker, w.incarnation) for w in before.workers]
    assert served.places() == places(after)
    assert served.complete(LONG, 16) == expected


def test_a_worker_lost_together_with_the_controller_is_replaced_and_its_place_is_free(served):
    before = served.status()
    os.kill(before.controller_pid, signal.SIGKILL)
    os.kill(pid_of(before, "decode-0"), signal.SIGKILL)
    after = served.until(lambda s: s.ready and s.controller_pid != before.controller_pid)
    assert seat(after, "decode-0").incarnation != seat(before, "decode-0").incarnation
    assert served.places() == places(after)


def test_a_second_server_of_the_same_name_is_refused(served):
    again = served.tercet("serve", "-f", str(served.file))
    assert again.returncode == 1
    assert "runs here already" in again.stderr


def test_unknown_clusters_are_named_as_such(served):
    lost = served.tercet("status", "--name", "nobody")
    assert lost.returncode == 2
    assert "running here: test" in lost.stderr


def test_down_ends_the_server_and_everything_below_it(served):
    done = served.tercet("down")
    assert done.returncode == 0, done.stderr
    assert served.server.wait(1) == 0
    assert served.tercet("status").returncode == 2
