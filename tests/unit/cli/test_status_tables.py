from io import StringIO

import msgspec
import pytest
from rich.console import Console

from tercet.cli.status_tables import status_tables
from tercet.cluster.seat import Phase
from tercet.cluster.status import (
    ClusterStatus,
    FrontDoorReport,
    ProcessFigures,
    WorkerFigures,
    WorkerReport,
)
from tercet.ids import FrontDoorId, Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Accuracy, LoadFigures

LOAD = LoadFigures(
    role=Role.DECODE,
    waiting=3,
    running=17,
    holding=0,
    pulling=2,
    pending_prefill_tokens=0,
    context_tokens=0,
    blocks_total=512,
    blocks_used=77,
    pull_bytes=3 * 2**20,
    pull_s=0.002,
    pulls=41,
    pull_failures=5,
)
UP = WorkerReport(
    worker=WorkerId("decode-0"),
    role=Role.DECODE,
    phase=Phase.UP,
    incarnation=Incarnation("0123456789abcdef"),
    phase_s=90.0,
    figures=ProcessFigures(pid=4711, up_s=30.0, worker=WorkerFigures(load=LOAD, committed=40)),
)
DOOR = FrontDoorReport(
    front_door=FrontDoorId("door-1"),
    grpc="127.0.0.1:9000",
    in_flight=19,
    workers=1,
    membership_version=7,
)
STATUS = ClusterStatus(
    cluster="demo",
    membership_version=7,
    http="127.0.0.1:8000",
    workers=[UP],
    front_doors=[DOOR],
    controller_pid=1,
    story=["12.0 decode-0 up at 127.0.0.2:7000"],
)


def show(status: ClusterStatus) -> str:
    screen = StringIO()
    Console(file=screen, width=80).print(*status_tables(status), sep="\n")
    return screen.getvalue()


def test_load_and_hand_offs_are_shown_on_80_columns():
    text = show(STATUS)
    assert "demo is ready" in text
    rows = [line.split() for line in text.splitlines()]
    worker, hand_offs, door = (row for row in rows if row[:1] in (["decode-0"], ["door-1"]))
    assert worker[-5:] == ["3", "17", "2", "0", "77/512"]
    assert "4711" in worker
    assert hand_offs == ["decode-0", "41", "3.00", "1.6", "5", "40", "0", "0"]
    assert "19" in door


@pytest.mark.parametrize(
    ("phase", "failures", "said"),
    [
        (Phase.PENDING, 0, "waiting: no GPU"),
        (Phase.BACKOFF, 5, "crash-looping, 5 failures in a row; the last: no GPU"),
        (Phase.UP, 1, "last ended by: no GPU"),
    ],
)
def test_trouble_is_told_with_its_reason_and_the_last_events(phase, failures, said):
    worker = msgspec.structs.replace(
        UP,
        phase=phase,
        failures=failures,
        crash_looping=failures >= 3,
        reason="no GPU",
        figures=None,
    )
    text = show(msgspec.structs.replace(STATUS, workers=[worker]))
    assert f"decode-0: {said}" in text
    assert STATUS.story[0] in text


@pytest.mark.parametrize(
    "change",
    [
        {"workers": []},
        {"front_doors": []},
        {"membership_version": 8},
        {"workers": [msgspec.structs.replace(UP, phase=Phase.STARTING)]},
        {"workers": [UP, UP]},
    ],
)
def test_a_cluster_is_ready_only_when_every_door_has_reached_every_worker(change):
    assert STATUS.ready
    assert not msgspec.structs.replace(STATUS, **change).ready


def test_how_far_predictions_were_off_is_told_where_there_were_any():
    assert "prediction" not in show(STATUS)
    seen = Accuracy(predictions=256, error_ms_p50=3.14159, error_ms_p90=41.0)
    door = msgspec.structs.replace(DOOR, ttft_accuracy=seen)
    text = " ".join(show(msgspec.structs.replace(STATUS, front_doors=[door])).split())
    assert "door-1: first tokens of the last 256 requests were off their prediction" in text
    assert "by 3.14 ms (p50), 41 ms (p90)" in text
