"""The command line without a cluster."""

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tercet.cli.commands import app

REPOSITORY = Path(__file__).parents[3]
GOOD = "name: mine\nmodel: {path: m, name: tiny}\n"


@pytest.fixture
def tercet(tmp_path):
    """Runs a command with a book of runs of its own."""
    runner = CliRunner(env={"TERCET_RUN_DIR": str(tmp_path / "run")})
    return lambda *arguments: runner.invoke(app, list(arguments))


@pytest.fixture
def write(tmp_path):
    def write_file(text: str) -> str:
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return str(path)

    return write_file


def test_the_version_is_the_one_that_is_packaged(tercet):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    result = tercet("--version")
    assert result.exit_code == 0
    assert result.stdout == f"tercet {project['version']}\n"


def test_check_says_what_a_file_asks_for(tercet, write, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    result = tercet("config", "check", write(GOOD))
    assert result.exit_code == 0, result.output
    assert "'mine' serves 'tiny' with 1 prefill and 2 decode workers" in result.stdout


@pytest.mark.parametrize("command", [("config", "check"), ("serve", "-f"), ("demo", "-f")])
def test_a_wrong_file_is_refused_with_its_line_before_anything_starts(tercet, write, command):
    result = tercet(*command, write(GOOD + "engine: {kv_blocs: 4}\n"))
    assert result.exit_code == 2
    assert "cluster.yaml:3" in result.stderr
    assert "kv_blocks" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", [("config", "check"), ("serve", "-f"), ("demo", "-f")])
@pytest.mark.parametrize(
    ("router", "known"),
    [
        ("{policy: dualmop}", "dualmap"),
        ("{policy: dualmap, policy_options: {slo: 1}}", "ttft_slo_ms"),
    ],
)
def test_a_policy_that_is_not_there_is_refused_before_anything_starts(
    tercet, write, tmp_path, command, router, known
):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    text = GOOD + f"router: {router}\n"
    result = tercet(*command, write(text))
    assert result.exit_code == 2
    assert f"cluster.yaml:{text.count(chr(10))}: " in result.stderr.replace("\n", "")
    assert known in result.stderr
    assert result.stdout == ""


def test_the_schema_is_json(tercet):
    result = tercet("config", "schema")
    assert result.exit_code == 0
    assert "model" in json.dumps(json.loads(result.stdout))


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("down",),
        ("why", "chatcmpl-1"),
        ("move", "chatcmpl-1", "--to", "decode-1"),
        ("drain", "decode-0"),
        ("scale", "--decode", "1"),
    ],
)
def test_without_a_cluster_the_next_step_is_named(tercet, command):
    result = tercet(*command)
    assert result.exit_code == 2
    assert "tercet serve -f cluster.yaml" in result.stderr.replace("\n", " ")
