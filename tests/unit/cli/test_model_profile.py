import json

import msgspec
import pytest

from tercet.cli.model_profile import model_of
from tercet.cluster.seat import Phase
from tercet.cluster.status import ClusterStatus, ProcessFigures, WorkerFigures, WorkerReport
from tercet.errors import OptionError
from tercet.role import Role
from tercet.simulator import EngineModel
from tercet.wire import LoadFigures

PREFILL, DECODE = (0.001, 2e-5, 1e-9), (0.002, 3e-5, 4e-8)


def load(**measured: object) -> LoadFigures:
    zeros = dict.fromkeys(("waiting", "running", "holding", "pulling", "pending_prefill_tokens"), 0)
    zeros |= dict.fromkeys(("context_tokens", "blocks_total", "blocks_used"), 0)
    return LoadFigures(role=Role.DECODE, **zeros, **measured)


def status(*loads: LoadFigures) -> bytes:
    """What `tercet status --json` prints."""
    workers = [
        WorkerReport(
            worker=f"decode-{number}",
            role=Role.DECODE,
            phase=Phase.UP,
            incarnation="1",
            phase_s=1.0,
            figures=ProcessFigures(pid=1, worker=WorkerFigures(load=load)),
        )
        for number, load in enumerate(loads)
    ]
    whole = ClusterStatus(
        cluster="c",
        membership_version=1,
        http="",
        workers=workers,
        front_doors=[],
        controller_pid=1,
        story=[],
    )
    return msgspec.json.encode(whole)


def test_without_a_file_it_is_the_default():
    assert model_of(None, 16) == EngineModel()


def test_a_file_says_what_is_different(tmp_path):
    profile = {"prefill_coefficients": PREFILL, "decode_coefficients": DECODE, "noise": 0.1}
    (tmp_path / "p.json").write_text(json.dumps(profile))
    model = model_of(tmp_path / "p.json", 16)
    assert model == EngineModel(prefill=PREFILL, decode=DECODE, noise=0.1)


def test_a_cluster_says_what_it_has_measured(tmp_path):
    silent = load()
    prefills = load(prefill_coefficients=PREFILL, block_bytes=16 * 1000)
    decodes = load(decode_coefficients=DECODE)
    (tmp_path / "p.json").write_bytes(status(silent, prefills, decodes))
    model = model_of(tmp_path / "p.json", 16)
    assert model == EngineModel(prefill=PREFILL, decode=DECODE, kv_bytes_per_token=1000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[]", "prefill_coefficients and decode_coefficients"),
        (b'{"prefill_coefficients": [1, 2, 3]}', "decode_coefficients"),
        (b'{"prefill_coefficients": [1, 2, -3], "decode_coefficients": [1, 2, 3]}', ">= 0"),
        (status(load(prefill_coefficients=PREFILL)), "no worker has measured its decode steps yet"),
    ],
)
def test_what_is_no_profile_is_refused_with_what_one_holds(tmp_path, text, said):
    (tmp_path / "p.json").write_bytes(text)
    with pytest.raises(OptionError) as refused:
        model_of(tmp_path / "p.json", 16)
    assert str(refused.value).startswith("--model-profile: ")
    assert said in str(refused.value)
