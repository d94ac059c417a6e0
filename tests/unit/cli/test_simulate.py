"""`tercet simulate` from its options to its files."""

import json
import re
import sys

import pytest
from typer.testing import CliRunner

from tercet.cli.commands import app

CLUSTER = """
model: {path: elsewhere, name: tiny}
pools: {prefill: {replicas: 1}, decode: {replicas: 3}}
slo: {ttft_ms: 1000}
"""
ROWS = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:00:{second:02}.0,{100 * (second + 1)},2\n" for second in range(20)
)
SESSIONS = json.dumps(
    {
        "id": "one",
        "block_size": 64,
        "requests": [
            {"type": "n", "t": 0.0, "in": 64, "out": 2, "hash_ids": [1]},
            {"type": "n", "t": 5.0, "in": 128, "out": 2, "hash_ids": [1, 2]},
        ],
    }
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    (tmp_path / "trace.csv").write_text(ROWS)
    (tmp_path / "sessions.jsonl").write_text(SESSIONS)
    return tmp_path


@pytest.fixture
def simulated(folder):
    """Replays a trace of the folder."""

    def run(*arguments, trace="trace.csv"):
        files = ["-f", str(folder / "cluster.yaml"), "--trace", str(folder / trace)]
        return CliRunner().invoke(app, ["simulate", *files, *arguments])

    return run


def test_the_figures_are_printed_and_written(simulated, folder):
    result = simulated("--json", str(folder / "out.json"))
    assert result.exit_code == 0, result.output
    assert re.search(r"promises kept +100.00%", result.stdout)
    figures = json.loads((folder / "out.json").read_text())
    assert figures["requests"] == 20
    assert figures["failed"] == figures["rejected"] == 0
    for name in ("ttft_s", "itl_s"):
        assert figures[name].keys() == {"p50", "p90", "p99"}
    assert {"hit_rate", "slo_attainment", "load_cv", "gpu_hours"} <= figures.keys()
    assert "pace" not in figures, "two runs would differ"


def test_two_runs_write_the_same_bytes(simulated, folder):
    for name in ("a", "b"):
        simulated("--json", str(folder / name), "--noise", "0.3", "--seed", "5")
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


def test_options_are_carried_out_and_noted(simulated, folder):
    changes = ["--policy", "dualmap", "--policy-option", "escape=0", "--instances", "8"]
    changes += ["--head", "10", "--spread-s", "1", "--rate-scale", "2", "--front-doors", "3"]
    changes += [
        "--report-age-ms",
        "500",
        "--noise",
        "0.1",
        "--warm-up",
        "0.1",
        "--knowledge",
        "exact",
    ]
    result = simulated(*changes, "--json", str(folder / "out.json"))
    assert result.exit_code == 0, result.output
    setup = json.loads((folder / "out.json").read_text())["setup"]
    assert setup["trace"] == "trace.csv, first 10, spread over 1 s, rate x2"
    assert (setup["policy"], setup["policy_options"]) == ("dualmap", {"escape": 0.0})
    assert (setup["front_doors"], setup["report_age_s"], setup["knowledge"]) == (3, 0.5, "exact")


def test_sessions_wait_for_their_answers(simulated, folder):
    result = simulated("--json", str(folder / "out.json"), trace="sessions.jsonl")
    assert result.exit_code == 0, result.output
    figures = json.loads((folder / "out.json").read_text())
    assert figures["requests"] == 2
    assert figures["hit_rate"] == pytest.approx(64 / 192, abs=1e-6)


def test_the_page_holds_everything_it_needs(simulated, folder):
    result = simulated("--html", str(folder / "out.html"))
    assert result.exit_code == 0, result.output
    page = (folder / "out.html").read_text()
    assert page.count("<svg") == page.count("</svg>") >= 4
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r'(src|href)="(?!#|data:)', page.replace("xmlns:xlink", "")), (
        "it fetches something"
    )
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids)), "plots disturb each other"


def test_without_matplotlib_the_page_is_refused_before_the_run(simulated, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = simulated("--html", str(folder / "out.html"))
    assert result.exit_code == 2
    assert "pip install 'tercet[report]'" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "dualmop"], "--policy: unknown policy 'dualmop' (there are prefix_affinity"),
        (["--policy", "dualmap", "--policy-option", "slo=1"], "--policy-option: Object contains"),
        (["--policy-option", "escape"], "--policy-option: 'escape' is not NAME=NUMBER"),
        (["--policy-option", "escape=x"], "--policy-option: 'x' in 'escape=x' is not a number"),
        (["--format", "csv"], "--format: unknown format 'csv' (there are mooncake"),
        (["--instances", "1"], "--instances: 1 workers are too few for 2 pools"),
        (["--fail", "decode-0"], "--fail: 'decode-0' is not WORKER@S or WORKER@S+DOWN_S (write"),
        (["--fail", "decode-0@-1"], "--fail: -1 in 'decode-0@-1' is negative"),
        (["--fail", "decode-9@1"], "--fail: there is no worker 'decode-9'"),
        (["--speed", "decode-9=1"], "--speed: there is no worker 'decode-9'"),
        (["--speed", "decode-0=0"], "--speed: 0 of 'decode-0' is not positive"),
        (
            ["--sessions-per-s", "2"],
            "--sessions-per-s: trace.csv has requests that wait for nobody",
        ),
        (["--tokens-per-s", "9"], "--tokens-per-s: is the speed of ideal machines (add --machine"),
        (
            ["--machine", "ideal", "--model-profile", "x"],
            "--model-profile: ideal machines have one speed (use --tokens-per-s)",
        ),
        (["--model-profile", "no/file"], "--model-profile: no/file cannot be read: no such file"),
        (["--json", "no/such/folder"], "--json: there is no folder no/such (make it first)"),
    ],
)
def test_a_mistake_is_refused_by_its_option_with_what_to_do(simulated, arguments, said):
    result = simulated(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")
    assert result.stdout == ""


@pytest.mark.parametrize("option", ["--rate-scale", "--spread-s"])
def test_sessions_have_no_arrivals_to_change(simulated, option):
    result = simulated(option, "2", trace="sessions.jsonl")
    assert result.exit_code == 2
    assert f"{option}: sessions.jsonl has sessions" in result.stderr
    assert "--sessions-per-s" in result.stderr


def test_a_trace_that_is_not_there_is_named(simulated):
    result = simulated(trace="none.csv")
    assert result.exit_code == 2
    assert "none.csv: cannot be read" in result.stderr.replace("\n", "")
